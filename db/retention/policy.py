"""Which artifacts a retention policy allows to be removed: those that nothing recent refers to."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, exists, false, or_, select, union
from sqlalchemy.orm import Session, aliased

from db.columns import aware
from db.errors import RecordError
from db.lookup import pages, those
from db.retention.inventory import MAP_COLUMNS, map_artifacts, retention_of
from db.schema import (
    Approval,
    Artifact,
    AuditEvent,
    Disposition,
    Explanation,
    Finding,
    Image,
    Prediction,
    RunImage,
)

PRUNABLE = ("picture", "map", "block_map")  # reports and models stay
_AGE = re.compile(r"([1-9][0-9]{0,4})([dwmy])")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePolicy:
    """Which artifacts may be removed: of these kinds, and used by nothing recorded since `before` (aware).

    Evidence of a flagged picture stays until each finding on it has a disposition in effect, and none that
    awaits approval. With `undecided_too` it need not wait for that; with `keep_findings` it always stays.
    """

    older_than: str
    before: datetime
    kinds: tuple[str, ...] = PRUNABLE
    keep_findings: bool = False
    undecided_too: bool = False

    def __post_init__(self) -> None:
        aware(self.before)
        wrong = [kind for kind in self.kinds if kind not in PRUNABLE]
        if wrong or not self.kinds:
            given = ", ".join(wrong) or "nothing"
            raise RecordError(f"artifacts of kind {given} are not pruned: give some of {', '.join(PRUNABLE)}")
        if self.keep_findings and self.undecided_too:
            raise RecordError(
                "keeping the evidence of findings, and pruning it undecided: give one of the two"
            )

    def __str__(self) -> str:
        return f"older than {self.older_than} (before {self.before:%Y-%m-%d})"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An artifact that a policy allows to be removed; `size` in bytes."""

    digest: str
    kind: str
    size: int


def age_before(age: str, now: datetime) -> datetime:
    """Return the time that lies 90d (days), 6w (weeks), 18m (months) or 2y (years) before `now`.

    Months and years go by the calendar: 1m before 31 March is the last day of February. RecordError for an
    age that is written in another way, or reaches back before the year 1.
    """
    matched = _AGE.fullmatch(age.strip())
    if matched is None:
        raise RecordError(f"{age!r} is no age: give days, weeks, months or years such as 90d, 6w, 18m or 2y")
    count, unit = int(matched[1]), matched[2]
    try:
        if unit in "dw":
            return now - timedelta(days=count * (7 if unit == "w" else 1))
        year, month = divmod(now.year * 12 + now.month - 1 - count * (12 if unit == "y" else 1), 12)
        return now.replace(year=year, month=month + 1, day=min(now.day, monthrange(year, month + 1)[1]))
    except (ValueError, OverflowError):
        raise RecordError(f"{age!r} ago is before the year 1: give a smaller age") from None


def candidates(session: Session, policy: PrunePolicy, digit: str) -> Iterator[Candidate]:
    """Yield what may be removed among the digests that begin with a hex digit, ascending."""
    needed = _needed_maps(session, policy, digit)
    old = (
        select(Artifact.digest, Artifact.kind, Artifact.size)
        .join(AuditEvent, AuditEvent.sequence == Artifact.event_sequence)
        .where(
            Artifact.digest > digit,
            Artifact.digest < chr(ord(digit) + 1),
            Artifact.kind.in_(policy.kinds),
            AuditEvent.at < policy.before,
        )
    )
    pictures = select(Image.digest).join(Prediction, Prediction.image_id == Image.id)
    if "picture" in policy.kinds:
        pictures = pictures.where(_evidence_stays(policy))
    for page in pages(session, old, Artifact.digest):
        rows = {row.digest: Candidate(*row) for row in page if row.digest not in needed}
        kept = {digest for (digest,) in those(session, pictures, Image.digest, rows)}
        kept |= {digest for digest, said in retention_of(session, rows).items() if said.pruned}
        yield from (one for digest, one in rows.items() if digest not in kept)


def _needed_maps(session: Session, policy: PrunePolicy, digit: str) -> set[str]:
    """Return the digests of maps that stay: equal maps share an artifact, which stays if one of them does."""
    statement = (
        select(*MAP_COLUMNS, _evidence_stays(policy))
        .select_from(Explanation)
        .join(Finding, Finding.id == Explanation.finding_id)
        .join(Prediction, Prediction.id == Finding.prediction_id)
        .execution_options(yield_per=500)
    )
    return {
        digest
        for *maps, kept in session.execute(statement)
        for kind, digest in map_artifacts(*maps)
        if digest.startswith(digit) and (kept or kind not in policy.kinds)
    }


def _evidence_stays(policy: PrunePolicy) -> ColumnElement[bool]:
    """Return the condition on a prediction under which its evidence stays."""
    line, own = aliased(RunImage), aliased(Finding)
    recent = exists().where(line.prediction_id == Prediction.id, line.created_at >= policy.before)
    if policy.undecided_too:
        return recent
    if policy.keep_findings:
        return or_(recent, exists().where(own.prediction_id == Prediction.id))
    answered = exists().where(Approval.disposition_id == Disposition.id)
    approved = exists().where(Approval.disposition_id == Disposition.id, Approval.decision == "approve")
    alone = or_(Disposition.needs_approval.is_(None), Disposition.needs_approval == false())
    decided = exists().where(Disposition.finding_id == own.id, or_(alone, approved))
    pending = exists().where(Disposition.finding_id == own.id, ~alone, ~answered)
    return or_(recent, exists().where(own.prediction_id == Prediction.id, or_(~decided, pending)))


def used_since(session: Session, since: int) -> set[str]:
    """Return the digests that are used by predictions made, listed again or decided about after an event."""
    listed: CompoundSelect[Any] = union(
        select(RunImage.prediction_id).where(RunImage.event_sequence > since),
        select(Finding.prediction_id)
        .join(Disposition, Disposition.finding_id == Finding.id)
        .where(Disposition.event_sequence > since),
    )
    pictures = select(Image.digest).join(Prediction, Prediction.image_id == Image.id)
    maps = (
        select(*MAP_COLUMNS)
        .join(Finding, Finding.id == Explanation.finding_id)
        .where(Finding.prediction_id.in_(listed))
    )
    used = set(session.scalars(pictures.where(Prediction.id.in_(listed))))
    for columns in session.execute(maps):
        used |= {digest for _, digest in map_artifacts(*columns)}
    return used
