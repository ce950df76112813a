"""One part's whole life: everything recorded of it, in order, with the evidence behind each entry."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, false, select
from sqlalchemy.orm import Session

from db.columns import storable
from db.errors import RecordError
from db.index_walk import NEWEST, unordered
from db.inspection.known_names import require_known, unknown_finding
from db.inspection.missing_images import Announcement, PictureKey, announcements
from db.inspection.runs import run_reference
from db.issued.reports import ReportSubject, reports_of, run_reports
from db.lookup import those
from db.retention.inventory import map_artifacts
from db.schema import (
    Approval,
    ArtifactRetention,
    AuditEvent,
    Disposition,
    Explanation,
    Finding,
    Image,
    ModelVersion,
    Part,
    Prediction,
    Replay,
    Run,
    RunEnd,
    RunImage,
)

# The order of entries with the same time and event: what happened before is told before.
KINDS = (
    "missing",
    "taken",
    "inspected",
    "carried over",
    "unreadable",
    "finding",
    "disposition",
    "approval",
    "replay",
    "pruned",
    "restored",
    "report",
    "sign-off",
)


@dataclass(frozen=True, slots=True)
class LifeEntry:
    """One thing that happened to a part. `kind`: one of KINDS, which decides what `facts` holds.

    `sequence`, `hash`: of the audit event that recorded it; `evidence`: (what, SHA-256) of pictures, maps,
    models, reports, signatures. `db.queries.sentences` tells it in words.
    """

    at: datetime
    kind: str
    sequence: int
    hash: str
    facts: Mapping[str, Any]
    evidence: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PartHistory:
    """A part and what happened to it, oldest first."""

    serial: str
    lot: str | None
    entries: tuple[LifeEntry, ...]


def part_history(
    session: Session, serial: str, lot: str | None = None, upto: int | None = None
) -> list[PartHistory]:
    """Return the life of the part with this serial, in each lot that has one, or in that lot alone.

    `upto`: only what was recorded in events up to this one.
    RecordError for a serial, or a serial in that lot, that is not in the record; it names the closest ones.
    """
    statement = select(Part).where(Part.serial == serial).order_by(Part.lot)
    parts = session.scalars(statement if lot is None else statement.where(Part.lot == lot)).all()
    last = upto or NEWEST
    missed: dict[str, list[Announcement]] = {}
    for each in announcements(session, RunEnd.event_sequence <= last, part=serial, lot=lot):
        missed.setdefault(each.image.lot or "", []).append(each)
    known = {part.lot: part.id for part in parts}
    if not known and not missed:
        raise _unknown_part(session, serial, lot)
    told = []
    for name in sorted({*known, *missed}):
        lines = RunImage.part_id == known[name] if name in known else false()
        entries = [
            *_missing_entries(session, missed.get(name, ())),
            *_entries(session, lines, _part_subjects(serial, name)),
        ]
        told.append(PartHistory(serial, name or None, _entries_upto(entries, upto)))
    return told


def finding_history(session: Session, reference: str, upto: int | None = None) -> tuple[LifeEntry, ...]:
    """Return what happened to a finding and to the picture that it was made on, as of event `upto`.

    For a finding on a picture that names no part; `part_history` is for those that name one. RecordError if
    there is no such finding.
    """
    found = select(Finding.prediction_id).where(Finding.reference == storable(reference))
    prediction_id = session.scalar(found)
    if prediction_id is None:
        raise unknown_finding(session, reference)
    return _entries_upto(_entries(session, RunImage.prediction_id == prediction_id, ()), upto)


def _entries_upto(entries: Sequence[LifeEntry], upto: int | None) -> tuple[LifeEntry, ...]:
    """Return what was recorded up to event `upto`, in the order in which it happened."""
    last = upto or NEWEST
    told = [entry for entry in entries if entry.sequence <= last]
    return tuple(sorted(told, key=lambda entry: (entry.at, entry.sequence, KINDS.index(entry.kind))))


def _part_subjects(serial: str, lot: str) -> list[ReportSubject]:
    of_lot = [ReportSubject.period(lot=lot)] if lot else []
    return [ReportSubject.part(serial, lot), *of_lot]


def _unknown_part(session: Session, serial: str, lot: str | None) -> RecordError:
    require_known(session, part=serial)
    recorded = select(Part.lot).where(Part.serial == serial).order_by(Part.lot).limit(5)
    announced = {each.image.lot or "" for each in announcements(session, part=serial)}
    lots = ", ".join(repr(name) for name in sorted({*session.scalars(recorded), *announced})[:5])
    return RecordError(f"part {serial!r} is not in lot {lot!r}, but in {lots}")


def _entries(
    session: Session, mine: ColumnElement[bool], subjects: Sequence[ReportSubject]
) -> list[LifeEntry]:
    """Return all entries about the listed pictures that `mine` selects.

    `subjects`: further subjects of reports about them, beside their runs and findings.
    """
    statement = (
        select(RunImage, AuditEvent.hash, AuditEvent.at, Run.number, Run.source, Image.digest, Prediction)
        .add_columns(ModelVersion.name.label("model_name"), ModelVersion.digest.label("model_digest"))
        .join(AuditEvent, AuditEvent.sequence == RunImage.event_sequence)
        .join(Run, Run.id == RunImage.run_id)
        .join(ModelVersion, ModelVersion.id == Run.model_version_id)
        .outerjoin(Image, Image.id == RunImage.image_id)
        .outerjoin(Prediction, Prediction.id == RunImage.prediction_id)
        .where(mine)
        .order_by(unordered(RunImage.event_sequence))
    )
    lines = session.execute(statement).all()
    uris = {row.Prediction.id: row.RunImage.uri for row in reversed(lines) if row.Prediction is not None}
    entries = [entry for row in lines for entry in _line_entries(row)]
    findings = list(those(session, _findings_statement(), Finding.prediction_id, uris))
    entries += [_finding_entry(row, uris[row.Finding.prediction_id]) for row in findings]
    entries += _decision_entries(session, {row.Finding.id: row.Finding for row in findings})
    entries += _replay_entries(session, uris)
    runs = dict.fromkeys(row.RunImage.run_id for row in lines)
    of_findings = [ReportSubject.finding(row.Finding.reference) for row in findings]
    entries += _report_entries(session, runs, [*subjects, *of_findings])
    stored = ("picture", "map", "block map", "report")
    digests = {digest: what for entry in entries for what, digest in entry.evidence if what in stored}
    entries += _retention_entries(session, digests)
    return entries


def _missing_entries(session: Session, missed: Sequence[Announcement]) -> Iterator[LifeEntry]:
    """Yield for each announced picture the first run that missed it, and how many later ones did."""
    by_picture: dict[PictureKey, list[Announcement]] = {}
    for each in missed:
        by_picture.setdefault(each.told_as[0], []).append(each)
    first = {runs[0].event_sequence: None for runs in by_picture.values()}
    found = those(session, select(AuditEvent), AuditEvent.sequence, first)
    events: dict[int, AuditEvent] = {event.sequence: event for (event,) in found}
    for runs in by_picture.values():
        event = events[runs[0].event_sequence]
        facts = {
            "uri": runs[0].image.uri,
            "station": runs[0].image.station,
            "source": runs[0].source,
            "run": run_reference(runs[0].run_number),
            "later_runs": len(runs) - 1,
        }
        yield LifeEntry(event.at, "missing", event.sequence, event.hash, facts, ())


def _line_entries(row: Row[Any]) -> Iterator[LifeEntry]:
    """Yield that a picture was taken, and what the run that listed it found."""
    line: RunImage = row.RunImage
    sequence, picture = line.event_sequence, [] if row.digest is None else [("picture", row.digest)]
    facts = {
        "uri": line.uri,
        "station": line.station,
        "source": row.source,
        "run": run_reference(row.number),
        "verdict": line.verdict,
        "reason": line.reason,
        "model": row.model_name,
    }
    if line.captured_at is not None:
        yield LifeEntry(line.captured_at, "taken", sequence, row.hash, facts, tuple(picture))
    if (made := row.Prediction) is not None:
        facts |= {
            "score": made.score,
            "review_threshold": made.review_threshold,
            "reject_threshold": made.reject_threshold,
        }
    kind = "inspected" if line.verdict != "unreadable" else "unreadable"
    if line.carried_over:
        kind = "carried over"
    model = ("model", row.model_digest)
    yield LifeEntry(row.at, kind, sequence, row.hash, facts, (*picture, model))


def _findings_statement() -> Select[Any]:
    return (
        select(Finding, Explanation, AuditEvent.hash, AuditEvent.at)
        .join(AuditEvent, AuditEvent.sequence == Finding.event_sequence)
        .outerjoin(Explanation, Explanation.finding_id == Finding.id)
        .order_by(Finding.number)
    )


def _finding_entry(row: Row[Any], uri: str) -> LifeEntry:
    finding: Finding = row.Finding
    why: Explanation | None = row.Explanation
    facts = {
        "finding": finding.reference,
        "uri": uri,
        "class": finding.class_name,
        "class_score": finding.class_score,
        "threshold": finding.threshold,
        "method": None if why is None else why.method,
        "status": None if why is None else why.status,
        "drop": None if why is None else why.score_drop,
        "increase": None if why is None else why.score_increase,
    }
    if why is not None and why.tiles:
        facts["tiles"] = len(why.tiles)
    maps = [] if why is None else map_artifacts(why.map_digest, why.block_map_digests, why.tiles)
    evidence = tuple((kind.replace("_", " "), digest) for kind, digest in maps)
    return LifeEntry(row.at, "finding", finding.event_sequence, row.hash, facts, evidence)


def _decision_entries(session: Session, findings: Mapping[UUID, Finding]) -> Iterator[LifeEntry]:
    """Yield what people decided about the findings, and who approved or refused that."""
    made = (
        select(Disposition, AuditEvent)
        .join(AuditEvent, AuditEvent.sequence == Disposition.event_sequence)
        .order_by(unordered(Disposition.event_sequence))
    )
    dispositions: dict[UUID, Disposition] = {}
    for row, event in those(session, made, Disposition.finding_id, findings):
        dispositions[row.id] = row
        facts = _decision_facts(row, event) | {
            "finding": findings[row.finding_id].reference,
            "class": row.class_name,
            "needs_approval": bool(row.needs_approval),
            "supersedes": row.supersedes_id is not None,
        }
        yield LifeEntry(
            event.at, "disposition", event.sequence, event.hash, facts, _signature_evidence(row.signature)
        )
    second = select(Approval, AuditEvent).join(AuditEvent, AuditEvent.sequence == Approval.event_sequence)
    for row, event in those(session, second, Approval.disposition_id, dispositions):
        disposition = dispositions[row.disposition_id]
        facts = _decision_facts(row, event) | {
            "finding": findings[disposition.finding_id].reference,
            "disposition": disposition.decision,
        }
        yield LifeEntry(
            event.at, "approval", event.sequence, event.hash, facts, _signature_evidence(row.signature)
        )


def _decision_facts(row: Disposition | Approval, event: AuditEvent) -> dict[str, Any]:
    signature = row.signature or {}
    return {
        "decision": row.decision,
        "reason": row.reason,
        "person": row.person,
        "name": signature.get("name") or event.actor_name,
        "role": signature.get("role") or event.actor_role,
        "meaning": signature.get("meaning"),
    }


def _signature_evidence(signature: Mapping[str, Any] | None) -> tuple[tuple[str, str], ...]:
    digest = None if signature is None else signature.get("digest")
    return (("signature", digest),) if isinstance(digest, str) else ()


def _replay_entries(session: Session, uris: Mapping[UUID, str]) -> Iterator[LifeEntry]:
    statement = (
        select(Replay, AuditEvent)
        .join(AuditEvent, AuditEvent.sequence == Replay.event_sequence)
        .order_by(unordered(Replay.event_sequence))
    )
    for replay, event in those(session, statement, Replay.prediction_id, uris):
        facts = {
            "uri": uris[replay.prediction_id],
            "result": replay.result,
            "details": replay.details,
            "software_version": replay.software_version,
            "person": event.actor_name or event.actor_id,
        }
        yield LifeEntry(event.at, "replay", event.sequence, event.hash, facts, ())


def _report_entries(
    session: Session, runs: Collection[UUID], subjects: Collection[ReportSubject]
) -> Iterator[LifeEntry]:
    """Yield the reports about these runs and subjects, and who signed them."""
    issued = [report for run in runs for report in run_reports(session, run)]
    issued += [report for subject in subjects for report in reports_of(session, subject)]
    sequences = {report.event_sequence for report in issued}
    sequences |= {made.event_sequence for report in issued for made in report.sign_offs}
    rows = those(session, select(AuditEvent), AuditEvent.sequence, sequences)
    events: dict[int, AuditEvent] = {event.sequence: event for (event,) in rows}
    for report in issued:
        event = events[report.event_sequence]
        facts = {
            "number": report.number,
            "kind": report.kind,
            "about": dict(report.subject.about),
            "revision": report.revision,
            "head": report.head.sequence,
        }
        evidence = (("report", report.artifact_digest), ("printed head", report.head.hash))
        yield LifeEntry(event.at, "report", event.sequence, event.hash, facts, evidence)
        for made in report.sign_offs:
            event = events[made.event_sequence]
            said = facts | {
                "capacity": made.capacity,
                "decision": made.decision,
                "reason": made.reason,
                "person": made.person,
                "name": made.name,
                "role": made.role,
                "meaning": made.signature.get("meaning"),
            }
            signed = (("report", made.artifact_digest), *_signature_evidence(made.signature))
            yield LifeEntry(event.at, "sign-off", event.sequence, event.hash, said, signed)


def _retention_entries(session: Session, digests: Mapping[str, str]) -> Iterator[LifeEntry]:
    statement = (
        select(ArtifactRetention, AuditEvent)
        .join(AuditEvent, AuditEvent.sequence == ArtifactRetention.event_sequence)
        .order_by(unordered(ArtifactRetention.event_sequence))
    )
    for row, event in those(session, statement, ArtifactRetention.artifact_digest, digests):
        what = digests[row.artifact_digest]
        facts = {"what": what, "policy": row.policy, "person": event.actor_name or event.actor_id}
        evidence = ((what, row.artifact_digest),)
        yield LifeEntry(event.at, row.state, event.sequence, event.hash, facts, evidence)
