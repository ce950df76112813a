"""One batch of outcomes, one transaction: images, predictions, findings, artefacts and their audit events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from db.artifacts import ArtifactRef
from db.chain import Actor
from db.columns import storable, utc_now
from db.engine import Database
from db.errors import RecordError
from db.lookup import those
from db.outcomes import BatchResult, ExplanationOutcome, FindingOutcome, ImageOutcome, KnownOutcome
from db.runs import RunHandle, artifact_row
from db.schema import (
    Artifact,
    DomainRow,
    Explanation,
    Finding,
    Image,
    Part,
    Prediction,
    Run,
    RunEnd,
    RunImage,
)


def recorded_uris(session: Session, run_id: UUID) -> set[str]:
    """Give the uris, as `storable` spells them, that a run has recorded."""
    return set(session.scalars(select(RunImage.uri).where(RunImage.run_id == run_id)))


def inspected_before(
    session: Session, run: RunHandle, listed: Collection[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Give those of the listed (uri, version) that another run of the source, model and settings inspected.

    Uris and versions are as `storable` spells them. Pictures whose bytes could never be read do not count:
    they deserve another try.
    """
    statement = (
        select(RunImage.uri, RunImage.version)
        .join(Run, RunImage.run_id == Run.id)
        .where(
            RunImage.image_id.is_not(None),
            Run.id != run.id,
            Run.source == run.source,
            Run.model_version_id == run.model.id,
            Run.settings_digest == run.settings_digest,
        )
    )
    rows = those(session, statement, RunImage.uri, {uri for uri, _ in listed})
    return {(row.uri, row.version) for row in rows} & set(listed)


def known_outcomes(
    session: Session, digests: Collection[str], model_id: UUID, settings_digest: str
) -> dict[str, KnownOutcome]:
    """Give the recorded outcome of each of these images under a model and settings, where there is one."""
    statement = (
        select(Image.digest, Prediction.id, Prediction.verdict, Prediction.score, Prediction.reason)
        .join(Prediction, Prediction.image_id == Image.id)
        .where(Prediction.model_version_id == model_id, Prediction.settings_digest == settings_digest)
    )
    rows = those(session, statement, Image.digest, digests)
    return {row.digest: KnownOutcome(row.id, row.verdict, row.score, row.reason) for row in rows}


def record_batch(
    db: Database, run: RunHandle, outcomes: Sequence[ImageOutcome], *, actor: Actor
) -> BatchResult:
    """Record a batch of outcomes in one transaction, an event for each; what is recorded stays as it is.

    A uri that the run has already is skipped. A digest that has an outcome under the same model and
    settings, from this run or an earlier one, is linked to it and marked as carried over. Raises RecordError,
    and writes nothing, for an outcome that contradicts itself or carries over nothing, and for new pictures
    of a run that has ended.
    """
    for outcome in outcomes:
        outcome.check()
    with db.write() as recorder:
        batch = _Batch(recorder.session, run, outcomes)
        for uri, outcome in batch.todo.items():
            artifacts = list(_artifacts(outcome))
            rows, line = batch.rows(uri, outcome)
            action = "image.carried_over" if line.carried_over else "image.inspected"
            recorder.add(
                rows,
                action="image.unreadable" if line.verdict == "unreadable" else action,
                actor=actor,
                entity="run_image",
                entity_id=line.id,
                run_id=run.id,
                payload={"uri": uri, "verdict": line.verdict},
                model_digest=run.model.digest,
                settings_digest=run.settings_digest,
                image_digest=outcome.digest,
                artifact_digests=[] if line.carried_over else [ref.digest for ref in artifacts],
            )
        return BatchResult(
            recorded=len(batch.lines),
            carried_over=sum(line.carried_over for line in batch.lines),
            already_recorded=len(outcomes) - len(batch.lines),
            verdicts=Counter(line.verdict for line in batch.lines),
            findings=tuple(batch.references),
        )


