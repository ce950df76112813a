"""What a question is about: parts, lots, stations, images, classes, verdicts, scores."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, or_, select, text
from sqlalchemy.orm import Session

from db.errors import RecordError
from db.index_walk import FEW, Candidates, Column, Way, count_upto, one_by_one, unordered
from db.inspection.known_names import nearest_text, require_known
from db.inspection.missing_images import announcements
from db.lookup import among
from db.schema import (
    CARRIED_OVER,
    FLAGGED,
    VERDICTS,
    Approval,
    Disposition,
    Finding,
    Image,
    ModelVersion,
    Part,
    Prediction,
    Replay,
    RunEnd,
    RunImage,
)

# So many candidates are sorted within a few milliseconds where the index alone answers (FEW: where rows
# are read as well).
_COVERED = 20_000
# Up to so many findings, their decisions are looked up by key; with more, walking all decisions, newest
# first, is faster.
_FINDINGS = 8_000

Condition = ColumnElement[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Which pictures and findings: every field given must hold of the same listed picture.

    `image`: digest, or its first 6 digits or more; scores are predictions', bounds included; `class_name`:
    of a finding on the picture.
    """

    part: str | None = None
    lot: str | None = None
    station: str | None = None
    image: str | None = None
    class_name: str | None = None
    verdict: str | None = None
    min_score: float | None = None
    max_score: float | None = None

    def check(self) -> None:
        """Raise RecordError for what no picture can meet."""
        check_verdict(self.verdict)
        low, high = self.min_score, self.max_score
        for bound in (low, high):
            if bound is not None and not 0 <= bound <= 1:
                raise RecordError(f"score {bound} is not between 0 and 1")
        if low is not None and high is not None and low > high:
            raise RecordError(f"no score is at least {low} and at most {high}")

    @property
    def scored(self) -> bool:
        """Whether scores matter."""
        return self.min_score is not None or self.max_score is not None

    def score_range(self, column: Any) -> list[Condition]:
        """Return the conditions on a column of scores."""
        low = [] if self.min_score is None else [column >= self.min_score]
        return low if self.max_score is None else [*low, column <= self.max_score]

    def missed_by(self, session: Session) -> list[int]:
        """Return the events that end the runs that missed such a picture, in order.

        There are none where it is asked for what only an inspected picture has: bytes, verdict, score, class.
        """
        if self.scored or (self.image, self.class_name, self.verdict) != (None, None, None):
            return []
        if (self.part, self.lot, self.station) == (None, None, None):
            return []
        found = announcements(session, part=self.part, lot=self.lot, station=self.station)
        return sorted({each.event_sequence for each in found})

    def never_flagged(self) -> bool:
        """Whether no flagged picture can meet it."""
        return self.verdict in ("pass", "unreadable")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFilter(Subject):
    """What was recorded or decided: every field given must match.

    `model`: digest, its first 6 digits or more, or name. `person`, `reason`: who decided and why, see the
    filters made of this one. `run`: id, number or R000012. `since` inclusive, `until` exclusive, both aware.
    """

    model: str | None = None
    person: str | None = None
    reason: str | None = None
    run: UUID | int | str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def require_known(self, session: Session) -> None:
        """Raise RecordError where it asks for a part, lot, station, class or person that no record has."""
        require_known(
            session,
            part=self.part,
            lot=self.lot,
            station=self.station,
            class_name=self.class_name,
            people=(self.person,),
        )


