"""The worst mistakes on examined pictures, each with its map."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from classifiers.tiles import scored_tiles
from db.artifacts import ArtifactRef
from db.inspection.outcomes import ExplanationOutcome, ImageOutcome
from explainers import Explainer
from operations.inspection.evidence import Memory, explain_findings
from operations.inspection.map_files import decode_map
from operations.inspection.pictures import decoded_picture, hashed_picture, with_decision
from operations.model_report.examination import Examined
from operations.model_report.map_quality import Progress
from operations.reporting.findings import printed_explanation
from reports.content.finding import Evidence, FindingPage, Held, Labelled, Map, Verdict
from reports.content.model import Case, Mistake
from sources.decoding import MAX_PIXELS


def case_pages(
    examined: Examined,
    explainer: Explainer,
    mistakes: Sequence[tuple[int, Mistake]],
    *,
    most: int,
    progress: Progress | None = None,
) -> tuple[Case, ...]:
    """Explain the worst mistakes: an escape for the class that its label names, overkill for the one flagged.

    Args:
        examined: the pictures and decisions of a calibrated model.
        explainer: of the same network.
        mistakes: the worst first; see `operations.model_report.examination.mistakes`.
        most: pages; escapes get at least two of three where there are so many.
        progress: called with (maps done, maps).
    """
    escapes = [one for one in mistakes if one[1].kind == "escape"]
    overkills = [one for one in mistakes if one[1].kind == "overkill"]
    kept = min(len(escapes), max(most - len(overkills), -(-2 * most // 3)))
    chosen = [*escapes[:kept], *overkills[: most - kept]]
    cases = []
    for number, (place, mistake) in enumerate(chosen, start=1):
        within = number if mistake.kind == "escape" else number - kept
        cases.append(_case(examined, explainer, mistake, place, within))
        if progress is not None:
            progress(number, len(chosen))
    return tuple(cases)


def _case(examined: Examined, explainer: Explainer, mistake: Mistake, place: int, number: int) -> Case:
    package, item = examined.package, examined.dataset.items[place]
    row = examined.prediction.probabilities[place]
    decision = examined.decisions[place] if examined.decisions else None
    if decision is None:
        raise ValueError(f"{item.name}: a mistake of a model that decides nothing")
    if mistake.kind == "escape":
        label = max(item.labels, key=lambda name: float(row[package.classes.index(name)]))
        index = package.classes.index(label)
        decision = replace(decision, flagged=((label, index, float(row[index])),))
    else:
        decision = replace(decision, flagged=decision.flagged[:1])
    data = item.path.read_bytes()
    listed = ImageOutcome(uri=mistake.uri, version="", size=len(data))
    # As `read_pixels` decodes labelled pictures: no limit of the line's settings applies to them.
    picture = decoded_picture(
        examined.predictor, hashed_picture(listed, data), max_pixels=MAX_PIXELS, grey_range=None
    )
    if picture.tiled is not None:
        picture = replace(picture, tile_scores=scored_tiles(examined.predictor, [picture.tiled])[0])
    picture = with_decision(package, picture, decision, tuple(float(value) for value in row))
    memory = Memory()
    ((found,),) = explain_findings(explainer, examined.predictor, memory, [picture])
    made = found.explanation
    label, _, score = decision.flagged[0]
    outcome = picture.outcome
    page = FindingPage(
        reference=f"{mistake.kind.capitalize()} {number}",
        uri=mistake.uri,
        class_name=label,
        class_score=score,
        score=decision.score,
        review_threshold=outcome.review_threshold or 0.0,
        reject_threshold=outcome.reject_threshold or 0.0,
        verdict=cast("Verdict", decision.verdict),
        image_digest=item.sha256,
        explanation=printed_explanation(made, made.map.digest if made and made.map else None),
        load=Held(_evidence(data, made, memory)),
        labelled=Labelled(
            label=", ".join(item.labels) or "good",
            predicted=mistake.predicted,
            group=None if item.group == f"sha256:{item.sha256}" else item.group,
        ),
        tile_count=None if picture.tiled is None else len(picture.tiled.grid),
    )
    return Case(mistake, page)


def _evidence(data: bytes, explained: ExplanationOutcome | None, memory: Memory) -> Evidence:
    if explained is None:
        return Evidence(picture=data)

    def stored_map(ref: ArtifactRef) -> Map:
        return decode_map(memory.maps[ref.digest])

    tiles = explained.tiles or ()
    blocks = tiles[0].block_maps if tiles else explained.block_maps
    return Evidence(
        picture=data,
        map=None if explained.map is None else stored_map(explained.map),
        block_maps=tuple((name, stored_map(block)) for name, block in blocks),
        tiles=tuple((tile.rectangle, stored_map(tile.map)) for tile in tiles if tile.map is not None),
    )
