"""How the process behind a report runs, read from the record: subgroups, trends, drift."""

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy.orm import Session

from classifiers.measure.reference import QUANTILES, Spread, read_reference
from classifiers.measure.score_bins import SCORE_EDGES
from db.figures.scopes import Scope
from db.figures.series import GroupFigures, SampleFigures, period_figures, run_figures, tile_counts
from db.queries.runs import RunSummary
from reports.content.process import Process
from reports.stats.control_chart import Subgroup
from reports.stats.drift import Drift, Reference, Sample, Trend, compare, trend

_RUNS = 25  # on a control chart
_ENOUGH = 5  # runs before this one, from which on they say more than the stretches of this one
_STRETCHES = 20
_SMALLEST = 25  # pictures of a stretch

References = Mapping[str, Reference]


def references_of(card: Mapping[str, Any]) -> References:
    """Return what a model's calibration set was like, by statistic.

    Empty where its package does not say.
    """
    found = read_reference(card.get("training") or {})
    if found is None:
        return {}
    spreads = {
        "score": found.passed_score,
        "brightness": found.brightness,
        "contrast": found.contrast,
        "sharpness": found.sharpness,
    }
    return {name: _reference(each) for name, each in spreads.items() if each is not None}


def run_process(session: Session, run: RunSummary, upto: int) -> Process:
    """Chart a run among the runs before it; the first runs of a model by stretches of pictures instead."""
    references = references_of(run.model.card)
    inspected = run.counts.listed - run.counts.unreadable
    size = max(_SMALLEST, -(-inspected // _STRETCHES))
    history, stretches, whole = run_figures(
        session, run.id, size, last=_RUNS, limits=_limits(references), upto=upto
    )
    others = _other_tiles(session, Scope(run=run.id), run.model.card, upto)
    if len(history) > _ENOUGH:
        return _process("run", history, whole, references, others, present=run.reference)
    return _process("stretch", stretches, whole, references, others)


def period_process(
    session: Session, scope: Scope, card: Mapping[str, Any] | None, zone: str, upto: int
) -> Process:
    """Chart a period day by day, or run by run where it holds few days.

    `card`: of the one model that decided; None where several did, for each has a calibration set of its own.
    """
    references = {} if card is None else references_of(card)
    days, runs, whole = period_figures(session, scope, zone=zone, limits=_limits(references), upto=upto)
    others = () if card is None else _other_tiles(session, scope, card, upto)
    if len(days) > _ENOUGH:
        return _process("day", days, whole, references, others)
    return _process("run", runs, whole, references, others)


def _other_tiles(
    session: Session, scope: Scope, card: Mapping[str, Any], upto: int
) -> tuple[tuple[int, int], ...]:
    """Return (tiles, pictures) of pictures with as many tiles as no picture of the calibration set had.

    Empty where the package does not say how many those had.
    """
    calibration = (card.get("training") or {}).get("calibration")
    known = calibration.get("tile_counts") if isinstance(calibration, Mapping) else None
    if not isinstance(known, Mapping):
        return ()
    found = tile_counts(session, scope, upto)
    return tuple((tiles, pictures) for tiles, pictures in found.items() if str(tiles) not in known)


def _process(
    unit: Literal["run", "day", "stretch"],
    points: list[GroupFigures],
    whole: GroupFigures,
    references: References,
    other_tiles: tuple[tuple[int, int], ...] = (),
    *,
    present: str | None = None,
) -> Process:
    """Compare each point and the whole report with the references; `present`: the report's own point."""
    compared: list[Drift] = []
    for name, reference in references.items():
        sample = _sample("this report", whole.statistics[name], current=True)
        if sample is not None:
            compared.append(compare(name, reference, sample))
    trends: list[Trend] = []
    for name, reference in references.items():
        samples = [_sample(at.label, at.statistics[name], current=at.label == present) for at in points]
        if known := [each for each in samples if each is not None]:
            trends.append(trend(name, reference, known))
    return Process(
        unit=unit,
        subgroups=tuple(
            Subgroup(
                at.label,
                at.inspected,
                at.flagged,
                parts=at.parts,
                reference=at.label != present,
                current=at.label == present,
            )
            for at in points
        ),
        trends=tuple(trends),
        own=tuple(compared),
        scores=whole.histogram,
        score_edges=SCORE_EDGES,
        calibrated=bool(references),
        other_tiles=other_tiles,
    )


def _sample(label: str, figures: SampleFigures, *, current: bool) -> Sample | None:
    if figures.mean is None:
        return None
    return Sample(
        label,
        figures.n,
        figures.mean,
        figures.sd or 0.0,
        figures.below,
        figures.above,
        current=current,
        effective=figures.effective,
    )


def _limits(references: References) -> dict[str, tuple[float, float]]:
    return {name: (each.quantile(0.01), each.quantile(0.99)) for name, each in references.items()}


def _reference(spread: Spread) -> Reference:
    quantiles = tuple(zip(QUANTILES, spread.quantiles, strict=True))
    return Reference(spread.n, spread.mean, spread.sd, quantiles, spread.effective)
