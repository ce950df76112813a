"""Finding pages, read from the record: what is printed, who decided what, and where the evidence lies."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from sqlalchemy.orm import Session

from classifiers.package.precisions import thresholds_in_force
from db.artifacts import ArtifactStore
from db.dispositions.history import DispositionRecord, histories
from db.inspection.outcomes import ExplainedTile as TileOutcome
from db.inspection.outcomes import ExplanationOutcome
from db.inspection.runs import ModelRecord
from db.queries.finding_records import ExplanationRecord, FindingRecord, TileRecord
from db.retention.inventory import Retention, retention_of
from operations.stored_evidence import StoredEvidence
from reports.content.base import Criteria, Criterion, Model, Rate
from reports.content.finding import (
    Decided,
    DecisionState,
    ExplainedTile,
    Explanation,
    FindingPage,
    LayerMasks,
)
from reports.errors import ReportError

_STATES: Mapping[str, DecisionState] = {
    "in effect": "in force",
    "pending": "awaiting approval",
    "refused": "refused",
    "superseded": "superseded",
}


def finding_pages(
    session: Session,
    store: ArtifactStore,
    findings: Sequence[FindingRecord],
    settings: Mapping[str, Mapping[str, Any]],
    upto: int,
    listed: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> tuple[FindingPage, ...]:
    """Return the pages of findings, with decisions as of event `upto`.

    Args:
        session: of the record.
        store: where the evidence lies.
        findings: what to print.
        settings: of the runs that made them, by settings digest.
        upto: sequence number of the audit head that is printed.
        listed: the files in which each finding was listed, by its reference (see `once`).

    Raises:
        ReportError: a finding without thresholds.
    """
    said = retention_of(session, {digest for each in findings for digest in _digests(each)})
    decided = histories(session, [each.id for each in findings], upto)
    pages = (
        _page(each, store, settings[each.settings_digest], said, decided.get(each.id, ()))
        for each in findings
    )
    return tuple(replace(page, also=tuple(listed.get(page.reference, ())[1:])) for page in pages)


def once(findings: Iterable[FindingRecord]) -> tuple[list[FindingRecord], dict[str, list[str]]]:
    """Return each finding once, in order, and the files that listed it, by its reference.

    A picture that was listed under several names or parts has one outcome, and each of its findings comes
    with every one of them.
    """
    first: dict[str, FindingRecord] = {}
    listed: dict[str, list[str]] = {}
    for each in findings:
        first.setdefault(each.reference, each)
        name = each.uri if each.part is None else f"{each.uri} (part {each.part})"
        listed.setdefault(each.reference, []).append(name)
    return list(first.values()), listed


def classes_of(findings: Iterable[FindingRecord]) -> tuple[tuple[str, int], ...]:
    """Count findings by class, by name."""
    return tuple(sorted(Counter(each.class_name for each in findings).items()))


def model_of(record: ModelRecord, settings: Mapping[str, Any]) -> Model:
    """Return a model version as reports print it, with its criteria under a run's settings."""
    card = record.card
    t = thresholds_in_force(card, settings.get("decision", {}))
    return Model(
        name=record.name,
        architecture=record.architecture,
        digest=record.digest,
        classes=tuple(record.classes),
        task=record.task,
        good_class=card["good_class"],
        criteria=Criteria(
            review=Criterion(
                t.review,
                escape=Rate(t.escape_rate, t.escape_bound, t.n_defective, t.target_escape_rate),
                overkill=_measured_rate(t.overkill_rate, t.overkill_bound, t.n_good),
            ),
            reject=Criterion(
                t.reject,
                overkill=_measured_rate(
                    t.reject_overkill_rate, t.reject_overkill_bound, t.n_good, t.target_overkill
                ),
            ),
            confidence=t.confidence,
            dataset_digest=t.dataset_digest,
        ),
    )


def _measured_rate(
    measured: float | None, bound: float | None, n: int, target: float | None = None
) -> Rate | None:
    """Return a rate; None where no picture showed it."""
    return None if measured is None or bound is None else Rate(measured, bound, n, target)


def _digests(finding: FindingRecord) -> list[str]:
    """Digests of a finding's evidence."""
    maps = () if finding.explanation is None else finding.explanation.map_digests()
    return [finding.image_digest, *maps]