class _Batch:
    """What the database holds of a batch: looked up once under the lock, kept up to date as rows are made."""

    def __init__(self, session: Session, run: RunHandle, outcomes: Sequence[ImageOutcome]) -> None:
        self.run, self.now = run, utc_now()
        self.lines: list[RunImage] = []
        self.references: list[str] = []
        listed: dict[str, ImageOutcome] = {}
        for outcome in outcomes:
            listed.setdefault(storable(outcome.uri), outcome)
        taken = select(RunImage.uri).where(RunImage.run_id == run.id)
        for row in those(session, taken, RunImage.uri, listed):
            del listed[row.uri]
        self.todo: dict[str, ImageOutcome] = listed
        if self.todo and session.scalar(select(RunEnd.id).where(RunEnd.run_id == run.id)):
            raise RecordError(f"run {run.reference} has ended: start a new run for {next(iter(self.todo))!r}")

        digests = {outcome.digest for outcome in self.todo.values() if outcome.digest is not None}
        self._known = known_outcomes(session, digests, run.model.id, run.settings_digest)
        images = those(session, select(Image.digest, Image.id), Image.digest, digests)
        self._images: dict[str, UUID] = {row.digest: row.id for row in images}
        keys = {key for outcome in self.todo.values() if (key := _part_key(outcome))}
        parts = those(session, select(Part.serial, Part.lot, Part.id), tuple_(Part.serial, Part.lot), keys)
        self._parts: dict[tuple[str, str], UUID] = {(row.serial, row.lot): row.id for row in parts}
        refs = {ref.digest for outcome in self.todo.values() for ref in _artifacts(outcome)}
        stored = those(session, select(Artifact.digest), Artifact.digest, refs)
        self._stored: set[str] = {row.digest for row in stored}
        highest = session.scalar(select(func.max(Finding.number)).where(Finding.run_id == run.id))
        self._number: int = highest or 0

    def rows(self, uri: str, outcome: ImageOutcome) -> tuple[list[DomainRow], RunImage]:
        """Give the rows one outcome adds, and among them its line in the accounting."""
        rows: list[DomainRow] = []
        known = self._known.get(outcome.digest) if outcome.digest else None
        carried_over = known is not None
        if outcome.digest is not None and known is None:
            if outcome.verdict is None:
                raise RecordError(
                    f"outcome of {uri!r} carries over what is recorded for image {outcome.digest}, but "
                    "nothing is recorded under this model and these settings: classify it"
                )
            known = self._decide(rows, outcome, outcome.digest, outcome.verdict)
        line = RunImage(
            run_id=self.run.id,
            uri=uri,
            version=storable(outcome.version),
            size=outcome.size,
            part_id=self._part(rows, outcome),
            station=_text(outcome.station),
            captured_at=outcome.captured_at,
            image_id=self._images[outcome.digest] if outcome.digest else None,
            prediction_id=known.prediction_id if known else None,
            verdict=known.verdict if known else "unreadable",
            reason=known.reason if known else _text(outcome.reason),
            carried_over=carried_over,
            created_at=self.now,
        )
        rows.append(line)
        self.lines.append(line)
        return rows, line

    def _decide(
        self, rows: list[DomainRow], outcome: ImageOutcome, digest: str, verdict: str
    ) -> KnownOutcome:
        if digest not in self._images:
            image = Image(
                digest=digest,
                size=outcome.size,
                width=outcome.width,
                height=outcome.height,
                format=outcome.format,
                mode=outcome.mode,
            )
            rows.append(image)
            self._images[digest] = image.id
        for ref in _artifacts(outcome):
            if ref.digest not in self._stored:
                rows.append(artifact_row(ref))
                self._stored.add(ref.digest)
        prediction = Prediction(
            image_id=self._images[digest],
            model_version_id=self.run.model.id,
            settings_digest=self.run.settings_digest,
            run_id=self.run.id,
            verdict=verdict,
            reason=_text(outcome.reason),
            score=outcome.score,
            review_threshold=outcome.review_threshold,
            reject_threshold=outcome.reject_threshold,
            probabilities=None
            if outcome.probabilities is None
            else [float(p) for p in outcome.probabilities],
            created_at=self.now,
        )
        rows.append(prediction)
        if outcome.score is not None:  # else it is unreadable and has none
            for finding in outcome.findings:
                self._find(rows, prediction.id, outcome.score, finding)
        known = KnownOutcome(prediction.id, verdict, prediction.score, prediction.reason)
        self._known[digest] = known
        return known

    def _find(
        self, rows: list[DomainRow], prediction_id: UUID, score: float, outcome: FindingOutcome
    ) -> None:
        self._number += 1
        finding = Finding(
            reference=f"{self.run.reference}-{self._number:04d}",
            run_id=self.run.id,
            number=self._number,
            prediction_id=prediction_id,
            class_name=outcome.class_name,
            class_score=outcome.class_score,
            score=score,
            threshold=outcome.threshold,
            created_at=self.now,
        )
        rows.append(finding)
        self.references.append(finding.reference)
        if outcome.explanation is not None:
            rows.append(self._explanation(finding, outcome.explanation))

    def _explanation(self, finding: Finding, outcome: ExplanationOutcome) -> Explanation:
        return Explanation(
            finding_id=finding.id,
            method=outcome.method,
            parameters=dict(outcome.parameters),
            layers=[
                {"name": layer.name, "kept": layer.kept, "total": layer.total} for layer in outcome.layers
            ],
            status=storable(outcome.status),
            masked_score=outcome.masked_score,
            score_drop=outcome.drop,
            score_increase=outcome.increase,
            map_digest=outcome.map.digest if outcome.map else None,
            block_map_digests=[{"layer": layer, "digest": ref.digest} for layer, ref in outcome.block_maps],
            box=None if outcome.box is None else [int(edge) for edge in outcome.box],
            created_at=self.now,
        )

    def _part(self, rows: list[DomainRow], outcome: ImageOutcome) -> UUID | None:
        key = _part_key(outcome)
        if key is None:
            return None
        if key not in self._parts:
            part = Part(serial=key[0], lot=key[1])
            rows.append(part)
            self._parts[key] = part.id
        return self._parts[key]


def _part_key(outcome: ImageOutcome) -> tuple[str, str] | None:
    key = (storable(outcome.part or ""), storable(outcome.lot or ""))
    return key if any(key) else None


def _text(value: str | None) -> str | None:
    return None if value is None else storable(value)


def _artifacts(outcome: ImageOutcome) -> Iterator[ArtifactRef]:
    if outcome.picture is not None:
        yield outcome.picture
    for finding in outcome.findings:
        if finding.explanation is not None:
            if finding.explanation.map is not None:
                yield finding.explanation.map
            yield from (ref for _, ref in finding.explanation.block_maps)
