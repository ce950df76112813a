"""The command that computes decisions again."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from cli.console import Exit, Format, err, print_rows
from cli.options import Config, Form, Overrides, open_record, person, settings_of
from db.artifacts import ArtifactStore
from db.queries.replays import ReplayOutcome, names_run


@dataclass(frozen=True)
class _Difference:
    """A field that is not what was recorded, as a replay's details name it."""

    field: str
    recorded: Any
    replayed: Any
    within: bool


@dataclass(frozen=True)
class _Line:
    """One replayed prediction, as it is printed."""

    findings: tuple[str, ...]
    image: str
    image_digest: str
    verdict: str
    result: str
    probability: float | None
    map: float | None
    rank_correlation: float | None
    differences: tuple[_Difference, ...]
    reason: str | None


def replay(
    which: Annotated[
        str,
        typer.Argument(
            metavar="FINDING|IMAGE|RUN",
            help="R000012-0003, a picture's digest (6 digits or more), or R000012.",
        ),
    ],
    config: Config = None,
    overrides: Overrides = None,
    device: Annotated[
        str,
        typer.Option(help="Where to compute: auto, cpu, cuda. The recorded engine and precision are used."),
    ] = "auto",
    reason: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    form: Form = Format.table,
) -> None:
    """Compute a decision again from the record alone, and say whether it is what was recorded.

    identical: bit for bit; equal: within tolerance; different: the fields that differ; impossible: why.
    Each replay is recorded. Exit code 5 when something is different, 3 when it is impossible and named.
    """
    from operations.replay.replay import open_replayer
    from operations.replay.replay import replay as replayed

    settings = settings_of(config, overrides)
    store = ArtifactStore(settings.artifacts.uri)
    lines = []
    with (
        open_record(settings) as database,
        open_replayer(database, store, settings.model.package, device) as replayer,
        err.status("computing again …") as status,
    ):
        for outcome in replayed(database, replayer, which, actor=person(), reason=reason):
            lines.append(_line(outcome))
            status.update(f"{len(lines)} computed again …")
    print_rows(lines, _Line, _COLUMNS, form, empty="nothing was decided")
    results = Counter(line.result for line in lines)
    err.print(", ".join(f"{count} {result}" for result, count in sorted(results.items())))
    # That a run kept only the flagged pictures is no failure of its replay.
    if results["different"]:
        raise typer.Exit(Exit.broken)
    if results["impossible"] and not names_run(which):
        raise typer.Exit(Exit.attention)


def _line(outcome: ReplayOutcome) -> _Line:
    prediction, details = outcome.prediction, outcome.details
    return _Line(
        findings=tuple(finding.reference for finding in prediction.findings),
        image=prediction.uri,
        image_digest=prediction.image_digest,
        verdict=prediction.verdict,
        result=outcome.result,
        probability=details.get("probability"),
        map=details.get("map"),
        rank_correlation=details.get("rank_correlation"),
        differences=tuple(_Difference(**each) for each in details.get("differences", ())),
        reason="; ".join(details[key] for key in ("reason", "note") if details.get(key)) or None,
    )


def _difference_text(line: _Line) -> str:
    """Say what differs: beyond tolerance with both values, else by name."""
    beyond = [d for d in line.differences if not d.within]
    said = [f"{d.field}: recorded {d.recorded}, replayed {d.replayed}" for d in beyond]
    if not beyond and line.differences:
        said = [f"within tolerance: {', '.join(d.field for d in line.differences)}"]
    return "; ".join([*said, *([line.reason] if line.reason else [])])


def _figure_text(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}" if value else "0"


_COLUMNS: dict[str, Callable[[_Line], str]] = {
    "finding": lambda line: ", ".join(line.findings),
    "image": lambda line: line.image,
    "digest": lambda line: line.image_digest[:12],
    "verdict": lambda line: line.verdict,
    "result": lambda line: line.result,
    "Δ prob.": lambda line: _figure_text(line.probability),
    "Δ map": lambda line: _figure_text(line.map),
    "rank corr.": lambda line: "" if line.rank_correlation is None else f"{line.rank_correlation:.4f}",
    "where": _difference_text,
}
