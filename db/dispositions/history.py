"""What was decided about a finding: what may follow what, what is in effect, what awaits approval."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from db.columns import storable
from db.dispositions.signatures import SignedFinding, signed_finding
from db.errors import RecordError
from db.index_walk import NEWEST
from db.inspection.known_names import unknown_finding
from db.lookup import those
from db.schema import DECISIONS, Approval, Disposition, Finding, ModelVersion, Prediction

State = Literal["pending", "refused", "in effect", "superseded"]

# The one table of what may follow what (None: nothing is in effect yet); docs/dispositions.md prints it.
FOLLOWS: Mapping[str | None, tuple[str, ...]] = {
    None: ("confirm", "overrule", "reclassify"),
    "confirm": ("overrule", "reclassify", "use-as-is", "rework", "repair", "scrap", "return"),
    "reclassify": ("confirm", "overrule", "reclassify", "use-as-is", "rework", "repair", "scrap", "return"),
    "overrule": ("confirm", "reclassify"),
    "use-as-is": ("confirm", "rework", "repair", "scrap", "return"),
    "rework": ("overrule", "use-as-is", "rework", "repair", "scrap", "return"),
    "repair": ("overrule", "use-as-is", "rework", "repair", "scrap", "return"),
    "return": ("confirm", "use-as-is", "rework", "repair", "scrap"),
    "scrap": (),
}


@dataclass(frozen=True, slots=True)
class ApprovalRecord:
    """The second person's answer: approve or refuse."""

    decision: str
    reason: str
    person: str
    created_at: datetime
    signature: Mapping[str, Any]
    event_sequence: int


@dataclass(frozen=True, slots=True)
class DispositionRecord:
    """One decision about a finding. `class_name`: of a reclassify alone; `state`: what became of it."""

    id: UUID
    finding: str
    decision: str
    class_name: str | None
    reason: str
    person: str
    created_at: datetime
    needs_approval: bool
    supersedes_id: UUID | None
    signature: Mapping[str, Any] | None
    event_sequence: int
    state: State
    approval: ApprovalRecord | None


@dataclass(frozen=True, slots=True)
class FindingState:
    """A finding with all that was decided about it, oldest first.

    `classes`: those a reclassify may name. `label`: the class that the picture shows as far as people
    decided; None: no defect. It is the model's class until somebody says otherwise.
    """

    id: UUID
    signed: SignedFinding
    classes: tuple[str, ...]
    history: tuple[DispositionRecord, ...]
    label: str | None

    @property
    def in_effect(self) -> DispositionRecord | None:
        """The decision that holds."""
        return next((row for row in reversed(self.history) if row.state == "in effect"), None)

    @property
    def pending(self) -> DispositionRecord | None:
        """The decision that awaits a second person."""
        return self.history[-1] if self.history and self.history[-1].state == "pending" else None

    @property
    def latest(self) -> tuple[UUID, State] | None:
        """What to compare to see whether anything was decided since."""
        return (self.history[-1].id, self.history[-1].state) if self.history else None

    def awaiting(self, login: str) -> DispositionRecord:
        """Return the decision that awaits approval; RecordError if there is none, or this person made it."""
        if self.pending is None:
            raise RecordError(f"finding {self.signed.reference}: no decision awaits approval")
        if self.pending.person == login:
            raise RecordError(f"{login!r} made this decision: a second person must approve or refuse it")
        return self.pending

    def check(self, decision: str, class_name: str | None, reason: str) -> None:
        """Raise RecordError where this may not be decided now; the message says what may."""
        reference, now = self.signed.reference, self.in_effect
        if decision not in DECISIONS:
            raise RecordError(f"decision {decision!r} is none of {', '.join(DECISIONS)}")
        given_reason(reason)
        if self.pending is not None:
            raise RecordError(
                f"finding {reference}: {self.pending.decision} by {self.pending.person} awaits approval: "
                "approve or refuse it first"
            )
        allowed = FOLLOWS[now.decision if now else None]
        if decision not in allowed:
            what = f"after {now.decision}" if now else "first"
            can = f"may come {', '.join(allowed)}" if allowed else "comes nothing: it is final"
            raise RecordError(f"finding {reference}: {decision} is not possible; {what} {can}")
        if decision != "reclassify":
            if class_name is not None:
                raise RecordError(f"{decision} takes no class: a class goes with reclassify alone")
            return
        others = [name for name in self.classes if name != (self.label or self.signed.class_name)]
        if class_name not in others:
            raise RecordError(
                f"finding {reference}: reclassify needs another class of the model's: "
                f"{', '.join(others) or 'it has none'}"
            )


