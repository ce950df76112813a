"""`kensa train --from MODEL --add EXPORT`: from reviewed findings to the next model."""

from pathlib import Path

import typer

from cli.console import err, out, safe
from cli.model.train import print_trained, write_splits
from cli.model.train_progress import TrainingLines
from cli.model.train_settings import changed_settings
from cli.options import command_line
from configs.loading import ConfigError

# Options of `kensa train` that say how a training goes; what all others say is decided by the model.
_COURSE = {"epochs", "batch_size", "learning_rate", "balance", "device", "precision", "seed"}
_READING = {
    "data",
    "form",
    "label_column",
    "image_column",
    "group_column",
    "group_pattern",
    "good_class",
    "fractions",
}
_LISTED = 10  # pictures that are left out, one by one
_OWN = {"follows", "added", "out_folder", "setting"}


def train_next(ctx: typer.Context) -> None:
    """Train a model from another one's weights, on its data and added pictures.

    Args:
        ctx: of `kensa train`: what was given there, and what was left at its default.

    Raises:
        ConfigError: an option is missing, or says what the model decides.
        DataError: see `operations.next_model`.
    """
    from classifiers import load_package
    from classifiers.training.train import finished_package
    from classifiers.training.train import train as train_model
    from operations.next_model import LabelColumns, next_data, next_settings

    options = ctx.params
    given = {name for name in options if _is_given(ctx, name)}
    if options["follows"] is None or options["added"] is None:
        raise ConfigError(
            "--from and --add go together: a model, and the pictures that are added to its data"
        )
    if decided := sorted(given - _COURSE - _READING - _OWN):
        flags = {parameter.name: parameter.opts[0] for parameter in ctx.command.params}
        named = ", ".join(flags[name] for name in decided)
        raise ConfigError(f"{named}: with --from the model decides this; train a model afresh to change it")
    package = load_package(options["follows"])
    chosen = {name: options[name] for name in _COURSE & (given | {"device"})}
    settings = changed_settings(next_settings(package), options["setting"] or [], chosen, _COURSE)
    with out.status("reading the labels …"):
        data = next_data(
            package,
            options["added"],
            options["data"],
            columns=LabelColumns(
                options["label_column"],
                options["image_column"],
                options["group_column"],
                options["group_pattern"],
                options["good_class"],
                options["form"],
            ),
            fractions=options["fractions"],
        )
    for name in data.held[:_LISTED]:
        err.print(
            f"[yellow]left out:[/yellow] {safe(name.removeprefix('added/'))}: its group, part or lot "
            "is among the calibration and test pictures, which stay as they are"
        )
    if len(data.held) > _LISTED:
        err.print(f"[yellow]left out:[/yellow] {len(data.held) - _LISTED} more for the same reason")
    more = " and ".join(f"{count} to {role}" for role, count in data.added.items())
    known = f", {data.known} were there already" if data.known else ""
    out.print(f"added to the data of {safe(str(package.path))}: {more}{known}, {len(data.held)} left out")
    out_folder: Path = options["out_folder"]
    training, validation = data.sides[:2]
    finished_package(training, validation, settings, out_folder)
    write_splits(out_folder, data.sides)
    with TrainingLines() as lines:
        trained = train_model(
            training,
            validation,
            settings,
            out_folder,
            command=command_line(),
            origin=data.record,
            progress=lines,
        )
    print_trained(trained)


def _is_given(ctx: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    source = ctx.get_parameter_source(name)
    # By its name: typer brings a click of its own, whose class is not the one that can be imported.
    return source is not None and source.name == "COMMANDLINE"
