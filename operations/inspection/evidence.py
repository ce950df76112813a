"""The evidence of a finding: attribution maps, how far to trust them, and where they are kept."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Protocol

import numpy as np
import torch
from scipy import ndimage

from classifiers import ModelPackage, Predictor
from classifiers.package.tiling import Grid
from classifiers.tiles import TiledPicture, TileScores, tile_inputs
from configs.schema import ExplainerSettings
from db.artifacts import ArtifactRef
from db.inspection.outcomes import (
    ExplainedTile,
    ExplanationOutcome,
    FindingOutcome,
    ImageOutcome,
    LayerMasks,
)
from explainers import Explainer, ExplainerError, Explanation, create_explainer, explainer_options
from explainers.drawing import top_mask
from explainers.tile_maps import merged_boxes
from explainers.trust import drop_increase
from operations.inspection.map_files import FloatMap, encode_map
from operations.inspection.pictures import Picture


class Keeper(Protocol):
    """What maps are handed to: the artifact store, or in a replay a memory of what it would have got."""

    def put(self, data: bytes, kind: str, media_type: str) -> ArtifactRef:
        """Keep bytes, and return what the record says of them."""
        ...


class Memory:
    """Stands in for the artifact store where what is made is not to be kept: in a replay, say."""

    def __init__(self) -> None:
        self.maps: dict[str, bytes] = {}

    def put(self, data: bytes, kind: str, media_type: str) -> ArtifactRef:
        """Keep bytes in memory, and return what the store would say of them."""
        digest = sha256(data).hexdigest()
        self.maps[digest] = data
        return ArtifactRef(digest, kind, media_type, len(data))


def explainer_for(predictor: Predictor, chosen: ExplainerSettings) -> Explainer:
    """Make an explainer of the network in use, with what its package says of activation and colours.

    Masked pictures are scored by the engine. The torch engine is no gain there: the explainer's own copy of
    the network, on the same device and in the same precision, has its batch norms folded.

    Settings that belong to another method (`mu` to SISE, say) are left out; `chosen.options` are not.

    Raises:
        ExplainerError: see `create_explainer`.
    """
    preprocessing = predictor.package.preprocessing
    known = explainer_options(chosen.method)
    shared = {
        **chosen.model_dump(exclude={"method", "options"}),
        "activation": predictor.package.activation,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "precision": predictor.precision,
    }
    options = {name: value for name, value in shared.items() if name in known}
    return create_explainer(
        chosen.method,
        predictor.model,
        forward=None if predictor.engine.name == "torch" else predictor.engine,
        constant=True,  # nothing changes a predictor's network
        **options,
        **chosen.options,
    )


def judged_maps(
    predictor: Predictor, images: torch.Tensor, targets: torch.Tensor, maps: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what the record keeps of how far to trust maps: `drop_increase`, computed in float32.

    Raises:
        ExplainerError: see `drop_increase`.
    """
    return drop_increase(
        predictor.model,
        images,
        targets,
        maps,
        activation=predictor.package.activation,
        masking="soft",
        forward=predictor.engine if predictor.engine.precision == "float32" else predictor.model,
    )


def explain_findings(
    explainer: Explainer,
    predictor: Predictor,
    store: Keeper,
    pictures: Sequence[Picture],
    *,
    max_tiles: int = ExplainerSettings().max_tiles,
) -> list[tuple[FindingOutcome, ...]]:
    """Explain every flagged class of the pictures, all together.

    Of a tiled picture, the tiles that show the class are explained (`chosen_tiles`), at most `max_tiles`.

    Returns:
        per picture its findings, in the order of `picture.decision.flagged`. Where no map can be made the
        finding's explanation says why in its status: a flagged defect is never lost.
    """
    explained = _explained_wholes(explainer, predictor, store, pictures)
    explained |= _explained_by_tiles(explainer, predictor, store, pictures, max_tiles)
    found: list[tuple[FindingOutcome, ...]] = []
    for picture in pictures:
        flagged = picture.decision.flagged if picture.decision is not None else ()
        found.append(
            tuple(
                FindingOutcome(
                    class_name=name,
                    class_score=class_score,
                    threshold=_review_threshold(picture.outcome),
                    explanation=explained[picture.outcome.uri, index],
                )
                for name, index, class_score in flagged
                if (picture.outcome.uri, index) in explained
            )
        )
    return found


