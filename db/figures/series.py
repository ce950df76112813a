"""Figures in order, for charts: runs before this one, subgroups inside a scope, statistics against limits.

Sums are exact (`math.fsum`): the figures are the same on every database, in whatever order it gives rows, so
that a report that prints them can be made again to the byte.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import fsum, sqrt
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from classifiers.measure.effective_size import effective_size
from classifiers.measure.score_bins import SCORE_EDGES, score_bin
from db.figures.scopes import Scope, lines_of
from db.index_walk import NEWEST
from db.inspection.runs import find_run_id, run_reference
from db.schema import Prediction, Run, RunEnd

STATISTICS = ("score", "brightness", "contrast", "sharpness")
Limits = Mapping[str, tuple[float, float]]  # (low, high) by the name of a statistic
_NO_LIMITS: Limits = MappingProxyType({})
# What of an id's bits tells parts apart in eight bytes: in a UUID of version 7 these are random.
_KEY = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SampleFigures:
    """A statistic over pictures: mean and standard deviation (n - 1), None where there are too few.

    `below`, `above`: how many lie beyond the limits that were given for it, if any were. `effective`: how
    many independent pictures they are worth, since those of one part are alike.
    """

    n: int
    mean: float | None
    sd: float | None
    below: int
    above: int
    effective: float


class PartSums(NamedTuple):
    """Sums over parts, of which each has n inspected pictures with x flagged ones: of x², of n x and of n².

    A picture without a part is one of its own.
    """

    flagged_squared: int
    product: int
    pictures_squared: int


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """Pictures together: `inspected` with a verdict, `flagged` review or reject among them.

    `label`: the run, the day, or the numbers of the first and last picture. `statistics` by their names in
    STATISTICS; those of scores are of pictures that passed. `histogram`: all scores, between two of
    `classifiers.measure.score_bins.SCORE_EDGES` each. `parts`: of its inspected
    pictures.
    """

    label: str
    inspected: int
    flagged: int
    statistics: Mapping[str, SampleFigures]
    histogram: tuple[int, ...]
    parts: PartSums


class Measured(NamedTuple):
    """One counted picture: its run, when it was taken (else inspected), what it became and its statistics.

    `part`: the part's id; the picture's own where it has none.
    """

    run: int
    at: datetime
    verdict: str
    carried_over: bool
    part: UUID
    score: float | None
    brightness: float | None
    contrast: float | None
    sharpness: float | None


def period_figures(
    session: Session, scope: Scope, *, zone: str = "UTC", limits: Limits = _NO_LIMITS, upto: int | None = None
) -> tuple[list[GroupFigures], list[GroupFigures], GroupFigures]:
    """Read the counted pictures of a scope once, in the order in which they were taken, else inspected.

    Returns:
        The figures of each day (in `zone`), those of each run, and those of all pictures.
    """
    where = ZoneInfo(zone)
    groups = _groups_by_key(
        _measured_pictures(session, scope, upto),
        lambda _, picture: (f"{picture.at.astimezone(where):%Y-%m-%d}", run_reference(picture.run)),
    )
    days, runs = (
        [group.figures(label, limits) for label, group in _groups_joined(groups, place).items()]
        for place in (0, 1)
    )
    return days, runs, _group_of_all(groups.values()).figures("", limits)


def run_figures(
    session: Session,
    run: UUID | int | str,
    stretch: int,
    *,
    last: int = 25,
    limits: Limits = _NO_LIMITS,
    upto: int | None = None,
) -> tuple[list[GroupFigures], list[GroupFigures], GroupFigures]:
    """Read a run's pictures once, and those of the finished runs with the same model before it.

    Pictures whose outcome was carried over count in the stretches alone: an earlier run measured them.

    Returns:
        The figures of the `last` finished runs up to and with this one, oldest first, this one among them if
        it has finished; those of each `stretch` pictures of it, of which the last may be fewer; and those of
        all its pictures.
    """
    run_id = find_run_id(session, run)
    model, number = session.execute(select(Run.model_version_id, Run.number).where(Run.id == run_id)).one()
    ended = session.execute(
        select(Run.id, Run.number)
        .join(RunEnd, RunEnd.run_id == Run.id)
        .where(Run.model_version_id == model, Run.number <= number, RunEnd.event_sequence <= (upto or NEWEST))
        .order_by(Run.number.desc())
        .limit(last)
    ).all()
    own = _groups_by_key(
        _measured_pictures(session, Scope(run=run_id), upto),
        lambda position, picture: (position // stretch, picture.carried_over),
    )
    whole = _group_of_all(group for (_, carried_over), group in own.items() if not carried_over)
    history = []
    for before, before_number in reversed(ended):
        group = whole
        if before != run_id:
            pictures = _measured_pictures(session, Scope(run=before), upto)
            group = _Group().add(picture for picture in pictures if not picture.carried_over)
        history.append(group.figures(run_reference(before_number), limits))
    stretches, first = [], 1
    for group in _groups_joined(own, 0).values():
        stretches.append(group.figures(f"{first}-{first + group.pictures - 1}", limits))
        first += group.pictures
    return history, stretches, whole.figures("", limits)


def tile_counts(session: Session, scope: Scope, upto: int | None = None) -> dict[int, int]:
    """Return how many counted pictures of a scope have how many tiles; empty where none is tiled."""
    lines = lines_of(session, scope, upto)
    rows = session.execute(
        select(Prediction.tile_count, func.count())
        .join(lines, lines.c.prediction_id == Prediction.id)
        .where(lines.c.counted == 1, Prediction.tile_count.is_not(None))
        .group_by(Prediction.tile_count)
        .order_by(Prediction.tile_count)
    )
    return {tiles: pictures for tiles, pictures in rows if tiles is not None}


def _measured_pictures(session: Session, scope: Scope, upto: int | None) -> Iterator[Measured]:
    """Stream the counted pictures of a scope in the order in which they were taken, else inspected."""
    lines = lines_of(session, scope, upto)
    at = func.coalesce(lines.c.captured_at, lines.c.created_at, type_=lines.c.created_at.type)
    rows = session.execute(
        select(Run.number, at, lines.c.verdict, lines.c.carried_over)
        .add_columns(func.coalesce(lines.c.part_id, lines.c.id, type_=lines.c.id.type))
        .add_columns(*(getattr(Prediction, name) for name in STATISTICS))
        .join(Run, Run.id == lines.c.run_id)
        .outerjoin(Prediction, Prediction.id == lines.c.prediction_id)
        .where(lines.c.counted == 1)
        .order_by(at, lines.c.event_sequence, lines.c.id)
        .execution_options(yield_per=2_000)
    )
    return (Measured(*row) for row in rows)


class _Group:
    """Pictures added up, and the values of each statistic, eight bytes each.

    Scores are those of pictures that passed. The counts say how many did not; the high scores of those few
    would hide a shift of all the others.
    """

    def __init__(self) -> None:
        self.pictures = self.inspected = self.flagged = 0
        self.bins = [0] * (len(SCORE_EDGES) - 1)
        self.values: dict[str, _Values] = {name: _Values() for name in STATISTICS}
        self.verdicts = _Values()  # of inspected pictures: 1 for a flagged one, else 0

    def add(self, pictures: Iterable[Measured]) -> _Group:
        for picture in pictures:
            flagged = picture.verdict in ("review", "reject")
            part = picture.part.int & _KEY
            self.pictures += 1
            self.flagged += flagged
            if picture.verdict != "unreadable":
                self.inspected += 1
                self.verdicts.add(flagged, part)
            if picture.score is not None:
                self.bins[score_bin(picture.score)] += 1
            for name, value in zip(STATISTICS, picture[5:], strict=True):
                if value is not None and (name != "score" or picture.verdict == "pass"):
                    self.values[name].add(value, part)
        return self

    def figures(self, label: str, limits: Limits) -> GroupFigures:
        statistics = {name: _sample_figures(values, limits.get(name)) for name, values in self.values.items()}
        return GroupFigures(
            label, self.inspected, self.flagged, statistics, tuple(self.bins), self._part_sums()
        )

    def _part_sums(self) -> PartSums:
        sizes = Counter(self.verdicts.parts)
        flagged: Counter[int] = Counter()
        for value, part in zip(self.verdicts.values, self.verdicts.parts, strict=True):
            flagged[part] += int(value)
        return PartSums(
            sum(x * x for x in flagged.values()),
            sum(sizes[part] * x for part, x in flagged.items()),
            sum(n * n for n in sizes.values()),
        )


class _Values:
    """Values with the part of each, eight bytes for either."""

    def __init__(self) -> None:
        self.values: array[float] = array("d")
        self.parts: array[int] = array("q")

    def add(self, value: float, part: int) -> None:
        self.values.append(value)
        self.parts.append(part)

    def extend(self, others: _Values) -> None:
        self.values += others.values
        self.parts += others.parts


def _groups_by_key(
    pictures: Iterable[Measured], key: Callable[[int, Measured], tuple[Any, ...]]
) -> dict[tuple[Any, ...], _Group]:
    """Add up the pictures of each key; `key` is called with a picture's position and the picture."""
    groups: dict[tuple[Any, ...], _Group] = {}
    for position, picture in enumerate(pictures):
        groups.setdefault(key(position, picture), _Group()).add((picture,))
    return groups


