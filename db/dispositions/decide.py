"""Deciding about findings: signed, with a second person where settings ask for one; nothing is overwritten.

A decision supersedes the one before it in the finding's history. One that awaits a second person is not in
effect, and one that was refused never is; what was in effect before them stays so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.chain.events import Recorder
from db.columns import utc_now
from db.dispositions.history import DispositionRecord, FindingState, finding_state, given_reason, history_of
from db.dispositions.signatures import (
    MEANING_OF,
    is_list_signature,
    sign_approval,
    sign_disposition,
    sign_dispositions,
)
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
        row = _new_disposition(
            Decision(reference, decision, reason, class_name), state, seen, signer, four_eyes
        )
        row.signature = sign_disposition(signer, row.created_at, state.signed, row)
        _record_disposition(recorder, row, state, signer)
        return history_of([(row, None, reference)])[0]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person wants to decide about the finding of a reference; a class goes with reclassify alone."""

    finding: str
    decision: str
    reason: str
    class_name: str | None = None


MOST_DECISIONS = 1_000  # in a list: who signs it is to have read it, and others wait for the lock meanwhile


def dispose_list(
    db: Database,
    decisions: Sequence[Decision],
    *,
    signer: Authenticated,
    four_eyes: Collection[str] = frozenset(),
    seen: Mapping[str, FindingState],
) -> list[DispositionRecord]:
    """Record a person's decisions about several findings under one signature, all of them or none.

    Each is checked, recorded under an event of its own, and approved or refused later, as if it had been made
    alone. `seen`: what the person was shown, by reference. RecordError as `dispose` raises it, and for an
    empty list, one of more than `MOST_DECISIONS`, or a finding that occurs in it twice.
    """
    if not 0 < len(decisions) <= MOST_DECISIONS:
        raise RecordError(f"a list holds 1 to {MOST_DECISIONS} decisions, not {len(decisions)}")
    if repeated := [name for name, n in Counter(each.finding for each in decisions).items() if n > 1]:
        raise RecordError(f"finding {repeated[0]} occurs more than once in the list: decide about it once")
    with db.write() as recorder:
        session = recorder.session
        require(session, signer, "decide")
        made: list[tuple[FindingState, Disposition]] = []
        at = utc_now()
        for each in decisions:
            state = finding_state(session, each.finding)
            row = _new_disposition(each, state, seen[each.finding], signer, four_eyes, at)
            made.append((state, row))
        signature = sign_dispositions(signer, at, [(state.signed, row) for state, row in made])
        for state, row in made:
            row.signature = signature
            _record_disposition(recorder, row, state, signer)
        return [history_of([(row, None, state.signed.reference)])[0] for state, row in made]


def _new_disposition(
    wanted: Decision,
    state: FindingState,
    seen: FindingState | None,
    signer: Authenticated,
    four_eyes: Collection[str],
    at: datetime | None = None,
) -> Disposition:
    """Return the row of a decision that may be made now, not signed yet."""
    _check_unchanged(state, seen)
    state.check(wanted.decision, wanted.class_name, wanted.reason)
    return Disposition(
        finding_id=state.id,
        decision=wanted.decision,
        class_name=wanted.class_name,
        reason=given_reason(wanted.reason),
        person=signer.login,
        needs_approval=wanted.decision in four_eyes,
        created_at=at or utc_now(),
        supersedes_id=state.history[-1].id if state.history else None,
        signature=None,
    )


def _record_disposition(
    recorder: Recorder, row: Disposition, state: FindingState, signer: Authenticated
) -> None:
    now = state.in_effect
    signature = row.signature or {}
    listed = {"list": signature["decisions"]} if is_list_signature(signature) else {}
    _record_decision(
        recorder,
        row,
        state,
        signer,
        action="disposition.made",
        disposition_id=row.id,
        payload={"decision": row.decision, "needs_approval": row.needs_approval, **listed},
        old={"decision": now.decision if now else None, "class": state.label},
        new={"decision": row.decision, "class": row.class_name, "needs_approval": row.needs_approval},
    )


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