# A picture's name and a class: what a finding, and so an explanation, is of.
_Subject = tuple[str, int]


def _review_threshold(outcome: ImageOutcome) -> float:
    if outcome.review_threshold is None:
        raise ValueError(f"{outcome.uri}: flagged without a threshold; classify it first")
    return outcome.review_threshold


def _explained_wholes(
    explainer: Explainer, predictor: Predictor, store: Keeper, pictures: Sequence[Picture]
) -> dict[_Subject, ExplanationOutcome]:
    """Explain pictures that the network saw as a whole, all together."""
    flagged = [
        (picture, picture.decision.flagged, picture.tensor)
        for picture in pictures
        if picture.decision is not None and picture.decision.flagged and picture.tensor is not None
    ]
    if not flagged:
        return {}
    images = torch.stack([tensor for _, _, tensor in flagged])
    targets = [[index for _, index, _ in classes] for _, classes, _ in flagged]
    made = explain_each(explainer, predictor, images.to(predictor.device), targets)
    work = [(picture.outcome, index) for picture, classes, _ in flagged for _, index, _ in classes]
    explained: dict[_Subject, ExplanationOutcome] = {}
    for (picture, index), (outcome, maps) in zip(work, made, strict=True):
        if maps is not None:
            outcome = _with_maps(outcome, maps, predictor, store, picture)
        explained[picture.uri, index] = outcome
    return explained


# Share of a tile's map that its box is around. The highest 20 %, as of a picture that is seen as a whole, are
# 100 x 100 pixels of a tile of 224: a box around them says little of a scratch of 60 x 3. Of the shares from
# 1 to 20 %, 3 % gave the largest boxes with every edge within 20 pixels of such scratches.
TILE_CORE = 0.03
# Tiles explained in one call: methods hold the feature maps of all of them.
_TILES_TOGETHER = 64


def _explained_by_tiles(
    explainer: Explainer,
    predictor: Predictor,
    store: Keeper,
    pictures: Sequence[Picture],
    max_tiles: int,
) -> dict[_Subject, ExplanationOutcome]:
    """Explain tiled pictures by their tiles, those of all pictures together; classes share a tile."""
    chosen: dict[_Subject, tuple[list[int], int]] = {}
    views: dict[tuple[str, int], tuple[TiledPicture, TileScores, list[int]]] = {}
    for picture in pictures:
        tiled, scores, uri = picture.tiled, picture.tile_scores, picture.outcome.uri
        if picture.decision is None or tiled is None or scores is None:
            continue
        threshold = _review_threshold(picture.outcome) if picture.decision.flagged else 0.0
        for _, index, _ in picture.decision.flagged:
            tiles, left_out = chosen_tiles(predictor.package, scores, index, threshold, max_tiles)
            chosen[uri, index] = tiles, left_out
            for tile in tiles:
                views.setdefault((uri, tile), (tiled, scores, []))[2].append(index)
    made: dict[tuple[str, int, int], tuple[ExplainedTile, ExplanationOutcome]] = {}
    places = list(views)
    for first in range(0, len(places), _TILES_TOGETHER):
        chunk = places[first : first + _TILES_TOGETHER]
        cut = [(views[place][0], place[1]) for place in chunk]
        images = tile_inputs(predictor.package.preprocessing, cut, predictor.device)
        outcomes = explain_each(explainer, predictor, images, [views[place][2] for place in chunk])
        asked = [(*place, index) for place in chunk for index in views[place][2]]
        for (uri, tile, index), (outcome, maps) in zip(asked, outcomes, strict=True):
            tiled, scores, _ = views[uri, tile]
            score = float(scores.probabilities[tile, index])
            made[uri, tile, index] = _explained_tile(outcome, maps, store, tiled.grid, tile, score), outcome
    explained: dict[_Subject, ExplanationOutcome] = {}
    for (uri, index), (tiles, left_out) in chosen.items():
        own = [made[uri, tile, index] for tile in tiles]
        explained[uri, index] = _merged(own, left_out)
    return explained


