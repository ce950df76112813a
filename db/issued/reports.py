"""Issued reports: what each is about, under which number and revision, and the audit head that it prints.

All revisions about one subject have one number: a run's is the run's own (R000012), a period's begins with P,
a dossier's about a finding or a part with D, a model's with M.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, Select, cast, func, or_, select
from sqlalchemy.orm import Session

from db.artifacts import ArtifactRef
from db.chain.events import Actor, Head
from db.columns import storable, time_text, utc_now
from db.engine import Database
from db.errors import RecordError
from db.inspection.known_names import unknown_finding
from db.inspection.missing_images import announcements
from db.inspection.runs import artifact_row, find_run_id, run_reference
from db.lookup import those
from db.schema import (
    Artifact,
    AuditEvent,
    Finding,
    Image,
    ModelVersion,
    Part,
    Prediction,
    Report,
    ReportSignature,
    Run,
)

# First letters of printed numbers; dossiers about findings and parts share one series.
_LETTERS = {"period": "P", "finding": "D", "part": "D", "model": "M"}


@dataclass(frozen=True, slots=True)
class ReportSubject:
    """What a report is about. Made by one of its functions; `about` is what the record keeps.

    `about`: {"run": "R000012"}; {"lot", "from", "to", "station"}, those that were given; {"finding":
    "R000012-0003"}; {"part", "lot"}; {"model": digest}. Times are RFC 3339 texts in UTC.
    """

    kind: str
    about: Mapping[str, Any]

    @classmethod
    def run(cls, reference: str) -> ReportSubject:
        """One run, by its printed number."""
        return cls("run", {"run": reference})

    @classmethod
    def period(
        cls,
        *,
        lot: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        station: str | None = None,
    ) -> ReportSubject:
        """Pictures across runs: of a lot, or inspected from `since` to before `until`, at one station or all.

        RecordError without a lot and without both times.
        """
        if lot is None and (since is None or until is None):
            raise RecordError("a period is a lot, or a time from and a time to: give the one or the other")
        if since is not None and until is not None and since >= until:
            raise RecordError(f"a period from {since.isoformat()} to {until.isoformat()} holds no time")
        given = {
            "lot": None if lot is None else storable(lot),
            "from": None if since is None else time_text(since),
            "to": None if until is None else time_text(until),
            "station": None if station is None else storable(station),
        }
        return cls("period", {name: value for name, value in given.items() if value is not None})

    @classmethod
    def finding(cls, reference: str) -> ReportSubject:
        """One finding."""
        return cls("finding", {"finding": reference})

    @classmethod
    def part(cls, serial: str, lot: str | None) -> ReportSubject:
        """One part."""
        return cls("part", {"part": serial, "lot": lot or ""})

    @classmethod
    def model(cls, digest: str) -> ReportSubject:
        """One model version."""
        return cls("model", {"model": digest})


@dataclass(frozen=True, slots=True)
class SignOffRecord:
    """A person's signature on a report. `name`, `role`: theirs as they signed.

    `artifact_digest`: of the PDF with this signature in it.
    """

    id: UUID
    number: int
    capacity: str
    decision: str
    reason: str
    person: str
    name: str
    role: str
    artifact_digest: str
    created_at: datetime
    signature: Mapping[str, Any]
    event_sequence: int

    @classmethod
    def of(cls, row: ReportSignature) -> SignOffRecord:
        """Return the record of a row."""
        return cls(
            id=row.id,
            number=row.number,
            capacity=row.capacity,
            decision=row.decision,
            reason=row.reason,
            person=row.person,
            name=str(row.signature.get("name", "")),
            role=str(row.signature.get("role", "")),
            artifact_digest=row.artifact_digest,
            created_at=row.created_at,
            signature=row.signature,
            event_sequence=row.event_sequence,
        )


@dataclass(frozen=True, slots=True)
class ReportRecord:
    """An issued report and the audit head it carries; `sign_offs` in the order of their numbers.

    `artifact_digest`: of the PDF as issued; `content_digest`: before the house signed it, where it did;
    `record_digest`: of the machine-readable record that is attached, where one is.
    """

    id: UUID
    subject: ReportSubject
    number: str
    revision: int
    run_id: UUID | None
    artifact_digest: str
    content_digest: str | None
    record_digest: str | None
    head: Head
    created_at: datetime
    supersedes_id: UUID | None
    event_sequence: int
    sign_offs: tuple[SignOffRecord, ...]

    @property
    def kind(self) -> str:
        """What it is about: run, period, finding, part or model."""
        return self.subject.kind

    @property
    def rendered_digest(self) -> str:
        """SHA-256 of the PDF as it was rendered: what rendering the same record again must give."""
        return self.content_digest or self.artifact_digest

    @property
    def latest_digest(self) -> str:
        """SHA-256 of the PDF with all signatures in it."""
        return self.sign_offs[-1].artifact_digest if self.sign_offs else self.artifact_digest


@dataclass(frozen=True, slots=True)
class NextReport:
    """What the next report about a subject is to print: its number and revision; what it supersedes."""

    subject: ReportSubject
    number: str
    revision: int
    supersedes: ReportRecord | None


@dataclass(frozen=True, slots=True)
class Concerned:
    """What a report's audit events name: the run, and digests of the model, settings and picture."""

    run_id: UUID | None = None
    model_digest: str | None = None
    settings_digest: str | None = None
    image_digest: str | None = None


