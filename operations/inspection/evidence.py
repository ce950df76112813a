"""The evidence of a finding: attribution maps, how far to trust them, and where they are kept."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Protocol

import numpy as np
import torch
from scipy import ndimage

from classifiers import Predictor
from configs.schema import ExplainerSettings
from db.artifacts import ArtifactRef
from db.inspection.outcomes import ExplanationOutcome, FindingOutcome, ImageOutcome, LayerMasks
from explainers import Explainer, ExplainerError, Explanation, create_explainer, explainer_options
from explainers.drawing import top_mask
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
) -> list[tuple[FindingOutcome, ...]]:
    """Explain every flagged class of the pictures, all together.

    Returns:
        per picture its findings, in the order of `picture.decision.flagged`. Where no map can be made the
        finding's explanation says why in its status: a flagged defect is never lost.
    """
    flagged = [
        (picture, picture.decision.flagged, picture.tensor)
        for picture in pictures
        if picture.decision is not None and picture.decision.flagged and picture.tensor is not None
    ]
    images = torch.stack([tensor for _, _, tensor in flagged])
    targets = [[index for _, index, _ in classes] for _, classes, _ in flagged]
    explained = explain_each(explainer, predictor, images.to(predictor.device), targets)
    found: dict[str, list[FindingOutcome]] = {picture.outcome.uri: [] for picture in pictures}
    work = [(picture, name, score) for picture, classes, _ in flagged for name, _, score in classes]
    for (picture, name, class_score), (outcome, maps) in zip(work, explained, strict=True):
        threshold = picture.outcome.review_threshold
        if threshold is None:
            raise ValueError(f"{picture.outcome.uri}: flagged without a threshold; classify it first")
        if maps is not None:
            outcome = _with_maps(outcome, maps, predictor, store, picture.outcome)
        finding = FindingOutcome(
            class_name=name, class_score=class_score, threshold=threshold, explanation=outcome
        )
        found[picture.outcome.uri].append(finding)
    return [tuple(found[picture.outcome.uri]) for picture in pictures]


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

    def content(maps: torch.Tensor) -> FloatMap:
        inside: FloatMap = maps[0, top:bottom, left:right].cpu().numpy()
        return inside

    fused = content(explanation.maps)
    return replace(
        outcome,
        map=store.put(encode_map(fused), "map", "image/png"),
        block_maps=tuple(
            (name, store.put(encode_map(content(maps)), "block_map", "image/png"))
            for name, maps in explanation.block_maps.items()
        ),
        box=attribution_box(fused, picture.height, picture.width),
    )


def attribution_box(values: FloatMap, height: int, width: int) -> tuple[int, int, int, int] | None:
    """Return the box around the strongest region of a map: of the top 20 % pixels, the piece with the peak.

    Args:
        values: (h, w) in [0, 1], covering the whole picture.
        height: of the picture, in pixels.
        width: of the picture, in pixels.

    Returns:
        (left, top, right, bottom) in pixels of the picture, right and bottom exclusive; None for an
        empty map.
    """
    region = top_mask(values)
    if not region.any():
        return None
    pieces, _ = ndimage.label(region)
    peak = np.unravel_index(int(np.argmax(np.where(region, values, -1.0))), values.shape)
    rows, columns = np.nonzero(pieces == pieces[peak])
    y, x = height / values.shape[0], width / values.shape[1]
    return (
        int(columns.min() * x),
        int(rows.min() * y),
        min(width, int(np.ceil((columns.max() + 1) * x))),
        min(height, int(np.ceil((rows.max() + 1) * y))),
    )
