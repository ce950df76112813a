"""Pictures whose findings people decided about, with all that was decided and where it is recorded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.chain.events import Head
from db.dispositions.history import DispositionRecord, histories, label_of
from db.inspection.runs import run_reference
from db.lookup import those
from db.queries.filters import find_model_digests
from db.queries.finding_records import FindingRecord
from db.queries.findings import FindingFilter, find_findings
from db.retention.inventory import retention_of
from db.schema import AuditEvent, Explanation, Finding, Image, ModelVersion, Prediction, Run

_PAGE = 500


@dataclass(frozen=True, slots=True)
class ReviewedFinding:
    """A finding and what was decided about it. `label`: the class that the picture shows; None: no defect.

    `recorded`: the event that recorded it. `good_class`, `task`: the model's. `grouped_by`: the column by
    which its training data was grouped, if its package says so. `box`: where its explanation points, (left,
    top, right, bottom) in pixels; `map_digest`: the stored map, None for that of a picture in tiles.
    """

    reference: str
    run_reference: str
    class_name: str
    class_score: float
    score: float
    model_digest: str
    settings_digest: str
    task: str
    good_class: str | None
    recorded: Head
    history: tuple[DispositionRecord, ...]
    label: str | None
    grouped_by: str | None = None
    box: tuple[int, int, int, int] | None = None
    map_digest: str | None = None

    @property
    def decided(self) -> bool:
        """Whether a decision about it is in effect."""
        return any(row.state == "in effect" for row in self.history)


@dataclass(frozen=True, slots=True)
class ReviewedPicture:
    """A picture with every finding on it. `pruned`: that its bytes were removed by policy, and when.

    Uri, part, lot and station are those of the newest listing that matches.
    """

    digest: str
    format: str | None
    uri: str
    part: str | None
    lot: str | None
    station: str | None
    pruned: str | None
    findings: tuple[ReviewedFinding, ...]


def reviewed_pictures(session: Session, wanted: FindingFilter) -> tuple[Iterator[ReviewedPicture], int]:
    """Return the pictures with a matching finding about which a decision is in effect, by digest.

    Every finding of such a picture comes with it (under `wanted.model` alone, if that is given), undecided
    ones included. The number beside it counts pictures with matching findings of which none is decided.
    RecordError for a model or run there is none of.
    """
    chosen: dict[str, FindingRecord] = {}
    undecided: set[str] = set()
    before = None
    while page := find_findings(session, wanted, limit=_PAGE, before=before):
        for finding in page:
            if finding.disposition is None:
                undecided.add(finding.image_digest)
            else:
                chosen.setdefault(finding.image_digest, finding)
        before = page[-1].id
    models = None if wanted.model is None else find_model_digests(session, wanted.model)
    return _pictures(session, chosen, models), len(undecided - set(chosen))


def event_hashes(session: Session, sequences: Collection[int]) -> dict[int, str]:
    """Return the hashes of these events."""
    statement = select(AuditEvent.sequence, AuditEvent.hash)
    return {row.sequence: row.hash for row in those(session, statement, AuditEvent.sequence, sequences)}


def _pictures(
    session: Session, chosen: dict[str, FindingRecord], models: Collection[str] | None
) -> Iterator[ReviewedPicture]:
    digests = sorted(chosen)
    for start in range(0, len(digests), _PAGE):
        page = digests[start : start + _PAGE]
        findings = _findings_by_picture(session, page, models)
        pruned = {
            digest: f"pruned by policy ({said.policy}) on {said.at:%Y-%m-%d}"
            for digest, said in retention_of(session, page).items()
            if said.pruned
        }
        for digest in page:
            seen = chosen[digest]
            yield ReviewedPicture(
                digest=digest,
                format=seen.image_format,
                uri=seen.uri,
                part=seen.part,
                lot=seen.lot,
                station=seen.station,
                pruned=pruned.get(digest),
                findings=tuple(findings[digest]),
            )


def _findings_by_picture(
    session: Session, digests: Collection[str], models: Collection[str] | None
) -> dict[str, list[ReviewedFinding]]:
    statement = (
        select(
            Image.digest,
            Finding,
            Run.number,
            ModelVersion.digest.label("model_digest"),
            ModelVersion.task,
            ModelVersion.card,
            Prediction.settings_digest,
            AuditEvent.hash,
            Explanation.box,
            Explanation.map_digest,
        )
        .join(Prediction, Prediction.image_id == Image.id)
        .join(Finding, Finding.prediction_id == Prediction.id)
        .join(ModelVersion, ModelVersion.id == Prediction.model_version_id)
        .join(Run, Run.id == Finding.run_id)
        .join(AuditEvent, AuditEvent.sequence == Finding.event_sequence)
        .outerjoin(Explanation, Explanation.finding_id == Finding.id)
        .order_by(Finding.reference)
    )
    if models is not None:
        statement = statement.where(ModelVersion.digest.in_(models))
    rows: list[Any] = list(those(session, statement, Image.digest, digests))
    decided = histories(session, [row.Finding.id for row in rows])
    found: dict[str, list[ReviewedFinding]] = {}
    for row in rows:
        finding: Finding = row.Finding
        history = decided.get(finding.id, ())
        found.setdefault(row.digest, []).append(
            ReviewedFinding(
                reference=finding.reference,
                run_reference=run_reference(row.number),
                class_name=finding.class_name,
                class_score=finding.class_score,
                score=finding.score,
                model_digest=row.model_digest,
                settings_digest=row.settings_digest,
                task=row.task,
                good_class=row.card.get("good_class"),
                recorded=Head(finding.event_sequence, row.hash),
                history=history,
                label=label_of(finding.class_name, history),
                grouped_by=_grouping_column(row.card),
                box=None if row.box is None else (row.box[0], row.box[1], row.box[2], row.box[3]),
                map_digest=row.map_digest,
            )
        )
    return found


def _grouping_column(card: Mapping[str, Any]) -> str | None:
    """Return the column by which a model's training data was grouped; None where its card does not say."""
    split = (card.get("training") or {}).get("split")
    column = split.get("grouped_by") if isinstance(split, Mapping) else None
    return column if isinstance(column, str) else None
