"""Decisions computed again from the record: what is recorded of them, and that it was done."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from db.chain.events import Actor
from db.columns import storable, utc_now
from db.engine import Database
from db.errors import RecordError
from db.inspection.runs import ModelRecord, find_run_id, run_reference
from db.lookup import those
from db.queries.finding_records import ExplanationRecord, box_record, explanation_record
from db.retention.inventory import Retention, retention_of
from db.schema import (
    REPLAY_RESULTS,
    Artifact,
    Explanation,
    Finding,
    Image,
    ModelVersion,
    Prediction,
    Replay,
    Run,
    RunImage,
)

_FINDING = re.compile(r"[Rr][0-9]+-[0-9]+")
_RUN = re.compile(r"[Rr][0-9]+|[0-9]{1,5}")
_IMAGE = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True, slots=True)
class RecordedFinding:
    """What is recorded of one flagged class."""

    reference: str
    class_name: str
    class_score: float
    score: float
    threshold: float
    explanation: ExplanationRecord | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedPrediction:
    """One recorded outcome with all that it takes to compute it again.

    `uri`: where the picture was first listed; `settings`: of the run that made the prediction;
    `picture_kept`: whether the picture's bytes were put into the artifact store; `retention`: what was
    recorded later about the bytes of the picture and the maps.
    """

    id: UUID
    uri: str
    run_id: UUID
    run_reference: str
    settings: Mapping[str, Any]
    settings_digest: str
    model: ModelRecord
    image_digest: str
    size: int
    width: int | None
    height: int | None
    format: str | None
    mode: str | None
    verdict: str
    reason: str | None
    score: float | None
    review_threshold: float | None
    reject_threshold: float | None
    probabilities: tuple[float, ...] | None
    tile_count: int | None = None
    deciding_tile: tuple[int, int, int, int] | None = None
    findings: tuple[RecordedFinding, ...]
    picture_kept: bool
    retention: Mapping[str, Retention]


@dataclass(frozen=True, slots=True)
class ReplayOutcome:
    """How a replay of a recorded prediction ended. `details`: figures by name, JSON."""

    prediction: RecordedPrediction
    result: str
    details: Mapping[str, Any]

    @classmethod
    def impossible(cls, prediction: RecordedPrediction, reason: str) -> ReplayOutcome:
        """Return the outcome of a prediction that could not be computed again."""
        return cls(prediction, "impossible", {"reason": storable(reason)})


def names_run(which: str) -> bool:
    """Whether a text names a run, rather than a finding or an image."""
    return _RUN.fullmatch(which.strip()) is not None


def find_predictions(session: Session, which: str) -> list[list[UUID]]:
    """Return the predictions that `which` names, those recorded together in one list, in order of recording.

    `which`: a finding such as R000012-0003, a run such as R000012 (every prediction that it lists, carried
    over or not), or an image: its digest or 6 digits of it or more (its predictions, each alone).
    RecordError where there is none, or the digits begin several images' digests.
    """
    which = which.strip()
    statement = select(Prediction.id, Prediction.run_id, Prediction.created_at)
    if _FINDING.fullmatch(which):
        found = statement.join(Finding, Finding.prediction_id == Prediction.id)
        rows = session.execute(found.where(Finding.reference == which.upper())).all()
        if not rows:
            raise RecordError(f"there is no finding {which}: `kensa findings` lists them")
        return [[row.id] for row in rows]
    if names_run(which):
        listed = select(RunImage.prediction_id).where(RunImage.run_id == find_run_id(session, which))
        ordered = statement.where(Prediction.id.in_(listed)).order_by(Prediction.event_sequence)
        # A batch's rows carry one time; it is computed together again, for that can show in the last bits.
        together = groupby(session.execute(ordered), key=lambda row: (row.run_id, row.created_at))
        return [[row.id for row in batch] for _, batch in together]
    if not _IMAGE.fullmatch(which.lower()):
        raise RecordError(
            f"{which!r} is no finding (R000012-0003), run (R000012) or image (6 or more digits of its digest)"
        )
    begins = select(Image.id, Image.digest).where(Image.digest.startswith(which.lower(), autoescape=True))
    images = session.execute(begins.limit(2)).all()
    if len(images) != 1:
        said = "no image has a digest that begins" if not images else "several images have digests that begin"
        raise RecordError(f"{said} with {which}")
    mine = statement.where(Prediction.image_id == images[0].id).order_by(Prediction.event_sequence)
    predictions = [[row.id] for row in session.execute(mine)]
    if not predictions:
        raise RecordError(f"nothing was decided about image {images[0].digest}")
    return predictions


def recorded_predictions(session: Session, ids: Sequence[UUID]) -> list[RecordedPrediction]:
    """Return what is recorded of predictions, in the order of the given ids."""
    statement = (
        select(Prediction, Image, ModelVersion, Run)
        .join(Image, Image.id == Prediction.image_id)
        .join(ModelVersion, ModelVersion.id == Prediction.model_version_id)
        .join(Run, Run.id == Prediction.run_id)
    )
    rows = {row.Prediction.id: row for row in those(session, statement, Prediction.id, ids)}
    findings = _findings_by_prediction(session, ids)
    lines = select(RunImage.prediction_id, RunImage.uri).order_by(RunImage.event_sequence.desc())
    uris = {row.prediction_id: row.uri for row in those(session, lines, RunImage.prediction_id, ids)}
    images = {row.Image.digest for row in rows.values()}
    kept = {digest for (digest,) in those(session, select(Artifact.digest), Artifact.digest, images)}
    maps = {digest for each in findings.values() for finding in each for digest in _map_digests(finding)}
    said = retention_of(session, images | maps)
    records = []
    for prediction_id in ids:
        row = rows[prediction_id]
        prediction, image, run, own = row.Prediction, row.Image, row.Run, findings.get(prediction_id, [])
        digests = [image.digest, *(digest for finding in own for digest in _map_digests(finding))]
        records.append(
            RecordedPrediction(
                id=prediction.id,
                uri=uris.get(prediction_id, ""),
                run_id=run.id,
                run_reference=run_reference(run.number),
                settings=run.settings,
                settings_digest=prediction.settings_digest,
                model=ModelRecord.of(row.ModelVersion),
                image_digest=image.digest,
                size=image.size,
                width=image.width,
                height=image.height,
                format=image.format,
                mode=image.mode,
                verdict=prediction.verdict,
                reason=prediction.reason,
                score=prediction.score,
                review_threshold=prediction.review_threshold,
                reject_threshold=prediction.reject_threshold,
                probabilities=None if prediction.probabilities is None else tuple(prediction.probabilities),
                tile_count=prediction.tile_count,
                deciding_tile=box_record(prediction.deciding_tile),
                findings=tuple(own),
                picture_kept=image.digest in kept,
                retention={digest: said[digest] for digest in digests if digest in said},
            )
        )
    return records


def record_replays(
    db: Database, outcomes: Collection[ReplayOutcome], *, actor: Actor, host: str, reason: str | None = None
) -> None:
    """Record replays in one transaction, an event for each."""
    for outcome in outcomes:
        if outcome.result not in REPLAY_RESULTS:
            raise RecordError(f"replay result {outcome.result!r} is none of {', '.join(REPLAY_RESULTS)}")
    if not outcomes:
        return
    with db.write() as recorder:
        for outcome in outcomes:
            prediction = outcome.prediction
            row = Replay(
                prediction_id=prediction.id,
                result=outcome.result,
                details=dict(outcome.details),
                software_version=db.software_version,
                host=host,
                created_at=utc_now(),
            )
            recorder.add(
                [row],
                action="replay.made",
                actor=actor,
                entity="prediction",
                entity_id=prediction.id,
                run_id=prediction.run_id,
                payload={
                    "result": outcome.result,
                    "findings": [finding.reference for finding in prediction.findings],
                },
                model_digest=prediction.model.digest,
                settings_digest=prediction.settings_digest,
                image_digest=prediction.image_digest,
                reason=reason,
            )


def _findings_by_prediction(session: Session, ids: Sequence[UUID]) -> dict[UUID, list[RecordedFinding]]:
    statement: Select[Any] = (
        select(Finding, Explanation)
        .outerjoin(Explanation, Explanation.finding_id == Finding.id)
        .order_by(Finding.number)
    )
    found: dict[UUID, list[RecordedFinding]] = {}
    for finding, explanation in those(session, statement, Finding.prediction_id, ids):
        found.setdefault(finding.prediction_id, []).append(
            RecordedFinding(
                reference=finding.reference,
                class_name=finding.class_name,
                class_score=finding.class_score,
                score=finding.score,
                threshold=finding.threshold,
                explanation=None if explanation is None else explanation_record(explanation),
            )
        )
    return found


def _map_digests(finding: RecordedFinding) -> Iterator[str]:
    if finding.explanation is not None:
        yield from finding.explanation.map_digests()
