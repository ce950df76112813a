"""A period's report: a lot, or a stretch of time, across runs, read from the record."""

from datetime import datetime

from sqlalchemy.orm import Session

from configs.schema import ReportSettings
from db.artifacts import ArtifactStore
from db.chain.events import Actor
from db.engine import Database
from db.figures.periods import PeriodSummary, period_summary, scope_findings, scope_unreadable
from db.figures.scopes import scope_of
from db.inspection.known_names import require_known
from db.inspection.missing_images import Announcement
from db.inspection.runs import run_reference
from db.issued.reports import ReportSubject
from operations.reporting.findings import classes_of, finding_pages, model_of, once
from operations.reporting.heading import heading, made_by
from operations.reporting.history import review_of
from operations.reporting.issue import Issue, IssuedReport, issue, supplement_of
from operations.reporting.process import period_process
from operations.reporting.run_report import STATUS, counts_of, missing_picture
from reports.compose.inspection import compose_period
from reports.content.base import MissingPicture
from reports.content.period import ModelInForce, PeriodReport, RunLine, Scope
from reports.document import Document


def issue_period_report(
    database: Database,
    store: ArtifactStore,
    settings: ReportSettings,
    *,
    actor: Actor,
    lot: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    station: str | None = None,
    again: bool = False,
) -> IssuedReport:
    """Issue the report of a lot, or of what was inspected from `since` to before `until`.

    RecordError for neither, and for a lot or station that no record has: a slip of the keyboard would look
    like a lot without defects. See `operations.reporting.issue.issue`.
    """
    with database.session() as session:
        require_known(session, lot=lot, station=station)
    subject = ReportSubject.period(lot=lot, since=since, until=until, station=station)

    def compose(what: Issue) -> Document:
        with database.session() as session:
            record = read_period_report(session, store, settings, what)
        return compose_period(
            record,
            supplement_of(
                database,
                scope_of(subject),
                record.findings,
                record.checkpoint,
                what,
                record.missing_pictures,
            ),
        )

    return issue(database, store, settings, subject, compose, actor=actor, again=again)


def read_period_report(
    session: Session, store: ArtifactStore, settings: ReportSettings, what: Issue
) -> PeriodReport:
    """Read a period back as its report's record, all of it as of the audit head that is printed."""
    upto = what.head.sequence
    scope = scope_of(what.subject)
    period = period_summary(session, scope, upto)
    findings, listed = once(scope_findings(session, scope, upto=upto))
    cards = [each.card for each in period.models]
    return PeriodReport(
        scope=Scope(scope.lot, scope.station, scope.since, scope.until),
        software_version=made_by(session, what.head),
        lots=period.lots,
        stations=period.stations,
        counts=counts_of(period.counts),
        repeated=period.repeated,
        parts=period.parts,
        runs=tuple(
            RunLine(
                number=run.reference,
                started_at=run.started_at,
                finished_at=run.finished_at,
                status=STATUS[run.status],
                model=run.model_digest,
                listed=run.listed,
                pictures=run.counted,
            )
            for run in period.runs
        ),
        in_force=_in_force(period),
        class_counts=classes_of(findings),
        findings=finding_pages(
            session, store, findings[: settings.max_findings], dict(period.settings), upto, listed
        ),
        max_finding_pages=settings.max_findings,
        unreadable=tuple((each.uri, each.reason) for each in scope_unreadable(session, scope, upto)),
        missing_pictures=tuple(_missing_picture(each) for each in period.missing),
        missing_unplaced=tuple(_missing_picture(each) for each in period.unplaced),
        process=period_process(
            session, scope, cards[0] if len(cards) == 1 else None, settings.timezone, upto
        ),
        review=review_of(session, scope, findings, upto),
        **heading(session, settings, what),
    )


def _missing_picture(announced: Announcement) -> MissingPicture:
    return missing_picture(announced.image, run_reference(announced.run_number))


def _in_force(period: PeriodSummary) -> tuple[ModelInForce, ...]:
    """Pair models with the settings under which they decided, most pictures first."""
    pictures: dict[tuple[str, str], int] = {}
    for run in period.runs:
        if run.counted:  # one that waited for pictures in vain decided nothing
            key = (run.model_digest, run.settings_digest)
            pictures[key] = pictures.get(key, 0) + run.counted
    models, frozen = {each.digest: each for each in period.models}, dict(period.settings)
    ordered = sorted(pictures.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(
        ModelInForce(model_of(models[model], frozen[settings]), settings, count)
        for (model, settings), count in ordered
    )