def chosen_tiles(
    package: ModelPackage, scores: TileScores, index: int, threshold: float, most: int
) -> tuple[list[int], int]:
    """Return which tiles are explained for a flagged class, and how many more reach the review threshold.

    Multi-label: the tiles whose probability of the class reaches the threshold, by that probability.
    Single-label: those whose defect score does and whose most probable defect it is, by the defect score: the
    map of one defect says nothing where another is seen. Where there is none, the most probable tile stands
    in.

    Returns:
        the numbers of at most `most` tiles, strongest first; the count of the other tiles at the threshold.
    """
    of_class = scores.probabilities[:, index]
    if package.task == "multi-label":
        strength, own = of_class, np.ones(len(of_class), bool)
    else:
        defects = scores.probabilities.copy()
        if package.good_index is not None:
            defects[:, package.good_index] = -1.0
        strength, own = scores.scores, defects.argmax(axis=1) == index
    reached = strength.astype(np.float64) >= threshold
    order = np.argsort(-strength, kind="stable")
    chosen: list[int] = order[(reached & own)[order]][:most].tolist() or [int(of_class.argmax())]
    return chosen, int(reached.sum() - reached[chosen].sum())


def _explained_tile(
    outcome: ExplanationOutcome,
    explanation: Explanation | None,
    store: Keeper,
    grid: Grid,
    tile: int,
    score: float,
) -> ExplainedTile:
    """Return what is recorded of a tile: its maps put into the store, its box in the picture's pixels."""
    made = ExplainedTile(
        rectangle=grid.rectangle(tile),
        score=score,
        layers=outcome.layers,
        status=outcome.status,
        masked_score=outcome.masked_score,
        drop=outcome.drop,
        increase=outcome.increase,
    )
    if explanation is None:
        return made
    # Where the tile has bars beside the picture, the stored map is the picture's part alone.
    fused, files = _stored_maps(explanation, store, grid.content)
    box = attribution_box(fused, *fused.shape, core=TILE_CORE)
    if box is not None:
        across, down = grid.window(tile)[:2]
        box = grid.in_picture((box[0] + across, box[1] + down, box[2] + across, box[3] + down))
    return replace(made, **files, box=box)


def _merged(made: Sequence[tuple[ExplainedTile, ExplanationOutcome]], left_out: int) -> ExplanationOutcome:
    """Return one finding's explanation, made of those of its tiles, strongest first."""
    tiles = tuple(tile for tile, _ in made)
    boxes = [tile.box for tile in tiles if tile.box is not None]
    # What is said of the finding is said of its strongest tile: method, status, how far to trust the map.
    return replace(
        made[0][1],
        layers=(),
        box=merged_boxes(boxes)[0] if boxes else None,
        tiles=tiles,
        tiles_left_out=left_out,
    )


