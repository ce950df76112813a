"""Questions about the audit log itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, union
from sqlalchemy.orm import Session

from db.errors import RecordError
from db.queries import find_model_digests, find_run_id, picture_conditions
from db.schema import AuditEvent, Disposition, Finding, RunImage


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
class EventFilter:
    """Which events: every field given must match. `model`: digest, its first 6 digits or more, or name.

    Part, lot, station and class select what was recorded or decided about such pictures and findings.
    `run`: id, number or R000012. `since` inclusive, `until` exclusive, both aware.
    """

    part: str | None = None
    lot: str | None = None
    station: str | None = None
    class_name: str | None = None
    model: str | None = None
    actor: str | None = None
    action: str | None = None
    run: UUID | int | str | None = None
    since: datetime | None = None
    until: datetime | None = None


def find_events(
    session: Session, wanted: EventFilter, *, limit: int = 100, before: int | None = None
) -> list[EventRecord]:
    """Give events that match, newest first. `before`: the sequence of the last event of the page before.

    RecordError for a model or run there is none of.
    """
    statement = select(AuditEvent)
    conditions = picture_conditions(RunImage, wanted.part, wanted.lot, wanted.station)
    if wanted.class_name is not None:
        flagged = select(Finding.prediction_id).where(Finding.class_name == wanted.class_name)
        conditions.append(RunImage.prediction_id.in_(flagged))
    if conditions:
        pictures = select(RunImage.event_sequence).where(*conditions)
        decided = (
            select(Disposition.event_sequence)
            .join(Finding, Finding.id == Disposition.finding_id)
            .join(RunImage, RunImage.prediction_id == Finding.prediction_id)
            .where(*conditions)
        )
        if wanted.class_name is not None:
            decided = decided.where(Finding.class_name == wanted.class_name)
        statement = statement.where(AuditEvent.sequence.in_(union(pictures, decided)))
    if wanted.model is not None:
        statement = statement.where(AuditEvent.model_digest.in_(find_model_digests(session, wanted.model)))
    if wanted.actor is not None:
        statement = statement.where(AuditEvent.actor_id == wanted.actor)
    if wanted.action is not None:
        statement = statement.where(AuditEvent.action == wanted.action)
    if wanted.run is not None:
        statement = statement.where(AuditEvent.run_id == find_run_id(session, wanted.run))
    if wanted.since is not None:
        statement = statement.where(AuditEvent.at >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(AuditEvent.at < wanted.until)
    if before is not None:
        statement = statement.where(AuditEvent.sequence < before)
    rows = session.scalars(statement.order_by(AuditEvent.sequence.desc()).limit(limit))
    return [_record(row) for row in rows]


def get_event(session: Session, which: int | UUID | str) -> EventRecord:
    """Give the event of a sequence number or id (either may be text); RecordError if there is none."""
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
    return _record(row)


def _record(row: AuditEvent) -> EventRecord:
    return EventRecord(
        sequence=row.sequence,
        id=row.id,
        at=row.at,
        actor_id=row.actor_id,
        actor_kind=row.actor_kind,
        actor_name=row.actor_name,
        actor_role=row.actor_role,
        action=row.action,
        entity=row.entity,
        entity_id=row.entity_id,
        run_id=row.run_id,
        payload=row.payload,
        old_value=row.old_value,
        new_value=row.new_value,
        reason=row.reason,
        software_version=row.software_version,
        model_digest=row.model_digest,
        settings_digest=row.settings_digest,
        image_digest=row.image_digest,
        artifact_digests=tuple(row.artifact_digests),
        rows=tuple((table, identifier) for table, identifier in row.rows),
        rows_digest=row.rows_digest,
        previous_hash=row.previous_hash,
        hash=row.hash,
        scheme=row.scheme,
    )
