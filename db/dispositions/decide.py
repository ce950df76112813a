"""Deciding about findings: signed, with a second person where settings ask for one; nothing is overwritten.

A decision supersedes the one before it in the finding's history. One that awaits a second person is not in
effect, and one that was refused never is; what was in effect before them stays so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.chain.events import Recorder
from db.columns import utc_now
from db.dispositions.history import DispositionRecord, FindingState, finding_state, given_reason, history_of
from db.dispositions.signatures import MEANING_OF, sign_approval, sign_disposition
from db.engine import Database
from db.errors import RecordError
from db.people.people import Authenticated, require
from db.schema import Approval, Disposition, Finding


def dispose(
    db: Database,
    reference: str,
    *,
    decision: str,
    reason: str,
    signer: Authenticated,
    class_name: str | None = None,
    four_eyes: Collection[str] = frozenset(),
    seen: FindingState | None = None,
) -> DispositionRecord:
    """Record a person's signed decision about a finding; those in `four_eyes` await a second person.

    `seen`: what the person was shown; RecordError where something was decided since. RecordError as well
    for a decision that may not follow the one in effect, and a person who may not decide. All is checked
    under the lock, so that two people cannot both supersede the same decision.
    """
    with db.write() as recorder:
        session = recorder.session
        require(session, signer, "decide")
        state = finding_state(session, reference)
        _check_unchanged(state, seen)
        state.check(decision, class_name, reason)
        now = state.in_effect
        row = Disposition(
            finding_id=state.id,
            decision=decision,
            class_name=class_name,
            reason=given_reason(reason),
            person=signer.login,
            needs_approval=decision in four_eyes,
            created_at=utc_now(),
            supersedes_id=state.history[-1].id if state.history else None,
            signature=None,
        )
        row.signature = sign_disposition(signer, row.created_at, state.signed, row)
        _record_decision(
            recorder,
            row,
            state,
            signer,
            action="disposition.made",
            disposition_id=row.id,
            payload={"decision": decision, "needs_approval": row.needs_approval},
            old={"decision": now.decision if now else None, "class": state.label},
            new={"decision": decision, "class": class_name, "needs_approval": row.needs_approval},
        )
        return history_of([(row, None, reference)])[0]


def approve(
    db: Database, reference: str, *, reason: str, signer: Authenticated, seen: FindingState | None = None
) -> DispositionRecord:
    """Put the decision that awaits approval into effect, signed by a second person who may approve it."""
    return _record_answer(db, reference, "approve", reason, signer, seen)


def refuse(
    db: Database, reference: str, *, reason: str, signer: Authenticated, seen: FindingState | None = None
) -> DispositionRecord:
    """Refuse the decision that awaits approval, signed by a second person; what was in effect stays so."""
    return _record_answer(db, reference, "refuse", reason, signer, seen)


def _record_answer(
    db: Database, reference: str, decision: str, reason: str, signer: Authenticated, seen: FindingState | None
) -> DispositionRecord:
    with db.write() as recorder:
        session = recorder.session
        require(session, signer, "approve")
        state = finding_state(session, reference)
        _check_unchanged(state, seen)
        made = session.get_one(Disposition, state.awaiting(signer.login).id)
        now = state.in_effect
        row = Approval(
            disposition_id=made.id,
            decision=decision,
            reason=given_reason(reason),
            person=signer.login,
            created_at=utc_now(),
            signature={},
        )
        row.signature = sign_approval(signer, row.created_at, state.signed, made, row)
        before = {"decision": now.decision if now else None, "class": state.label}
        takes_effect = {"decision": made.decision, "class": made.class_name}
        _record_decision(
            recorder,
            row,
            state,
            signer,
            action="disposition.approved" if decision == "approve" else "disposition.refused",
            disposition_id=made.id,
            payload={"decision": made.decision, "by": made.person, "meaning": MEANING_OF[decision]},
            old=before,
            new=takes_effect if decision == "approve" else before,
        )
        return history_of([(made, row, reference)])[0]


def _record_decision(
    recorder: Recorder,
    row: Disposition | Approval,
    state: FindingState,
    signer: Authenticated,
    *,
    action: str,
    disposition_id: UUID,
    payload: Mapping[str, Any],
    old: Mapping[str, Any],
    new: Mapping[str, Any],
) -> None:
    signed = state.signed
    signature = row.signature or {}
    recorder.add(
        [row],
        action=action,
        actor=signer.actor,
        entity="disposition",
        entity_id=disposition_id,
        run_id=recorder.session.scalar(select(Finding.run_id).where(Finding.id == state.id)),
        payload={"finding": signed.reference, **payload, "signature": signature["digest"]},
        model_digest=signed.model_digest,
        settings_digest=signed.settings_digest,
        image_digest=signed.image_digest,
        artifact_digests=[signed.map_digest] if signed.map_digest else [],
        old=old,
        new=new,
        reason=row.reason,
    )


def _check_unchanged(state: FindingState, seen: FindingState | None) -> None:
    if seen is not None and seen.latest != state.latest:
        raise RecordError(
            f"finding {state.signed.reference}: somebody decided meanwhile and nothing was signed: look again"
        )
