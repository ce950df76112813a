"""What changed about a report's subject between two heads of the log: what a new revision reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from db.figures.announced import never_arrived
from db.figures.scopes import line_conditions, scope_of
from db.inspection.runs import run_reference
from db.issued.reports import ReportSubject, concerned
from db.retention.inventory import MAP_COLUMNS, map_artifacts
from db.schema import (
    Approval,
    ArtifactRetention,
    Disposition,
    Explanation,
    Finding,
    Image,
    ModelVersion,
    Prediction,
    Run,
    RunEnd,
    RunImage,
)


@dataclass(frozen=True, slots=True)
class DecisionChange:
    """What a person decided, or answered to a decision. `kind`: decided, approved or refused.

    `decision`, `class_name`: of the disposition in either case; `name`, `role`: as signed.
    """

    event_sequence: int
    at: datetime
    kind: str
    finding: str
    decision: str
    class_name: str | None
    reason: str
    person: str
    name: str
    role: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What was recorded about a subject after one event of the audit log, up to another.

    `listed`: further listed pictures, by verdict; `missing`: further ones that never arrived, of a period or
    part; `ended`: runs that ended (reference, status); `decisions` in the order of their events; `evidence`:
    pictures and maps that were removed by policy or stored again.
    """

    after: int
    upto: int
    listed: Mapping[str, int]
    missing: int
    ended: tuple[tuple[str, str], ...]
    decisions: tuple[DecisionChange, ...]
    evidence: int

    def __bool__(self) -> bool:
        return bool(self.listed or self.missing or self.ended or self.decisions or self.evidence)


def changes_of(session: Session, subject: ReportSubject, after: int, upto: int) -> Changes:
    """Return what changed about a subject after event `after`, up to and with event `upto`.

    RecordError where the record has no such subject.
    """
    lines, findings = _subject_conditions(session, subject, upto)
    # The index on events answers this: little is recorded after a report.
    listed = session.execute(
        select(RunImage.verdict, func.count())
        .where(RunImage.event_sequence > after, *lines)
        .group_by(RunImage.verdict)
        .order_by(RunImage.verdict)
    )
    runs = select(RunImage.run_id).where(*lines)
    mine = Run.id == concerned(session, subject).run_id if subject.kind == "run" else Run.id.in_(runs)
    ended = session.execute(
        select(Run.number, RunEnd.status)
        .join(RunEnd, RunEnd.run_id == Run.id)
        .where(RunEnd.event_sequence > after, RunEnd.event_sequence <= upto, mine)
        .order_by(Run.number)
    )
    return Changes(
        after=after,
        upto=upto,
        listed=dict(listed.tuples().all()),
        missing=_missing_changes(session, subject, after, upto),
        ended=tuple((run_reference(number), status) for number, status in ended),
        decisions=tuple(_decision_changes(session, findings, after, upto)),
        evidence=_evidence_changes(session, findings, after, upto),
    )


def _subject_conditions(
    session: Session, subject: ReportSubject, upto: int
) -> tuple[list[ColumnElement[bool]], Select[tuple[UUID]]]:
    """Return conditions on `RunImage`, and a statement that selects the ids of the findings concerned."""
    concerned(session, subject)
    about = subject.about
    if subject.kind == "finding":
        finding = select(Finding.id).where(Finding.reference == about["finding"])
        prediction = select(Finding.prediction_id).where(Finding.reference == about["finding"])
        return [RunImage.event_sequence <= upto, RunImage.prediction_id.in_(prediction)], finding
    if subject.kind == "model":
        models = select(ModelVersion.id).where(ModelVersion.digest == about["model"])
        runs = select(Run.id).where(Run.model_version_id.in_(models))
        made = select(Finding.id).where(Finding.run_id.in_(runs))
        return [RunImage.event_sequence <= upto, RunImage.run_id.in_(runs)], made
    lines = line_conditions(session, scope_of(subject), upto)
    on = select(RunImage.prediction_id).where(*lines)
    return lines, select(Finding.id).where(Finding.prediction_id.in_(on))


def _missing_changes(session: Session, subject: ReportSubject, after: int, upto: int) -> int:
    """Count the pictures of a period or part that never arrived, and were not announced as of `after`."""
    ended = select(RunEnd.id).where(RunEnd.event_sequence > after, RunEnd.event_sequence <= upto)
    if subject.kind not in ("period", "part") or session.scalar(ended.limit(1)) is None:
        return 0
    scope = scope_of(subject)
    before, now = (never_arrived(session, scope, head).in_scope for head in (after, upto))
    known = {each.told_as[0] for each in before}
    return sum(known.isdisjoint(each.told_as) for each in now)


def _decision_changes(
    session: Session, findings: Select[tuple[UUID]], after: int, upto: int
) -> list[DecisionChange]:
    found: list[DecisionChange] = []
    decided = select(Disposition, Finding.reference).join(Finding, Finding.id == Disposition.finding_id)
    new = (Disposition.event_sequence > after, Disposition.event_sequence <= upto)
    for row, reference in session.execute(decided.where(*new, Disposition.finding_id.in_(findings))):
        found.append(_decision_change(row, "decided", reference, row))
    answered = decided.add_columns(Approval).join(Approval, Approval.disposition_id == Disposition.id)
    new = (Approval.event_sequence > after, Approval.event_sequence <= upto)
    for row, reference, second in session.execute(answered.where(*new, Disposition.finding_id.in_(findings))):
        kind = "approved" if second.decision == "approve" else "refused"
        found.append(_decision_change(second, kind, reference, row))
    return sorted(found, key=lambda change: change.event_sequence)


def _decision_change(
    row: Disposition | Approval, kind: str, reference: str, made: Disposition
) -> DecisionChange:
    signature: Mapping[str, Any] = row.signature or {}
    return DecisionChange(
        event_sequence=row.event_sequence,
        at=row.created_at,
        kind=kind,
        finding=reference,
        decision=made.decision,
        class_name=made.class_name,
        reason=row.reason,
        person=row.person,
        name=str(signature.get("name", "")),
        role=str(signature.get("role", "")),
    )


def _evidence_changes(session: Session, findings: Select[tuple[UUID]], after: int, upto: int) -> int:
    """Count artifacts of these findings that were removed or stored again: pictures, maps, block maps."""
    new = (ArtifactRetention.event_sequence > after, ArtifactRetention.event_sequence <= upto)
    changed = set(session.scalars(select(ArtifactRetention.artifact_digest).where(*new)))
    if not changed:
        return 0
    pictures = (
        select(Image.digest)
        .join(Prediction, Prediction.image_id == Image.id)
        .join(Finding, Finding.prediction_id == Prediction.id)
        .where(Finding.id.in_(findings))
    )
    maps = select(*MAP_COLUMNS).where(Explanation.finding_id.in_(findings))
    shown = set(session.scalars(pictures))
    shown |= {digest for columns in session.execute(maps) for _, digest in map_artifacts(*columns)}
    return len(changed & shown)
