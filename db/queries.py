"""Questions about runs and findings. Answers are frozen dataclasses, detached from the session."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, ScalarSelect, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from db.columns import storable
from db.errors import RecordError
from db.outcomes import LayerMasks
from db.runs import ModelRecord, RunCounts, counts_from, run_counts, run_reference
from db.schema import (
    Approval,
    Disposition,
    Explanation,
    Finding,
    Image,
    ModelVersion,
    Part,
    Prediction,
    Run,
    RunEnd,
    RunImage,
)
from db.streams import NEWEST


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run at a glance. `status` unfinished: it has no end; its counts are then those so far."""

    id: UUID
    number: int
    source: str
    settings: Mapping[str, Any]
    settings_digest: str
    model: ModelRecord
    software_version: str
    host: str
    trigger: str
    started_at: datetime
    finished_at: datetime | None
    status: str
    note: str
    counts: RunCounts
    class_counts: tuple[tuple[str, int], ...]
    lots: tuple[str, ...]
    stations: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def reference(self) -> str:
        """The run's printed number, such as R000012."""
        return run_reference(self.number)


@dataclass(frozen=True, slots=True)
class RunImageRecord:
    """One listed picture of a run; its statistics where its outcome was recorded with them."""

    uri: str
    digest: str | None
    part: str | None
    lot: str | None
    station: str | None
    captured_at: datetime | None
    verdict: str
    reason: str | None
    score: float | None
    carried_over: bool
    brightness: float | None
    contrast: float | None
    sharpness: float | None


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """A picture that could not be inspected, and why."""

    uri: str
    reason: str
    digest: str | None


@dataclass(frozen=True, slots=True)
class ExplanationRecord:
    """A finding's explanation; digests name artefacts, block maps go from shallow to deep."""

    method: str
    parameters: Mapping[str, Any]
    layers: tuple[LayerMasks, ...]
    status: str
    masked_score: float | None
    drop: float | None
    increase: bool | None
    map_digest: str | None
    block_maps: tuple[tuple[str, str], ...]
    box: tuple[int, int, int, int] | None


@dataclass(frozen=True, slots=True)
class FindingRecord:
    """One flagged class on one listed picture, with its evidence.

    `disposition`: the latest decision in effect; `awaiting_approval`: a later one that a second person has
    neither approved nor refused yet.
    """

    id: UUID
    reference: str
    uri: str
    part: str | None
    lot: str | None
    station: str | None
    captured_at: datetime | None
    class_name: str
    class_score: float
    score: float
    threshold: float
    review_threshold: float | None
    reject_threshold: float | None
    verdict: str
    carried_over: bool
    image_digest: str
    image_format: str | None
    width: int | None
    height: int | None
    run_reference: str
    model_digest: str
    model_name: str
    settings_digest: str
    created_at: datetime
    probabilities: tuple[float, ...] | None
    explanation: ExplanationRecord | None
    disposition: str | None
    awaiting_approval: str | None


def find_run_id(session: Session, which: UUID | int | str) -> UUID:
    """Give the id of a run named by id, number, "12" or "R000012"; RecordError if there is none."""
    key: ColumnElement[bool] | None = None
    if isinstance(which, UUID):
        key = Run.id == which
    elif isinstance(which, int):
        key = Run.number == which
    elif (digits := which.strip().lstrip("Rr")).isdecimal() and len(digits) < 10:
        key = Run.number == int(digits)
    found = None if key is None else session.scalar(select(Run.id).where(key))
    if found is None:
        raise RecordError(f"there is no run {which}: give a number such as 12 or R000012")
    return found


def find_run(session: Session, which: UUID | int | str) -> RunSummary:
    """Give the summary of a run named by id, number, "12" or "R000012"; RecordError if there is none."""
    return run_summary(session, find_run_id(session, which))


def latest_run(session: Session) -> RunSummary | None:
    """Give the summary of the run with the highest number, if there is any run."""
    runs = list_runs(session, limit=1)
    return runs[0] if runs else None


def list_runs(session: Session, limit: int = 50) -> list[RunSummary]:
    """Give the latest runs, newest first."""
    ids = session.scalars(select(Run.id).order_by(Run.number.desc()).limit(limit)).all()
    return [run_summary(session, run_id) for run_id in ids]


