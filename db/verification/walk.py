"""Walking the audit trail: is it whole, and do the tables still say what it speaks for?

Everything is read as it is stored, past the column types, and in windows: memory does not grow with the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, Table, func, or_, select, true
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from db import grants, guards
from db.artifacts import ArtifactStore
from db.chain.events import GENESIS, SCHEME, Head, event_hash, listed_rows, rows_digest
from db.chain.row_text import Record
from db.chain.stored_rows import fetch_records, raw_rows
from db.dispositions.signatures import check_signatures
from db.engine import Database
from db.errors import RecordError
from db.inspection.runs import run_counts, run_reference
from db.issued.sign_offs import check_sign_offs
from db.lookup import pages
from db.retention.inventory import check_artifacts
from db.schema import DOMAIN_TABLES, AuditEvent, Base, Report, Run, RunEnd
from db.transparency.merkle import Frontier
from db.transparency.signed_notes import CheckpointNote
from db.verification import sound_windows
from db.verification.processes import sound_stretches
from db.verification.sound_windows import FastWalk, Sound
from db.verification.witness import ReportFile, Witness, attest, check_report, conclusion, trusted_start

_EVENTS = Base.metadata.tables["audit_event"]
_WINDOW = 500  # events looked at together, with their rows
_MOST_PROBLEMS = 100


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


@dataclass(frozen=True, slots=True)
class Verification:
    """What was walked and what is broken, in order. `truncated`: there is more than is listed.

    `remarks`: sentences about what is no failure but should be known; with checkpoints, what they prove.
    """

    ok: bool
    events: int
    rows: int
    artifacts: int
    head: Head | None
    problems: tuple[Problem, ...]
    truncated: bool
    remarks: tuple[str, ...] = ()


def verify(
    db: Database,
    *,
    artifacts: ArtifactStore | None = None,
    expected: Sequence[Head] = (),
    witness: Witness | None = None,
    reports: Sequence[ReportFile] = (),
    incremental: bool = False,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Walk the whole audit trail of one snapshot; what is broken is reported, not raised.

    Checks that sequence numbers have no gap, links and hashes hold, each event's rows are there unchanged,
    and no row lies outside of an event; then that finished runs add up, signatures hold, the heads that
    reports carry (and `expected` ones, from elsewhere) are in the log, the append-only guards stand, and,
    given the store, that every artefact is there unchanged, or was pruned on record. RecordError only where
    there is no database that can be opened.
    `witness`: checkpoints from outside, held against the log as well; `reports`: PDF files that somebody
    has; `incremental`: trust history up to the newest checkpoint that fits, and walk what came after it.
    `jobs`: processes that look at a long log together. `progress` is told events walked and events in all.
    """
    if incremental and witness is None:
        raise RecordError(
            "an incremental verification starts at a checkpoint: say where checkpoints are kept"
        )
    with db.session() as session, _damaged_text_allowed(db, session):
        walk = _Walk(session, progress)
        try:
            start = trusted_start(session, witness) if incremental and witness else None
            if start is not None:
                walk.start, walk.head = start[0].tree_size, Head(start[0].tree_size, start[0].head_hash)
                walk.remarks.append(
                    f"incremental: events 1 to {start[0].tree_size} and their rows were not looked at again"
                )
            elif incremental:
                walk.remarks.append("incremental: no checkpoint fits the log, so everything was looked at")
            walk.ahead(db, jobs)
            walk.chain()
            # What is not what was recorded cannot be expected to add up as well.
            if not walk.problems:
                walk.finished_runs()
                for where, message in chain(check_signatures(session), check_sign_offs(session)):
                    walk.report("signature", where, message)
            with walk.unreadable("the heads that reports print"):
                walk.heads(expected)
            with walk.unreadable("the checkpoints"):
                walk.outside(witness, reports, start)
            for name in guards.missing(session.connection()):
                walk.report(
                    "guard", f"guard {name}", "the trigger that keeps history append-only is not in place"
                )
            if (right := grants.excess_rights(session.connection())) is not None:
                walk.remarks.append(f"{right}: `kensa db grants` sets up an account that cannot")
            if artifacts is not None:
                with walk.unreadable("the artefacts"):
                    walk.artifacts(db, artifacts)
        except DBAPIError as error:
            walk.report("unreadable", f"after event {walk.head.sequence}", f"the database says: {error.orig}")
        return Verification(
            ok=not walk.problems,
            events=walk.events,
            rows=walk.rows,
            artifacts=walk.artifacts_read,
            head=walk.head if walk.head.sequence else None,
            problems=tuple(walk.problems),
            truncated=walk.truncated,
            remarks=tuple(walk.remarks),
        )


