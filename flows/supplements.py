"""What a report carries beside its record: the listing of its pictures, and proofs about its findings."""

from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy.orm import Session

from db.engine import Database
from db.figures.periods import scope_images
from db.figures.scopes import Scope
from db.transparency.inclusion import events_of_findings, make_proof
from db.transparency.signed_notes import parse_checkpoint
from flows.issuing import Issue
from reports.attachments.listing import ListedPicture
from reports.attachments.manifest import Superseded, Supplement
from reports.content.base import SignedCheckpoint
from reports.content.finding import FindingPage


def supplement_of(
    database: Database,
    scope: Scope | None,
    findings: Collection[FindingPage],
    checkpoint: SignedCheckpoint | None,
    what: Issue,
) -> Supplement:
    """Read what a report carries, as of the audit head that it prints; no listing without a scope."""
    with database.session() as session:
        return Supplement(
            listing=None if scope is None else _listing(database, scope, what.head.sequence),
            proofs=proofs_of(session, [finding.reference for finding in findings], checkpoint),
            supersedes=superseded(what),
        )


def superseded(what: Issue) -> Superseded | None:
    """Give the revision that this one replaces, by the PDF as it was before anybody signed it."""
    before = [each for each in what.earlier if each.revision == what.revision - 1]
    return Superseded(before[0].revision, before[0].rendered_digest) if before else None


def proofs_of(
    session: Session, references: Collection[str], signed: SignedCheckpoint | None
) -> dict[str, Any] | None:
    """Prove that the events of findings, as far as the checkpoint covers them, are in the log that it signs.

    None without a checkpoint, or where it covers none of them.
    """
    if signed is None:
        return None
    found = events_of_findings(session, references, signed.tree_size)
    events = sorted({sequence for each in found.values() for sequence in each})
    return make_proof(session, events, signed.note, parse_checkpoint(signed.note)) if events else None


def _listing(database: Database, scope: Scope, upto: int) -> Iterator[ListedPicture]:
    with database.session() as session:
        for image in scope_images(session, scope, upto):
            yield ListedPicture(
                uri=image.uri,
                verdict=image.verdict,
                score=image.score,
                part=image.part,
                lot=image.lot,
                station=image.station,
                captured_at=image.captured_at,
                reason=image.reason,
                image_digest=image.digest,
                carried_over=image.carried_over,
            )
