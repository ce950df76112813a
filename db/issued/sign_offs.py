"""People sign issued reports: each adds a signature to the PDF and says whether they accept what it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from db.artifacts import ArtifactRef
from db.columns import storable, utc_now
from db.dispositions.signatures import Register, sign, wrong
from db.engine import Database
from db.errors import RecordError
from db.inspection.runs import artifact_row
from db.issued.reports import ReportRecord, SignOffRecord, concerned, report_by_number
from db.lookup import pages
from db.people.people import Authenticated, Task, require
from db.schema import CAPACITIES, SIGN_OFFS, Artifact, AuditEvent, Report, ReportSignature

_TASKS: Mapping[str, Task] = {"reviewed": "decide", "approved": "approve"}


def meaning_of(capacity: str, decision: str) -> str:
    """Return the meaning of a signature on a report: review, approval, or refusal by who may approve."""
    if capacity == "reviewed":
        return "review"
    return "refusal" if decision == "do not accept" else "approval"


def sign_report(
    db: Database,
    report: ReportRecord,
    *,
    capacity: str,
    decision: str,
    signer: Authenticated,
    artifact: ArtifactRef,
    reason: str = "",
) -> SignOffRecord:
    """Record that a person signed a report, and the PDF with their signature in it.

    `report`: as the person was shown it; `artifact`: its `latest_digest`'s PDF with one more signature.
    Anything but a plain accept needs a reason. RecordError where somebody signed meanwhile, a later revision
    supersedes the report, the person signed it already or may not sign in this capacity.
    """
    for value, known, what in ((capacity, CAPACITIES, "capacity"), (decision, SIGN_OFFS, "decision")):
        if value not in known:
            raise RecordError(f"{what} {value!r} is none of {', '.join(known)}")
    text = storable(reason).strip()
    if not text and decision != "accept":
        raise RecordError(f"{decision} needs a reason: say in a sentence why")
    name = f"report {report.number} revision {report.revision}"
    with db.write() as recorder:
        session = recorder.session
        require(session, signer, _TASKS[capacity])
        now = report_by_number(session, report.number, report.revision)
        if now.latest_digest != report.latest_digest:
            raise RecordError(
                f"{name}: somebody signed meanwhile and nothing was signed: sign the newer file"
            )
        if any(each.person == signer.login for each in now.sign_offs):
            raise RecordError(f"{name}: {signer.login!r} signed it already: it takes another person")
        if session.scalar(select(Report.id).where(Report.supersedes_id == now.id)) is not None:
            raise RecordError(f"{name}: a later revision supersedes it: sign that one")
        if session.scalar(select(Artifact.id).where(Artifact.digest == artifact.digest)) is not None:
            raise RecordError(f"{name}: the file holds no new signature: it is recorded already")
        row = ReportSignature(
            report_id=now.id,
            number=len(now.sign_offs) + 1,
            capacity=capacity,
            decision=decision,
            reason=text,
            person=signer.login,
            artifact_digest=artifact.digest,
            created_at=utc_now(),
            signature={},
        )
        issued = session.get_one(Report, now.id)
        recorded_by = session.scalars(
            select(AuditEvent.hash).where(AuditEvent.sequence == now.event_sequence)
        ).one()
        before = [each.signature["digest"] for each in now.sign_offs]
        content = signed_content(issued, recorded_by, before, row)
        row.signature = sign(signer, row.created_at, meaning_of(capacity, decision), content)
        about = concerned(session, now.subject)
        recorder.add(
            [artifact_row(artifact), row],
            action="report.signed",
            actor=signer.actor,
            entity="report",
            entity_id=now.id,
            run_id=about.run_id,
            payload={
                "number": now.number,
                "revision": now.revision,
                "capacity": capacity,
                "signature": row.signature["digest"],
            },
            model_digest=about.model_digest,
            settings_digest=about.settings_digest,
            image_digest=about.image_digest,
            artifact_digests=[artifact.digest],
            new={"decision": decision},
            reason=text or None,
        )
        return SignOffRecord.of(row)


def check_sign_offs(session: Session) -> Iterator[tuple[str, str]]:
    """Compute the digest of every signature on a report again; yield (where, what is wrong) as they fail.

    Checks as well who signed, as `check_signatures` does, that signatures on a report are numbered without
    gap, and that none was made after a later revision. Reads 500 reports with a signature at a time.
    """
    recorded, later = aliased(AuditEvent), aliased(Report)
    issued = (
        select(Report.id, Report, recorded.hash, later.event_sequence.label("superseded_at"))
        .join(recorded, recorded.sequence == Report.event_sequence)
        .outerjoin(later, later.supersedes_id == Report.id)
        .where(select(ReportSignature.id).where(ReportSignature.report_id == Report.id).exists())
    )
    for page in pages(session, issued, Report.id):
        rows = session.scalars(
            select(ReportSignature)
            .where(ReportSignature.report_id.in_([row.id for row in page]))
            .order_by(ReportSignature.report_id, ReportSignature.number)
        ).all()
        register = Register(session, {row.person for row in rows})
        reports = {row.id: row for row in page}
        for report_id, made in groupby(rows, lambda row: row.report_id):
            before: list[str] = []
            report: Report = reports[report_id].Report
            superseded_at = reports[report_id].superseded_at
            for position, row in enumerate(made, 1):
                name = f"report {report.number or report.id} revision {report.revision}"
                where = f"signature {row.number} on {name}"
                if row.number != position:
                    yield where, f"signature {position} is missing"
                    break
                if row.event_sequence <= report.event_sequence:
                    yield where, "is recorded before the report itself"
                if superseded_at is not None and row.event_sequence > superseded_at:
                    yield where, "was made after a later revision superseded the report"
                content = signed_content(report, reports[report_id].hash, before, row)
                meaning = meaning_of(row.capacity, row.decision)
                for message in wrong(row.signature, row, meaning, _TASKS[row.capacity], content, register):
                    yield where, message
                before.append(str(row.signature.get("digest")))


def signed_content(
    report: Report, recorded_by: str, before: list[str], row: ReportSignature
) -> dict[str, Any]:
    """Return what is signed: the report as issued, the signatures before this one, and what is said of it."""
    # Recorded signatures hold the digest of exactly these keys: another one needs a new scheme of signatures.
    return {
        "report": {
            "recorded_by": recorded_by,
            "number": report.number,
            "revision": report.revision,
            "artifact": report.artifact_digest,
            "record": report.record_digest,
            "head": [report.head_sequence, report.head_hash],
        },
        "signed_before": before,
        "sign_off": {
            "id": row.id.hex,
            "number": row.number,
            "capacity": row.capacity,
            "decision": row.decision,
            "reason": row.reason,
            "artifact": row.artifact_digest,
        },
    }
