"""Findings that two people judged: what agreement between reviewers is computed from."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.dispositions.history import DispositionRecord, histories
from db.figures.scopes import Scope, lines_of
from db.index_walk import NEWEST
from db.schema import Disposition, Finding

# Decisions about what the picture shows. Those that come after them are about what to do with the part.
ASSESSMENTS = ("confirm", "overrule", "reclassify")


@dataclass(frozen=True, slots=True)
class DoubleDecision:
    """Two people on one finding. `first`, `second`: what they decided, a reclassify with its class.

    `how`: superseded (the second decided anew), approved (the second said the same) or refused (`second` is
    then "not" and the first's decision). The second person knew what the first had decided.
    """

    finding: str
    first_person: str
    first: str
    second_person: str
    second: str
    how: str


def double_decisions(session: Session, scope: Scope, upto: int | None = None) -> list[DoubleDecision]:
    """Return for each finding in a scope that two people judged the first such pair, in order of findings.

    A pair is an assessment (confirm, overrule, reclassify) and the next one by another person, or a decision
    and the answer of the person who approved or refused it, whichever came first.
    """
    lines = lines_of(session, scope, upto)
    decided = select(Disposition.finding_id).where(Disposition.event_sequence <= (upto or NEWEST))
    findings = session.execute(
        select(Finding.id, Finding.reference)
        .join(lines, lines.c.prediction_id == Finding.prediction_id)
        .where(lines.c.counted == 1, Finding.id.in_(decided))
        .distinct()
        .order_by(Finding.reference)
    ).all()
    made = histories(session, [finding_id for finding_id, _ in findings], upto)
    pairs = (_first_pair(made.get(finding_id, ())) for finding_id, _ in findings)
    return [pair for pair in pairs if pair is not None]


def _first_pair(history: tuple[DispositionRecord, ...]) -> DoubleDecision | None:
    found: list[tuple[int, DoubleDecision]] = []
    assessed = [row for row in history if row.decision in ASSESSMENTS]
    if assessed:
        first = assessed[0]
        second = next((row for row in assessed if row.person != first.person), None)
        if second is not None:
            pair = DoubleDecision(
                first.finding,
                first.person,
                _judgement(first),
                second.person,
                _judgement(second),
                "superseded",
            )
            found.append((second.event_sequence, pair))
    for row in history:
        if (answer := row.approval) is not None:
            agreed = answer.decision == "approve"
            said = _judgement(row) if agreed else f"not {_judgement(row)}"
            how = "approved" if agreed else "refused"
            pair = DoubleDecision(row.finding, row.person, _judgement(row), answer.person, said, how)
            found.append((answer.event_sequence, pair))
    return min(found, key=lambda entry: entry[0])[1] if found else None


def _judgement(row: DispositionRecord) -> str:
    return f"{row.decision}: {row.class_name}" if row.class_name else row.decision
