"""Checkpoints: signed heads of the log, kept outside the database.

Whoever can write the whole database could replace the whole chain. A checkpoint in other hands shows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Select, select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from configs.credentials import masked_text
from db.chain.events import GENESIS, Actor, head
from db.columns import utc_now
from db.engine import Database
from db.errors import RecordError
from db.files import open_folder, put_atomically
from db.schema import AuditEvent, Checkpoint
from db.transparency.merkle import Frontier
from db.transparency.signed_notes import CheckpointNote, SigningKey, VerifierKey, open_checkpoint

FILE = re.compile(r"(\d{12,})\.checkpoint")
_HASH = re.compile(r"[0-9a-f]{64}")
_AT_ONCE = 5000  # events

SIGNED, FAILED = "checkpoint.signed", "checkpoint.failed"


class CheckpointFolder:
    """The folder, or any fsspec URL, of the notes. Whoever writes the database should not own it."""

    def __init__(self, uri: str | Path) -> None:
        self._files, self.root = open_folder(uri)

    def __str__(self) -> str:
        return masked_text(self.root)

    def get(self, tree_size: int) -> str | None:
        """Return the note about a tree of this size; None where there is none."""
        path = self._path(tree_size)
        return self._read(path) if self._files.exists(path) else None

    def put(self, tree_size: int, note: str) -> None:
        """Keep a note, which is never replaced: RecordError where another one of this size is there."""
        present = self.get(tree_size)
        if present is None:
            put_atomically(self._files, self._path(tree_size), note.encode())
        elif present != note:
            raise RecordError(f"{self._path(tree_size)}: holds another checkpoint, and none is ever replaced")

    def notes(self, *, newest_first: bool = False, above: int = 0) -> Iterator[tuple[str, str]]:
        """Yield file name and text of each note, the smallest tree first.

        Args:
            newest_first: yield the largest tree first.
            above: leave out notes whose name says that they are about at most this many events.

        Raises:
            RecordError: there is no folder.
        """
        try:
            paths = self._files.ls(self.root, detail=False)
        except FileNotFoundError:
            raise RecordError(f"there is no folder of checkpoints at {self.root}") from None
        names = [name for path in paths if (name := str(path).rpartition("/")[2]).endswith(".checkpoint")]
        for name in sorted(names, key=lambda name: (len(name), name), reverse=newest_first):
            match = FILE.fullmatch(name)
            if match is None or int(match[1]) > above:
                yield name, self._read(f"{self.root}/{name}")

    def newest(self) -> int:
        """Return the size of the largest tree that a note is about; 0 without a note."""
        if not self._files.exists(self.root):
            return 0
        found = (FILE.fullmatch(str(p).rpartition("/")[2]) for p in self._files.ls(self.root, detail=False))
        return max((int(match[1]) for match in found if match), default=0)

    def _path(self, tree_size: int) -> str:
        return f"{self.root}/{tree_size:012d}.checkpoint"

    def _read(self, path: str) -> str:
        data: bytes = self._files.cat_file(path)
        return data.decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """A signed checkpoint; `note` is its text, `event_sequence` the event that recorded it."""

    tree_size: int
    root: str
    head_hash: str
    note: str
    event_sequence: int


_RECORDS = select(
    Checkpoint.tree_size,
    Checkpoint.root,
    Checkpoint.head_hash,
    Checkpoint.note,
    Checkpoint.event_sequence,
)


def latest_checkpoint(session: Session, upto: int | None = None) -> CheckpointRecord | None:
    """Return the checkpoint of the largest tree, of those recorded in the first `upto` events; else None."""
    statement = _RECORDS.order_by(Checkpoint.tree_size.desc()).limit(1)
    if upto is not None:
        statement = statement.where(Checkpoint.event_sequence <= upto)
    row = session.execute(statement).first()
    return None if row is None else CheckpointRecord(*row)


def recorded_tree(session: Session, tree_size: int) -> Frontier:
    """Return the tree that was recorded with a checkpoint; RecordError where there is no sound one."""
    try:
        roots = session.scalars(select(Checkpoint.frontier).where(Checkpoint.tree_size == tree_size)).one()
        return Frontier(tree_size, [bytes.fromhex(root) for root in roots])
    except (NoResultFound, TypeError, ValueError) as error:
        raise RecordError(f"the recorded checkpoint of {tree_size} events holds no tree: {error}") from None


def event_leaves(session: Session, above: int, upto: int) -> Iterator[bytes]:
    """Yield the hashes of events above one sequence number and up to another, in order, as raw bytes.

    Raises:
        RecordError: an event is missing, does not continue the one before, or its hash is malformed.
    """
    expected = above + 1
    previous = GENESIS if above == 0 else session.scalar(hash_of(above))
    statement = (
        select(AuditEvent.sequence, AuditEvent.previous_hash, AuditEvent.hash)
        .where(AuditEvent.sequence > above, AuditEvent.sequence <= upto)
        .order_by(AuditEvent.sequence)
        .execution_options(yield_per=_AT_ONCE)
    )
    with session.execute(statement) as rows:  # a cursor that is left open on the server is a leak
        for sequence, before, own in rows:
            if sequence != expected or before != previous or not _HASH.fullmatch(own):
                break
            yield bytes.fromhex(own)
            expected, previous = sequence + 1, own
    if expected <= upto:
        raise RecordError(f"the log is broken at event {expected}: run `kensa audit verify`")


def sign_checkpoint(
    db: Database,
    folder: CheckpointFolder,
    key: SigningKey,
    *,
    actor: Actor,
    trusted: Sequence[VerifierKey] = (),
) -> CheckpointRecord:
    """Sign the log's present head, keep the note in the folder and record it.

    Only events since the last checkpoint are read. Where its own event is the only one since, it is returned.

    Args:
        db: the record.
        folder: where the note is kept.
        key: signs it.
        actor: who does it.
        trusted: keys beside our own that may have signed earlier checkpoints.

    Raises:
        RecordError: the log is empty, or does not lead from the last checkpoint (the recorded one and the
            folder's newest) to here. Nothing is signed then: that would vouch for a broken history.
    """
    keys = [key.verifier, *(k for k in trusted if k != key.verifier)]
    with db.session() as session:
        at = head(session)
        if at.sequence == 0:
            raise RecordError("the audit log is empty: there is nothing to sign yet")
        last = latest_checkpoint(session)
        if (newest := folder.newest()) > at.sequence:
            raise RecordError(
                f"{folder} holds a checkpoint of {newest} events, but the log ends with event {at.sequence}: "
                "its end was cut off or an older state was restored; nothing is signed over that"
            )
        frontier = _continued_tree(session, last, keys) if last is not None else Frontier()
        if newest and (last is None or newest > last.tree_size):
            _check_newest_note(session, folder, newest, keys)
        if last is not None and last.event_sequence == at.sequence and last.tree_size == at.sequence - 1:
            folder.put(last.tree_size, last.note)  # again, should the folder have lost it
            return last
        frontier.extend(event_leaves(session, frontier.size, at.sequence))
    # Under the lock, so that two signers of the same head do not each keep a note of their own.
    with db.write() as recorder:
        known = recorder.session.execute(_RECORDS.where(Checkpoint.tree_size == at.sequence)).first()
        if known is not None:
            return CheckpointRecord(*known)
        note = folder.get(at.sequence)  # there already where an earlier attempt ended before it was recorded
        if note is None:
            text = CheckpointNote(key.name, at.sequence, frontier.root(), at.hash, utc_now()).text()
            note = key.sign(text)
            folder.put(at.sequence, note)
        if open_checkpoint(note, keys).root != frontier.root():
            raise RecordError(f"{folder}: its checkpoint of {at.sequence} events is not one of this log")
        row = Checkpoint(
            tree_size=at.sequence,
            root=frontier.root().hex(),
            head_hash=at.hash,
            frontier=[root.hex() for root in frontier.roots],
            note=note,
            created_at=utc_now(),
        )
        recorder.add(
            [row],
            action=SIGNED,
            actor=actor,
            entity="checkpoint",
            entity_id=row.id,
            payload={"tree_size": row.tree_size, "root": row.root, "key": key.name},
        )
    return CheckpointRecord(row.tree_size, row.root, row.head_hash, row.note, row.event_sequence)


def record_failure(db: Database, reason: str, *, actor: Actor) -> None:
    """Record that a checkpoint could not be made, and why; the run it belongs to goes on without it."""
    with db.write() as recorder:
        recorder.add([], action=FAILED, actor=actor, entity="checkpoint", entity_id="none", reason=reason)


def _continued_tree(session: Session, last: CheckpointRecord, keys: Sequence[VerifierKey]) -> Frontier:
    """Return the tree at the last recorded checkpoint; RecordError unless it still is what was signed."""
    where = f"the recorded checkpoint of {last.tree_size} events"
    try:
        frontier = recorded_tree(session, last.tree_size)
        signed = open_checkpoint(last.note, keys)
    except RecordError as error:
        raise RecordError(
            f"{where}: {error}; nothing is signed over that: run `kensa audit verify`"
        ) from None
    present = session.scalar(hash_of(last.tree_size))
    if (signed.tree_size, signed.root, signed.head_hash) != (last.tree_size, frontier.root(), present):
        raise RecordError(
            f"{where} is not one of this log: run `kensa audit verify`; nothing is signed over that"
        )
    return frontier


def _check_newest_note(
    session: Session, folder: CheckpointFolder, tree_size: int, keys: Sequence[VerifierKey]
) -> None:
    """Raise RecordError unless the folder's newest note is about this log."""
    note = folder.get(tree_size)
    signed = open_checkpoint(note or "", keys)
    if signed.tree_size != tree_size or signed.head_hash != session.scalar(hash_of(tree_size)):
        raise RecordError(
            f"{folder}: its checkpoint of {tree_size} events is not one of this log: "
            "run `kensa audit verify`; nothing is signed over that"
        )


def hash_of(sequence: int) -> Select[tuple[str]]:
    """Return the statement that selects the hash of an event."""
    return select(AuditEvent.hash).where(AuditEvent.sequence == sequence)
