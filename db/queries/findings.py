"""Questions about findings: what was flagged, where, how surely, and who decided what about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Row, ScalarSelect, Select, func, literal, or_, select, union_all
from sqlalchemy.orm import Session

from db.errors import RecordError
from db.index_walk import (
    FEW,
    NEWEST,
    Candidates,
    Way,
    any_case,
    best,
    count_upto,
    one_by_one,
    ordered,
    unordered,
    walk,
)
from db.inspection.runs import find_run_id
from db.lookup import those
from db.queries.filters import (
    CARRIED_LINE,
    FLAGGED_LINE,
    Condition,
    Lines,
    RecordFilter,
    Subject,
    find_image_ids,
    find_model_digests,
    part_conditions,
    time_conditions,
)
from db.queries.finding_records import FindingRecord, finding_record, finding_rows
from db.schema import (
    Approval,
    AuditEvent,
    Disposition,
    Finding,
    ModelVersion,
    Part,
    Prediction,
    Run,
    RunImage,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingFilter(RecordFilter):
    """Which findings: every field given must match.

    `person`: who decided about it, or approved or refused that; `reason`: a piece of the reason given for it,
    whatever the case. `since`, `until`: when it was made.
    """


def find_findings(
    session: Session, wanted: FindingFilter, *, limit: int = 100, before: UUID | str | None = None
) -> list[FindingRecord]:
    """Return findings that match, newest first, each with the first listed picture that matches.

    `before`: id or reference of the last finding of the page before. RecordError for a model, image, run or
    cursor there is none of, and for scores and verdicts that cannot be.
    """
    lines = Lines.of(session, wanted)
    at_line = list(lines.each)
    if wanted.run is not None:
        at_line.append(RunImage.run_id == find_run_id(session, wanted.run))
    conditions, ways, spans = _finding_filters(session, wanted)
    conditions += lines.finding
    subject_ways, subject_spans = _subject_ways(session, wanted)
    ways += subject_ways
    spans += subject_spans
    top = NEWEST
    if before is not None:
        top, number = _cursor_position(session, before)
        conditions.append(or_(Finding.event_sequence < top, Finding.number < number))
    first = (
        select(RunImage.id)
        .where(RunImage.prediction_id == Finding.prediction_id, *at_line)
        .order_by(unordered(RunImage.event_sequence))
        .limit(1)
        .correlate(Finding)
        .scalar_subquery()
    )

    def check(window: Sequence[int], most: int) -> Sequence[Row[Any]]:
        # The page's ids first: their evidence is then joined by key, whatever planners know of the tables.
        inside = Finding.event_sequence.in_(window)
        statement = select(Finding.id, first).where(inside, *conditions, first.is_not(None))
        newest_first = statement.order_by(Finding.event_sequence.desc(), Finding.number.desc())
        return session.execute(newest_first.limit(most)).all()

    page = walk(
        session, best(ways, _ALL), check, top=top, limit=limit, span=partial(_narrowest_span, session, spans)
    )
    evidence = finding_rows(RunImage.prediction_id == Finding.prediction_id)
    rows = those(session, evidence, RunImage.id, {line_id for _, line_id in page})
    found = {(row.Finding.id, row.RunImage.id): row for row in rows}
    return [finding_record(found[finding_id, line_id]) for finding_id, line_id in page]


def _cursor_position(session: Session, which: UUID | str) -> tuple[int, int]:
    key = Finding.id == which if isinstance(which, UUID) else Finding.reference == which.strip().upper()
    row = session.execute(select(Finding.event_sequence, Finding.number).where(key)).first()
    if row is None:
        raise RecordError(f"there is no finding {which} to go on from: give one such as R000012-0003")
    return row.event_sequence, row.number


# A filter that matches too many findings to sort offers all of them, in the order of the index; one that no
# finding can meet offers none.
_ALL = Candidates(select(Finding.event_sequence), Finding.event_sequence)
_MANY = Way(FEW + 1, (_ALL,))
_NONE = Way(0, ())
Spans = list[Select[Any]]  # each selects a first and a last event


def _narrowest_span(session: Session, spans: Spans) -> tuple[int, int]:
    """Return the first and last event between which all findings that match lie.

    Each statement selects such a pair; the narrowest of them holds.
    """
    lowest, highest = 1, NEWEST
    for statement in spans:
        low, high = session.execute(statement).one()
        lowest, highest = max(lowest, low or 1), min(highest, high or 0)
    return lowest, highest


def _sorted_way(session: Session, *statements: Select[Any]) -> Way:
    """Follow findings that no index has in order, unless they are too many to sort."""
    size = sum(count_upto(session, statement) for statement in statements)
    if size > FEW:
        return _MANY
    return Way(size, tuple(Candidates(each, unordered(Finding.event_sequence)) for each in statements))


def _finding_filters(session: Session, wanted: FindingFilter) -> tuple[list[Condition], list[Way], Spans]:
    """Return the conditions on findings themselves, the ways to them, and statements for their spans."""
    conditions: list[Condition] = []
    ways: list[Way] = []
    spans: Spans = []
    finding = select(Finding.event_sequence)
    asked: list[tuple[Condition, Condition]] = []
    if wanted.person is not None:
        asked.append((Disposition.person == wanted.person, Approval.person == wanted.person))
    if wanted.reason is not None:
        asked.append((any_case(Disposition.reason, wanted.reason), any_case(Approval.reason, wanted.reason)))
    for disposition, approval in asked:
        by_approval = one_by_one(Approval.disposition_id == Disposition.id, approval)
        either = or_(disposition, by_approval.correlate(Disposition))
        conditions.append(one_by_one(Disposition.finding_id == Finding.id, either).correlate(Finding))
        ways.append(_decided_way(session, disposition, approval))
    if wanted.person is not None:  # who decides about a finding does so after it was made
        latest = [
            select(func.max(table.event_sequence)).where(table.person == wanted.person)
            for table in (Disposition, Approval)
        ]
        either_last = union_all(*latest).subquery()
        spans.append(select(literal(1), func.max(either_last.c[0])))
    if wanted.model is not None:
        digests = find_model_digests(session, wanted.model)
        models = select(ModelVersion.id).where(ModelVersion.digest.in_(digests))
        made = Run.model_version_id.in_(models)
        conditions.append(one_by_one(Run.id == Finding.run_id, made).correlate(Finding))
        runs = select(Run.id).where(made)
        ways.append(_sorted_way(session, finding.where(Finding.run_id.in_(runs))))
        ends = (_last_or_first_event(func.min, digests), _last_or_first_event(func.max, digests))
        spans.append(select(*ends))
    if wanted.run is not None:
        run_id = find_run_id(session, wanted.run)
        first = select(func.min(AuditEvent.sequence)).where(AuditEvent.run_id == run_id).scalar_subquery()
        last = select(func.max(AuditEvent.sequence)).where(AuditEvent.run_id == run_id).scalar_subquery()
        met_again = finding.join(RunImage, RunImage.prediction_id == Finding.prediction_id).where(
            CARRIED_LINE, RunImage.run_id == run_id, RunImage.event_sequence.between(first, last)
        )
        ways.append(_sorted_way(session, finding.where(Finding.run_id == run_id), met_again))
        spans.append(select(literal(1), last))
    if time := time_conditions(Finding.created_at, wanted.since, wanted.until):
        conditions += time
        ways.append(_sorted_way(session, finding.where(*time)))
        # Read from the index alone: clocks can disagree with the order of events.
        ends_at = unordered(Finding.event_sequence)
        spans.append(select(func.min(ends_at), func.max(ends_at)).where(*time))
    return conditions, ways, spans


def _decided_way(session: Session, disposition: Condition, approval: Condition) -> Way:
    """Follow the findings of few dispositions and approvals, each of which is looked at once."""
    decided = select(Disposition.finding_id).where(disposition)
    approved = select(Disposition.finding_id).join(Approval, Approval.disposition_id == Disposition.id)
    found = {
        finding_id
        for statement in (decided, approved.where(approval))
        for finding_id in session.scalars(statement.limit(FEW + 1))
    }
    if len(found) > FEW:
        return _MANY
    by_id = select(Finding.event_sequence).where(Finding.id.in_(found))
    return Way(len(found), (Candidates(by_id, unordered(Finding.event_sequence)),))


def _last_or_first_event(which: Any, digests: Sequence[str]) -> ScalarSelect[Any]:
    """Select the first or last of the models' events: one look-up for each, where both at once read all."""
    each = (select(which(AuditEvent.sequence)).where(AuditEvent.model_digest == d) for d in digests)
    ends = union_all(*each).subquery()
    return select(which(ends.c[0])).scalar_subquery()


