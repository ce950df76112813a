"""Inclusion proofs: a finding's record for an outsider, who checks it with a checkpoint and no database.

A proof holds events as they are hashed, the rows they speak for, and the path from each event to the Merkle
root that a checkpoint signs. Its reader needs to trust nothing but the checkpoint's public key, which must
reach them by another way.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from configs.credentials import short_text
from db.chain.events import SCHEME, event_hash, listed_rows, rows_digest
from db.chain.redactions import REDACTED, Redaction, redactions_in
from db.chain.row_text import Record
from db.chain.stored_rows import raw_records
from db.errors import RecordError
from db.lookup import those
from db.schema import (
    DOMAIN_TABLES,
    Approval,
    AuditEvent,
    Base,
    Disposition,
    Finding,
    Part,
    Prediction,
    Run,
    RunImage,
)
from db.transparency.checkpoints import event_leaves, hash_of
from db.transparency.merkle import inclusion_paths, root_from_path
from db.transparency.signed_notes import CheckpointNote, NoteError, VerifierKey, open_checkpoint

FORMAT, VERSION = "kensa inclusion proof", 1
_AT_ONCE = 500  # events


@dataclass(frozen=True, slots=True)
class ProvedEvent:
    """An event that is proved, and the rows it speaks for, as they were hashed.

    `redaction`: took a secret out of the row since; what is proved is the row as it was afterwards.
    """

    event: Record
    rows: tuple[tuple[str, Record], ...]
    redaction: Redaction | None = None

    @property
    def sequence(self) -> int:
        """The event's number."""
        return int(self.event["sequence"])


@dataclass(frozen=True, slots=True)
class CheckedProof:
    """A proof that holds: the events that it proves, and the checkpoint that it leads to."""

    events: tuple[ProvedEvent, ...]
    checkpoint: CheckpointNote


def events_of_finding(session: Session, reference: str) -> list[int]:
    """Return the numbers of the events that a finding's record is made of; RecordError if there is none.

    They are those of its part, its run and the redactions of that, the decision on its picture, and its
    dispositions.
    """
    if not (found := events_of_findings(session, [reference])):
        raise RecordError(f"there is no finding {reference}: give a reference such as R000012-0003")
    return found[reference]


def events_of_findings(
    session: Session, references: Collection[str], upto: int | None = None
) -> dict[str, list[int]]:
    """Return, by finding, the events up to `upto` that its record is made of; unknown ones are left out."""
    finding = select(Finding.reference, Finding.id)
    line = and_(RunImage.prediction_id == Finding.prediction_id, RunImage.carried_over.is_(False))
    redacted = and_(AuditEvent.run_id == Finding.run_id, AuditEvent.action == REDACTED)
    decided = finding.join(Disposition, Disposition.finding_id == Finding.id)
    statements = [
        finding.add_columns(Finding.event_sequence),
        finding.join(Prediction, Prediction.id == Finding.prediction_id).add_columns(
            Prediction.event_sequence
        ),
        finding.join(Run, Run.id == Finding.run_id).add_columns(Run.event_sequence),
        finding.join(AuditEvent, redacted).add_columns(AuditEvent.sequence),
        finding.join(RunImage, line).join(Part, Part.id == RunImage.part_id).add_columns(Part.event_sequence),
        decided.add_columns(Disposition.event_sequence),
        decided.join(Approval, Approval.disposition_id == Disposition.id).add_columns(
            Approval.event_sequence
        ),
    ]
    events: dict[str, set[int]] = {}
    for statement in statements:
        for reference, _, sequence in those(session, statement, Finding.reference, references):
            events.setdefault(reference, set())
            if upto is None or sequence <= upto:
                events[reference].add(sequence)
    return {reference: sorted(found) for reference, found in events.items()}


def make_proof(session: Session, events: Sequence[int], note: str, signed: CheckpointNote) -> dict[str, Any]:
    """Return the proof that these events are in the log that a checkpoint signs, as values for JSON.

    Args:
        session: reads the log.
        events: their numbers.
        note: the checkpoint as it was signed.
        signed: what it says.

    Raises:
        RecordError: the checkpoint does not cover the events, or is not one of this log.
    """
    if late := [sequence for sequence in events if sequence > signed.tree_size]:
        raise RecordError(
            f"event {late[0]} is not covered by the checkpoint of {signed.tree_size} events: sign a new one "
            "(`kensa audit checkpoint`)"
        )
    if session.scalar(hash_of(signed.tree_size)) != signed.head_hash:
        raise RecordError(f"the checkpoint of {signed.tree_size} events is not one of this log")
    paths = inclusion_paths(
        [sequence - 1 for sequence in events],
        event_leaves(session, 0, signed.tree_size),
        signed.tree_size,
    )
    return {
        "format": FORMAT,
        "version": VERSION,
        "tree_size": signed.tree_size,
        "root": base64.b64encode(signed.root).decode(),
        "events": [
            {
                **event,
                "leaf_index": sequence - 1,
                "path": [base64.b64encode(node).decode() for node in path],
            }
            for sequence, event, path in zip(events, _proof_events(session, events), paths, strict=True)
        ],
        "checkpoint": note,
    }