def _page(
    finding: FindingRecord,
    store: ArtifactStore,
    settings: Mapping[str, Any],
    said: Mapping[str, Retention],
    history: Sequence[DispositionRecord],
) -> FindingPage:
    grey_range = settings["source"]["grey_range"]
    if finding.review_threshold is None or finding.reject_threshold is None:
        raise ReportError(
            f"finding {finding.reference}: no thresholds in the record; run `kensa audit verify`"
        )
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
        grey_range=(grey_range[0], grey_range[1]) if grey_range else None,
        explanation=_explanation(finding, said),
        load=_stored_evidence(finding, store, said),
        decisions=tuple(_decision(each) for each in history),
        tile_count=finding.tile_count,
        pixel_size=settings["source"].get("pixel_size"),  # runs of earlier versions have no such setting
    )


def _decision(row: DispositionRecord) -> Decided:
    signed, answer = row.signature or {}, row.approval
    second = {} if answer is None else answer.signature
    return Decided(
        decision=row.decision,
        person=str(signed.get("name") or row.person),
        role=str(signed.get("role") or "role not recorded"),
        at=row.created_at,
        state=_STATES[row.state],
        reason=row.reason,
        class_name=row.class_name,
        approved_by=None if answer is None else str(second.get("name") or answer.person),
        approved_at=None if answer is None else answer.created_at,
    )


def _stored_evidence(
    finding: FindingRecord, store: ArtifactStore, said: Mapping[str, Retention]
) -> StoredEvidence:
    def kept(digest: str | None) -> str | None:
        return None if digest is None or (digest in said and said[digest].pruned) else digest

    record = finding.explanation
    tiles = () if record is None else record.tiles or ()
    blocks = () if record is None else tiles[0].block_maps if tiles else record.block_maps
    picture = kept(finding.image_digest)
    return StoredEvidence(
        store,
        picture,
        kept(record.map_digest) if record is not None else None,
        tuple((name, digest) for name, digest in blocks if kept(digest)),
        picture_gap=f"The picture was {said[finding.image_digest]}." if picture is None else None,
        tiles=tuple(
            (tile.rectangle, tile.map_digest) for tile in tiles if tile.map_digest and kept(tile.map_digest)
        ),
    )


def _explanation(finding: FindingRecord, said: Mapping[str, Retention]) -> Explanation:
    record = finding.explanation
    digest = None if record is None else record.map_digest
    printed = printed_explanation(record, digest)
    tiles = tuple(replace(tile, status=_status(tile, said)) for tile in printed.tiles)
    status = _status(printed, said)
    if tiles and not any(tile.has_map for tile in tiles):
        status = tiles[0].status
    return replace(printed, status=status, tiles=tiles)


def _status(explained: Explanation | ExplainedTile, said: Mapping[str, Retention]) -> str:
    """Return the explainer's status, or what became of the map since."""
    gone = said.get(explained.map_digest) if explained.map_digest else None
    return f"the stored map was {gone}" if gone is not None and gone.pruned else explained.status


def printed_explanation(
    made: ExplanationOutcome | ExplanationRecord | None, map_digest: str | None
) -> Explanation:
    """Return an explanation, made now or read from the record, as reports print it."""
    if made is None:
        return Explanation(method="none", status="no explanation was recorded")
    tiles = made.tiles or ()
    layers = tiles[0].layers if tiles else made.layers
    return Explanation(
        method=made.method,
        status=made.status,
        masks=tuple(LayerMasks(layer.name, layer.kept, layer.total) for layer in layers),
        parameters=pairs(made.parameters),
        masked_score=made.masked_score,
        drop=made.drop,
        increase=made.increase,
        map_digest=map_digest,
        box=made.box,
        tiles=tuple(_printed_tile(tile) for tile in tiles),
        tiles_left_out=made.tiles_left_out or 0,
    )


def _map_digest(tile: TileOutcome | TileRecord) -> str | None:
    if isinstance(tile, TileRecord):
        return tile.map_digest
    return None if tile.map is None else tile.map.digest


def _printed_tile(tile: TileOutcome | TileRecord) -> ExplainedTile:
    return ExplainedTile(
        rectangle=tile.rectangle,
        score=tile.score,
        status=tile.status,
        masked_score=tile.masked_score,
        drop=tile.drop,
        increase=tile.increase,
        map_digest=_map_digest(tile),
        box=tile.box,
    )


def pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return settings as (name, value), sorted; one inside another as "outer.inner".

    What is None is left out: it is the method's own default, the layers found by rule among it.
    """
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": text for inner, text in pairs(value)}
        elif value is not None:
            flat[str(name)] = _value_text(value)
    return tuple(sorted(flat.items()))


def _value_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(_value_text(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
