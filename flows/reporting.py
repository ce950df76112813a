"""From the record to the report: read a run back, render it, keep the PDF, record that it was issued."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

from classifiers import Thresholds
from configs.schema import ReportSettings
from db import (
    Actor,
    ArtifactError,
    ArtifactStore,
    CheckpointRecord,
    Database,
    FindingRecord,
    Head,
    ReportRecord,
    Retention,
    RunSummary,
    get_event,
    head,
    latest_checkpoint,
    parse_checkpoint,
    record_report,
    retention_of,
    run_findings,
    run_reports,
    run_summary,
    run_unreadable,
)
from flows.evidence import decode_map
from reports import (
    AuditHead,
    Counts,
    Criteria,
    Criterion,
    Explanation,
    FindingPage,
    LayerMasks,
    Model,
    Rate,
    ReportError,
    RunReport,
    SignedCheckpoint,
    render_run_report,
)

_log = logging.getLogger("kensa")

_STATUS = {
    "completed": "completed",
    "failed": "failed",
    "unfinished": "interrupted: the run has no end in the record",
}


@dataclass(frozen=True)
class IssuedReport:
    """A report on disk and in the record; `new` is False when the record already had exactly these bytes."""

    path: Path
    record: ReportRecord
    new: bool


def issue_report(
    database: Database, store: ArtifactStore, run_id: UUID, settings: ReportSettings, *, actor: Actor
) -> IssuedReport:
    """Render a run's report, keep it as an artefact and in the report folder, and record it.

    Rendering again what has not changed gives the same bytes, and then no new revision.

    Raises:
        RecordError: no such run. ReportError: the record does not make a report.
    """
    with database.session() as session:
        run = run_summary(session, run_id)
        earlier = run_reports(session, run_id)
        now = head(session)
    if earlier:
        latest = earlier[-1]
        pdf = render_run_report(build_report(database, store, run_id, settings, latest.revision, latest.head))
        if sha256(pdf).hexdigest() == latest.artifact_digest:
            path = _write(settings, run.reference, latest.revision, pdf)
            return IssuedReport(path, latest, new=False)
    revision = len(earlier) + 1
    pdf = render_run_report(build_report(database, store, run_id, settings, revision, now))
    record = record_report(database, run, store.put(pdf, "report", "application/pdf"), now, actor=actor)
    return IssuedReport(_write(settings, run.reference, revision, pdf), record, new=True)


def _write(settings: ReportSettings, reference: str, revision: int, pdf: bytes) -> Path:
    settings.folder.mkdir(parents=True, exist_ok=True)
    path = settings.folder / f"{reference}-{revision}.pdf"
    temporary = path.with_suffix(".pdf.part")
    temporary.write_bytes(pdf)
    temporary.replace(path)
    return path


def build_report(
    database: Database, store: ArtifactStore, run_id: UUID, settings: ReportSettings, revision: int, at: Head
) -> RunReport:
    """Read a run back from the record and the artefact store, as the report's record."""
    with database.session() as session:
        run = run_summary(session, run_id)
        findings = run_findings(session, run_id)
        unreadable = run_unreadable(session, run_id)
        issued_at = get_event(session, at.sequence).at
        signed = latest_checkpoint(session, upto=at.sequence)
        # Evidence is read for the findings that get a page: those with the highest scores.
        ranked = sorted(range(len(findings)), key=lambda i: (-findings[i].score, i))
        printed = sorted(ranked[: settings.max_findings])
        said = retention_of(session, {d for i in printed for d in _digests(findings[i])})
    counts = run.counts
    return RunReport(
        number=run.reference,
        run_id=str(run.id),
        revision=revision,
        title=settings.title,
        organisation=settings.organisation or None,
        source=run.source,
        trigger=run.trigger,
        host=run.host,
        started_at=run.started_at,
        finished_at=run.finished_at,
        issued_at=issued_at,
        status=_STATUS[run.status],
        status_note=run.note or None,
        timezone=settings.timezone,
        lots=run.lots,
        stations=run.stations,
        model=_model(run),
        settings_digest=run.settings_digest,
        software_version=run.software_version,
        counts=Counts(
            listed=counts.listed,
            passed=counts.passed,
            review=counts.review,
            reject=counts.reject,
            unreadable=counts.unreadable,
            carried_over=counts.carried_over,
        ),
        class_counts=run.class_counts,
        findings=tuple(_page(findings[i], store, run, said) for i in printed),
        max_finding_pages=settings.max_findings,
        unreadable=tuple((record.uri, record.reason) for record in unreadable),
        missing=run.missing,
        audit_head=AuditHead(at.sequence, at.hash),
        checkpoint=None if signed is None else _checkpoint(signed),
    )


