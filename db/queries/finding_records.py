"""Findings with their evidence and the decision in effect, as queries return them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, ScalarSelect, Select, and_, or_, select
from sqlalchemy.orm import Session

from db.columns import storable
from db.index_walk import NEWEST
from db.inspection.known_names import unknown_finding
from db.inspection.outcomes import Box, LayerMasks
from db.inspection.runs import run_reference
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
    RunImage,
)


@dataclass(frozen=True, slots=True)
class TileRecord:
    """A tile that was explained. `rectangle`, `box`: in the picture's pixels; `score`: of the class."""

    rectangle: Box
    score: float
    layers: tuple[LayerMasks, ...]
    status: str
    masked_score: float | None
    drop: float | None
    increase: bool | None
    map_digest: str | None
    block_maps: tuple[tuple[str, str], ...]
    box: Box | None


@dataclass(frozen=True, slots=True)
class ExplanationRecord:
    """A finding's explanation; digests name artifacts, block maps go from shallow to deep.

    Of a tiled picture `tiles` are those that were explained, strongest first, and hold the maps;
    `tiles_left_out` counts the others that reached the threshold. Both are None of any other picture.
    """

    method: str
    parameters: Mapping[str, Any]
    layers: tuple[LayerMasks, ...]
    status: str
    masked_score: float | None
    drop: float | None
    increase: bool | None
    map_digest: str | None
    block_maps: tuple[tuple[str, str], ...]
    box: Box | None
    tiles: tuple[TileRecord, ...] | None = None
    tiles_left_out: int | None = None

    def map_digests(self) -> Iterator[str]:
        """Yield the digests of all maps: the fused ones and those of layers, of tiles too."""
        every: list[ExplanationRecord | TileRecord] = [self, *(self.tiles or ())]
        for explained in every:
            if explained.map_digest is not None:
                yield explained.map_digest
            yield from (digest for _, digest in explained.block_maps)


@dataclass(frozen=True, slots=True)
class FindingRecord:
    """One flagged class on one listed picture, with its evidence.

    `disposition`: the latest decision in effect; `awaiting_approval`: a later one that a second person has
    neither approved nor refused yet. `tile_count`, `deciding_tile`: of a tiled picture.
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
    tile_count: int | None
    deciding_tile: Box | None


def run_findings(session: Session, run_id: UUID, upto: int | None = None) -> list[FindingRecord]:
    """Return every finding on the run's pictures, carried-over ones included, in the order of uris.

    `upto`: as of this event, decisions about them included.
    """
    statement = finding_rows(RunImage.prediction_id == Finding.prediction_id, upto)
    mine = (RunImage.run_id == run_id, RunImage.event_sequence <= (upto or NEWEST))
    ordered = statement.where(*mine).order_by(RunImage.uri, Finding.number)
    return [finding_record(row) for row in session.execute(ordered)]


def get_finding(session: Session, reference: str, upto: int | None = None) -> FindingRecord:
    """Return the finding of a reference, with its first listed picture; RecordError if there is none.

    `upto`: decisions about it are as of this event.
    """
    statement = finding_rows(RunImage.prediction_id == Finding.prediction_id, upto)
    wanted = statement.where(Finding.reference == storable(reference)).order_by(RunImage.id).limit(1)
    row = session.execute(wanted).first()
    if row is None:
        raise unknown_finding(session, reference)
    return finding_record(row)


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
    """Return the record of a row of `finding_rows`."""
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
        tile_count=prediction.tile_count,
        deciding_tile=box_record(prediction.deciding_tile),
    )


def explanation_record(row: Explanation) -> ExplanationRecord:
    """Return the record of a row."""
    return ExplanationRecord(
        method=row.method,
        parameters=row.parameters,
        layers=_layers(row.layers),
        status=row.status,
        masked_score=row.masked_score,
        drop=row.score_drop,
        increase=row.score_increase,
        map_digest=row.map_digest,
        block_maps=_block_maps(row.block_map_digests),
        box=box_record(row.box),
        tiles=None if row.tiles is None else tuple(_tile_record(entry) for entry in row.tiles),
        tiles_left_out=row.tiles_left_out,
    )


def _tile_record(entry: Mapping[str, Any]) -> TileRecord:
    """Return the record of an entry that `ExplainedTile.entry` wrote."""
    left, top, right, bottom = entry["rectangle"]
    return TileRecord(
        rectangle=(left, top, right, bottom),
        score=entry["score"],
        layers=_layers(entry["layers"]),
        status=entry["status"],
        masked_score=entry["masked_score"],
        drop=entry["score_drop"],
        increase=entry["score_increase"],
        map_digest=entry["map_digest"],
        block_maps=_block_maps(entry["block_map_digests"]),
        box=box_record(entry["box"]),
    )


def _layers(entries: Sequence[Mapping[str, Any]]) -> tuple[LayerMasks, ...]:
    return tuple(LayerMasks(**layer) for layer in entries)


def _block_maps(entries: Sequence[Mapping[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((entry["layer"], entry["digest"]) for entry in entries)


def box_record(edges: Sequence[int] | None) -> Box | None:
    """Return a box as the tables hold it, [left, top, right, bottom], as a tuple."""
    return None if edges is None else (edges[0], edges[1], edges[2], edges[3])
