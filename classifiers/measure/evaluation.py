"""Measure how well a model package does on labelled pictures, for the model report and the docs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from classifiers.data.dataset import DataError, Dataset, defective_mask, label_matrix
from classifiers.data.pictures import Pictures
from classifiers.measure.effective_size import effective_size
from classifiers.measure.intervals import interval, upper_bound
from classifiers.measure.metrics import auroc, balanced_accuracy
from classifiers.package.package import ModelPackage
from classifiers.predict import Prediction, Predictor, to_prediction

CONFIDENCE = 0.95


def dataset_logits(
    predictor: Predictor,
    dataset: Dataset,
    *,
    progress: Callable[[int, int], None] | None = None,
    seen: Callable[[int, NDArray[np.uint8]], None] | None = None,
) -> torch.Tensor:
    """Return logits (N, K) float32, divided by the package's temperature, in the data set's order.

    Args:
        predictor: the model.
        dataset: the pictures.
        progress: called with (pictures done, pictures).
        seen: called with (index, pixels as decoded) for each picture, from several threads.

    Raises:
        DataError: a picture cannot be read, or the data has other classes than the package.
    """
    _check_classes(predictor.package, dataset)
    # Every picture is used once: there is nothing to gain from keeping them.
    pictures = Pictures(dataset, predictor.package.preprocessing, cache_bytes=0, seen=seen)
    parts = [torch.empty(0, len(predictor.package.classes))]
    done = 0
    for batch in pictures.batches(predictor.batch_size):
        parts.append(predictor.logits(batch))
        done += len(batch)
        if progress is not None:
            progress(done, len(pictures))
    return torch.cat(parts)


def predict_dataset(
    predictor: Predictor, dataset: Dataset, *, progress: Callable[[int, int], None] | None = None
) -> Prediction:
    """Return probabilities (N, K) and defect scores (N,) in the data set's order; see `dataset_logits`."""
    logits = dataset_logits(predictor, dataset, progress=progress)
    return to_prediction(predictor.package, logits)


def evaluate(
    predictor: Predictor, dataset: Dataset, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Predict a labelled data set and measure the predictions, see `measure`."""
    return measure(predictor.package, dataset, predict_dataset(predictor, dataset, progress=progress))


def measure(package: ModelPackage, dataset: Dataset, prediction: Prediction) -> dict[str, Any]:
    """Measure predictions against labels.

    Returns:
        JSON content: n, dataset_digest, balanced_accuracy, recall and precision of each class (see `share`).
        Of a single-label model also confusion: rows are labels, columns the most probable classes. Where the
        package knows which class is good, or is multi-label: auroc of the defect score. Where it is
        calibrated too: escape, overkill, automatic_reject_overkill and automatic_reject_recall (see `share`),
        and verdicts (counts).

    Raises:
        DataError: the data has other classes than the package.
    """
    _check_classes(package, dataset)
    multi_label = package.task == "multi-label"
    targets = label_matrix(dataset, package.classes) > 0
    probabilities = prediction.probabilities
    if multi_label:
        predicted = probabilities >= 0.5
    else:
        predicted = np.eye(targets.shape[1], dtype=bool)[probabilities.argmax(axis=1)]
    hits = predicted & targets
    groups = np.array([item.group for item in dataset.items], dtype=object)
    result: dict[str, Any] = {
        "n": len(dataset.items),
        "dataset_digest": dataset.digest,
        "balanced_accuracy": balanced_accuracy(probabilities, targets, multi_label=multi_label),
        "recall": {
            name: share(hits[:, index], targets[:, index], probabilities[:, index], groups)
            for index, name in enumerate(package.classes)
        },
        "precision": {
            name: share(hits[:, index], predicted[:, index], probabilities[:, index], groups)
            for index, name in enumerate(package.classes)
        },
    }
    if not multi_label:
        result["confusion"] = (targets.T.astype(np.int64) @ predicted.astype(np.int64)).tolist()
    if not multi_label and package.good_class is None:
        return result
    defective = defective_mask(dataset, package.good_class)
    scores = prediction.defect_scores.astype(np.float64)
    result["auroc"] = auroc(scores, defective)
    if package.thresholds is None:
        return result
    flagged = scores >= package.thresholds.review
    rejected = np.array([package.thresholds.rejects(float(score)) for score in scores], dtype=bool)
    result["escape"] = share(~flagged, defective, scores, groups)
    result["overkill"] = share(flagged, ~defective, scores, groups)
    result["automatic_reject_overkill"] = share(rejected, ~defective, scores, groups)
    result["automatic_reject_recall"] = share(rejected, defective, scores, groups)
    result["verdicts"] = {
        "pass": int((~flagged).sum()),
        "review": int((flagged & ~rejected).sum()),
        "reject": int(rejected.sum()),
    }
    return result


def share(
    hits: NDArray[np.bool_], of: NDArray[np.bool_], values: NDArray[np.floating], groups: NDArray[np.object_]
) -> dict[str, Any]:
    """Return a share as JSON content: counts, 95 % Clopper-Pearson interval, one-sided 95 % upper bound.

    Interval and bound are those of `effective` independent pictures. The share of nothing, its interval and
    its bound are None.

    Args:
        hits: (N,) which pictures count, where they are among
        of: (N,) those that the share is of.
        values: (N,) the score by which it was decided: it tells how alike pictures of a group are.
        groups: (N,) part or lot of each picture.
    """
    count, total = int((hits & of).sum()), int(of.sum())
    if not total:
        return {"share": None, "count": count, "total": total, "interval": None, "upper_bound": None}
    effective = effective_size(values[of].tolist(), groups[of].tolist())
    return {
        "share": count / total,
        "count": count,
        "total": total,
        "effective": effective,
        "interval": list(interval(count, total, CONFIDENCE, effective)),
        "upper_bound": upper_bound(count, total, CONFIDENCE, effective),
    }


def _check_classes(package: ModelPackage, dataset: Dataset) -> None:
    known = set(package.classes)
    strange = sorted({label for item in dataset.items for label in item.labels} - known)
    if dataset.task != package.task or strange:
        raise DataError(
            f"the data is {dataset.task} with labels unknown to the model: {', '.join(strange) or 'none'}; "
            f"{package.path} is {package.task} with classes {', '.join(package.classes)}"
        )