def _groups_joined(groups: Mapping[tuple[Any, ...], _Group], place: int) -> dict[Any, _Group]:
    """Join the groups whose keys have the same value at one place, in the order of their first pictures."""
    alike: dict[Any, list[_Group]] = {}
    for key, group in groups.items():
        alike.setdefault(key[place], []).append(group)
    return {value: _group_of_all(some) for value, some in alike.items()}


def _group_of_all(groups: Iterable[_Group]) -> _Group:
    whole = _Group()
    for group in groups:
        whole.pictures += group.pictures
        whole.inspected += group.inspected
        whole.flagged += group.flagged
        whole.bins = [one + other for one, other in zip(whole.bins, group.bins, strict=True)]
        for name, values in group.values.items():
            whole.values[name].extend(values)
        whole.verdicts.extend(group.verdicts)
    return whole


def _sample_figures(sample: _Values, limits: tuple[float, float] | None) -> SampleFigures:
    values = sample.values
    n = len(values)
    if not n:
        return SampleFigures(0, None, None, 0, 0, 0.0)
    mean = fsum(values) / n
    sd = sqrt(fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
    below, above = (
        (sum(value < limits[0] for value in values), sum(value > limits[1] for value in values))
        if limits
        else (0, 0)
    )
    return SampleFigures(n, mean, sd, below, above, effective_size(values, sample.parts))
