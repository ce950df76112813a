"""Measures of how good a classifier is, from probabilities and targets alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def auroc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float | None:
    """Return the area under the ROC curve: the chance that a positive scores above a negative.

    Ties count half. It is the Mann-Whitney U statistic, computed from midranks.

    Args:
        scores: (N,).
        positive: which are positive, (N,) bool.

    Returns:
        In [0, 1]; None where all are positive or none is.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    midranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(midranks[inverse][positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def class_recalls(predicted: NDArray[np.bool_], targets: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the share of each class's pictures that were predicted as such, (K,); NaN for an absent class.

    Args:
        predicted: (N, K) bool.
        targets: (N, K) bool.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray((predicted & targets).sum(axis=0) / targets.sum(axis=0), dtype=np.float64)


def balanced_accuracy(
    probabilities: NDArray[np.floating], targets: NDArray[np.bool_], *, multi_label: bool
) -> float | None:
    """Return the balanced accuracy.

    Single-label: the mean recall over the classes that occur, by the most probable class. Multi-label: for
    each class the mean of recall and specificity at probability 0.5, averaged over the classes that have both
    positive and negative pictures.

    Args:
        probabilities: (N, K).
        targets: (N, K) bool.
        multi_label: which of the two.

    Returns:
        In [0, 1]; None where there is no such class.
    """
    if multi_label:
        predicted = np.asarray(probabilities >= 0.5)
        values = (class_recalls(predicted, targets) + class_recalls(~predicted, ~targets)) / 2
    else:
        predicted = np.eye(targets.shape[1], dtype=bool)[probabilities.argmax(axis=1)]
        values = class_recalls(predicted, targets)
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else None


def reliability(
    scores: NDArray[np.floating], positive: NDArray[np.bool_], bins: int = 10
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], float | None]:
    """Compare scores with the share of positives, in equal bins of the score.

    Args:
        scores: (N,) in [0, 1], each meant as the chance of being positive.
        positive: which are positive, (N,) bool.
        bins: number of equal intervals [low, high) of [0, 1]; the last one includes 1.

    Returns:
        Of each bin, (bins,): pictures, positives, mean score (NaN where empty). Then the expected calibration
        error in [0, 1]: the distance between a bin's mean score and its share of positives, averaged over the
        pictures; None where there are none.

    Source: Naeini et al., Obtaining well calibrated probabilities using Bayesian binning (2015).
    """
    values = np.asarray(scores, dtype=np.float64)
    places = np.minimum((values * bins).astype(np.int64), bins - 1)
    counts = np.bincount(places, minlength=bins)
    positives = np.bincount(places, weights=positive, minlength=bins).astype(np.int64)
    with np.errstate(invalid="ignore"):
        means = np.bincount(places, weights=values, minlength=bins) / counts
        gaps = np.abs(means - positives / counts)
    if not len(values):
        return counts, positives, means, None
    return counts, positives, means, float(np.nansum(gaps * counts) / len(values))
