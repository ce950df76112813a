"""Runs as the record has them: summaries, listed pictures, what could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, func, select
from sqlalchemy.orm import Session

from db.errors import RecordError
from db.index_walk import NEWEST
from db.inspection.missing_images import MissingImage
from db.inspection.runs import ModelRecord, RunCounts, counts_from, find_run_id, run_counts, run_reference
from db.schema import (
    VERDICTS,
    AuditEvent,
    Finding,
    Image,
    ModelVersion,
    Part,
    Prediction,
    Run,
    RunEnd,
    RunImage,
)


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
    missing: tuple[MissingImage, ...]

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


def find_run(session: Session, which: UUID | int | str) -> RunSummary:
    """Return the summary of a run named by id, number, "12" or "R000012"; RecordError if there is none."""
    return run_summary(session, find_run_id(session, which))


def latest_run(session: Session) -> RunSummary | None:
    """Return the summary of the run with the highest number, if there is any run."""
    runs = list_runs(session, limit=1)
    return runs[0] if runs else None


def list_runs(session: Session, limit: int = 50) -> list[RunSummary]:
    """Return the latest runs, newest first."""
    ids = session.scalars(select(Run.id).order_by(Run.number.desc()).limit(limit)).all()
    return [run_summary(session, run_id) for run_id in ids]


def run_summary(session: Session, run_id: UUID, upto: int | None = None) -> RunSummary:
    """Return what a report's first page says of a run, as of event `upto`; RecordError if there is none."""
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
        missing=tuple(MissingImage.of(entry) for entry in end.missing) if end else (),
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
    """Return the run's unreadable pictures in the order of their uris, as of event `upto`."""
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


def run_lots(session: Session, run_id: UUID) -> dict[str, dict[str, int]]:
    """Return how many pictures of each lot a run listed, by verdict; pictures without a lot are under ""."""
    lot = func.coalesce(Part.lot, "")
    rows = session.execute(
        select(lot, RunImage.verdict, func.count())
        .outerjoin(Part, Part.id == RunImage.part_id)
        .where(RunImage.run_id == run_id)
        .group_by(lot, RunImage.verdict)
        .order_by(lot)
    )
    lots: dict[str, dict[str, int]] = {}
    for name, verdict, count in rows:
        lots.setdefault(name, dict.fromkeys(VERDICTS, 0))[verdict] = count
    return lots


def run_gone(session: Session, run_id: UUID, upto: int | None = None) -> tuple[str, ...]:
    """Return the uris that a run recorded and that were not in the source any more at its end, in order.

    As of event `upto`; none before its end.
    """
    return tuple(_end_payload(session, run_id, upto).get("gone", ()))


def run_inspected_before(session: Session, run_id: UUID, upto: int | None = None) -> int:
    """Return how many pictures the source held that the run left out, as earlier runs had inspected them.

    As of event `upto`; 0 before its end, and for an end that an earlier version recorded.
    """
    return int(_end_payload(session, run_id, upto).get("inspected_before", 0))


def _end_payload(session: Session, run_id: UUID, upto: int | None) -> Mapping[str, Any]:
    payload = session.scalar(
        select(AuditEvent.payload)
        .join(RunEnd, RunEnd.event_sequence == AuditEvent.sequence)
        .where(RunEnd.run_id == run_id, RunEnd.event_sequence <= (upto or NEWEST))
    )
    return payload or {}
