"""The audit log: events in a hash chain, each with the digest of the rows it was written with.

Scheme 1. A row's record is its non-NULL columns, each in its one spelling (`columns.encoded`), so that a
column added later leaves old digests alone. `rows_digest` is the SHA-256 of the canonical JSON of
`[[table, record], ...]` in the order of the event's `rows`; `hash` that of the event's own record without
`hash`, `previous_hash` included. The first event follows 64 zeros.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Table, insert, select
from sqlalchemy.orm import Session

from db.columns import CanonicalText, encoded, flat_json, normaliser, storable, utc_now, uuid7
from db.errors import RecordError
from db.schema import ACTOR_KINDS, DOMAIN_TABLES, AuditEvent, Base, DomainRow

GENESIS = "0" * 64
SCHEME = 1

Record = dict[str, str | int]

_EVENTS = Base.metadata.tables["audit_event"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a person or a part of the system. `name`: as printed; `role`: what the person acts as."""

    id: str
    kind: Literal["system", "human"] = "system"
    name: str | None = None
    role: str | None = None

    def __post_init__(self) -> None:
        if not self.id or self.kind not in ACTOR_KINDS:
            raise RecordError(f"actor {self.id!r} of kind {self.kind!r}: give a name and system or human")


@dataclass(frozen=True, slots=True)
class Head:
    """The last event of the log: its sequence number and hash."""

    sequence: int
    hash: str


def head(session: Session) -> Head:
    """Give the log's present head; of an empty log, 0 and 64 zeros."""
    row = session.execute(
        select(AuditEvent.sequence, AuditEvent.hash).order_by(AuditEvent.sequence.desc()).limit(1)
    ).first()
    return Head(*row) if row else Head(0, GENESIS)


def record_of(columns: Iterable[str], values: Iterable[Any]) -> Record:
    """Give what is hashed of a row: its columns that are not NULL, in their one spelling."""
    return {
        column: text
        for column, value in zip(columns, values, strict=True)
        if (text := encoded(value)) is not None
    }


def rows_digest(rows: Sequence[tuple[str, Record]]) -> str:
    """Give the SHA-256 (hex) over the records of an event's rows."""
    return hashlib.sha256(flat_json(rows)).hexdigest()


def event_hash(record: Mapping[str, str | int]) -> str:
    """Give the SHA-256 (hex) over an event's record, its own hash left out."""
    return hashlib.sha256(flat_json({k: v for k, v in record.items() if k != "hash"})).hexdigest()


@cache
def _normalisers(table: Table) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    return tuple((column.name, normaliser(column.type)) for column in table.columns)


def _values(table: Table, given: Callable[[str], Any]) -> dict[str, Any]:
    """Give a row as the database will give it back; RecordError names the column that it would not take."""
    values = {}
    for column, normalise in _normalisers(table):
        value = given(column)
        try:
            values[column] = None if value is None else normalise(value)
        except (RecordError, TypeError, ValueError, OverflowError) as error:
            raise RecordError(f"{table.name}.{column}: {error}") from error
    return values


class Recorder:
    """Writes rows and their events inside one transaction that holds the chain lock (`Database.write`).

    What is added is sent at the end, or by `flush`: each table in one executemany.
    """

    def __init__(self, session: Session, software_version: str) -> None:
        self.session = session
        self._software_version = software_version
        self._head = head(session)
        self._events: list[dict[str, Any]] = []
        self._rows: dict[str, list[dict[str, Any]]] = {}

    @property
    def head(self) -> Head:
        """The head of the log, events added but not yet sent included."""
        return self._head

    def add(
        self,
        rows: Sequence[DomainRow],
        *,
        action: str,
        actor: Actor,
        entity: str,
        entity_id: str | UUID,
        run_id: UUID | None = None,
        payload: Mapping[str, Any] | None = None,
        model_digest: str | None = None,
        settings_digest: str | None = None,
        image_digest: str | None = None,
        artifact_digests: Sequence[str] = (),
        old: Mapping[str, Any] | None = None,
        new: Mapping[str, Any] | None = None,
        reason: str | None = None,
    ) -> Head:
        """Append one event that speaks for exactly these rows; gives the new head.

        `old`, `new`, `reason`: for a change made by a person, what it replaces, by what, and why.
        """
        sequence = self._head.sequence + 1
        listed: list[list[str]] = []
        records: list[tuple[str, Record]] = []
        prepared: list[tuple[str, dict[str, Any]]] = []
        for row in rows:
            row.event_sequence = sequence
            name = row.__tablename__
            values = _values(Base.metadata.tables[name], partial(getattr, row))
            listed.append([name, row.id.hex])
            records.append((name, record_of(values, values.values())))
            prepared.append((name, values))
        given = {
            "sequence": sequence,
            "id": uuid7(),
            "at": utc_now(),
            "actor_id": actor.id,
            "actor_kind": actor.kind,
            "actor_name": actor.name,
            "actor_role": actor.role,
            "action": action,
            "entity": entity,
            "entity_id": entity_id.hex if isinstance(entity_id, UUID) else entity_id,
            "run_id": run_id,
            "payload": dict(payload or {}),
            "old_value": None if old is None else dict(old),
            "new_value": None if new is None else dict(new),
            "reason": None if reason is None else storable(reason),
            "software_version": self._software_version,
            "model_digest": model_digest,
            "settings_digest": settings_digest,
            "image_digest": image_digest,
            "artifact_digests": list(artifact_digests),
            "rows": CanonicalText(flat_json(listed).decode()),
            "rows_digest": rows_digest(records),
            "previous_hash": self._head.hash,
            "scheme": SCHEME,
        }
        event = _values(_EVENTS, given.get)
        event["hash"] = event_hash(record_of(event, event.values()))
        for name, values in prepared:
            self._rows.setdefault(name, []).append(values)
        self._events.append(event)
        self._head = Head(sequence, event["hash"])
        return self._head

    def flush(self) -> None:
        """Send what was added: events first, then the rows, referenced tables before referring ones."""
        if not self._events:
            return
        self.session.execute(insert(_EVENTS), self._events)
        for table in DOMAIN_TABLES:
            if values := self._rows.get(table.name):
                self.session.execute(insert(table), values)
        self._events = []
        self._rows = {}