@dataclass(frozen=True, slots=True)
class Lines:
    """A subject as conditions on a listed picture (`RunImage`), each checked by key.

    `missed`: the condition that an event is the end of a run that missed such a picture; None: no run did.
    """

    each: tuple[Condition, ...]
    finding: tuple[Condition, ...]
    missed: Condition | None

    @classmethod
    def of(cls, session: Session, subject: Subject, *, also_missed: bool = False) -> Lines:
        """Resolve a subject, `also_missed`: with the runs that missed such a picture.

        RecordError for an image that there is none of.
        """
        subject.check()
        each: list[Condition] = []
        if subject.part is not None or subject.lot is not None:
            each.append(
                one_by_one(Part.id == RunImage.part_id, *part_conditions(subject)).correlate(RunImage)
            )
        if subject.station is not None:
            # An expression, lest SQLite look all of a station's pictures through for each key it is given.
            each.append(RunImage.station + "" == subject.station)
        if subject.image is not None:
            each.append(RunImage.image_id.in_(find_image_ids(session, subject.image)))
        if subject.verdict is not None:
            each.append(RunImage.verdict == subject.verdict)
        if subject.scored:
            scored = one_by_one(
                Prediction.id == RunImage.prediction_id, *subject.score_range(Prediction.score)
            )
            each.append(scored.correlate(RunImage))
        finding = [] if subject.class_name is None else [Finding.class_name == subject.class_name]
        ends = subject.missed_by(session) if also_missed else []
        missed = among(session, RunEnd.event_sequence, ends) if ends else None
        return cls(tuple(each), tuple(finding), missed)

    def __bool__(self) -> bool:
        return bool(self.each or self.finding)

    def classed(self) -> list[Condition]:
        """Return the condition that a listed picture has such a finding, if one is asked for."""
        found = one_by_one(Finding.prediction_id == RunImage.prediction_id, *self.finding)
        return [found.correlate(RunImage)] if self.finding else []

    def of_event(self, sequence: Column) -> Condition:
        """Return the condition that an event concerns such a picture or a finding on one."""
        ended = []
        if self.missed is not None:
            ended.append(one_by_one(RunEnd.event_sequence == sequence, self.missed))
        return or_(
            *ended,
            one_by_one(RunImage.event_sequence == sequence, *self.each, *self.classed()),
            one_by_one(Disposition.event_sequence == sequence, self.of_disposition()),
            one_by_one(
                Approval.event_sequence == sequence,
                Disposition.id == Approval.disposition_id,
                self.of_disposition(),
            ),
            one_by_one(Replay.event_sequence == sequence, self.of_replay()),
        )

    def missed_ends(self) -> tuple[Candidates, ...]:
        """Return the ends of the runs that missed such a picture."""
        if self.missed is None:
            return ()
        ends = select(RunEnd.event_sequence).where(self.missed)
        return (Candidates(ends, unordered(RunEnd.event_sequence)),)

    def of_disposition(self) -> Condition:
        """Return the condition that a disposition is about a finding on such a picture."""
        return one_by_one(
            Finding.id == Disposition.finding_id,
            RunImage.prediction_id == Finding.prediction_id,
            *self.each,
            *self.finding,
        ).correlate(Disposition)

    def of_replay(self) -> Condition:
        """Return the condition that a replay computed such a picture's decision again."""
        classed = one_by_one(Finding.prediction_id == Replay.prediction_id, *self.finding)
        line = one_by_one(RunImage.prediction_id == Replay.prediction_id, *self.each)
        return and_(line.correlate(Replay), *([classed.correlate(Replay)] if self.finding else []))


def check_verdict(verdict: str | None) -> None:
    """Raise RecordError for a verdict that there is none of."""
    if verdict is not None and verdict not in VERDICTS:
        raise RecordError(f"verdict {verdict!r} is none of {', '.join(VERDICTS)}")


def time_conditions(column: Any, since: datetime | None, until: datetime | None) -> list[Condition]:
    """Return the conditions that a column of times lies from `since` to before `until`; None: no bound."""
    begin = [] if since is None else [column >= since]
    return begin if until is None else [*begin, column < until]


def part_conditions(subject: Subject) -> list[Condition]:
    """Return the conditions on `Part` of a subject's serial and lot."""
    serial = [] if subject.part is None else [Part.serial == subject.part]
    return serial if subject.lot is None else [*serial, Part.lot == subject.lot]


# Spelled as the partial indexes spell it, for without that they are not used.
FLAGGED_LINE = text(f"run_image.{FLAGGED}")
CARRIED_LINE = text(f"run_image.{CARRIED_OVER}")


