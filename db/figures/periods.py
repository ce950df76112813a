"""What a report across runs says: its runs, what became of its pictures, what was found on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import CTE, and_, distinct, func, select
from sqlalchemy.orm import Session

from db.columns import storable
from db.figures.announced import never_arrived
from db.figures.scopes import Scope, line_conditions, lines_of, runs_in
from db.index_walk import NEWEST
from db.inspection.missing_images import Announcement
from db.inspection.runs import ModelRecord, RunCounts, run_reference
from db.lookup import those
from db.queries.finding_records import FindingRecord, finding_record, finding_rows
from db.queries.runs import RunImageRecord, UnreadableRecord, image_records, image_rows
from db.schema import Finding, Image, ModelVersion, Part, Run, RunEnd, RunImage


@dataclass(frozen=True, slots=True)
class PeriodRun:
    """A run in a scope. `status`: completed, failed or unfinished; `listed`: its lines in the scope.

    `counted`: those by which a picture counts.
    """

    id: UUID
    reference: str
    status: str
    started_at: datetime
    finished_at: datetime | None
    model_digest: str
    settings_digest: str
    listed: int
    counted: int


@dataclass(frozen=True, slots=True)
class PeriodSummary:
    """What a report across runs says first.

    `counts`: of pictures, each once, with its latest outcome; `listings`: lines of runs, so that `repeated`
    of them are of pictures that were listed again. `missing`: announced to a run, of the scope as far as the
    announcement says, and listed by no run; `unplaced`: announced to a run of the scope and listed by none,
    but nobody knows of which lot or station. `models`, `settings`: all that decided, most pictures first;
    settings by their digest, as the first run that has them froze them.
    """

    runs: tuple[PeriodRun, ...]
    counts: RunCounts
    listings: int
    class_counts: tuple[tuple[str, int], ...]
    parts: int
    lots: tuple[str, ...]
    stations: tuple[str, ...]
    models: tuple[ModelRecord, ...]
    settings: tuple[tuple[str, Mapping[str, Any]], ...]
    missing: tuple[Announcement, ...]
    unplaced: tuple[Announcement, ...]

    @property
    def repeated(self) -> int:
        """Lines of pictures that were listed again, and do not count."""
        return self.listings - self.counts.listed


def period_summary(session: Session, scope: Scope, upto: int | None = None) -> PeriodSummary:
    """Sum up a scope, as of event `upto`. Reads every line in it."""
    lines = lines_of(session, scope, upto)
    tallies = _tallies(session, lines)
    counted: Counter[str] = Counter()
    for tally in tallies:
        counted[tally.verdict] += tally.counted
    classes = session.execute(
        select(Finding.class_name, func.count())
        .join(lines, and_(lines.c.prediction_id == Finding.prediction_id, lines.c.counted == 1))
        .group_by(Finding.class_name)
        .order_by(func.count().desc(), Finding.class_name)
    ).all()
    in_scope = line_conditions(session, scope, upto)
    parts = session.scalar(select(func.count(distinct(RunImage.part_id))).where(*in_scope))
    announced = never_arrived(session, scope, upto)
    missing = announced.in_scope
    waiting = {each.run_id for each in missing}
    runs, models, settings = _runs_models_settings(session, scope, tallies, waiting, upto)
    return PeriodSummary(
        runs=runs,
        counts=RunCounts(
            listed=sum(counted.values()),
            passed=counted["pass"],
            review=counted["review"],
            reject=counted["reject"],
            unreadable=counted["unreadable"],
            carried_over=sum(tally.counted for tally in tallies if tally.carried_over),
            missing=len(missing),
            findings=sum(count for _, count in classes),
        ),
        listings=sum(tally.listed for tally in tallies),
        class_counts=tuple((name, count) for name, count in classes),
        parts=parts or 0,
        lots=_names([*(tally.lot for tally in tallies), *(each.image.lot for each in missing)]),
        stations=_names([*(tally.station for tally in tallies), *(each.image.station for each in missing)]),
        models=models,
        settings=settings,
        missing=missing,
        unplaced=announced.unplaced_of(run.id for run in runs),
    )


def scope_findings(
    session: Session, scope: Scope, *, limit: int | None = None, upto: int | None = None
) -> list[FindingRecord]:
    """Return the findings on the counted pictures of a scope, highest score first, then by reference.

    Decisions about them are as of event `upto`.
    """
    lines = lines_of(session, scope, upto)
    chosen = (
        select(Finding.id, lines.c.id)
        .join(lines, lines.c.prediction_id == Finding.prediction_id)
        .where(lines.c.counted == 1)
        .order_by(Finding.score.desc(), Finding.reference, lines.c.event_sequence)
    )
    pairs = session.execute(chosen if limit is None else chosen.limit(limit)).tuples().all()
    evidence = finding_rows(RunImage.prediction_id == Finding.prediction_id, upto)
    rows = those(session, evidence, RunImage.id, {line for _, line in pairs})
    found = {(row.Finding.id, row.RunImage.id): row for row in rows}
    return [finding_record(found[pair]) for pair in pairs]


def scope_images(session: Session, scope: Scope, upto: int | None = None) -> Iterator[RunImageRecord]:
    """Stream the counted pictures of a scope in the order of their uris, as of event `upto`."""
    lines = lines_of(session, scope, upto)
    counted = image_rows().join(lines, lines.c.id == RunImage.id).where(lines.c.counted == 1)
    return image_records(session, counted.order_by(RunImage.uri, RunImage.event_sequence, RunImage.id))


def class_occurrence(
    session: Session, scope: Scope, class_name: str, upto: int | None = None
) -> tuple[int, int]:
    """Count the pictures of a scope that were flagged with a class, and all of its pictures, as of `upto`."""
    lines = lines_of(session, scope, upto)
    of_class = select(Finding.prediction_id).where(Finding.class_name == storable(class_name))
    flagged = func.count().filter(lines.c.prediction_id.in_(of_class))
    count = select(flagged, func.count()).select_from(lines).where(lines.c.counted == 1)
    return session.execute(count).tuples().one()


def scope_unreadable(session: Session, scope: Scope, upto: int | None = None) -> list[UnreadableRecord]:
    """Return the counted pictures of a scope that could not be inspected, in the order of their uris."""
    lines = lines_of(session, scope, upto)
    rows = session.execute(
        select(lines.c.uri, lines.c.reason, Image.digest)
        .outerjoin(Image, Image.id == lines.c.image_id)
        .where(lines.c.counted == 1, lines.c.verdict == "unreadable")
        .order_by(lines.c.uri, lines.c.event_sequence)
    )
    return [UnreadableRecord(uri, reason or "", digest) for uri, reason, digest in rows]


class _Tally(NamedTuple):
    """Lines with the same run, lot, station and outcome: how many there are, and how many of them count."""

    run_id: UUID
    lot: str | None
    station: str | None
    verdict: str
    carried_over: bool
    listed: int
    counted: int


def _tallies(session: Session, lines: CTE) -> list[_Tally]:
    # One statement for all counts: finding out which lines count takes far longer than adding them up.
    alike = (lines.c.run_id, Part.lot, lines.c.station, lines.c.verdict, lines.c.carried_over)
    rows = session.execute(
        select(*alike, func.count(), func.sum(lines.c.counted))
        .select_from(lines)
        .outerjoin(Part, Part.id == lines.c.part_id)
        .group_by(*alike)
    )
    return [_Tally(*row) for row in rows]


def _names(given: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({name for name in given if name}))


Settings = tuple[tuple[str, Mapping[str, Any]], ...]


def _runs_models_settings(
    session: Session, scope: Scope, tallies: list[_Tally], waiting: set[UUID], upto: int | None
) -> tuple[tuple[PeriodRun, ...], tuple[ModelRecord, ...], Settings]:
    listed: Counter[UUID] = Counter()
    counted: Counter[UUID] = Counter()
    for tally in tallies:
        listed[tally.run_id] += tally.listed
        counted[tally.run_id] += tally.counted
    wanted = set(listed) | waiting
    if scope.run is None and scope.lot is None and scope.station is None:
        # In a time also runs that began and recorded nothing: one that broke must not be passed over.
        wanted |= set(session.scalars(runs_in(scope, upto).where(Run.started_at >= scope.since)))
    statement = (
        select(Run, ModelVersion, RunEnd)
        .join(ModelVersion, ModelVersion.id == Run.model_version_id)
        .outerjoin(RunEnd, and_(RunEnd.run_id == Run.id, RunEnd.event_sequence <= (upto or NEWEST)))
    )
    runs: list[PeriodRun] = []
    models: dict[str, ModelRecord] = {}
    settings: dict[str, Mapping[str, Any]] = {}
    pictures: Counter[str] = Counter()
    found = those(session, statement, Run.id, wanted)
    for run, model, end in sorted(found, key=lambda row: row.Run.number):
        runs.append(
            PeriodRun(
                id=run.id,
                reference=run_reference(run.number),
                status=end.status if end else "unfinished",
                started_at=run.started_at,
                finished_at=end.finished_at if end else None,
                model_digest=model.digest,
                settings_digest=run.settings_digest,
                listed=listed[run.id],
                counted=counted[run.id],
            )
        )
        if not counted[run.id]:
            continue
        models.setdefault(model.digest, ModelRecord.of(model))
        settings.setdefault(run.settings_digest, run.settings)
        pictures[model.digest] += counted[run.id]
        pictures[run.settings_digest] += counted[run.id]
    return (
        tuple(runs),
        tuple(sorted(models.values(), key=lambda model: (-pictures[model.digest], model.digest))),
        tuple(sorted(settings.items(), key=lambda pair: (-pictures[pair[0]], pair[0]))),
    )
