"""Redactions: events that say that a secret was taken out of a run's settings, and what stands there since.

The event that speaks for the run stays as it is, and so does the chain. Its row no longer has the digest that
it holds; the redaction's event holds the new one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from db.chain.row_text import Record
from db.chain.stored_rows import raw_records
from db.schema import Base

REDACTED = "run.redacted"
_EVENTS = Base.metadata.tables["audit_event"]


@dataclass(frozen=True, slots=True)
class Redaction:
    """What one event says: which row was redacted, where, and what it is since then.

    `sequence`: of this event; `event`: of the one that speaks for the row; `row`: the run's id, 32 hex
    digits; `paths`: dotted keys inside `run.settings`, those of earlier redactions of the row included;
    `rows_digest`: what the rows of `event` give since then.
    """

    sequence: int
    event: int
    row: str
    paths: tuple[str, ...]
    rows_digest: str


def may_be_redacted(path: str) -> bool:
    """Return whether a key of a run's settings may be redacted: what the settings digest is of may not."""
    return path.split(".")[0] not in ("", "decision")


def redactions_in(events: Iterable[Record]) -> dict[int, Redaction]:
    """Return the latest redaction of each event, by its number; what is no sound redaction is left out."""
    found: dict[int, Redaction] = {}
    for event in events:
        redaction = _redaction_of(event)
        if redaction is not None:
            known = found.get(redaction.event)
            if known is None or known.sequence < redaction.sequence:
                found[redaction.event] = redaction
    return found


def recorded_redactions(session: Session) -> dict[int, Redaction]:
    """Return the latest redaction of each event that the record has, by its number."""
    return redactions_in(raw_records(session, _EVENTS, _EVENTS.c.action == REDACTED))


def _redaction_of(event: Record) -> Redaction | None:
    if event.get("action") != REDACTED:
        return None
    try:
        said = json.loads(str(event["payload"]))
        sequence, number, paths = int(event["sequence"]), int(said["event"]), [str(p) for p in said["paths"]]
        redaction = Redaction(sequence, number, str(said["row"]), tuple(paths), str(said["rows_digest"]))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None  # a damaged payload, which the event's own hash shows
    sound = number < sequence and paths and all(may_be_redacted(path) for path in paths)
    return redaction if sound else None