def event_ways(session: Session, subject: Subject, lines: Lines) -> list[Way]:
    """Return for each filter a way to the events about what it selects; `lines`: the whole subject."""
    ways: list[Way] = []
    line = select(RunImage.event_sequence)
    met_again = line.where(CARRIED_LINE, *lines.each, *lines.classed())
    if subject.class_name is not None:
        met_again = met_again.where(RunImage.verdict.in_(("review", "reject")))  # from the index alone
    carried = Candidates(met_again, RunImage.event_sequence)
    if subject.image is not None:
        images = RunImage.image_id.in_(find_image_ids(session, subject.image))
        ways.append(_sorted_lines(session, lines, line.where(images)))
    if subject.class_name is not None:
        ways.append(_class_way(session, subject, lines, carried))
    if subject.station is not None:
        listed = line.where(RunImage.station == subject.station)
        flagged = listed.where(FLAGGED_LINE)
        if subject.verdict not in (None, "pass"):
            listed = flagged = flagged.where(RunImage.verdict == subject.verdict)
        ways.append(
            _indexed_lines(
                session, lines, listed, _decision_candidates(session, lines, flagged, _finding_ids(flagged))
            )
        )
    elif subject.verdict not in (None, "pass"):
        listed = line.where(RunImage.verdict == subject.verdict, FLAGGED_LINE)
        decided = (
            ()
            if subject.never_flagged()
            else _decision_candidates(session, lines, listed, _finding_ids(listed))
        )
        ways.append(_indexed_lines(session, lines, listed, decided))
    if subject.part is not None or subject.lot is not None:
        parts = line.join(Part, Part.id == RunImage.part_id).where(*part_conditions(subject))
        ways.append(_sorted_lines(session, lines, parts))
    if subject.scored:
        ways.append(_score_way(session, subject, lines, carried))
    if subject.verdict == "pass":
        passed = Candidates(line.where(RunImage.verdict == subject.verdict), RunImage.event_sequence)
        ways.append(Way(FEW + 1, (passed, *_replays_by_line(lines))))
    return ways


def _indexed_lines(
    session: Session, lines: Lines, listed: Select[Any], decided: tuple[Candidates, ...]
) -> Way:
    """Follow lines that an index gives in order, and what was decided about them."""
    size = count_upto(session, listed)
    replayed = _replays_by_prediction(_prediction_ids(listed)) if size <= FEW else _replays_by_line(lines)
    return Way(size, (Candidates(listed, RunImage.event_sequence), *decided, *replayed, *lines.missed_ends()))


def _sorted_lines(session: Session, lines: Lines, listed: Select[Any]) -> Way:
    """Sort lines that no index has in order, and what was decided about them."""
    size = count_upto(session, listed)
    replayed = _replays_by_prediction(_prediction_ids(listed)) if size <= FEW else _replays_by_line(lines)
    flagged = listed.where(RunImage.verdict.in_(("review", "reject")))
    decided = _decision_candidates(session, lines, flagged, _finding_ids(flagged))
    found = Candidates(listed, unordered(RunImage.event_sequence))
    return Way(size, (found, *decided, *replayed, *lines.missed_ends()))


def _class_way(session: Session, subject: Subject, lines: Lines, carried: Candidates) -> Way:
    """Follow the findings of a class."""
    named = Finding.class_name == subject.class_name
    made = select(Finding.event_sequence).where(named)
    size = count_upto(session, made)
    decided = _decision_candidates(session, lines, made, select(Finding.id).where(named))
    if size > FEW:
        replayed = _replays_by_line(lines)
    else:
        predictions = select(Finding.prediction_id).where(named)
        met_again = select(RunImage.event_sequence).where(RunImage.prediction_id.in_(predictions))
        carried = Candidates(met_again, unordered(RunImage.event_sequence))
        replayed = _replays_by_prediction(predictions)
    return Way(size, (Candidates(made, Finding.event_sequence), carried, *decided, *replayed))