def run_summary(session: Session, run_id: UUID, upto: int | None = None) -> RunSummary:
    """Give everything a report's first page says of a run, as of event `upto`; RecordError for no run."""
    last = upto or NEWEST
    ended = and_(RunEnd.run_id == Run.id, RunEnd.event_sequence <= last)
    found = session.execute(
        select(Run, ModelVersion, RunEnd)
        .join(ModelVersion, ModelVersion.id == Run.model_version_id)
        .outerjoin(RunEnd, ended)
        .where(Run.id == run_id, Run.event_sequence <= last)
    ).one_or_none()
    if found is None:
        raise RecordError(f"there is no run {run_id}")
    run, model, end = found
    mine = (RunImage.run_id == run_id, RunImage.event_sequence <= last)
    classes = session.execute(
        select(Finding.class_name, func.count())
        .join(RunImage, RunImage.prediction_id == Finding.prediction_id)
        .where(*mine)
        .group_by(Finding.class_name)
        .order_by(func.count().desc(), Finding.class_name)
    )
    lots = session.scalars(
        select(Part.lot).join(RunImage, RunImage.part_id == Part.id).where(*mine).distinct()
    )
    stations = session.scalars(select(RunImage.station).where(*mine).distinct())
    return RunSummary(
        id=run.id,
        number=run.number,
        source=run.source,
        settings=run.settings,
        settings_digest=run.settings_digest,
        model=ModelRecord.of(model),
        software_version=run.software_version,
        host=run.host,
        trigger=run.trigger,
        started_at=run.started_at,
        finished_at=end.finished_at if end else None,
        status=end.status if end else "unfinished",
        note=end.note if end else "",
        counts=counts_from(end.counts) if end else run_counts(session, run_id, 0, upto),
        class_counts=tuple((name, count) for name, count in classes),
        lots=tuple(sorted(lot for lot in lots if lot)),
        stations=tuple(sorted(station for station in stations if station)),
        missing=tuple(end.missing) if end else (),
    )


def run_images(session: Session, run_id: UUID, upto: int | None = None) -> Iterator[RunImageRecord]:
    """Stream the full listing of a run in the order of its uris, as of event `upto`."""
    mine = (RunImage.run_id == run_id, RunImage.event_sequence <= (upto or NEWEST))
    return image_records(session, image_rows().where(*mine).order_by(RunImage.uri))


def image_rows() -> Select[Any]:
    """Select listed pictures with what a listing says of them."""
    return (
        select(RunImage, Image.digest, Part.serial, Part.lot, Prediction.score)
        .add_columns(Prediction.brightness, Prediction.contrast, Prediction.sharpness)
        .outerjoin(Image, Image.id == RunImage.image_id)
        .outerjoin(Part, Part.id == RunImage.part_id)
        .outerjoin(Prediction, Prediction.id == RunImage.prediction_id)
    )


def image_records(session: Session, statement: Select[Any]) -> Iterator[RunImageRecord]:
    """Stream the records of a statement that `image_rows` began."""
    rows = session.execute(statement.execution_options(yield_per=500))
    for line, digest, serial, lot, score, brightness, contrast, sharpness in rows:
        yield RunImageRecord(
            uri=line.uri,
            digest=digest,
            part=serial or None,
            lot=lot or None,
            station=line.station,
            captured_at=line.captured_at,
            verdict=line.verdict,
            reason=line.reason,
            score=score,
            carried_over=line.carried_over,
            brightness=brightness,
            contrast=contrast,
            sharpness=sharpness,
        )


def run_unreadable(session: Session, run_id: UUID, upto: int | None = None) -> list[UnreadableRecord]:
    """Give the run's unreadable pictures in the order of their uris, as of event `upto`."""
    rows = session.execute(
        select(RunImage.uri, RunImage.reason, Image.digest)
        .outerjoin(Image, Image.id == RunImage.image_id)
        .where(
            RunImage.run_id == run_id,
            RunImage.verdict == "unreadable",
            RunImage.event_sequence <= (upto or NEWEST),
        )
        .order_by(RunImage.uri)
    )
    return [UnreadableRecord(uri, reason or "", digest) for uri, reason, digest in rows]


def run_findings(session: Session, run_id: UUID, upto: int | None = None) -> list[FindingRecord]:
    """Give every finding on the run's pictures, carried-over ones included, in the order of uris.

    `upto`: as of this event, decisions about them included.
    """
    statement = finding_rows(RunImage.prediction_id == Finding.prediction_id, upto)
    mine = (RunImage.run_id == run_id, RunImage.event_sequence <= (upto or NEWEST))
    ordered = statement.where(*mine).order_by(RunImage.uri, Finding.number)
    return [finding_record(row) for row in session.execute(ordered)]


def get_finding(session: Session, reference: str, upto: int | None = None) -> FindingRecord:
    """Give the finding of a reference, with its first listed picture; RecordError if there is none.

    `upto`: decisions about it are as of this event.
    """
    statement = finding_rows(RunImage.prediction_id == Finding.prediction_id, upto)
    wanted = statement.where(Finding.reference == storable(reference)).order_by(RunImage.id).limit(1)
    row = session.execute(wanted).first()
    if row is None:
        raise RecordError(f"there is no finding {reference!r}: give a reference such as R000012-0003")
    return finding_record(row)


