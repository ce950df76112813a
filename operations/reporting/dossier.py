"""The dossier of a finding or a part, read from the record."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.orm import Session

from configs.schema import ReportSettings
from db.artifacts import ArtifactStore
from db.chain.events import Actor
from db.engine import Database
from db.errors import RecordError
from db.figures.announced import never_arrived
from db.figures.periods import class_occurrence
from db.figures.scopes import Scope
from db.inspection.missing_images import Announcement
from db.inspection.runs import run_reference
from db.issued.reports import ReportSubject
from db.queries.finding_records import FindingRecord, get_finding
from db.queries.part_history import LifeEntry, finding_history, part_history
from db.queries.runs import RunSummary, find_run, run_summary
from db.queries.sentences import sentence
from operations.reporting.findings import finding_pages, model_of
from operations.reporting.heading import heading, made_by
from operations.reporting.issue import Issue, IssuedReport, issue, supplement_of
from operations.reporting.run_report import STATUS, missing_picture
from reports.compose.dossier import compose_dossier, gravity
from reports.content.dossier import DecidedBy, Dossier, Entry, Occurrence, PictureLine, ReplayLine
from reports.document import Document

_LISTED = ("inspected", "carried over", "unreadable")
_BEFORE = timedelta(days=30)
_CLASSES = 3  # whose other occurrences are counted


def issue_dossier(
    database: Database,
    store: ArtifactStore,
    subject: ReportSubject,
    settings: ReportSettings,
    *,
    actor: Actor,
    again: bool = False,
) -> IssuedReport:
    """Issue the dossier of a finding or a part, see `operations.reporting.issue.issue`."""

    def compose(what: Issue) -> Document:
        with database.session() as session:
            record = read_dossier(session, store, settings, what)
        return compose_dossier(
            record, supplement_of(database, None, record.findings, record.checkpoint, what)
        )

    return issue(database, store, settings, subject, compose, actor=actor, again=again)


def part_subject(session: Session, serial: str, lot: str | None) -> ReportSubject:
    """Return the subject of a part's dossier.

    Raises:
        RecordError: the serial is in no lot, or in several.
    """
    found = part_history(session, serial, lot)
    if len(found) > 1:
        lots = ", ".join(repr(each.lot or "") for each in found)
        raise RecordError(f"part {serial!r} is in the lots {lots}: say which with --lot")
    return ReportSubject.part(found[0].serial, found[0].lot)


def read_dossier(session: Session, store: ArtifactStore, settings: ReportSettings, what: Issue) -> Dossier:
    """Read everything about a finding or a part, all of it as of the audit head that is printed."""
    upto = what.head.sequence
    about = what.subject.about
    if what.subject.kind == "finding":
        subject: str | None = str(about["finding"])
        of = get_finding(session, str(about["finding"]))
        part, lot = of.part, of.lot
    else:
        subject, part, lot = None, str(about["part"]), str(about["lot"]) or None
    if part is not None:
        entries: Sequence[LifeEntry] = part_history(session, part, lot or "", upto)[0].entries
    else:
        entries = finding_history(session, str(subject), upto)
    missing: Sequence[Announcement] = ()
    if part is not None:
        missing = never_arrived(session, Scope(part=part, lot=lot or ""), upto).in_scope
    references = [str(each.facts["finding"]) for each in entries if each.kind == "finding"]
    findings = [get_finding(session, name) for name in dict.fromkeys(references) if subject in (None, name)]
    listed = [each for each in entries if each.kind in _LISTED]
    runs = [
        run_summary(session, find_run(session, name).id, upto)
        for name in dict.fromkeys(str(each.facts["run"]) for each in listed)
    ]
    return Dossier(
        title="Finding dossier" if subject else "Part dossier",
        software_version=made_by(session, what.head),
        subject=subject,
        part=part,
        lot=lot,
        findings=finding_pages(
            session, store, findings, {run.settings_digest: run.settings for run in runs}, upto
        ),
        decided_by=tuple(_decided_by(run) for run in runs),
        pictures=tuple(_picture(each) for each in listed),
        entries=tuple(_entry(each) for each in entries),
        occurrences=_occurrences(session, findings, lot, upto),
        missing_pictures=tuple(
            missing_picture(each.image, run_reference(each.run_number)) for each in missing
        ),
        replays=tuple(
            ReplayLine(str(each.facts["uri"]), each.at, str(each.facts["result"]))
            for each in entries
            if each.kind == "replay"
        ),
        **heading(session, settings, what),
    )


def _decided_by(run: RunSummary) -> DecidedBy:
    return DecidedBy(
        run=run.reference,
        status=STATUS[run.status],
        model=model_of(run.model, run.settings),
        settings_digest=run.settings_digest,
        software_version=run.software_version,
    )


def _picture(entry: LifeEntry) -> PictureLine:
    facts = entry.facts
    return PictureLine(
        uri=str(facts["uri"]),
        run=str(facts["run"]),
        inspected_at=entry.at,
        verdict=str(facts["verdict"]),
        score=facts.get("score"),
        digest=dict(entry.evidence).get("picture"),
        station=facts["station"],
        reason=facts["reason"],
        carried_over=entry.kind == "carried over",
    )


def _entry(entry: LifeEntry) -> Entry:
    # Block maps are many and lie beside the fused map: the finding page names the layers.
    evidence = tuple(pair for pair in entry.evidence if pair[0] != "block map")
    return Entry(entry.at, sentence(entry), entry.sequence, evidence)


def _occurrences(
    session: Session, findings: Sequence[FindingRecord], lot: str | None, upto: int
) -> tuple[Occurrence, ...]:
    """Count where else the findings' classes were flagged: in the lot, at the station in the month before.

    Of many classes those of the gravest findings are counted, that which speaks for the part among them.
    """
    found = []
    first = {each.class_name: each for each in reversed(findings)}
    gravest = sorted(findings, key=lambda each: gravity(each.verdict, each.score), reverse=True)
    classes = list(dict.fromkeys(each.class_name for each in gravest))[:_CLASSES]
    for class_name in sorted(classes):
        finding = first[class_name]
        scopes = [] if lot is None else [(f"in lot {lot}", Scope(lot=lot))]
        if finding.station is not None:
            since = finding.created_at - _BEFORE
            month = Scope(station=finding.station, since=since, until=finding.created_at)
            scopes.append((f"at station {finding.station} in the 30 days before", month))
        for where, scope in scopes:
            found.append(Occurrence(class_name, where, *class_occurrence(session, scope, class_name, upto)))
    return tuple(found)