def _score_way(session: Session, subject: Subject, lines: Lines, carried: Candidates) -> Way:
    """Follow the index over scores while its range can be sorted, else the pictures themselves."""
    range_ = subject.score_range(Prediction.score)
    scored = select(Prediction.event_sequence).where(*range_)
    size = count_upto(session, scored, _COVERED)
    sequence = Prediction.event_sequence if size > _COVERED else unordered(Prediction.event_sequence)
    flagged = subject.score_range(Finding.score)
    if size > FEW:
        replayed = _replays_by_line(lines)
    else:
        predictions = select(Prediction.id).where(*range_)
        met_again = select(RunImage.event_sequence).where(RunImage.prediction_id.in_(predictions))
        carried = Candidates(met_again, unordered(RunImage.event_sequence))
        replayed = _replays_by_prediction(predictions)
    made, found = select(Finding.event_sequence).where(*flagged), select(Finding.id).where(*flagged)
    decided = _decision_candidates(session, lines, made, found)
    return Way(size, (Candidates(scored, sequence), carried, *decided, *replayed))


def _finding_ids(listed: Select[Any]) -> Select[Any]:
    """Select the findings on listed pictures."""
    return select(Finding.id).where(Finding.prediction_id.in_(_prediction_ids(listed)))


def _prediction_ids(listed: Select[Any]) -> Select[Any]:
    return listed.with_only_columns(RunImage.prediction_id, maintain_column_froms=True)


def _decision_candidates(
    session: Session, lines: Lines, counted: Select[Any], found: Select[Any]
) -> tuple[Candidates, ...]:
    """Return the events of dispositions and approvals: of few findings, or all of them, newest first."""
    of_few = count_upto(session, counted, _FINDINGS) <= _FINDINGS
    few_approvals = count_upto(session, select(Approval.event_sequence)) <= FEW
    if of_few:
        disposition = select(Disposition.event_sequence).where(Disposition.finding_id.in_(found))
        dispositions = Candidates(disposition, unordered(Disposition.event_sequence))
    else:
        disposition = select(Disposition.event_sequence).where(lines.of_disposition())
        dispositions = Candidates(disposition, Disposition.event_sequence)
    if of_few and not few_approvals:
        decided = select(Disposition.id).where(Disposition.finding_id.in_(found))
        approval = select(Approval.event_sequence).where(Approval.disposition_id.in_(decided))
        return dispositions, Candidates(approval, unordered(Approval.event_sequence))
    approval = select(Approval.event_sequence).join(Disposition, Disposition.id == Approval.disposition_id)
    return dispositions, Candidates(approval.where(lines.of_disposition()), Approval.event_sequence)


def _replays_by_prediction(predictions: Select[Any]) -> tuple[Candidates, ...]:
    replay = select(Replay.event_sequence).where(Replay.prediction_id.in_(predictions))
    return (Candidates(replay, unordered(Replay.event_sequence)),)


def _replays_by_line(lines: Lines) -> tuple[Candidates, ...]:
    return (Candidates(select(Replay.event_sequence).where(lines.of_replay()), Replay.event_sequence),)


def find_image_ids(session: Session, digest: str) -> list[Any]:
    """Return the ids of images whose digest begins so; RecordError for no such image, or under 6 digits."""
    begins = digest.strip().lower()
    if not 6 <= len(begins) <= 64 or set(begins) - set("0123456789abcdef"):
        raise RecordError(f"image {digest!r}: give 6 or more digits of the SHA-256 of its bytes")
    # A range, for SQLite's LIKE passes indexes by; every hex digit sorts before "g".
    found = session.scalars(select(Image.id).where(Image.digest >= begins, Image.digest < begins + "g"))
    if not (ids := list(found)):
        raise RecordError(f"there is no image {digest}: give 6 or more digits of the SHA-256 of its bytes")
    return ids


def find_model_digests(session: Session, which: str) -> list[str]:
    """Return the digests of models of this name, or that begin so (6 digits or more); RecordError if none."""
    named = ModelVersion.name == which
    begins = ModelVersion.digest.startswith(which, autoescape=True)
    condition = or_(named, begins) if len(which) >= 6 else named
    digests = list(session.scalars(select(ModelVersion.digest).where(condition)))
    if not digests:
        hint = nearest_text(which, set(session.scalars(select(ModelVersion.name))))
        known = f"; {hint}" if hint else ""
        raise RecordError(
            f"there is no model {which!r}: give its name, or 6 or more digits of its digest{known}"
        )
    return digests