def _proof_events(session: Session, sequences: Sequence[int]) -> list[dict[str, Any]]:
    """Return events with their rows; they are read 500 at a time."""
    events = Base.metadata.tables["audit_event"]
    given: list[dict[str, Any]] = []
    for start in range(0, len(sequences), _AT_ONCE):
        some = sequences[start : start + _AT_ONCE]
        found = {
            int(record["sequence"]): record
            for record in raw_records(session, events, events.c.sequence.in_(some))
        }
        rows: dict[int, dict[tuple[str, str], Record]] = {sequence: {} for sequence in some}
        for table in DOMAIN_TABLES:
            for record in raw_records(session, table, table.c.event_sequence.in_(some)):
                rows[int(record["event_sequence"])][table.name, str(record["id"])] = record
        given += [_proof_event(sequence, found.get(sequence), rows[sequence]) for sequence in some]
    return given


def _proof_event(sequence: int, event: Record | None, rows: dict[tuple[str, str], Record]) -> dict[str, Any]:
    if event is None:
        raise RecordError(f"there is no audit event {sequence}")
    listed = listed_rows(event)
    if set(listed) != set(rows):
        raise RecordError(f"event {sequence}: its rows are not those it lists; run `kensa audit verify`")
    return {"event": event, "rows": [[table, rows[table, identifier]] for table, identifier in listed]}


def check_proof(proof: Mapping[str, Any], checkpoint: str, trusted: Sequence[VerifierKey]) -> CheckedProof:
    """Check a proof against a checkpoint that came by another way; RecordError names the step that fails."""
    signed = open_checkpoint(checkpoint, trusted)
    if (proof.get("format"), proof.get("version")) != (FORMAT, VERSION):
        raise RecordError(f"not a proof of this kind: expected {FORMAT!r}, version {VERSION}")
    if proof.get("tree_size") != signed.tree_size:
        size = short_text(str(proof.get("tree_size")))
        raise RecordError(
            f"the proof is for a log of {size} events, the checkpoint for one of {signed.tree_size}: "
            "take the checkpoint that the proof was made for, or a new proof"
        )
    entries = proof.get("events")
    if not isinstance(entries, list) or not entries:
        raise RecordError("the proof holds no event")
    redactions = _redactions_among(entries)
    checked = CheckedProof(tuple(_checked_event(entry, signed, redactions) for entry in entries), signed)
    _check_own_copies(proof, signed, trusted)
    return checked


def _check_own_copies(
    proof: Mapping[str, Any], signed: CheckpointNote, trusted: Sequence[VerifierKey]
) -> None:
    """Check the root and the checkpoint that a proof carries itself: whoever reads it may look there."""
    if proof.get("root") != base64.b64encode(signed.root).decode():
        raise RecordError("the root that the proof names is not the one that its events lead to")
    try:
        own = open_checkpoint(str(proof.get("checkpoint")), trusted)
    except NoteError as error:
        raise RecordError(f"the checkpoint in the proof: {error}") from None
    if replace(own, signed_by=signed.signed_by) != signed:
        raise RecordError(
            "the checkpoint in the proof is another one than the one that it is checked against"
        )


def _redactions_among(entries: Sequence[Any]) -> dict[int, Redaction]:
    """Return the redactions among a proof's events: each is checked itself, as every other event."""
    events = (entry.get("event") for entry in entries if isinstance(entry, dict))
    return redactions_in(event for event in events if isinstance(event, dict))


def _checked_event(entry: Any, signed: CheckpointNote, redactions: Mapping[int, Redaction]) -> ProvedEvent:
    try:
        event = cast(Record, dict(entry["event"]))
        rows = tuple((str(table), cast(Record, dict(record))) for table, record in entry["rows"])
        path = [base64.b64decode(node, validate=True) for node in entry["path"]]
        sequence, index = int(event["sequence"]), entry["leaf_index"]
        listed = listed_rows(event)
        leaf = bytes.fromhex(str(event["hash"]))
        digest, hashed = rows_digest(rows), event_hash(event)
        if type(index) is not int:  # true is 1 to Python
            raise TypeError("leaf_index is not a number")
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RecordError(f"the proof is damaged: {type(error).__name__} {short_text(str(error))}") from None
    where = f"event {sequence}"
    if event.get("scheme") != SCHEME:
        raise RecordError(f"{where}: follows scheme {short_text(str(event.get('scheme')))}, not {SCHEME}")
    redaction = redactions.get(sequence)
    if redaction is not None and listed != [("run", redaction.row)]:
        redaction = None
    wanted = redaction.rows_digest if redaction is not None else event.get("rows_digest")
    if digest != wanted or [(t, r.get("id")) for t, r in rows] != listed:
        raise RecordError(f"{where}: the rows in the proof are not those that the event speaks for")
    if any(record.get("event_sequence") != sequence for _, record in rows):
        raise RecordError(f"{where}: a row in the proof belongs to another event")
    if hashed != event["hash"]:
        raise RecordError(f"{where}: was changed: its hash is not that of its contents")
    try:
        root = root_from_path(index, signed.tree_size, leaf, path)
    except (TypeError, ValueError) as error:
        raise RecordError(f"{where}: its path does not lead to a root: {error}") from None
    if index != sequence - 1 or root != signed.root:
        raise RecordError(f"{where}: is not in the log that {signed.signed_by[0]} signed")
    return ProvedEvent(event, rows, redaction)
