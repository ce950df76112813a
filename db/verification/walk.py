"""Verification of the audit trail: is it whole, and do the tables still say what it speaks for?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from sqlalchemy import func, select, true
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from db import grants, guards
from db.artifacts import ArtifactStore
from db.chain.events import GENESIS, Head
from db.dispositions.signatures import check_signatures
from db.engine import Database
from db.errors import AwayError, RecordError
from db.failures import storage_error
from db.inspection.runs import run_counts, run_reference
from db.issued.sign_offs import check_sign_offs
from db.issued.unreported import unreported_runs, unsigned_runs
from db.lookup import pages
from db.retention.inventory import check_artifacts
from db.schema import AuditEvent, Report, Run, RunEnd
from db.transparency.merkle import Frontier
from db.transparency.signed_notes import CheckpointNote
from db.verification.log_walk import LogWalk, Problem
from db.verification.processes import sound_stretches
from db.verification.redacted import redacted_runs
from db.verification.witness import ReportFile, Witness, attest, check_report, conclusion, trusted_start

_MOST_RUNS = 10  # named in a remark


@dataclass(frozen=True, slots=True)
class Verification:
    """What was walked and what is broken, in order. `truncated`: there is more than is listed.

    `remarks`: sentences about what is no failure but should be known; with checkpoints, what they prove.
    `redacted`: sentences about what is no longer proved, because a secret was taken out of it on record.
    """

    ok: bool
    events: int
    rows: int
    artifacts: int
    head: Head | None
    problems: tuple[Problem, ...]
    truncated: bool
    remarks: tuple[str, ...] = ()
    redacted: tuple[str, ...] = ()


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
    given the store, that every artifact is there unchanged, or was pruned on record. RecordError only where
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
        redacted: list[str] = []
        try:
            start = trusted_start(session, witness) if incremental and witness else None
            if start is not None:
                walk.start = start[0].tree_size
                walk.go_on_from(Head(start[0].tree_size, start[0].head_hash))
                walk.remarks.append(
                    f"incremental: events 1 to {start[0].tree_size} and their rows were not looked at again"
                )
            elif incremental:
                walk.remarks.append("incremental: no checkpoint fits the log, so everything was looked at")
            walk.ahead(db, jobs)
            walk.chain()
            # Sums and signatures over changed rows would only repeat what is reported already.
            if not walk.problems:
                walk.finished_runs()
                for where, message in chain(check_signatures(session), check_sign_offs(session)):
                    walk.report("signature", where, message)
                walk.unreported()
            with walk.unreadable("the redacted runs"):
                redacted = redacted_runs(session, walk.redactions, walk.report)
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
                with walk.unreadable("the artifacts"):
                    walk.artifacts(db, artifacts)
        except DBAPIError as error:
            if isinstance(storage_error(error, db), AwayError):
                raise  # a connection that was lost says nothing about the record
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
            redacted=tuple(redacted),
        )


@contextmanager
def _damaged_text_allowed(db: Database, session: Session) -> Iterator[None]:
    """Let SQLite return text that is not Unicode, as a changed byte makes it: it is reported, not raised."""
    raw: Any = session.connection().connection.driver_connection
    if not db.sqlite:
        yield
        return
    raw.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        raw.text_factory = str


class _Walk(LogWalk):
    def __init__(self, session: Session, progress: Callable[[int, int], None] | None) -> None:
        super().__init__(session)
        self.remarks: list[str] = []
        self.artifacts_read = 0
        self.start = 0
        self._progress = progress

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
        """Compare the log with checkpoints and reports from outside."""
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
        """Have other processes walk a long log, until one of them finds something or little is left."""
        last = self.session.scalar(select(func.max(AuditEvent.sequence))) or 0
        for found in sound_stretches(db, self.session, self.head, last, jobs):
            self.go_on_from(found.head)
            self.events += found.events
            self.rows += found.rows
            self._tell_progress()

    def chain(self) -> None:
        """Walk what is left of the log to its end, and find rows beyond it."""
        while self.window():
            self._tell_progress()
        self.rows_beyond()

    def _tell_progress(self) -> None:
        if self._progress:
            self._progress(self.events, self._total)

    @cached_property
    def _total(self) -> int:
        later = AuditEvent.sequence > self.start if self.start else true()
        return self.session.scalar(select(func.count()).select_from(AuditEvent).where(later)) or 0

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

    def unreported(self) -> None:
        """Remark which runs ended without the report or the checkpoint that they were to have."""
        for runs, what in (
            (unreported_runs(self.session), "its report"),
            (unsigned_runs(self.session), "its checkpoint"),
        ):
            if runs:
                named = ", ".join(run.reference for run in runs[:_MOST_RUNS])
                if (left := len(runs) - _MOST_RUNS) > 0:
                    named += f" and {left} more"
                self.remarks.append(f"ended without {what}: {named}; `kensa report missing` makes up for it")

    def heads(self, expected: Sequence[Head]) -> None:
        """Check that heads printed in reports, or kept elsewhere, are in the log."""
        columns = (Report.head_sequence, Report.head_hash, Report.revision, Report.number, Run.number)
        statement = select(Report.id, *columns).outerjoin(Run, Run.id == Report.run_id)
        for _, sequence, digest, revision, number, run in chain.from_iterable(
            pages(self.session, statement, Report.id)
        ):
            name = number or (run_reference(run) if run is not None else "without a number")
            self._check_head(Head(sequence, digest), "report", f"report {name} revision {revision}")
        for head in expected:
            self._check_head(head, "head", f"head {head.sequence}")

    def artifacts(self, db: Database, store: ArtifactStore) -> None:
        """Check each artifact's bytes in the store, and what else is there."""
        self.artifacts_read, remarks = check_artifacts(db, self.session, store, self.report)
        self.remarks += remarks

    def _check_head(self, head: Head, kind: str, where: str) -> None:
        present = self.session.scalar(select(AuditEvent.hash).where(AuditEvent.sequence == head.sequence))
        if head != Head(0, GENESIS) and present != head.hash:
            what = "is missing" if present is None else "has another hash"
            self.report(
                kind, where, f"audit head {head.sequence}, {head.hash}: that event {what}", head.sequence
            )