def _subject_ways(session: Session, wanted: Subject) -> tuple[list[Way], Spans]:
    """Return the ways to findings on such pictures, and statements for their spans."""
    ways: list[Way] = []
    spans: Spans = []
    finding = select(Finding.event_sequence)
    on_line = finding.join(RunImage, RunImage.prediction_id == Finding.prediction_id)
    if wanted.never_flagged():
        return [_NONE], []
    if wanted.class_name is not None:
        named = finding.where(Finding.class_name == wanted.class_name)
        ways.append(ordered(session, (named, Finding.event_sequence)))
    if wanted.image is not None:
        images = find_image_ids(session, wanted.image)
        pictured = finding.join(Prediction, Prediction.id == Finding.prediction_id)
        ways.append(_sorted_way(session, pictured.where(Prediction.image_id.in_(images))))
    if wanted.part is not None or wanted.lot is not None:
        parts = on_line.join(Part, Part.id == RunImage.part_id).where(*part_conditions(wanted))
        ways.append(_sorted_way(session, parts))
    if wanted.station is not None:
        taken = (RunImage.station == wanted.station, FLAGGED_LINE)
        ways.append(_sorted_way(session, on_line.where(*taken)))
        spans.append(select(literal(1), func.max(RunImage.event_sequence)).where(*taken))
    if wanted.scored:
        ways.append(_sorted_way(session, finding.where(*wanted.score_range(Finding.score))))
    return ways, spans