def reports_of(session: Session, subject: ReportSubject) -> list[ReportRecord]:
    """Return the reports issued about a subject, oldest first."""
    if subject.kind == "run":
        return run_reports(session, find_run_id(session, str(subject.about["run"])))
    return _report_records(
        session, _reports_statement(Report.kind == subject.kind, Report.subject == dict(subject.about))
    )


def run_reports(session: Session, run_id: UUID) -> list[ReportRecord]:
    """Return the reports issued of a run, oldest first."""
    return _report_records(session, _reports_statement(Report.run_id == run_id))


def report_by_number(session: Session, number: str, revision: int | None = None) -> ReportRecord:
    """Return a report by its printed number, the latest revision unless one is named; RecordError if none."""
    wanted = number.strip().upper()
    if wanted[:1] in set(_LETTERS.values()):
        found = _report_records(session, _reports_statement(Report.number == storable(wanted)))
    else:
        found = run_reports(session, find_run_id(session, wanted))
    chosen = [report for report in found if revision in (None, report.revision)]
    if not chosen:
        which = "" if revision is None else f" revision {revision}"
        raise RecordError(f"there is no report {number}{which}: give a number such as R000012 or P000003")
    return chosen[-1]


def report_by_artifact(session: Session, digest: str) -> ReportRecord | None:
    """Return the report whose file has this SHA-256: as issued, before the house's seal, or signed."""
    signed = select(ReportSignature.report_id).where(ReportSignature.artifact_digest == digest)
    found = or_(Report.artifact_digest == digest, Report.id.in_(signed), Report.content_digest == digest)
    reports = _report_records(session, _reports_statement(found))
    return reports[0] if reports else None


def next_report(session: Session, subject: ReportSubject) -> NextReport:
    """Return what the next report about a subject prints; RecordError for a subject that is not recorded."""
    concerned(session, subject)
    earlier = reports_of(session, subject)
    if earlier:
        latest = earlier[-1]
        return NextReport(subject, latest.number, latest.revision + 1, latest)
    if subject.kind == "run":
        return NextReport(subject, str(subject.about["run"]), 1, None)
    letter = _LETTERS[subject.kind]
    kinds = [kind for kind, own in _LETTERS.items() if own == letter]
    counted = cast(func.substr(Report.number, 2), Integer)
    highest = session.scalar(select(func.max(counted)).where(Report.kind.in_(kinds))) or 0
    return NextReport(subject, f"{letter}{highest + 1:06d}", 1, None)


def record_report(
    db: Database,
    report: NextReport,
    artifact: ArtifactRef,
    head: Head,
    *,
    actor: Actor,
    record_digest: str | None = None,
    content_digest: str | None = None,
) -> ReportRecord:
    """Record a report as issued under what it prints; the bytes of the latest revision again are no new one.

    `head`: what the report prints; `record_digest`: SHA-256 of the attached machine-readable record;
    `content_digest`: of the PDF before the house signed it. RecordError where the log has no such event, or
    another report took the number or revision meanwhile: render it again.
    """
    with db.write() as recorder:
        session = recorder.session
        printed = session.scalar(select(AuditEvent.hash).where(AuditEvent.sequence == head.sequence))
        if printed != head.hash:
            raise RecordError(f"the report prints audit head {head.sequence}, which the log does not have")
        following = next_report(session, report.subject)
        latest = following.supersedes
        if latest is not None and latest.rendered_digest == (content_digest or artifact.digest):
            return latest
        if (following.number, following.revision) != (report.number, report.revision):
            raise RecordError(
                f"report {report.number} revision {report.revision} was issued meanwhile: issue it again"
            )
        about = concerned(session, report.subject)
        row = Report(
            run_id=about.run_id,
            revision=report.revision,
            artifact_digest=artifact.digest,
            head_sequence=head.sequence,
            head_hash=head.hash,
            supersedes_id=None if latest is None else latest.id,
            created_at=utc_now(),
            kind=report.subject.kind,
            number=report.number,
            subject=dict(report.subject.about),
            record_digest=record_digest,
            content_digest=content_digest,
        )
        known = session.scalar(select(Artifact.id).where(Artifact.digest == artifact.digest))
        recorder.add(
            [row] if known else [artifact_row(artifact), row],
            action="report.issued",
            actor=actor,
            entity="report",
            entity_id=row.id,
            run_id=about.run_id,
            payload={"kind": row.kind, "number": row.number, "revision": row.revision},
            model_digest=about.model_digest,
            settings_digest=about.settings_digest,
            image_digest=about.image_digest,
            artifact_digests=[artifact.digest],
        )
        return _report_record(row, None, ())


