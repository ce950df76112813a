"""The statistics of pictures and scores when a model was calibrated, with which a line is later compared.

They are kept in the package's training record (`training["calibration"]["reference"]`). Packages that were
calibrated before kensa kept them have none, and are valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.errors import PackageError
from sources.picture_statistics import PictureStatistics

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class Spread:
    """The distribution of `n` values: mean, standard deviation (by n - 1), and the values at `QUANTILES`."""

    n: int
    mean: float
    sd: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Reference:
    """The calibration set: statistics of its pictures, defect scores of its good and its defective ones.

    `good_score` is None where it had no good picture.
    `passed_score` is of those below the review threshold; a line's passed pictures are compared with it.
    """

    brightness: Spread
    contrast: Spread
    sharpness: Spread
    defective_score: Spread
    good_score: Spread | None = None
    passed_score: Spread | None = None


def spread(values: NDArray[np.floating]) -> Spread:
    """Return the distribution of values (N,), N >= 1; quantiles are of Hyndman and Fan's (1996) type 7."""
    numbers = values.astype(np.float64)
    sd = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    levels = np.quantile(numbers, QUANTILES)
    return Spread(len(numbers), float(numbers.mean()), sd, tuple(float(level) for level in levels))


def reference_of(
    pictures: Sequence[PictureStatistics],
    scores: NDArray[np.floating],
    defective: NDArray[np.bool_],
    review: float,
) -> Reference:
    """Return the reference of a calibration set.

    Args:
        pictures: statistics of N pictures.
        scores: defect scores (N,).
        defective: which are defective, (N,) bool.
        review: the review threshold in [0, 1], chosen on that set.
    """
    passed = scores[scores < review]
    return Reference(
        brightness=spread(np.array([each.brightness for each in pictures])),
        contrast=spread(np.array([each.contrast for each in pictures])),
        sharpness=spread(np.array([each.sharpness for each in pictures])),
        good_score=spread(scores[~defective]) if not defective.all() else None,
        defective_score=spread(scores[defective]),
        passed_score=spread(passed) if len(passed) else None,
    )


def as_json(reference: Reference) -> dict[str, Any]:
    """Return a reference as it is kept in a package, without what is None."""
    return {name: spread for name, spread in asdict(reference).items() if spread is not None}


def read_reference(training: Mapping[str, Any]) -> Reference | None:
    """Return the reference from a package's training record; None where the package has none.

    Raises:
        PackageError: it is not of the form that `as_json` writes.
    """
    stored = training.get("calibration", {}).get("reference")
    if stored is None:
        return None
    try:
        spreads = {
            name: Spread(
                int(value["n"]),
                float(value["mean"]),
                float(value["sd"]),
                tuple(float(level) for level in value["quantiles"]),
            )
            for name, value in stored.items()
        }
        if any(len(each.quantiles) != len(QUANTILES) or each.n < 1 for each in spreads.values()):
            raise ValueError("a distribution of another form")
        return Reference(**spreads)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise PackageError(f"the model's reference statistics cannot be read: {error!r}") from error
