"""A command's options made from the fields of a filter, which the listings of the record share."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from functools import wraps
from typing import Annotated, Any

import typer

from cli.options import ClassName, Lot, Model, Part, Run, Since, Station, Until, Verdict, utc

_OPTIONS: dict[str, Any] = {
    "part": Part,
    "lot": Lot,
    "station": Station,
    "image": Annotated[
        str | None, typer.Option(help="SHA-256 of the picture, or its first 6 digits or more.")
    ],
    "class_name": ClassName,
    "verdict": Verdict,
    "min_score": Annotated[float | None, typer.Option(help="Score of the picture, this or higher.")],
    "max_score": Annotated[float | None, typer.Option(help="Score of the picture, this or lower.")],
    "model": Model,
    "person": Annotated[str | None, typer.Option(help="Who decided, approved or otherwise acted.")],
    "actor": Annotated[str | None, typer.Option(help="Who or what caused the event.")],
    "action": Annotated[str | None, typer.Option(help="What was done, such as run.started.")],
    "reason": Annotated[str | None, typer.Option(help="A piece of the reason, in any case of letters.")],
    "run": Run,
    "since": Since,
    "until": Until,
}
Command = Callable[..., None]


def filtered(kind: type[Any], *without: str) -> Callable[[Command], Command]:
    """Return a decorator that gives a command an option for each field of a filter, and the filter itself.

    The command takes the filter as its keyword `wanted`, and the options stand in its place. A time without
    a zone is in UTC.

    Args:
        kind: a dataclass whose fields have an option in `_OPTIONS`.
        without: fields that the command does not ask for.
    """
    names = [field.name for field in fields(kind) if field.name not in without]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**given: Any) -> None:
            values = {name: given.pop(name) for name in names}
            aware = {name: utc(v) if isinstance(v, datetime) else v for name, v in values.items()}
            command(wanted=kind(**aware), **given)

        # Typer reads a command's options from its signature.
        parameters: list[inspect.Parameter] = []
        for each in inspect.signature(command).parameters.values():
            if each.name == "wanted":
                parameters += [
                    each.replace(name=name, default=None, annotation=_OPTIONS[name]) for name in names
                ]
            else:
                parameters.append(each.replace(kind=each.KEYWORD_ONLY))
        vars(run)["__signature__"] = inspect.Signature(parameters)
        return run

    return decorate


def filter_text(wanted: Any) -> str:
    """Return in words what a filter asks for, to follow "no findings": empty where it asks for nothing."""
    given = [
        f"{field.name.removesuffix('_name').replace('_', ' ')} {value}"
        for field in fields(wanted)
        if (value := getattr(wanted, field.name)) is not None
    ]
    return f" with {', '.join(given)}" if given else ""