def explain_each(
    explainer: Explainer, predictor: Predictor, images: torch.Tensor, targets: list[list[int]]
) -> list[tuple[ExplanationOutcome, Explanation | None]]:
    """Explain per picture (B, C, H, W) a list of classes.

    What one picture's explanation fails on takes no other's with it.

    Returns:
        for each class, in order, what is recorded of it, still without its maps; and its row of the
        explanation, None where there is no map to look at.
    """
    try:
        explanation = explainer(images, targets)
        masked, drop, increase = judged_maps(
            predictor, images[explanation.images], explanation.targets, explanation.maps
        )
    except ExplainerError as error:
        if len(images) == 1:
            failed = ExplanationOutcome(
                method=explainer.method, parameters={}, layers=(), status=f"failed: {error}"
            )
            return [(failed, None)] * len(targets[0])
        # One picture must not take the others' explanations with it: each on its own.
        return [
            one
            for i in range(len(images))
            for one in explain_each(explainer, predictor, images[i : i + 1], targets[i : i + 1])
        ]
    maps = {layer.name: layer.maps for layer in explanation.layers}
    explained: list[tuple[ExplanationOutcome, Explanation | None]] = []
    for row, status in enumerate(explanation.status):
        counts = {name: int(count[row]) for name, count in explanation.masks.items()}
        outcome = ExplanationOutcome(
            method=explanation.method,
            parameters=explanation.parameters,
            # Masks that come from no layer's maps ("input") have no more of them than were scored.
            layers=tuple(LayerMasks(name, count, maps.get(name, count)) for name, count in counts.items()),
            status=status,
        )
        if explanation.defined[row]:
            outcome = replace(
                outcome,
                masked_score=float(masked[row]),
                drop=float(drop[row]),
                increase=bool(increase[row]),
            )
            explained.append((outcome, explanation.row(row)))
        else:
            explained.append((outcome, None))
    return explained


def _with_maps(
    outcome: ExplanationOutcome,
    explanation: Explanation,
    predictor: Predictor,
    store: Keeper,
    picture: ImageOutcome,
) -> ExplanationOutcome:
    """Put the maps of one explanation into the store, and where they are into its outcome."""
    if picture.height is None or picture.width is None:
        raise ValueError(f"{picture.uri}: explained without a size; decode it first")
    # Where the model's input has bars beside the picture, the stored map is the picture's part alone.
    top, left, bottom, right = predictor.package.preprocessing.content_box(picture.height, picture.width)
    fused, files = _stored_maps(explanation, store, (left, top, right, bottom))
    return replace(outcome, **files, box=attribution_box(fused, picture.height, picture.width))


def _stored_maps(
    explanation: Explanation, store: Keeper, content: tuple[int, int, int, int]
) -> tuple[FloatMap, dict[str, Any]]:
    """Put the maps of one explanation into the store, each cut to `content` (left, top, right, bottom).

    Returns:
        the map as it was cut; where the map and the block maps are, as fields of what is recorded.
    """
    left, top, right, bottom = content

    def cut(maps: torch.Tensor) -> FloatMap:
        inside: FloatMap = maps[0, top:bottom, left:right].cpu().numpy()
        return inside

    fused = cut(explanation.maps)
    return fused, {
        "map": store.put(encode_map(fused), "map", "image/png"),
        "block_maps": tuple(
            (name, store.put(encode_map(cut(maps)), "block_map", "image/png"))
            for name, maps in explanation.block_maps.items()
        ),
    }


def attribution_box(
    values: FloatMap, height: int, width: int, *, core: float | None = None
) -> tuple[int, int, int, int] | None:
    """Return the box around the strongest region of a map: of the top 20 % pixels, the piece with the peak.

    Args:
        values: (h, w) in [0, 1], covering the whole picture.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        core: the box is around those of the piece alone that are among the top `core` of the map's pixels.

    Returns:
        (left, top, right, bottom) in pixels of the picture, right and bottom exclusive; None for an
        empty map.
    """
    region = top_mask(values)
    if not region.any():
        return None
    pieces, _ = ndimage.label(region)
    peak = np.unravel_index(int(np.argmax(np.where(region, values, -1.0))), values.shape)
    strongest = pieces == pieces[peak]
    if core is not None:
        strongest &= top_mask(values, core)
    rows, columns = np.nonzero(strongest)
    y, x = height / values.shape[0], width / values.shape[1]
    return (
        int(columns.min() * x),
        int(rows.min() * y),
        min(width, int(np.ceil((columns.max() + 1) * x))),
        min(height, int(np.ceil((rows.max() + 1) * y))),
    )
