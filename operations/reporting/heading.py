"""What every report of the record says of itself: its number, as of which event, who signed it so far."""

from datetime import datetime
from typing import TypedDict

from sqlalchemy.orm import Session

from configs.schema import ReportSettings
from db.chain.events import Head
from db.queries.events import get_event
from db.transparency.checkpoints import latest_checkpoint
from db.transparency.signed_notes import parse_checkpoint
from operations.reporting.history import revisions_of, sign_offs_of
from operations.reporting.issue import Issue
from reports.content.base import AuditHead, Revision, SignedCheckpoint, SignOff
from reports.style import Style


class Heading(TypedDict):
    """The fields that the records of all kinds of reports share."""

    number: str
    revision: int
    organisation: str | None
    style: Style
    issued_at: datetime
    revisions: tuple[Revision, ...]
    signed: tuple[SignOff, ...]
    audit_head: AuditHead
    checkpoint: SignedCheckpoint | None


def heading(session: Session, settings: ReportSettings, what: Issue) -> Heading:
    """Read what a report says of itself, as of the audit head that it prints.

    A report is dated by the event at that head: made again, it bears the same time.
    """
    head = what.head
    return Heading(
        number=what.number,
        revision=what.revision,
        organisation=settings.organisation or None,
        style=Style(
            paper=settings.paper,
            templates=settings.templates,
            date_format=settings.date_format,
            zone=settings.timezone,
        ),
        issued_at=get_event(session, head.sequence).at,
        revisions=revisions_of(session, what),
        signed=sign_offs_of(what),
        audit_head=AuditHead(head.sequence, head.hash),
        checkpoint=_checkpoint_at(session, head),
    )


def made_by(session: Session, at: Head) -> str:
    """Return the version of kensa that wrote the event at an audit head."""
    return get_event(session, at.sequence).software_version


def _checkpoint_at(session: Session, at: Head) -> SignedCheckpoint | None:
    """Return the last signed checkpoint that was on record at an audit head."""
    signed = latest_checkpoint(session, upto=at.sequence)
    if signed is None:
        return None
    note = parse_checkpoint(signed.note)
    return SignedCheckpoint(signed.tree_size, signed.root, note.origin, note.at, signed.note)
