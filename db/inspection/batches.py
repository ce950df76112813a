"""One batch of outcomes, one transaction: images, predictions, findings, artifacts and their audit events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.artifacts import ArtifactRef, ArtifactStore
from db.chain.events import Actor, Entry, NewRow
from db.columns import storable, utc_now, uuid7_texts
from db.engine import Database
from db.errors import ArtifactError, RecordError
from db.inspection.outcomes import (
    BatchResult,
    ExplainedTile,
    ExplanationOutcome,
    FindingOutcome,
    ImageOutcome,
    KnownOutcome,
    block_map_entries,
)
from db.inspection.runs import RunHandle
from db.lookup import those
from db.retention.inventory import Retention, retention_of
from db.schema import Artifact, Finding, Image, Part, Prediction, Run, RunEnd, RunImage


def recorded_uris(session: Session, run_id: UUID, listed: Iterable[str]) -> set[str]:
    """Return those of the listed uris that a run has recorded."""
    spelled = {uri: storable(uri) for uri in listed}
    statement = select(RunImage.uri).where(RunImage.run_id == run_id)
    found = {row.uri for row in those(session, statement, RunImage.uri, set(spelled.values()))}
    return {uri for uri, text in spelled.items() if text in found}


def run_uris(session: Session, run_id: UUID) -> set[str]:
    """Return all uris that a run has recorded, as they are stored."""
    return set(session.scalars(select(RunImage.uri).where(RunImage.run_id == run_id)))


def inspected_before(
    session: Session, run: RunHandle, listed: Collection[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Return those of the listed (uri, version) that another run of the source, model and settings inspected.

    Pictures that could not be read, or took more than they may, are left out: they are tried again. So are
    those of failed runs: the report of such a run releases nothing, and the next one is to account for them.
    """
    spelled = {(uri, version): (storable(uri), storable(version)) for uri, version in listed}
    statement = (
        select(RunImage.uri, RunImage.version)
        .join(Run, RunImage.run_id == Run.id)
        .outerjoin(RunEnd, RunEnd.run_id == Run.id)
        .where(
            RunImage.image_id.is_not(None),
            func.coalesce(RunEnd.status, "") != "failed",
            Run.id != run.id,
            Run.source == run.source,
            Run.model_version_id == run.model.id,
            Run.settings_digest == run.settings_digest,
        )
    )
    rows = those(session, statement, RunImage.uri, {uri for uri, _ in spelled.values()})
    found = {(row.uri, row.version) for row in rows}
    return {picture for picture, texts in spelled.items() if texts in found}


def known_outcomes(
    session: Session, digests: Collection[str], model_id: UUID, settings_digest: str
) -> dict[str, KnownOutcome]:
    """Return the recorded outcome of each of these images under a model and settings, where there is one."""
    statement = (
        select(Image.digest, Prediction.id, Prediction.verdict, Prediction.reason)
        .join(Prediction, Prediction.image_id == Image.id)
        .where(Prediction.model_version_id == model_id, Prediction.settings_digest == settings_digest)
    )
    rows = those(session, statement, Image.digest, digests)
    return {row.digest: KnownOutcome(row.id, row.verdict, row.reason) for row in rows}


def record_batch(
    db: Database,
    run: RunHandle,
    outcomes: Sequence[ImageOutcome],
    *,
    actor: Actor,
    store: ArtifactStore | None = None,
) -> BatchResult:
    """Record a batch of outcomes in one transaction, an event for each; what is recorded already stays.

    A uri that the run has recorded is skipped. A digest that has an outcome under the same model and
    settings, from this run or an earlier one, is linked to it and marked as carried over. Artifacts that were
    pruned and are in `store` again are recorded as restored.

    Raises:
        RecordError: an outcome contradicts itself or carries over nothing, pictures are new in a run that has
            ended, or a prune has removed an artifact since it was put. Nothing is written then.
    """
    for outcome in outcomes:
        outcome.check()
    with db.write() as recorder:
        batch = _Batch(recorder.session, run, outcomes, store)
        recorder.add_all(
            [batch.entry(outcome) for outcome in batch.todo],
            actor=actor,
            run_id=run.id,
            model_digest=run.model.digest,
            settings_digest=run.settings_digest,
        )
        return BatchResult(
            recorded=len(batch.lines),
            carried_over=sum(line["carried_over"] for line in batch.lines),
            already_recorded=len(outcomes) - len(batch.lines),
            verdicts=Counter(line["verdict"] for line in batch.lines),
            findings=tuple(batch.references),
        )


