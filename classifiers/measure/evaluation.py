"""Measure how well a model package does on labelled pictures, for the model report and the docs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.data.dataset import Dataset, defective_mask, label_matrix
from classifiers.measure.effective_size import effective_size
from classifiers.measure.intervals import interval, upper_bound
from classifiers.measure.logits import check_classes, dataset_logits
from classifiers.measure.metrics import auroc, balanced_accuracy
from classifiers.measure.units import calibrated_per, of_parts
from classifiers.package.package import ModelPackage
from classifiers.package.thresholds import Thresholds
from classifiers.predict import Prediction, Predictor

CONFIDENCE = 0.95


def predict_dataset(
    predictor: Predictor, dataset: Dataset, *, progress: Callable[[int, int], None] | None = None
) -> Prediction:
    """Return probabilities (N, K) and defect scores (N,) in the data set's order; see `dataset_logits`."""
    return dataset_logits(predictor, dataset, progress=progress).prediction()


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
        and verdicts (counts); and of a package that was calibrated per part these once more, under parts.

    Raises:
        DataError: the data has other classes than the package.
    """
    check_classes(package, dataset)
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
    result |= _verdict_shares(package.thresholds, scores, defective, groups)
    if calibrated_per(package) == "part":
        parts = of_parts(scores, defective, groups.tolist())
        names = np.array(parts.groups, dtype=object)
        result["parts"] = {
            "n": len(parts.scores),
            **_verdict_shares(package.thresholds, parts.scores, parts.defective, names),
        }
    return result


def _verdict_shares(
    thresholds: Thresholds,
    scores: NDArray[np.floating],
    defective: NDArray[np.bool_],
    groups: NDArray[np.object_],
) -> dict[str, Any]:
    """Return what thresholds make of scores (N,), of pictures or of parts, see `measure`."""
    flagged = scores >= thresholds.review
    rejected = np.array([thresholds.rejects(float(score)) for score in scores], dtype=bool)
    return {
        "escape": share(~flagged, defective, scores, groups),
        "overkill": share(flagged, ~defective, scores, groups),
        "automatic_reject_overkill": share(rejected, ~defective, scores, groups),
        "automatic_reject_recall": share(rejected, defective, scores, groups),
        "verdicts": {
            "pass": int((~flagged).sum()),
            "review": int((flagged & ~rejected).sum()),
            "reject": int(rejected.sum()),
        },
    }


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
