"""Is the log still what was signed? Checkpoints and printed reports, compared with the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.chain.events import Head, head
from db.columns import time_text
from db.errors import RecordError
from db.issued.reports import report_by_artifact
from db.schema import Checkpoint
from db.transparency.checkpoints import FILE, CheckpointFolder, event_leaves, hash_of, recorded_tree
from db.transparency.merkle import Frontier
from db.transparency.signed_notes import CheckpointNote, NoteError, VerifierKey, open_checkpoint


@dataclass(frozen=True, slots=True)
class Witness:
    """What vouches for the log from outside: notes, and public keys that come from neither place."""

    folder: CheckpointFolder
    trusted: Sequence[VerifierKey]


@dataclass(frozen=True, slots=True)
class ReportFile:
    """A report as somebody holds it: file name, SHA-256 (hex) of its bytes, and what it carries."""

    name: str
    digest: str
    head: Head | None = None
    checkpoint: str | None = None


@dataclass(slots=True)
class Attestation:
    """What checkpoints from outside vouch for. `upto`: the newest whose every claim holds."""

    upto: CheckpointNote | None = None
    checked: int = 0
    remarks: list[str] = field(default_factory=list)


Report = Callable[[str, str, str], None]  # kind, where, message


def attest(
    session: Session,
    witness: Witness,
    report: Report,
    *,
    start: Frontier | None = None,
) -> Attestation:
    """Check every note of a folder against the log, and the recorded checkpoints against the folder.

    `start`: a tree that is trusted already; notes of no larger trees are then left out.
    """
    found = Attestation()
    notes: dict[int, tuple[str, str, CheckpointNote]] = {}
    begin = start.size if start else 0
    for name, text in witness.folder.notes(above=begin):
        try:
            note = open_checkpoint(text, witness.trusted)
        except NoteError as error:
            report("checkpoint", name, str(error))
            continue
        if (match := FILE.fullmatch(name)) is None or int(match[1]) != note.tree_size:
            report("checkpoint", name, f"is about {note.tree_size} events, which its name does not say")
            continue
        notes[note.tree_size] = (name, text, note)
    _compare_notes(session, Frontier(begin, start.roots if start else ()), notes, report, found)
    _compare_recorded(session, notes, begin, report, found)
    return found


def _compare_notes(
    session: Session,
    frontier: Frontier,
    notes: dict[int, tuple[str, str, CheckpointNote]],
    report: Report,
    found: Attestation,
) -> None:
    """Grow the tree over the log once, and compare its root at the size of each note."""
    at = head(session).sequence
    failed: set[int] = set()
    broken: str | None = None
    for size in sorted(size for size in notes if frontier.size < size <= at):
        name, _, note = notes[size]
        if broken is None:
            try:
                frontier.extend(event_leaves(session, frontier.size, size))
            except RecordError as error:
                broken = str(error)
        same_root = broken is None and frontier.root() == note.root
        if same_root and session.scalar(hash_of(size)) == note.head_hash:
            found.upto, found.checked = note, found.checked + 1
        else:
            failed.add(size)
            report("checkpoint", name, _contradiction(note, at))
    for size in sorted(size for size in notes if size > at):
        name, _, note = notes[size]
        failed.add(size)
        report("checkpoint", name, _contradiction(note, at))
    if failed:
        found.upto = max(
            (note for size, (_, _, note) in notes.items() if size not in failed and size < min(failed)),
            key=lambda note: note.tree_size,
            default=None,
        )


def _contradiction(note: CheckpointNote, at: int) -> str:
    """Return in a sentence how a log that ends with event `at` differs from what was signed."""
    if note.tree_size > at:
        return (
            f"on {time_text(note.at)} {note.signed_by[0]} signed {note.tree_size} events, and the log ends "
            f"with event {at}: its end was cut off, or an older state was restored"
        )
    return (
        f"the first {note.tree_size} events are not those that {note.signed_by[0]} signed on "
        f"{time_text(note.at)}: history was replaced"
    )


def _compare_recorded(
    session: Session,
    notes: dict[int, tuple[str, str, CheckpointNote]],
    above: int,
    report: Report,
    found: Attestation,
) -> None:
    recorded = select(Checkpoint.tree_size, Checkpoint.note).where(Checkpoint.tree_size > above)
    rows = {size: note for size, note in session.execute(recorded)}  # noqa: C416 - a result has keys()
    for size, note in sorted(rows.items()):
        where = f"checkpoint of {size} events"
        if size not in notes:
            report("checkpoint", where, "is recorded as signed, but the folder has no valid note of it")
        elif notes[size][1] != note:
            report("checkpoint", where, "the note that is recorded is not the one in the folder")
    at = head(session).sequence
    for size in sorted(set(notes) - set(rows)):
        if size <= at:
            found.remarks.append(
                f"the checkpoint of {size} events is not recorded in the database: its signing was "
                "interrupted, or the database was set back to before that was recorded"
            )


def conclusion(found: Attestation, at: Head) -> str:
    """Return in a sentence what the checkpoints prove, up to which event, and what they do not prove."""
    if found.upto is None:
        return (
            "no checkpoint that holds: nothing outside the database vouches for this log; whoever can write "
            "the whole database could have replaced it"
        )
    note = found.upto
    proved = (
        f"proved: events 1 to {note.tree_size} are those that {note.signed_by[0]} signed on "
        f"{time_text(note.at)}"
    )
    if later := at.sequence - note.tree_size:
        which = "event" if later == 1 else f"{later} events"
        proved += f"; not proved: the {which} after that, chained but not signed yet"
    return proved


def trusted_start(session: Session, witness: Witness) -> tuple[CheckpointNote, Frontier] | None:
    """Return the newest checkpoint that still fits the log, and its tree, for a walk that starts there.

    It fits if its event has the hash that was signed and the recorded tree has the root that was signed.
    """
    at = head(session).sequence
    for _, text in witness.folder.notes(newest_first=True):
        try:
            note = open_checkpoint(text, witness.trusted)
        except NoteError:
            continue  # `attest` reports it
        if note.tree_size <= at and session.scalar(hash_of(note.tree_size)) == note.head_hash:
            try:
                frontier = recorded_tree(session, note.tree_size)
            except RecordError:
                continue  # walking everything shows what happened to it
            if frontier.root() == note.root:
                return note, frontier
    return None


def check_report(
    session: Session, file: ReportFile, trusted: Sequence[VerifierKey], report: Report
) -> str | None:
    """Check a report file: was it issued by this record, and is what it carries in this log?

    Return a sentence about what holds, None where something does not; that is reported.
    """
    known = report_by_artifact(session, file.digest)
    if known is None:
        report(
            "report",
            file.name,
            "is not a report that this record issued: it was changed afterwards, or comes from elsewhere",
        )
    if file.head is None:
        report("report", file.name, "carries no audit head")
    elif session.scalar(hash_of(file.head.sequence)) != file.head.hash:
        report(
            "report",
            file.name,
            f"prints audit head {file.head.sequence}, {file.head.hash}, which the log does not have",
        )
    signed = ""
    if file.checkpoint is not None and trusted:
        try:
            note = open_checkpoint(file.checkpoint, trusted)
        except NoteError as error:
            report("report", file.name, f"its checkpoint: {error}")
        else:
            if session.scalar(hash_of(note.tree_size)) != note.head_hash:
                report("report", file.name, _contradiction(note, head(session).sequence))
            signed = f", and a checkpoint of {note.tree_size} events by {note.signed_by[0]}"
    if known is None or file.head is None:
        return None
    return f"{file.name}: as it was issued; it prints audit head {file.head.sequence}{signed}"