def find_model_digests(session: Session, which: str) -> list[str]:
    """Give the digests of models of this name, or that begin so (6 digits or more); RecordError if none."""
    named = ModelVersion.name == which
    begins = ModelVersion.digest.startswith(which, autoescape=True)
    condition = or_(named, begins) if len(which) >= 6 else named
    digests = list(session.scalars(select(ModelVersion.digest).where(condition)))
    if not digests:
        raise RecordError(f"there is no model {which!r}: give its name, or 6 or more digits of its digest")
    return digests


def _decisions(upto: int | None) -> Select[tuple[str]]:
    """Select decisions on `Finding`, the newest alone once a condition is added; approvals are joined."""
    last = upto or NEWEST
    answered = and_(Approval.disposition_id == Disposition.id, Approval.event_sequence <= last)
    return (
        select(Disposition.decision)
        .outerjoin(Approval, answered)
        .where(Disposition.finding_id == Finding.id, Disposition.event_sequence <= last)
        .order_by(Disposition.event_sequence.desc())
        .limit(1)
        .correlate(Finding)
    )


def effective_decision(upto: int | None = None) -> ScalarSelect[str]:
    """Select the decision in effect on `Finding`: the newest that needs no approval or has got it."""
    alone = or_(Disposition.needs_approval.is_(None), Disposition.needs_approval.is_(False))
    return _decisions(upto).where(or_(alone, Approval.decision == "approve")).scalar_subquery()


def finding_rows(line: ColumnElement[bool], upto: int | None = None) -> Select[Any]:
    """Select findings with their evidence on pictures, decided up to `upto`; `line` joins `RunImage`."""
    awaiting = _decisions(upto).where(Disposition.needs_approval.is_(True), Approval.id.is_(None))
    return (
        select(
            Finding,
            Prediction,
            Image,
            RunImage,
            Part.serial,
            Part.lot,
            ModelVersion.digest.label("model_digest"),
            ModelVersion.name.label("model_name"),
            Run.number.label("run_number"),
            Explanation,
            effective_decision(upto).label("disposition"),
            awaiting.scalar_subquery().label("awaiting_approval"),
        )
        .join(Prediction, Prediction.id == Finding.prediction_id)
        .join(RunImage, line)
        .join(Image, Image.id == Prediction.image_id)
        .join(ModelVersion, ModelVersion.id == Prediction.model_version_id)
        .join(Run, Run.id == Finding.run_id)
        .outerjoin(Part, Part.id == RunImage.part_id)
        .outerjoin(Explanation, Explanation.finding_id == Finding.id)
    )


def finding_record(row: Row[Any]) -> FindingRecord:
    """Give the record of a row of `finding_rows`."""
    finding: Finding = row.Finding
    prediction: Prediction = row.Prediction
    image: Image = row.Image
    line: RunImage = row.RunImage
    return FindingRecord(
        id=finding.id,
        reference=finding.reference,
        uri=line.uri,
        part=row.serial or None,
        lot=row.lot or None,
        station=line.station,
        captured_at=line.captured_at,
        class_name=finding.class_name,
        class_score=finding.class_score,
        score=finding.score,
        threshold=finding.threshold,
        review_threshold=prediction.review_threshold,
        reject_threshold=prediction.reject_threshold,
        verdict=prediction.verdict,
        carried_over=line.carried_over,
        image_digest=image.digest,
        image_format=image.format,
        width=image.width,
        height=image.height,
        run_reference=run_reference(row.run_number),
        model_digest=row.model_digest,
        model_name=row.model_name,
        settings_digest=prediction.settings_digest,
        created_at=finding.created_at,
        probabilities=None if prediction.probabilities is None else tuple(prediction.probabilities),
        explanation=None if row.Explanation is None else explanation_record(row.Explanation),
        disposition=row.disposition,
        awaiting_approval=row.awaiting_approval,
    )


def explanation_record(row: Explanation) -> ExplanationRecord:
    """Give the record of a row."""
    return ExplanationRecord(
        method=row.method,
        parameters=row.parameters,
        layers=tuple(LayerMasks(**layer) for layer in row.layers),
        status=row.status,
        masked_score=row.masked_score,
        drop=row.score_drop,
        increase=row.score_increase,
        map_digest=row.map_digest,
        block_maps=tuple((entry["layer"], entry["digest"]) for entry in row.block_map_digests),
        box=None if row.box is None else (row.box[0], row.box[1], row.box[2], row.box[3]),
    )
