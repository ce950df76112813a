"""Questions about the audit log itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, or_, select
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
from db.inspection.known_names import require_known
from db.inspection.runs import find_run_id
from db.queries.filters import (
    FLAGGED_LINE,
    Lines,
    RecordFilter,
    event_ways,
    find_model_digests,
    time_conditions,
)
from db.schema import Approval, AuditEvent, Disposition, RunImage

_SORTED = 20_000  # events of a time that are sorted at most: the index alone gives them


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One audit event; `rows` are the (table, id) it speaks for, ids as 32 hex digits."""

    sequence: int
    id: UUID
    at: datetime
    actor_id: str
    actor_kind: str
    actor_name: str | None
    actor_role: str | None
    action: str
    entity: str
    entity_id: str
    run_id: UUID | None
    payload: Mapping[str, Any]
    old_value: Mapping[str, Any] | None
    new_value: Mapping[str, Any] | None
    reason: str | None
    software_version: str
    model_digest: str | None
    settings_digest: str | None
    image_digest: str | None
    artifact_digests: tuple[str, ...]
    rows: tuple[tuple[str, str], ...]
    rows_digest: str
    previous_hash: str
    hash: str
    scheme: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter(RecordFilter):
    """Which events: every field given must match.

    The subject's fields select what was recorded or decided about such pictures and findings, and the ends of
    runs that missed such a picture. `actor`: who
    caused the event; `person`: the same, or who signed a disposition or approval recorded with it. `reason`:
    a piece of the event's reason or of the reason why a picture is unreadable, whatever the case.
    """

    actor: str | None = None
    action: str | None = None

    def require_known(self, session: Session) -> None:
        """Raise RecordError where it asks for a name that no record has, the actor's included.

        An action may not have happened yet: any may be asked for.
        """
        RecordFilter.require_known(self, session)
        require_known(session, people=(self.actor,))


def find_events(
    session: Session, wanted: EventFilter, *, limit: int = 100, before: int | None = None
) -> list[EventRecord]:
    """Return events that match, newest first. `before`: the sequence of the last event of the page before.

    RecordError for a model, image or run there is none of, and for scores and verdicts that cannot be.
    """
    lines = Lines.of(session, wanted, also_missed=True)
    conditions, ways = _event_filters(session, wanted)
    if lines:
        conditions.append(lines.of_event(AuditEvent.sequence))
        ways += event_ways(session, wanted, lines)
    span = None
    if time := time_conditions(AuditEvent.at, wanted.since, wanted.until):
        conditions += time
        ways.append(_time_way(session, time))
        span = partial(_event_span, session, wanted)

    def check(window: Sequence[int], most: int) -> Sequence[AuditEvent]:
        those = AuditEvent.sequence.in_(window)
        statement = select(AuditEvent).where(those, *conditions).order_by(AuditEvent.sequence.desc())
        return session.scalars(statement.limit(most)).all()

    everything = Candidates(select(AuditEvent.sequence), AuditEvent.sequence)
    top = NEWEST if before is None else before - 1
    rows = walk(session, best(ways, everything), check, top=top, limit=limit, span=span)
    return [_event_record(row) for row in rows]


def _event_filters(session: Session, wanted: EventFilter) -> tuple[list[ColumnElement[bool]], list[Way]]:
    """Return the conditions on events themselves, and the ways to them, the more selective ones first."""
    conditions: list[ColumnElement[bool]] = []
    ways: list[Way] = []
    event = select(AuditEvent.sequence)
    if wanted.reason is not None:
        given = any_case(AuditEvent.reason, wanted.reason)
        unread = (RunImage.verdict == "unreadable", FLAGGED_LINE, any_case(RunImage.reason, wanted.reason))
        conditions.append(or_(given, one_by_one(RunImage.event_sequence == AuditEvent.sequence, *unread)))
        reasoned = Candidates(event.where(AuditEvent.reason.is_not(None), given), AuditEvent.sequence)
        unreadable = Candidates(select(RunImage.event_sequence).where(*unread), RunImage.event_sequence)
        ways.append(Way(FEW + 1, (reasoned, unreadable)))  # not counted: that would look for it twice
    if wanted.person is not None:
        by_event = AuditEvent.actor_id == wanted.person
        pairs: list[tuple[Select[Any], Any]] = [(event.where(by_event), AuditEvent.sequence)]
        alternatives = [by_event]
        for table in (Disposition, Approval):
            by_row = table.person == wanted.person
            pairs.append((select(table.event_sequence).where(by_row), table.event_sequence))
            alternatives.append(one_by_one(table.event_sequence == AuditEvent.sequence, by_row))
        conditions.append(or_(*alternatives))
        ways.append(ordered(session, *pairs))
    keys: list[tuple[Any, Sequence[Any]]] = []
    if wanted.run is not None:
        keys.append((AuditEvent.run_id, [find_run_id(session, wanted.run)]))
    if wanted.action is not None:
        keys.append((AuditEvent.action, [wanted.action]))
    if wanted.actor is not None:
        keys.append((AuditEvent.actor_id, [wanted.actor]))
    if wanted.model is not None:
        keys.append((AuditEvent.model_digest, find_model_digests(session, wanted.model)))
    for column, values in keys:
        conditions.append(column.in_(values))
        # One statement for each value: in each of them the index has the order.
        ways.append(ordered(session, *((event.where(column == v), AuditEvent.sequence) for v in values)))
    return conditions, ways


def _time_way(session: Session, time: Sequence[ColumnElement[bool]]) -> Way:
    """Return a way through a time: few events are sorted; among many the next match is never far."""
    within = select(AuditEvent.sequence).where(*time)
    size = count_upto(session, within, _SORTED)
    if size <= _SORTED:
        return Way(size, (Candidates(within, unordered(AuditEvent.sequence)),))
    return Way(size, (Candidates(select(AuditEvent.sequence), AuditEvent.sequence),))


def _event_span(session: Session, wanted: EventFilter) -> tuple[int, int]:
    # All of the range is read, from the index alone: clocks can disagree with the order of events.
    time = time_conditions(AuditEvent.at, wanted.since, wanted.until)
    sequence = unordered(AuditEvent.sequence)
    lowest = None if wanted.since is None else session.scalar(select(func.min(sequence)).where(*time))
    if wanted.until is None:
        return lowest or 1, NEWEST
    return lowest or 1, session.scalar(select(func.max(sequence)).where(*time)) or 0


def get_event(session: Session, which: int | UUID | str) -> EventRecord:
    """Return the event of a sequence number or id (either may be text); RecordError if there is none."""
    key = which
    if isinstance(key, str):
        try:
            key = int(key) if key.strip().isdecimal() and len(key) < 19 else UUID(key)
        except ValueError:
            raise RecordError(f"{which!r} is neither an event's number nor its id") from None
    condition = AuditEvent.id == key if isinstance(key, UUID) else AuditEvent.sequence == key
    row = session.scalar(select(AuditEvent).where(condition))
    if row is None:
        raise RecordError(f"there is no audit event {which}")
    return _event_record(row)


def _event_record(row: AuditEvent) -> EventRecord:
    values = {field.name: getattr(row, field.name) for field in fields(EventRecord)}
    values["artifact_digests"] = tuple(row.artifact_digests)
    values["rows"] = tuple((table, identifier) for table, identifier in row.rows)
    return EventRecord(**values)
