"""Issuing a report of any kind: rendered, sealed, kept as an artifact and in the report folder, recorded."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from sqlalchemy.orm import Session

from configs.schema import ReportSettings
from db.artifacts import ArtifactStore
from db.chain.events import Actor, Head, head
from db.engine import Database
from db.figures.changes import changes_of
from db.figures.periods import scope_images
from db.figures.scopes import Scope
from db.files import put_atomically, written_atomically
from db.issued.reports import (
    ReportRecord,
    ReportSubject,
    next_report,
    record_report,
    record_unsealed,
    reports_of,
)
from db.transparency.inclusion import events_of_findings, make_proof
from db.transparency.signed_notes import parse_checkpoint
from operations.reporting.seal import Sealed, seal_report
from reports.attachments.listing import MISSING, ListedPicture
from reports.attachments.manifest import RECORD, Superseded, Supplement
from reports.content.base import MissingPicture, SignedCheckpoint
from reports.content.finding import FindingPage
from reports.document import Document


@dataclass(frozen=True)
class Issue:
    """What is to be printed on a report that is being made: its number and revision, as of which audit head.

    `earlier`: the reports about the same subject so far, this revision among them when it is made again.
    """

    subject: ReportSubject
    number: str
    revision: int
    head: Head
    earlier: Sequence[ReportRecord]


Compose = Callable[[Issue], Document]
"""Returns a report's document; for the same issue the same one."""


@dataclass(frozen=True)
class IssuedReport:
    """A report on disk and in the record.

    `new` is False when the record already had just this report. `unsealed`: why it does not bear the
    organisation's seal, where it was to.
    """

    path: Path
    record: ReportRecord
    new: bool
    unsealed: str | None = None


def issue(
    database: Database,
    store: ArtifactStore,
    settings: ReportSettings,
    subject: ReportSubject,
    compose: Compose,
    *,
    actor: Actor,
    again: bool = False,
) -> IssuedReport:
    """Issue the report about a subject: a new revision, or the latest where nothing has changed since.

    Where the record has nothing newer about the subject, the stored file is given back, verified by its
    digest and with all signatures in it, whatever libraries and layout would make of it today. `again`
    renders the latest revision anew: it is given back only if its bytes are the same, for another layout
    makes a new revision. A report that cannot be sealed is kept without, and that is recorded.

    Raises:
        RecordError: no such subject. ReportError: the record does not make a report.
    """
    from reports.pdf.render import render

    with database.session() as session:
        planned = next_report(session, subject)
        earlier = reports_of(session, subject)
        now = head(session)
        latest = planned.supersedes
        changed = latest is not None and changes_of(session, subject, latest.head.sequence, now.sequence)
    wanted = settings.signature.configured
    same = False
    if latest is not None and not changed:
        complete = latest.content_digest is not None or latest.sign_offs or not wanted
        if again or not complete:
            rendered = render(compose(Issue(subject, latest.number, latest.revision, latest.head, earlier)))
            same = sha256(rendered).hexdigest() == latest.rendered_digest
        if complete and (same or not again):
            return IssuedReport(write_report(settings, store, latest), latest, new=False)
    document = compose(Issue(subject, planned.number, planned.revision, now, earlier))
    pdf = render(document)
    name = f"Report {planned.number}, revision {planned.revision}"
    sealed = seal_report(pdf, settings.signature, name) if wanted else Sealed(pdf)
    if latest is not None and same and sealed.problem is not None:
        # Nothing new to say, and still no seal.
        return IssuedReport(write_report(settings, store, latest), latest, False, sealed.problem)
    # A report that has no room in the folder is not recorded as issued: the next start issues it.
    path = _report_path(settings, planned.number, planned.revision)
    with written_atomically(LocalFileSystem(), str(path.absolute()), sealed.pdf):
        record = record_report(
            database,
            planned,
            store.put(sealed.pdf, "report", "application/pdf"),
            now,
            actor=actor,
            record_digest={file.name: sha256(file.data).hexdigest() for file in document.attached}.get(
                RECORD
            ),
            content_digest=None if sealed.pdf is pdf else sha256(pdf).hexdigest(),
        )
    if sealed.problem is not None:
        record_unsealed(database, record, sealed.problem, actor=actor)
    if record.artifact_digest != sha256(sealed.pdf).hexdigest():
        path = write_report(settings, store, record)  # another process issued the same, under its own seal
    return IssuedReport(path, record, True, sealed.problem)


def write_report(settings: ReportSettings, store: ArtifactStore, record: ReportRecord) -> Path:
    """Write a report, with all signatures that it bears, into the report folder."""
    return write_pdf(_report_path(settings, record.number, record.revision), store.get(record.latest_digest))


def _report_path(settings: ReportSettings, number: str, revision: int) -> Path:
    return settings.folder / f"{number}-{revision}.pdf"


def write_pdf(path: Path, pdf: bytes) -> Path:
    """Write a report's file, all of it or nothing."""
    put_atomically(LocalFileSystem(), str(path.absolute()), pdf)
    return path


def supplement_of(
    database: Database,
    scope: Scope | None,
    findings: Collection[FindingPage],
    checkpoint: SignedCheckpoint | None,
    what: Issue,
    missing: Sequence[MissingPicture] = (),
) -> Supplement:
    """Read what a report carries, as of the audit head that it prints; no listing without a scope.

    `missing`: what never arrived, which the listing has after the listed pictures.
    """
    with database.session() as session:
        return Supplement(
            listing=None if scope is None else _listing(database, scope, what.head.sequence, missing),
            proofs=proofs_of(session, [finding.reference for finding in findings], checkpoint),
            supersedes=superseded(what),
        )


def superseded(what: Issue) -> Superseded | None:
    """Return the revision that this one replaces, by the PDF as it was before anybody signed it."""
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


def _listing(
    database: Database, scope: Scope, upto: int, missing: Sequence[MissingPicture]
) -> Iterator[ListedPicture]:
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
    for each in missing:
        yield ListedPicture(each.uri, MISSING, part=each.part, lot=each.lot, station=each.station)