class _Batch:
    """What the database holds of a batch: looked up once under the lock, then updated as rows are made."""

    def __init__(
        self,
        session: Session,
        run: RunHandle,
        outcomes: Sequence[ImageOutcome],
        store: ArtifactStore | None,
    ) -> None:
        self.run, self.now, self._store = run, utc_now(), store
        self._identifiers = uuid7_texts()
        self._run_id, self._model_id = run.id.hex, run.model.id.hex
        self.lines: list[dict[str, Any]] = []
        self.references: list[str] = []
        listed: dict[str, ImageOutcome] = {}
        for outcome in outcomes:
            listed.setdefault(outcome.uri, outcome)
        for uri in recorded_uris(session, run.id, listed):
            del listed[uri]
        self.todo = list(listed.values())
        if self.todo and session.scalar(select(RunEnd.id).where(RunEnd.run_id == run.id)):
            raise RecordError(f"run {run.reference} has ended: start a new run for {self.todo[0].uri!r}")

        digests = {outcome.digest for outcome in self.todo if outcome.digest is not None}
        self._known = known_outcomes(session, digests, run.model.id, run.settings_digest)
        images = those(session, select(Image.digest, Image.id), Image.digest, digests)
        self._images: dict[str, str] = {row.digest: row.id.hex for row in images}
        keys = {key for outcome in self.todo if (key := _part_key(outcome))}
        parts = those(session, select(Part.serial, Part.lot, Part.id), Part.serial, {key[0] for key in keys})
        self._parts: dict[tuple[str, str], str] = {(row.serial, row.lot): row.id.hex for row in parts}
        refs = {ref.digest for outcome in self.todo for ref in _artifacts(outcome)}
        stored = those(session, select(Artifact.digest), Artifact.digest, refs)
        self._stored: set[str] = {row.digest for row in stored}
        said = retention_of(session, self._stored)
        self._pruned: dict[str, Retention] = {digest: each for digest, each in said.items() if each.pruned}
        highest = session.scalar(select(func.max(Finding.number)).where(Finding.run_id == run.id))
        self._number: int = highest or 0

    def _new_row(self, table: str, **values: Any) -> NewRow:
        values["id"] = next(self._identifiers)
        return NewRow(table, values)

    def entry(self, outcome: ImageOutcome) -> Entry:
        """Return the event of one outcome with the rows it adds; the last is its line in the accounting."""
        rows: list[NewRow] = []
        known = self._known.get(outcome.digest) if outcome.digest else None
        carried_over = known is not None
        if outcome.digest is not None and known is None:
            if outcome.verdict is None:
                raise RecordError(
                    f"outcome of {outcome.uri!r} carries over what is recorded for image {outcome.digest}, "
                    "but nothing is recorded under this model and these settings: classify it"
                )
            known = self._add_decision(rows, outcome, outcome.digest, outcome.verdict)
        line = self._new_row(
            "run_image",
            run_id=self._run_id,
            uri=outcome.uri,
            version=outcome.version,
            size=outcome.size,
            part_id=self._part_id(rows, outcome),
            station=outcome.station,
            captured_at=outcome.captured_at,
            image_id=self._images[outcome.digest] if outcome.digest else None,
            prediction_id=known.prediction_id if known else None,
            verdict=known.verdict if known else "unreadable",
            reason=known.reason if known else outcome.reason,
            carried_over=carried_over,
            created_at=self.now,
        )
        rows.append(line)
        self.lines.append(line.values)
        action = "image.carried_over" if carried_over else "image.inspected"
        verdict = line.values["verdict"]
        return Entry(
            rows,
            action="image.unreadable" if verdict == "unreadable" else action,
            entity="run_image",
            entity_id=line.values["id"],
            payload={"uri": outcome.uri, "verdict": verdict},
            image_digest=outcome.digest,
            artifact_digests=[] if carried_over else [ref.digest for ref in _artifacts(outcome)],
        )

    def _add_decision(
        self, rows: list[NewRow], outcome: ImageOutcome, digest: str, verdict: str
    ) -> KnownOutcome:
        if digest not in self._images:
            image = self._new_row(
                "image",
                digest=digest,
                size=outcome.size,
                width=outcome.width,
                height=outcome.height,
                format=outcome.format,
                mode=outcome.mode,
            )
            rows.append(image)
            self._images[digest] = image.values["id"]
        for ref in _artifacts(outcome):
            if ref.digest not in self._stored:
                rows.append(self._new_row("artifact", **asdict(ref)))
                self._stored.add(ref.digest)
            elif ref.digest in self._pruned:
                rows.append(self._restored_row(ref.digest, self._pruned.pop(ref.digest)))
        probabilities = outcome.probabilities
        prediction = self._new_row(
            "prediction",
            image_id=self._images[digest],
            model_version_id=self._model_id,
            settings_digest=self.run.settings_digest,
            run_id=self._run_id,
            verdict=verdict,
            reason=outcome.reason,
            score=outcome.score,
            review_threshold=outcome.review_threshold,
            reject_threshold=outcome.reject_threshold,
            probabilities=None if probabilities is None else [float(p) for p in probabilities],
            created_at=self.now,
            brightness=outcome.brightness,
            contrast=outcome.contrast,
            sharpness=outcome.sharpness,
            tile_count=outcome.tile_count,
            deciding_tile=None if outcome.deciding_tile is None else list(outcome.deciding_tile),
        )
        rows.append(prediction)
        if outcome.score is not None:  # else the picture is unreadable and has no findings
            for finding in outcome.findings:
                self._add_finding(rows, prediction.values["id"], outcome.score, finding)
        known = KnownOutcome(UUID(hex=prediction.values["id"]), verdict, prediction.values["reason"])
        self._known[digest] = known
        return known

    def _restored_row(self, digest: str, pruned: Retention) -> NewRow:
        """Return the row of a pruned artifact that is stored again; RecordError unless it is there.

        It stays there: under the lock that the caller holds, no prune can run.
        """
        try:
            if self._store is None:
                raise ArtifactError("no artifact store was given to look for it")
            self._store.check(digest)
        except ArtifactError as error:
            raise RecordError(
                f"artifact {digest} was {pruned} while this batch was being made, and is not stored again "
                f"({error}): run the inspection again, it goes on where it was"
            ) from error
        return self._new_row(
            "artifact_retention",
            artifact_digest=digest,
            state="restored",
            policy="stored again",
            created_at=self.now,
        )

    def _add_finding(
        self, rows: list[NewRow], prediction_id: str, score: float, outcome: FindingOutcome
    ) -> None:
        self._number += 1
        finding = self._new_row(
            "finding",
            reference=f"{self.run.reference}-{self._number:04d}",
            run_id=self._run_id,
            number=self._number,
            prediction_id=prediction_id,
            class_name=outcome.class_name,
            class_score=outcome.class_score,
            score=score,
            threshold=outcome.threshold,
            created_at=self.now,
        )
        rows.append(finding)
        self.references.append(finding.values["reference"])
        if outcome.explanation is not None:
            rows.append(self._explanation_row(finding.values["id"], outcome.explanation))

    def _explanation_row(self, finding_id: str, outcome: ExplanationOutcome) -> NewRow:
        return self._new_row(
            "explanation",
            finding_id=finding_id,
            method=outcome.method,
            parameters=dict(outcome.parameters),
            layers=[asdict(layer) for layer in outcome.layers],
            status=outcome.status,
            masked_score=outcome.masked_score,
            score_drop=outcome.drop,
            score_increase=outcome.increase,
            map_digest=outcome.map.digest if outcome.map else None,
            block_map_digests=block_map_entries(outcome.block_maps),
            box=None if outcome.box is None else [int(edge) for edge in outcome.box],
            created_at=self.now,
            tiles=None if outcome.tiles is None else [tile.entry() for tile in outcome.tiles],
            tiles_left_out=outcome.tiles_left_out,
        )

    def _part_id(self, rows: list[NewRow], outcome: ImageOutcome) -> str | None:
        key = _part_key(outcome)
        if key is None:
            return None
        if key not in self._parts:
            part = self._new_row("part", serial=key[0], lot=key[1])
            rows.append(part)
            self._parts[key] = part.values["id"]
        return self._parts[key]


def _part_key(outcome: ImageOutcome) -> tuple[str, str] | None:
    key = (outcome.part or "", outcome.lot or "")
    return key if any(key) else None


def _artifacts(outcome: ImageOutcome) -> Iterator[ArtifactRef]:
    if outcome.picture is not None:
        yield outcome.picture
    for finding in outcome.findings:
        if finding.explanation is not None:
            every: list[ExplanationOutcome | ExplainedTile] = [finding.explanation]
            for explained in [*every, *(finding.explanation.tiles or ())]:
                if explained.map is not None:
                    yield explained.map
                yield from (ref for _, ref in explained.block_maps)
