"""Walking the log: events in order, and with each window of them the rows that name them.

Everything is read as it is stored, past the column types, and in windows: memory does not grow with the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, or_, true
from sqlalchemy.orm import Session

from db.chain.events import GENESIS, SCHEME, Head, event_hash, listed_rows, rows_digest
from db.chain.redactions import recorded_redactions
from db.chain.row_text import Record
from db.chain.stored_rows import fetch_records, raw_rows
from db.schema import DOMAIN_TABLES, Base

_EVENTS = Base.metadata.tables["audit_event"]
# Events looked at together, with their rows: more take more memory, fewer more statements.
_WINDOW = 2_000
_MOST_PROBLEMS = 100
_START = Head(0, GENESIS)


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken place; `sequence` is the event concerned, where there is one.

    `kind`: gap, link, event, row, uncovered, run, signature, report, head, checkpoint, guard,
    artifact or unreadable.
    """

    kind: str
    where: str
    message: str
    sequence: int | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class LogWalk:
    """A walk over a session's snapshot of the log: where it has come to, and what is broken up to there."""

    def __init__(self, session: Session, start: Head = _START) -> None:
        self.session = session
        self.problems: list[Problem] = []
        self.truncated = False
        self.events = self.rows = 0
        self.redactions = recorded_redactions(session)
        self.go_on_from(start)

    def go_on_from(self, head: Head) -> None:
        """Go on after an event up to which everything was verified already."""
        self.head = head
        # From the very beginning also rows of an event 0 or below, which no log has, are looked at.
        self._above = head.sequence or None

    def report(self, kind: str, where: str, message: str, sequence: int | None = None) -> None:
        """Note a broken place; after the first 100, only that there are more."""
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(Problem(kind, where, message, sequence))
        else:
            self.truncated = True

    def window(self, last: int | None = None) -> bool:
        """Look at each value of the next events, up to event `last`, and of the rows that name them.

        Returns:
            Whether there was an event to look at.
        """
        events = self._records(_EVENTS, _EVENTS.c.sequence, last, _WINDOW)
        if not events:
            return False
        upto = int(events[-1]["sequence"])
        found = {
            (table.name, str(record["id"])): record
            for table in DOMAIN_TABLES
            for record in self._records(table, table.c.event_sequence, upto)
        }
        for event in events:
            self._check_event(event)
            self._check_rows(event, found)
        self._report_uncovered(found)
        self.events += len(events)
        self._above = upto
        return True

    def rows_beyond(self) -> None:
        """Report rows that name an event after the last one, or none."""
        for table in DOMAIN_TABLES:
            key = table.c.event_sequence
            beyond = or_(key.is_(None), true() if self._above is None else key > self._above)
            records = fetch_records(
                self.session, raw_rows(self.session, table).where(beyond).limit(_MOST_PROBLEMS)
            )
            self._report_uncovered({(table.name, str(record.get("id"))): record for record in records})

    def _records(
        self, table: Table, key: ColumnElement[int], upto: int | None, limit: int | None = None
    ) -> list[Record]:
        statement: Select[Any] = raw_rows(self.session, table)
        if self._above is not None:
            statement = statement.where(key > self._above)
        if upto is not None:
            statement = statement.where(key <= upto)
        if limit is not None:
            statement = statement.order_by(key).limit(limit)
        return fetch_records(self.session, statement)

    def _check_event(self, event: Record) -> None:
        sequence = int(event["sequence"])
        where, wanted = f"event {sequence}", self.head.sequence + 1
        if sequence < wanted:
            self.report("event", where, "does not belong: the log begins with event 1", sequence)
            return
        if sequence != wanted:
            gone = f"event {wanted}" if sequence == wanted + 1 else f"events {wanted} to {sequence - 1}"
            self.report("gap", gone, f"missing: event {sequence} follows event {wanted - 1}", wanted)
        elif event.get("previous_hash") != self.head.hash:
            before = f"event {wanted - 1}" if wanted > 1 else "the beginning"
            self.report("link", where, f"does not continue {before}: one of the two was replaced", sequence)
        if event.get("scheme") != SCHEME:
            self.report("event", where, f"follows scheme {event.get('scheme')}, not {SCHEME}", sequence)
        elif event_hash(event) != event.get("hash"):
            self.report("event", where, "was changed: its hash is not that of its contents", sequence)
        self.head = Head(sequence, str(event.get("hash")))

    def _check_rows(self, event: Record, found: dict[tuple[str, str], Record]) -> None:
        sequence = int(event["sequence"])
        records: list[tuple[str, Record]] = []
        complete = True
        for table, identifier in _listed_rows(event):
            record = found.get((table, identifier))
            if record is None or record.get("event_sequence") != sequence:
                complete = False
                message = f"{table} row {identifier}, which it speaks for, is missing"
                self.report("row", f"event {sequence}", message, sequence)
            else:
                del found[table, identifier]
                records.append((table, record))
        self.rows += len(records)
        redaction, wanted, since = self.redactions.get(sequence), event.get("rows_digest"), ""
        if redaction is not None and [(t, r["id"]) for t, r in records] == [("run", redaction.row)]:
            wanted, since = redaction.rows_digest, f" since event {redaction.sequence} redacted them"
        if complete and rows_digest(records) != wanted:
            names = ", ".join(f"{table} {record['id']}" for table, record in records) or "none listed"
            message = f"the rows it speaks for were changed{since} ({event.get('action')}; rows: {names})"
            self.report("row", f"event {sequence}", message, sequence)

    def _report_uncovered(self, left: dict[tuple[str, str], Record]) -> None:
        for (table, identifier), record in left.items():
            message = f"no event speaks for it (it names event {record.get('event_sequence')})"
            self.report("uncovered", f"{table} row {identifier}", message)


def _listed_rows(event: Record) -> list[tuple[str, str]]:
    """Return the rows an event lists; none where that text is damaged, which the event's hash has shown."""
    try:
        return listed_rows(event)
    except (KeyError, TypeError, ValueError):
        return []