def _checkpoint(signed: CheckpointRecord) -> SignedCheckpoint:
    note = parse_checkpoint(signed.note)
    return SignedCheckpoint(signed.tree_size, signed.root, note.origin, note.at, signed.note)


def _model(run: RunSummary) -> Model:
    card = run.model.card
    t = Thresholds(**card["thresholds"])
    return Model(
        name=run.model.name,
        architecture=run.model.architecture,
        digest=run.model.digest,
        classes=tuple(run.model.classes),
        task=run.model.task,
        good_class=card["good_class"],
        criteria=Criteria(
            review=Criterion(
                t.review,
                escape=Rate(t.escape_rate, t.escape_bound, t.n_defective, t.target_escape_rate),
                overkill=Rate(t.overkill_rate, t.overkill_bound, t.n_good),
            ),
            reject=Criterion(
                t.reject,
                overkill=Rate(t.reject_overkill_rate, t.reject_overkill_bound, t.n_good, t.target_overkill),
            ),
            confidence=t.confidence,
            dataset_digest=t.dataset_digest,
        ),
    )


def _digests(finding: FindingRecord) -> list[str]:
    """Digests of a finding's evidence."""
    digests = [finding.image_digest]
    if finding.explanation is not None:
        digests += [digest for _, digest in finding.explanation.block_maps]
        digests += [finding.explanation.map_digest] if finding.explanation.map_digest else []
    return digests


def _page(
    finding: FindingRecord, store: ArtifactStore, run: RunSummary, said: Mapping[str, Retention]
) -> FindingPage:
    grey_range = run.settings["source"]["grey_range"]
    if finding.review_threshold is None or finding.reject_threshold is None:
        raise ReportError(
            f"finding {finding.reference}: no thresholds in the record; run `kensa audit verify`"
        )
    gone = said.get(finding.image_digest)
    return FindingPage(
        reference=finding.reference,
        uri=finding.uri,
        part=finding.part,
        lot=finding.lot,
        station=finding.station,
        captured_at=finding.captured_at,
        class_name=finding.class_name,
        class_score=finding.class_score,
        score=finding.score,
        review_threshold=finding.review_threshold,
        reject_threshold=finding.reject_threshold,
        verdict="reject" if finding.verdict == "reject" else "review",
        carried_over=finding.carried_over,
        image_digest=finding.image_digest,
        picture=_evidence(store, finding.image_digest, said),
        grey_range=(grey_range[0], grey_range[1]) if grey_range else None,
        explanation=_explanation(finding, store, said),
        picture_gap=f"The picture was {gone}." if gone is not None and gone.pruned else None,
    )


def _explanation(finding: FindingRecord, store: ArtifactStore, said: Mapping[str, Retention]) -> Explanation:
    record = finding.explanation
    if record is None:
        return Explanation(method="none", status="no explanation was recorded")
    fused = _evidence(store, record.map_digest, said) if record.map_digest else None
    status = record.status
    if record.map_digest and fused is None:
        gone = said.get(record.map_digest)
        status = "the stored map is missing or was changed: run `kensa audit verify`"
        if gone is not None and gone.pruned:
            status = f"the stored map was {gone}"
    blocks = [(name, _evidence(store, digest, said)) for name, digest in record.block_maps]
    return Explanation(
        method=record.method,
        status=status,
        map=None if fused is None else decode_map(fused),
        block_maps=tuple((name, decode_map(data)) for name, data in blocks if data is not None),
        masks=tuple(LayerMasks(layer.name, layer.kept, layer.total) for layer in record.layers),
        parameters=tuple(
            # What is None is the method's own default, the layers found by rule among it.
            (name, _printed(value))
            for name, value in sorted(record.parameters.items())
            if value is not None
        ),
        masked_score=record.masked_score,
        drop=record.drop,
        increase=record.increase,
        map_digest=record.map_digest,
        box=record.box,
    )


def _evidence(store: ArtifactStore, digest: str, said: Mapping[str, Retention]) -> bytes | None:
    """Read an artefact; None where it is gone or changed: the page then shows a marked gap."""
    if digest in said and said[digest].pruned:
        return None
    try:
        return store.get(digest)
    except ArtifactError as error:
        _log.warning("%s", error)
        return None


def _printed(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(_printed(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
