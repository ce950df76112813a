"""The audit log: events in a hash chain, each with the digest of the rows it was written with.

Scheme 1. A row's record is its non-NULL columns, each in its one spelling (`columns.encoded`), so that a
column added later leaves old digests unchanged. `rows_digest` is the SHA-256 of the canonical JSON of
`[[table, record], ...]` in the order of the event's `rows`. `hash` is the SHA-256 of the event's own record,
with `previous_hash` and without `hash`. The first event's `previous_hash` is 64 zeros.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.chain.row_text import Record, Row, column_names, insert_rows, spelled_rows
from db.columns import CanonicalText, encoded, flat_json, storable, utc_now, uuid7_texts
from db.errors import RecordError
from db.schema import ACTOR_KINDS, DOMAIN_TABLES, AuditEvent, Base, DomainRow

GENESIS = "0" * 64
SCHEME = 1

# What `encoded` leaves as it is: calling it for these, which are most values, would cost as much as the rest.
_SPELLED = frozenset((str, int, type(None)))

_TABLES = Base.metadata.tables
_EVENTS = _TABLES["audit_event"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a person or a part of the system. `name`: as printed; `role`: in which the person acts."""

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
    """Return the log's present head; that of an empty log is 0 and 64 zeros."""
    row = session.execute(
        select(AuditEvent.sequence, AuditEvent.hash).order_by(AuditEvent.sequence.desc()).limit(1)
    ).first()
    return Head(*row) if row else Head(0, GENESIS)


def record_of(columns: Iterable[str], values: Iterable[Any]) -> Record:
    """Return what is hashed of a row: its columns that are not NULL, each in its one spelling."""
    return {
        column: text
        for column, value in zip(columns, values, strict=True)
        if (text := value if type(value) in _SPELLED else encoded(value)) is not None
    }


def rows_digest(rows: Sequence[tuple[str, Record]]) -> str:
    """Return the SHA-256 (hex) over the records of an event's rows."""
    return hashlib.sha256(flat_json(rows)).hexdigest()


def listed_rows(event: Record) -> list[tuple[str, str]]:
    """Return the table and identifier of each row that an event lists.

    Raises:
        KeyError, TypeError, ValueError: the list was damaged.
    """
    return [(str(table), str(identifier)) for table, identifier in json.loads(str(event["rows"]))]


def event_hash(record: Mapping[str, str | int]) -> str:
    """Return the SHA-256 (hex) over an event's record, its own hash left out."""
    return hashlib.sha256(flat_json({k: v for k, v in record.items() if k != "hash"})).hexdigest()


class NewRow(NamedTuple):
    """A domain row to record, given by its columns; identifiers may be 32 hex digits.

    A batch has thousands. An instance of a mapped class for each would take longer than all the hashing.
    """

    table: str
    values: dict[str, Any]


class Entry(NamedTuple):
    """One of many events that are added together, and the rows that are written with it."""

    rows: Sequence[NewRow]
    action: str
    entity: str
    entity_id: str
    payload: Mapping[str, Any]
    image_digest: str | None = None
    artifact_digests: Sequence[str] = ()


class Recorder:
    """Writes rows and their events inside one transaction that holds the chain lock (`Database.write`).

    What is added is sent at the end of the transaction, or by `flush`, a table at a time.
    """

    def __init__(self, session: Session, software_version: str) -> None:
        self.session = session
        self._software_version = software_version
        self._head = head(session)
        self._rows: dict[str, list[Row]] = {}

    @property
    def head(self) -> Head:
        """The head of the log, events added but not yet sent included."""
        return self._head

    def add(
        self,
        rows: Sequence[DomainRow | NewRow],
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
        """Append one event that speaks for exactly these rows; return the new head.

        `old`, `new`, `reason`: for a change made by a person, what it replaces, by what, and why.
        """
        given = {
            "action": action,
            "entity": entity,
            "entity_id": entity_id.hex if isinstance(entity_id, UUID) else entity_id,
            "payload": dict(payload or {}),
            "image_digest": image_digest,
            "artifact_digests": list(artifact_digests),
        }
        common = _common_columns(actor, run_id, model_digest, settings_digest) | {
            "old_value": None if old is None else dict(old),
            "new_value": None if new is None else dict(new),
            "reason": None if reason is None else storable(reason),
        }
        return self._append_events([[_new_row(row) for row in rows]], [given], common)

    def add_all(
        self,
        entries: Sequence[Entry],
        *,
        actor: Actor,
        run_id: UUID | None = None,
        model_digest: str | None = None,
        settings_digest: str | None = None,
    ) -> Head:
        """Append events in order, which share their time and what is given here; return the new head."""
        given = [entry._asdict() for entry in entries]
        common = _common_columns(actor, run_id, model_digest, settings_digest)
        return self._append_events([entry.rows for entry in entries], given, common)

    def _append_events(
        self, rows: Sequence[Sequence[NewRow]], given: list[dict[str, Any]], common: dict[str, Any]
    ) -> Head:
        of_table: dict[str, list[dict[str, Any]]] = {}
        for sequence, some in enumerate(rows, self._head.sequence + 1):
            for table, values in some:
                values["event_sequence"] = sequence
                of_table.setdefault(table, []).append(values)
        spelled = {name: spelled_rows(_TABLES[name], values) for name, values in of_table.items()}
        records = {name: iter(found) for name, (found, _) in spelled.items()}

        sequences = enumerate(uuid7_texts(len(given)), self._head.sequence + 1)
        for event, some in zip(given, rows, strict=True):
            covered = [(table, next(records[table])) for table, _ in some]
            event["sequence"], event["id"] = next(sequences)
            # Joined as text because table names and identifiers need no escapes in JSON.
            listed = ",".join(['["' + name + '","' + str(row["id"]) + '"]' for name, row in covered])
            event["rows"] = CanonicalText(f"[{listed}]")
            event["rows_digest"] = rows_digest(covered)
        # Placeholders for the hashes: each event's own follows from the one before, below.
        common |= {"at": utc_now(), "software_version": self._software_version, "scheme": SCHEME}
        common |= {"previous_hash": GENESIS, "hash": GENESIS}
        events, tuples = spelled_rows(_EVENTS, given, common)
        own, previous = (column_names(_EVENTS).index(name) for name in ("hash", "previous_hash"))
        last, chained = self._head.hash, []
        for record, stored in zip(events, tuples, strict=True):
            line = list(stored)
            line[previous] = record["previous_hash"] = last
            line[own] = last = event_hash(record)
            chained.append(tuple(line))
        for name, (_, added) in spelled.items():
            self._rows.setdefault(name, []).extend(added)
        self._rows.setdefault(_EVENTS.name, []).extend(chained)
        self._head = Head(self._head.sequence + len(given), last)
        return self._head

    def flush(self) -> None:
        """Send what was added: events first, then the rows, referenced tables before referring ones."""
        for table in (_EVENTS, *DOMAIN_TABLES):
            if rows := self._rows.get(table.name):
                insert_rows(self.session, table, rows)
        self._rows = {}


def _new_row(row: DomainRow | NewRow) -> NewRow:
    return row if isinstance(row, NewRow) else NewRow(row.__tablename__, row.__dict__)


def _common_columns(
    actor: Actor, run_id: UUID | None, model_digest: str | None, settings_digest: str | None
) -> dict[str, Any]:
    return {
        "actor_id": actor.id,
        "actor_kind": actor.kind,
        "actor_name": actor.name,
        "actor_role": actor.role,
        "run_id": run_id,
        "model_digest": model_digest,
        "settings_digest": settings_digest,
    }