@contextmanager
def _damaged_text_allowed(db: Database, session: Session) -> Iterator[None]:
    """Let SQLite give text that a changed byte made invalid, so that it can be reported and not only fail."""
    raw: Any = session.connection().connection.driver_connection
    if not db.sqlite:
        yield
        return
    raw.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        raw.text_factory = str


class _Walk:
    def __init__(self, session: Session, progress: Callable[[int, int], None] | None) -> None:
        self.session = session
        self.problems: list[Problem] = []
        self.remarks: list[str] = []
        self.truncated = False
        self.events = self.rows = self.artifacts_read = 0
        self.start = 0
        self.head = Head(0, GENESIS)
        self._progress = progress

    def report(self, kind: str, where: str, message: str, sequence: int | None = None) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(Problem(kind, where, message, sequence))
        else:
            self.truncated = True

    @contextmanager
    def unreadable(self, what: str) -> Iterator[None]:
        """Report a stored value that is damaged so that its column's type cannot hold it."""
        try:
            yield
        except RecordError:  # a ValueError too, and about what was asked for rather than what is stored
            raise
        except (ValueError, TypeError) as error:
            self.report("unreadable", what, f"hold a value that cannot be read: {error}")

    def outside(
        self,
        witness: Witness | None,
        reports: Sequence[ReportFile],
        start: tuple[CheckpointNote, Frontier] | None,
    ) -> None:
        """Hold the log against checkpoints and reports from elsewhere."""
        if witness is None:
            self.remarks.append(
                "not proved: that the log's end was not cut off, nor all of it replaced; that takes "
                "signed checkpoints from outside the database (--checkpoints) or printed heads (--head)"
            )
        else:
            found = attest(self.session, witness, self.report, start=start[1] if start else None)
            if start is not None and found.upto is None:
                found.upto = start[0]
            self.remarks += [*found.remarks, conclusion(found, self.head)]
        for file in reports:
            told = check_report(self.session, file, witness.trusted if witness else (), self.report)
            self.remarks += [told] if told else []

    def ahead(self, db: Database, jobs: int) -> None:
        """Have other processes look at a long log; ends where it takes a closer look, or little is left."""
        last = self.session.scalar(select(func.max(_EVENTS.c.sequence))) or 0
        for found in sound_stretches(db, self.session, self.head, last, jobs):
            self._sound(found)

    def chain(self) -> None:
        """Walk events in order, and with each window of them the rows that name them."""
        # Without a start even a row of event 0 or below, which no log has, is looked at.
        above: int | None = self.head.sequence or None
        with FastWalk(self.session) as fast:
            closely = 0  # windows to be looked at closely before the next is taken at a run
            while True:
                settled = not closely and self.head.sequence == (above or 0)
                if settled and (found := fast.window(self.head)) is not None:
                    above = self._sound(found)
                    continue
                fast.pause()
                reached = self._closely(above)
                if reached is None:
                    break
                above, closely = reached, (closely or sound_windows.WINDOW // _WINDOW) - 1
                self._tell()
        for table in DOMAIN_TABLES:
            key = table.c.event_sequence
            beyond = or_(key.is_(None), true() if above is None else key > above)
            records = fetch_records(
                self.session, raw_rows(self.session, table).where(beyond).limit(_MOST_PROBLEMS)
            )
            self._uncovered({(table.name, str(record.get("id"))): record for record in records})

    def _sound(self, found: Sound) -> int:
        """Take over what was found to be sound; gives its last event."""
        self.head = found.head
        self.events += found.events
        self.rows += found.rows
        self._tell()
        return found.head.sequence

    def _tell(self) -> None:
        if self._progress:
            self._progress(self.events, self._total)

    @cached_property
    def _total(self) -> int:
        later = _EVENTS.c.sequence > self.start if self.start else true()
        return self.session.scalar(select(func.count()).select_from(_EVENTS).where(later)) or 0

    def _closely(self, above: int | None) -> int | None:
        """Look at each value of a window of events and of the rows that name them; gives its last event."""
        events = self._raw(_EVENTS, _EVENTS.c.sequence, above, None)
        if not events:
            return None
        upto = int(events[-1]["sequence"])
        found = {
            (table.name, str(record["id"])): record
            for table in DOMAIN_TABLES
            for record in self._raw(table, table.c.event_sequence, above, upto)
        }
        for event in events:
            self._event(event)
            self._rows_of(event, found)
        self._uncovered(found)
        self.events += len(events)
        return upto

    def finished_runs(self) -> None:
        """Check that the counts each run that ended since the start ended with are those of its rows."""
        statement = (
            select(Run.number, RunEnd)
            .join(RunEnd, RunEnd.run_id == Run.id)
            .where(RunEnd.event_sequence > self.start)
        )
        for number, end in chain.from_iterable(pages(self.session, statement, Run.number)):
            counted = run_counts(self.session, end.run_id, len(end.missing)).as_dict()
            if counted != end.counts:
                differing = [name for name, count in counted.items() if end.counts.get(name) != count]
                told = ", ".join(f"{name} {end.counts.get(name)} for {counted[name]}" for name in differing)
                self.report(
                    "run", f"run {run_reference(number)}", f"its counts are not those of its rows: {told}"
                )

    def heads(self, expected: Sequence[Head]) -> None:
        """Check that heads printed in reports, or kept elsewhere, are in the log."""
        columns = (Report.head_sequence, Report.head_hash, Report.revision, Report.number, Run.number)
        statement = select(Report.id, *columns).outerjoin(Run, Run.id == Report.run_id)
        for _, sequence, digest, revision, number, run in chain.from_iterable(
            pages(self.session, statement, Report.id)
        ):
            name = number or (run_reference(run) if run is not None else "without a number")
            self._head(Head(sequence, digest), "report", f"report {name} revision {revision}")
        for head in expected:
            self._head(head, "head", f"head {head.sequence}")

    def artifacts(self, db: Database, store: ArtifactStore) -> None:
        """Check each artefact's bytes in the store, and what else is there."""
        self.artifacts_read, remarks = check_artifacts(db, self.session, store, self.report)
        self.remarks += remarks

    def _event(self, event: Record) -> None:
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

    def _rows_of(self, event: Record, found: dict[tuple[str, str], Record]) -> None:
        sequence = int(event["sequence"])
        records: list[tuple[str, Record]] = []
        complete = True
        for table, identifier in _listed(event):
            record = found.get((table, identifier))
            if record is None or record.get("event_sequence") != sequence:
                complete = False
                message = f"{table} row {identifier}, which it speaks for, is missing"
                self.report("row", f"event {sequence}", message, sequence)
            else:
                del found[table, identifier]
                records.append((table, record))
        self.rows += len(records)
        if complete and rows_digest(records) != event.get("rows_digest"):
            names = ", ".join(f"{table} {record['id']}" for table, record in records) or "none listed"
            message = f"the rows it speaks for were changed ({event.get('action')}; rows: {names})"
            self.report("row", f"event {sequence}", message, sequence)

    def _uncovered(self, left: dict[tuple[str, str], Record]) -> None:
        for (table, identifier), record in left.items():
            message = f"no event speaks for it (it names event {record.get('event_sequence')})"
            self.report("uncovered", f"{table} row {identifier}", message)

    def _head(self, head: Head, kind: str, where: str) -> None:
        present = self.session.scalar(select(AuditEvent.hash).where(AuditEvent.sequence == head.sequence))
        if head != Head(0, GENESIS) and present != head.hash:
            what = "is missing" if present is None else "has another hash"
            self.report(
                kind, where, f"audit head {head.sequence}, {head.hash}: that event {what}", head.sequence
            )

    def _raw(
        self, table: Table, key: ColumnElement[Any], above: int | None, upto: int | None
    ) -> list[Record]:
        statement = raw_rows(self.session, table)
        if above is not None:
            statement = statement.where(key > above)
        return fetch_records(
            self.session,
            statement.where(key <= upto) if upto is not None else statement.order_by(key).limit(_WINDOW),
        )


def _listed(event: Record) -> list[tuple[str, str]]:
    """Give the rows an event lists; none where its text was damaged, which its hash has told already."""
    try:
        return listed_rows(event)
    except (KeyError, TypeError, ValueError):
        return []
