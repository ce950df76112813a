"""Figures in order, for charts: runs before this one, subgroups inside a scope, statistics against limits.

Sums are exact (`math.fsum`): the figures are the same on every database, in whatever order it gives rows, so
that a report that prints them can be made again to the byte.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import fsum, sqrt
from types import MappingProxyType
from typing import Literal, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.errors import RecordError
from db.figures.scopes import Scope, lines_of
from db.index_walk import NEWEST
from db.inspection.runs import RunCounts, counts_from, find_run_id, run_reference
from db.schema import Prediction, Run, RunEnd

STATISTICS = ("score", "brightness", "contrast", "sharpness")
BINS = 20  # of a score histogram
Limits = Mapping[str, tuple[float, float]]  # (low, high) by the name of a statistic


@dataclass(frozen=True, slots=True)
class SampleFigures:
    """A statistic over pictures: mean and standard deviation (n - 1), None where there are too few.

    `below`, `above`: how many lie beyond the limits that were given for it, if any were.
    """

    n: int
    mean: float | None
    sd: float | None
    below: int
    above: int


@dataclass(frozen=True, slots=True)
class DriftFigures:
    """Statistics by name, those that limits were given for; `histogram`: scores in 20 equal bins of [0, 1].

    `without`: pictures that have a score and no statistics, for they are older than those.
    """

    samples: Mapping[str, SampleFigures]
    histogram: tuple[int, ...]
    without: int


@dataclass(frozen=True, slots=True)
class RunPoint:
    """A finished run on a chart. What it carried over is left out of all but `counts`.

    `inspected` counts those with a verdict, `flagged` review or reject among them.
    """

    reference: str
    number: int
    status: str
    started_at: datetime
    finished_at: datetime
    counts: RunCounts
    inspected: int
    flagged: int
    statistics: Mapping[str, SampleFigures]


@dataclass(frozen=True, slots=True)
class SubgroupFigures:
    """Pictures that follow one another: `inspected` with a verdict, `flagged` review or reject among them.

    `label`: the run, the day, the hour, or the numbers of the first and last picture; `since`, `until`: times
    of its first and last picture, taken where the record knows, else inspected.
    """

    label: str
    since: datetime
    until: datetime
    inspected: int
    flagged: int
    rejected: int
    unreadable: int
    statistics: Mapping[str, SampleFigures]


class Measured(NamedTuple):
    """One counted picture: its run, when it was taken (else inspected), what it became and its statistics."""

    run: int
    at: datetime
    verdict: str
    carried_over: bool
    score: float | None
    brightness: float | None
    contrast: float | None
    sharpness: float | None


def measured(session: Session, scope: Scope, upto: int | None = None) -> Iterator[Measured]:
    """Stream the counted pictures of a scope in the order in which they were taken, else inspected."""
    lines = lines_of(session, scope, upto)
    at = func.coalesce(lines.c.captured_at, lines.c.created_at, type_=lines.c.created_at.type)
    rows = session.execute(
        select(Run.number, at, lines.c.verdict, lines.c.carried_over)
        .add_columns(*(getattr(Prediction, name) for name in STATISTICS))
        .join(Run, Run.id == lines.c.run_id)
        .outerjoin(Prediction, Prediction.id == lines.c.prediction_id)
        .where(lines.c.counted == 1)
        .order_by(at, lines.c.event_sequence, lines.c.id)
        .execution_options(yield_per=2_000)
    )
    return (Measured(*row) for row in rows)


def drift(session: Session, scope: Scope, limits: Limits, *, upto: int | None = None) -> DriftFigures:
    """Sum up statistics of a scope's pictures against limits (low, high), by their names in `STATISTICS`.

    Of a run, pictures whose outcome it carried over are left out: they were measured before.
    """
    values = _Values(limits)
    bins, without = [0] * BINS, 0
    for picture in measured(session, scope, upto):
        if scope.run is not None and picture.carried_over:
            continue
        values.add(picture)
        if picture.score is not None:
            bins[min(int(picture.score * BINS), BINS - 1)] += 1
            without += picture.brightness is None
    samples = {name: figures for name, figures in values.figures().items() if name in limits}
    return DriftFigures(samples, tuple(bins), without)


def run_history(
    session: Session,
    run: UUID | int | str,
    *,
    last: int = 25,
    limits: Limits = MappingProxyType({}),
    upto: int | None = None,
) -> list[RunPoint]:
    """Give the last finished runs with the same model up to and with this one, oldest first.

    This run is among them if it has finished. Reads every picture of each.
    """
    run_id = find_run_id(session, run)
    model, number = session.execute(select(Run.model_version_id, Run.number).where(Run.id == run_id)).one()
    rows = session.execute(
        select(Run, RunEnd)
        .join(RunEnd, RunEnd.run_id == Run.id)
        .where(Run.model_version_id == model, Run.number <= number, RunEnd.event_sequence <= (upto or NEWEST))
        .order_by(Run.number.desc())
        .limit(last)
    ).all()
    points = []
    for made, end in reversed(rows):
        group = _Group(made.started_at, _Values(limits))
        for picture in measured(session, Scope(run=made.id), upto):
            if not picture.carried_over:
                group.add(picture)
        points.append(
            RunPoint(
                reference=run_reference(made.number),
                number=made.number,
                status=end.status,
                started_at=made.started_at,
                finished_at=end.finished_at,
                counts=counts_from(end.counts),
                inspected=group.inspected,
                flagged=group.flagged,
                statistics=group.values.figures(),
            )
        )
    return points


def subgroups(
    session: Session,
    scope: Scope,
    by: Literal["run", "day", "hour"] | int,
    *,
    zone: str = "UTC",
    limits: Limits = MappingProxyType({}),
    upto: int | None = None,
) -> list[SubgroupFigures]:
    """Give the subgroups of a scope in order: of each run, day or hour (in `zone`), or of `by` pictures each.

    With a number the last subgroup holds what is left, and may be smaller.
    """
    where = ZoneInfo(zone)
    if isinstance(by, int) and by < 1:
        raise RecordError(f"a subgroup of {by} pictures: give at least 1")
    groups: dict[str | int, _Group] = {}
    for position, picture in enumerate(measured(session, scope, upto)):
        key: str | int
        if isinstance(by, int):
            key = position // by
        elif by == "run":
            key = run_reference(picture.run)
        else:
            local = picture.at.astimezone(where)
            key = local.strftime("%Y-%m-%d") if by == "day" else local.strftime("%Y-%m-%d %H:00 %z")
        groups.setdefault(key, _Group(picture.at, _Values(limits))).add(picture)
    told, first = [], 1
    for key, group in groups.items():
        size = group.inspected + group.unreadable
        label = f"{first}-{first + size - 1}" if isinstance(key, int) else key
        first += size
        told.append(group.figures(label))
    return told


class _Values:
    """The values of each statistic, eight bytes each.

    Scores are those of pictures that passed: how many did not is told by the counts, and the high scores of
    those few would hide a shift of all the others.
    """

    def __init__(self, limits: Limits) -> None:
        if unknown := set(limits) - set(STATISTICS):
            raise RecordError(f"statistic {sorted(unknown)[0]!r} is none of {', '.join(STATISTICS)}")
        self.limits = limits
        self.of: dict[str, array[float]] = {name: array("d") for name in STATISTICS}

    def add(self, picture: Measured) -> None:
        for name, value in zip(STATISTICS, picture[4:], strict=True):
            if value is not None and (name != "score" or picture.verdict == "pass"):
                self.of[name].append(value)

    def figures(self) -> dict[str, SampleFigures]:
        return {name: _figures(values, self.limits.get(name)) for name, values in self.of.items()}


def _figures(values: array[float], limits: tuple[float, float] | None) -> SampleFigures:
    n = len(values)
    if not n:
        return SampleFigures(0, None, None, 0, 0)
    mean = fsum(values) / n
    sd = sqrt(fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
    below, above = (
        (sum(value < limits[0] for value in values), sum(value > limits[1] for value in values))
        if limits
        else (0, 0)
    )
    return SampleFigures(n, mean, sd, below, above)


@dataclass(slots=True)
class _Group:
    since: datetime
    values: _Values
    until: datetime = field(init=False)
    inspected: int = 0
    flagged: int = 0
    rejected: int = 0
    unreadable: int = 0

    def add(self, picture: Measured) -> None:
        self.until = picture.at
        self.values.add(picture)
        self.unreadable += picture.verdict == "unreadable"
        self.inspected += picture.verdict != "unreadable"
        self.flagged += picture.verdict in ("review", "reject")
        self.rejected += picture.verdict == "reject"

    def figures(self, label: str) -> SubgroupFigures:
        return SubgroupFigures(
            label=label,
            since=self.since,
            until=self.until,
            inspected=self.inspected,
            flagged=self.flagged,
            rejected=self.rejected,
            unreadable=self.unreadable,
            statistics=self.values.figures(),
        )
