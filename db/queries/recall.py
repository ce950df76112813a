"""What a model touched: every part whose picture it judged, the ones that it let pass included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, distinct, func, or_, select
from sqlalchemy.orm import Session

from db.errors import RecordError
from db.index_walk import FEW, NEWEST, Candidates, Way, best, count_upto, one_by_one, unordered, walk
from db.inspection.runs import run_reference
from db.lookup import those
from db.queries.filters import Condition, check_verdict, find_model_digests, time_conditions
from db.queries.finding_records import effective_decision
from db.schema import VERDICTS, AuditEvent, Finding, Image, ModelVersion, Part, Run, RunImage


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFilter:
    """Which of a model's pictures. `model`: digest, its first 6 digits or more, or name.

    `verdict`: only pictures it judged so. `since` inclusive, `until` exclusive, both aware: when it did.
    """

    model: str
    lot: str | None = None
    verdict: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class TracedPicture:
    """One listed picture of a part. `digest`: None where its bytes could not be read."""

    uri: str
    digest: str | None
    station: str | None
    run_reference: str
    verdict: str
    carried_over: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class TracedFinding:
    """A finding on a part. `disposition`: the decision in effect."""

    reference: str
    class_name: str
    score: float
    disposition: str | None


@dataclass(frozen=True, slots=True)
class TracedPart:
    """A part to recall. `cursor`: where the next page goes on after this one; pictures oldest first."""

    cursor: str
    part: str | None
    lot: str | None
    stations: tuple[str, ...]
    verdicts: tuple[tuple[str, int], ...]
    pictures: tuple[TracedPicture, ...]
    findings: tuple[TracedFinding, ...]
    last_at: datetime


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """Counts of all that a model judged. `without_part`: pictures that name no part."""

    models: tuple[str, ...]
    parts: int
    pictures: int
    passes: int
    runs: int
    lots: int
    without_part: int


def trace_summary(session: Session, wanted: TraceFilter) -> TraceSummary:
    """Count the pictures that the model judged, and their parts, runs and lots. Reads every such picture.

    RecordError for a model that there is none of.
    """
    digests, touched = _touched_conditions(session, wanted)
    passed = func.count().filter(RunImage.verdict == "pass")
    lots = func.count(distinct(Part.lot)).filter(Part.lot != "")
    figures = (
        select(
            func.count(distinct(RunImage.part_id)),
            func.count(),
            passed,
            func.count(distinct(RunImage.run_id)),
            lots,
            func.count().filter(RunImage.part_id.is_(None)),
        )
        .select_from(RunImage)
        .outerjoin(Part, Part.id == RunImage.part_id)
        .join(Run, Run.id == RunImage.run_id)
    )
    if wanted.lot is not None:
        figures = figures.where(Part.lot == wanted.lot)
    return TraceSummary(tuple(digests), *session.execute(figures.where(*touched)).one())


def trace_parts(
    session: Session, wanted: TraceFilter, *, limit: int = 100, before: str | None = None
) -> list[TracedPart]:
    """Return the parts whose pictures the model judged, those that entered the record last first.

    `before`: the cursor of the last part of the page before; a part's place in the list never changes.
    RecordError for an unknown model and for a text that is no cursor.
    """
    digests, touched = _touched_conditions(session, wanted)
    by_model = one_by_one(RunImage.part_id == Part.id, Run.id == RunImage.run_id, *touched)
    conditions: list[Condition] = [by_model]
    way: list[Way | None] = []
    if wanted.lot is not None:
        conditions.append(Part.lot == wanted.lot)
        in_lot = select(Part.event_sequence).where(Part.lot == wanted.lot)
        way.append(Way(FEW + 1, (Candidates(in_lot, Part.event_sequence),)))
    first, last = _event_span(session, wanted)
    events = [
        select(AuditEvent.sequence).where(
            AuditEvent.model_digest == digest, AuditEvent.sequence.between(first, last)
        )
        for digest in digests
    ]
    ways = [_few_events_way(session, *events), *way]
    ends = (session.scalar(select(func.max(each.subquery().c.sequence))) for each in events)
    last = max(end or 0 for end in ends)
    top = NEWEST
    if before is not None:
        top, last_id = _cursor(before)
        conditions.append(or_(Part.event_sequence < top, Part.id < last_id))

    def check(window: Sequence[int], most: int) -> Sequence[Part]:
        page = select(Part).where(Part.event_sequence.in_(window), *conditions)
        return session.scalars(page.order_by(Part.event_sequence.desc(), Part.id.desc()).limit(most)).all()

    everything = Candidates(select(Part.event_sequence), Part.event_sequence)
    follow = best([each for each in ways if each is not None], everything)
    # No part that entered the record after the last event concerned can have been touched.
    found = walk(session, follow, check, top=min(top, last), limit=limit)
    return list(_traced_parts(session, found, touched))


def _touched_conditions(session: Session, wanted: TraceFilter) -> tuple[list[str], list[Condition]]:
    """Return the digests of the models, and the conditions on `RunImage` joined with its `Run`."""
    check_verdict(wanted.verdict)
    digests = find_model_digests(session, wanted.model)
    models = session.scalars(select(ModelVersion.id).where(ModelVersion.digest.in_(digests))).all()
    conditions: list[Condition] = [Run.model_version_id.in_(models)]
    if wanted.verdict is not None:
        conditions.append(RunImage.verdict == wanted.verdict)
    if time := time_conditions(AuditEvent.at, wanted.since, wanted.until):
        conditions.append(one_by_one(AuditEvent.sequence == RunImage.event_sequence, *time))
    return digests, conditions


def _few_events_way(session: Session, *events: Select[Any]) -> Way | None:
    """Follow the parts of the pictures that few events are about."""
    if (size := sum(count_upto(session, each) for each in events)) > FEW:
        return None
    sequence = unordered(Part.event_sequence)
    part = select(Part.event_sequence).join(RunImage, RunImage.part_id == Part.id)
    return Way(
        size, tuple(Candidates(part.where(RunImage.event_sequence.in_(each)), sequence) for each in events)
    )


def _event_span(session: Session, wanted: TraceFilter) -> tuple[int, int]:
    """Return the first and the last event in the time that is asked for; without one, all events."""
    if not (time := time_conditions(AuditEvent.at, wanted.since, wanted.until)):
        return 1, NEWEST
    # All of the range is read, from the index alone: clocks can disagree with the order of events.
    sequence = unordered(AuditEvent.sequence)
    first, last = session.execute(select(func.min(sequence), func.max(sequence)).where(*time)).one()
    return first or 1, last or 0


def _cursor(text: str) -> tuple[int, UUID]:
    sequence, _, identifier = text.strip().partition("-")
    try:
        return int(sequence), UUID(identifier)
    except ValueError:
        raise RecordError(f"{text!r} is no cursor: give one as the page before printed it") from None


def _traced_parts(
    session: Session, parts: Sequence[Part], touched: Sequence[Condition]
) -> Iterator[TracedPart]:
    """Gather the pictures and findings of a page of parts."""
    lines = (
        select(RunImage, Image.digest, Run.number)
        .join(Run, Run.id == RunImage.run_id)
        .outerjoin(Image, Image.id == RunImage.image_id)
        .where(*touched)
        .order_by(unordered(RunImage.event_sequence))
    )
    pictures: dict[UUID, list[Row[Any]]] = {part.id: [] for part in parts}
    for row in those(session, lines, RunImage.part_id, pictures):
        pictures[row.RunImage.part_id].append(row)
    predictions = {row.RunImage.prediction_id for rows in pictures.values() for row in rows} - {None}
    flagged = select(Finding, effective_decision().label("disposition")).order_by(Finding.number)
    findings: dict[UUID, list[TracedFinding]] = {}
    for finding, disposition in those(session, flagged, Finding.prediction_id, predictions):
        traced = TracedFinding(finding.reference, finding.class_name, finding.score, disposition)
        findings.setdefault(finding.prediction_id, []).append(traced)
    for part in parts:
        rows = pictures[part.id]
        verdicts = Counter(row.RunImage.verdict for row in rows)
        judged = {row.RunImage.prediction_id: None for row in rows}
        yield TracedPart(
            cursor=f"{part.event_sequence}-{part.id.hex}",
            part=part.serial or None,
            lot=part.lot or None,
            stations=tuple(sorted({row.RunImage.station for row in rows if row.RunImage.station})),
            verdicts=tuple((verdict, verdicts[verdict]) for verdict in VERDICTS if verdicts[verdict]),
            pictures=tuple(_traced_picture(row) for row in rows),
            findings=tuple(found for key in judged for found in findings.get(key, ())),
            last_at=max(row.RunImage.created_at for row in rows),
        )


def _traced_picture(row: Row[Any]) -> TracedPicture:
    line: RunImage = row.RunImage
    return TracedPicture(
        uri=line.uri,
        digest=row.digest,
        station=line.station,
        run_reference=run_reference(row.number),
        verdict=line.verdict,
        carried_over=line.carried_over,
        created_at=line.created_at,
    )