def finding_state(session: Session, reference: str) -> FindingState:
    """Return a finding by its reference with what was decided about it; RecordError if there is none."""
    found = session.execute(
        select(Finding.id, ModelVersion.classes, ModelVersion.card)
        .join(Prediction, Prediction.id == Finding.prediction_id)
        .join(ModelVersion, ModelVersion.id == Prediction.model_version_id)
        .where(Finding.reference == storable(reference))
    ).one_or_none()
    if found is None:
        raise unknown_finding(session, reference)
    signed = signed_finding(session, found.id)
    history = histories(session, [found.id]).get(found.id, ())
    good = found.card.get("good_class")
    classes = tuple(name for name in found.classes if name != good)
    return FindingState(found.id, signed, classes, history, label_of(signed.class_name, history))


def histories(
    session: Session, finding_ids: Collection[UUID], upto: int | None = None
) -> dict[UUID, tuple[DispositionRecord, ...]]:
    """Return the decisions about each of these findings, oldest first, as of event `upto`."""
    last = upto or NEWEST
    answered = and_(Approval.disposition_id == Disposition.id, Approval.event_sequence <= last)
    statement = (
        select(Disposition, Approval, Finding.reference)
        .join(Finding, Finding.id == Disposition.finding_id)
        .outerjoin(Approval, answered)
        .where(Disposition.event_sequence <= last)
        .order_by(Disposition.event_sequence)
    )
    rows: dict[UUID, list[tuple[Disposition, Approval | None, str]]] = {}
    for made, second, reference in those(session, statement, Disposition.finding_id, finding_ids):
        rows.setdefault(made.finding_id, []).append((made, second, reference))
    return {finding_id: history_of(made) for finding_id, made in rows.items()}


def label_of(class_name: str, history: Sequence[DispositionRecord]) -> str | None:
    """Return the class that a finding's picture shows, by the decisions that took effect; None: no defect.

    Confirm means the model's class, reclassify another class, overrule no defect. After rework or repair,
    overrule means that the part is good now: the picture still shows the defect that it showed.
    """
    label: str | None = class_name
    before = None
    for row in history:
        if row.state not in ("in effect", "superseded"):
            continue
        if row.decision == "confirm":
            label = class_name
        elif row.decision == "reclassify":
            label = row.class_name
        elif row.decision == "overrule" and before not in ("rework", "repair"):
            label = None
        before = row.decision
    return label


def given_reason(reason: str) -> str:
    """Return a reason as it is recorded; RecordError for an empty one."""
    if not (text := storable(reason).strip()):
        raise RecordError("a decision needs a reason: say in a sentence why")
    return text


def history_of(rows: Sequence[tuple[Disposition, Approval | None, str]]) -> tuple[DispositionRecord, ...]:
    """Return records of a finding's decisions, oldest first.

    The last one that took effect is in effect; those that took effect before it are superseded.
    """
    records: list[DispositionRecord] = []
    later_took_effect = False
    for made, second, reference in reversed(rows):
        state: State
        if made.needs_approval and second is None:
            state = "pending"
        elif second is not None and second.decision == "refuse":
            state = "refused"
        else:
            state = "superseded" if later_took_effect else "in effect"
            later_took_effect = True
        records.append(
            DispositionRecord(
                id=made.id,
                finding=reference,
                decision=made.decision,
                class_name=made.class_name,
                reason=made.reason,
                person=made.person,
                created_at=made.created_at,
                needs_approval=bool(made.needs_approval),
                supersedes_id=made.supersedes_id,
                signature=made.signature,
                event_sequence=made.event_sequence,
                state=state,
                approval=None if second is None else _approval_record(second),
            )
        )
    return tuple(reversed(records))


def _approval_record(row: Approval) -> ApprovalRecord:
    return ApprovalRecord(**{field.name: getattr(row, field.name) for field in fields(ApprovalRecord)})