def record_unsealed(db: Database, report: ReportRecord, reason: str, *, actor: Actor) -> None:
    """Record that a report was issued without the house's seal, which it was to bear, and why."""
    with db.write() as recorder:
        recorder.add(
            [],
            action="report.unsealed",
            actor=actor,
            entity="report",
            entity_id=report.id,
            run_id=report.run_id,
            payload={"number": report.number, "revision": report.revision},
            reason=reason,
        )


def concerned(session: Session, subject: ReportSubject) -> Concerned:
    """Return what a report about this subject concerns; RecordError where the record has no such subject."""
    about = subject.about
    if subject.kind == "run":
        run_id = find_run_id(session, str(about["run"]))
        run = select(ModelVersion.digest, Run.settings_digest).join(
            Run, Run.model_version_id == ModelVersion.id
        )
        model, settings = session.execute(run.where(Run.id == run_id)).one()
        return Concerned(run_id, model, settings)
    if subject.kind == "finding":
        finding = (
            select(ModelVersion.digest, Prediction.settings_digest, Image.digest)
            .join(Prediction, Prediction.model_version_id == ModelVersion.id)
            .join(Image, Image.id == Prediction.image_id)
            .join(Finding, Finding.prediction_id == Prediction.id)
        )
        row = session.execute(finding.where(Finding.reference == storable(str(about["finding"])))).first()
        if row is None:
            raise unknown_finding(session, str(about["finding"]))
        return Concerned(None, *row)
    if subject.kind == "model":
        if session.scalar(select(ModelVersion.id).where(ModelVersion.digest == about["model"])) is None:
            raise RecordError(f"there is no model {about['model']}: give the digest of one that is recorded")
        return Concerned(model_digest=str(about["model"]))
    if subject.kind == "part":
        part = select(Part.id).where(Part.serial == about["part"], Part.lot == about["lot"])
        if session.scalar(part) is None and not any(
            announcements(session, part=str(about["part"]), lot=str(about["lot"]))
        ):
            raise RecordError(f"there is no part {about['part']!r} in lot {about['lot']!r}")
    return Concerned()


def _reports_statement(*conditions: ColumnElement[bool]) -> Select[Any]:
    return (
        select(Report, Run.number)
        .outerjoin(Run, Run.id == Report.run_id)
        .where(*conditions)
        .order_by(Report.revision)
    )


def _report_records(session: Session, statement: Select[Any]) -> list[ReportRecord]:
    rows = session.execute(statement).all()
    signed: dict[UUID, list[SignOffRecord]] = {row.Report.id: [] for row in rows}
    statement = select(ReportSignature).order_by(ReportSignature.number)
    for (made,) in those(session, statement, ReportSignature.report_id, signed):
        signed[made.report_id].append(SignOffRecord.of(made))
    return [_report_record(row.Report, row.number, tuple(signed[row.Report.id])) for row in rows]


def _report_record(row: Report, run_number: int | None, sign_offs: tuple[SignOffRecord, ...]) -> ReportRecord:
    number, subject = row.number, row.subject
    if number is None and run_number is not None:  # older than the columns, and about a run
        number = run_reference(run_number)
    return ReportRecord(
        id=row.id,
        subject=ReportSubject(row.kind or "run", {"run": number} if subject is None else subject),
        number=number or "",
        revision=row.revision,
        run_id=row.run_id,
        artifact_digest=row.artifact_digest,
        content_digest=row.content_digest,
        record_digest=row.record_digest,
        head=Head(row.head_sequence, row.head_hash),
        created_at=row.created_at,
        supersedes_id=row.supersedes_id,
        event_sequence=row.event_sequence,
        sign_offs=sign_offs,
    )
