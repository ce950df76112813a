"""A run's report, read from the record."""

from dataclasses import replace
from uuid import UUID

from sqlalchemy.orm import Session

from configs.schema import ReportSettings
from db.artifacts import ArtifactStore
from db.chain.events import Actor
from db.engine import Database
from db.figures.scopes import Scope
from db.inspection.missing_images import MissingImage
from db.inspection.runs import RunCounts
from db.issued.reports import ReportSubject
from db.queries.finding_records import run_findings
from db.queries.runs import run_gone, run_inspected_before, run_summary, run_unreadable
from operations.reporting.findings import classes_of, finding_pages, model_of, once
from operations.reporting.heading import heading
from operations.reporting.history import review_of
from operations.reporting.issue import Issue, IssuedReport, issue, supplement_of
from operations.reporting.process import run_process
from reports.compose.inspection import compose_run
from reports.content.base import Counts, MissingPicture
from reports.content.inspection import RunReport
from reports.document import Document

STATUS = {
    "completed": "completed",
    "failed": "failed",
    "unfinished": "interrupted: the run has no end in the record",
}


def issue_report(
    database: Database,
    store: ArtifactStore,
    run_id: UUID,
    settings: ReportSettings,
    *,
    actor: Actor,
    again: bool = False,
) -> IssuedReport:
    """Issue a run's report, see `operations.reporting.issue.issue`."""
    with database.session() as session:
        subject = ReportSubject.run(run_summary(session, run_id).reference)

    def compose(what: Issue) -> Document:
        with database.session() as session:
            record = read_run_report(session, store, run_id, settings, what)
            gone = run_gone(session, run_id, what.head.sequence)
            before = run_inspected_before(session, run_id, what.head.sequence)
        supplement = supplement_of(
            database, Scope(run=run_id), record.findings, record.checkpoint, what, record.missing_pictures
        )
        return compose_run(record, replace(supplement, gone=gone, inspected_before=before))

    return issue(database, store, settings, subject, compose, actor=actor, again=again)


def read_run_report(
    session: Session, store: ArtifactStore, run_id: UUID, settings: ReportSettings, what: Issue
) -> RunReport:
    """Read a run back as its report's record, all of it as of the audit head that is printed."""
    upto = what.head.sequence
    run = run_summary(session, run_id, upto)
    findings, listed = once(run_findings(session, run_id, upto))
    scope = Scope(run=run_id)
    # Pages, and their evidence, are for those with the highest scores.
    ranked = sorted(range(len(findings)), key=lambda i: (-findings[i].score, i))
    printed = [findings[i] for i in sorted(ranked[: settings.max_findings])]
    return RunReport(
        run_id=str(run.id),
        title=settings.title,
        source=run.source,
        trigger=run.trigger,
        host=run.host,
        started_at=run.started_at,
        finished_at=run.finished_at,
        status=STATUS[run.status],
        status_note=run.note or None,
        lots=run.lots,
        stations=run.stations,
        model=model_of(run.model, run.settings),
        settings_digest=run.settings_digest,
        software_version=run.software_version,
        counts=counts_of(run.counts),
        class_counts=classes_of(findings),
        findings=finding_pages(session, store, printed, {run.settings_digest: run.settings}, upto, listed),
        max_finding_pages=settings.max_findings,
        unreadable=tuple((record.uri, record.reason) for record in run_unreadable(session, run_id, upto)),
        missing_pictures=tuple(missing_picture(each, run.reference) for each in run.missing),
        process=run_process(session, run, upto),
        review=review_of(session, scope, findings, upto),
        **heading(session, settings, what),
    )


def missing_picture(image: MissingImage, run: str) -> MissingPicture:
    """Return a picture that a run missed, as reports print it."""
    return MissingPicture(image.uri, run, image.part, image.lot, image.station)


def counts_of(counts: RunCounts) -> Counts:
    """Return counts as reports print them."""
    return Counts(
        listed=counts.listed,
        passed=counts.passed,
        review=counts.review,
        reject=counts.reject,
        unreadable=counts.unreadable,
        carried_over=counts.carried_over,
    )
