"""The loss of a training, its weights against class imbalance, and the metrics that choose the best epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from classifiers.data.dataset import Dataset, defective_mask, label_matrix
from classifiers.measure.metrics import auroc, balanced_accuracy
from classifiers.package.tiling import Tiling

HIGHEST = (1, 2, 3, 5, 10)
"""Of so many tiles with the highest scores a picture's score may be the mean."""


def balance_weights(
    targets: torch.Tensor, *, balance: str, power: float, multi_label: bool
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return weights of the classes in the loss, or weights by which pictures are drawn, or neither.

    A class weighs (largest count / count) ** power. For drawing, a multi-label picture has the weight of its
    rarest label, and pictures without labels are a class of their own. A multi-label loss weighs the
    positives of a class by (negatives / positives) ** power.

    Args:
        targets: (N, K), 1 for labels that hold.
        balance: "loss", "sampler" or "none".
        power: 1 makes classes equal, 0 leaves them as they are.
        multi_label: whether a picture may have any number of labels.

    Returns:
        (K,) float32 for the loss, (N,) float64 for the draws; at least one of them is None.
    """
    counts = targets.sum(dim=0).double()
    if balance == "loss":
        if multi_label:
            return ((len(targets) - counts) / counts).pow(power).clamp(min=1e-3).float(), None
        weights = (counts.max() / counts).pow(power)
        # Scaled so that the mean weight of a picture is 1 and the learning rate keeps its meaning.
        return (weights * len(targets) / (weights * counts).sum()).float(), None
    if balance == "sampler":
        unlabelled = targets.sum(dim=1) == 0
        largest = torch.maximum(counts.max(), unlabelled.sum().double())
        weights = (largest / counts).pow(power)
        draw = (targets.double() * weights).amax(dim=1)
        if bool(unlabelled.any()):
            draw[unlabelled] = (largest / unlabelled.sum()).pow(power)
        return None, draw
    return None, None


def training_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    weight: torch.Tensor | None,
    smoothing: float,
    multi_label: bool,
) -> torch.Tensor:
    """Return the cross entropy (single-label) or binary cross entropy (multi-label), with label smoothing.

    Args:
        logits: (B, K) float32.
        targets: (B, K), 1 for labels that hold.
        weight: (K,) weights of the classes; in multi-label data, of their positives.
        smoothing: share of the target spread over the classes.
        multi_label: which of the two.
    """
    if multi_label:
        smooth = targets * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weight)
    return F.cross_entropy(logits, targets.argmax(dim=1), weight=weight, label_smoothing=smoothing)


def defect_probabilities(logits: torch.Tensor, dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Return probabilities (N, K) and defect scores (N,) of logits (N, K)."""
    if dataset.multi_label:
        probabilities = logits.sigmoid()
        return probabilities, probabilities.amax(dim=1)
    probabilities = logits.softmax(dim=1)
    good = [name == dataset.good_class for name in dataset.classes]
    return probabilities, probabilities[:, ~torch.tensor(good)].sum(dim=1)


def validation_metrics(logits: torch.Tensor, dataset: Dataset) -> dict[str, float | None]:
    """Return loss, balanced_accuracy and auroc (of the defect score) of logits (N, K).

    The AUROC of single-label data without a good class is None.
    """
    targets = torch.from_numpy(label_matrix(dataset, dataset.classes))
    loss = training_loss(logits, targets, weight=None, smoothing=0.0, multi_label=dataset.multi_label)
    probabilities, scores = defect_probabilities(logits, dataset)
    area = None
    if dataset.multi_label or dataset.good_class is not None:
        area = auroc(scores.numpy(), defective_mask(dataset, dataset.good_class))
    accuracy = balanced_accuracy(probabilities.numpy(), targets.numpy() > 0, multi_label=dataset.multi_label)
    return {"loss": float(loss), "balanced_accuracy": accuracy, "auroc": area}


def tile_metrics(logits: torch.Tensor, counts: Sequence[int], dataset: Dataset) -> dict[str, Any]:
    """Return the metrics of tiled pictures: those of `validation_metrics`, of each picture's deciding tile.

    And auroc_of_highest: for each way to put the scores of tiles together, the AUROC of the pictures.

    Args:
        logits: (M, K) of the tiles of all pictures, in order.
        counts: how many tiles each picture has.
        dataset: the pictures.
    """
    _, scores = defect_probabilities(logits, dataset)
    of_pictures = torch.split(scores, list(counts))
    firsts = np.cumsum([0, *counts[:-1]])
    deciding = [first + int(own.argmax()) for first, own in zip(firsts, of_pictures, strict=True)]
    defective = defective_mask(dataset, dataset.good_class)

    def area(highest: int) -> float | None:
        tiling = Tiling(highest=highest)
        return auroc(np.array([tiling.picture_scores(own.numpy()) for own in of_pictures]), defective)

    return {
        **validation_metrics(logits[deciding], dataset),
        "auroc_of_highest": {str(highest): area(highest) for highest in HIGHEST},
    }


def best_highest(metrics: Mapping[str, Any]) -> int:
    """Return how many tiles make a picture's score, by the AUROC of pictures; of equal ones the fewest."""
    areas = {int(highest): area for highest, area in metrics["auroc_of_highest"].items()}
    return max(areas, key=lambda highest: (areas[highest] or 0.0, -highest))
