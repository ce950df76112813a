"""The statistics of pictures and scores when a model was calibrated, with which a line is later compared.

They are kept in the package's training record (`training["calibration"]["reference"]`). Packages that were
calibrated before kensa kept them have none, and are valid.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.errors import PackageError
from classifiers.measure.effective_size import effective_size
from sources.picture_statistics import PictureStatistics

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class Spread:
    """The distribution of `n` values: mean, standard deviation (by n - 1), and the values at `QUANTILES`.

    `effective`: how many independent values they are worth, see `classifiers.measure.effective_size`; None
    where it was not reckoned.
    """

    n: int
    mean: float
    sd: float
    quantiles: tuple[float, ...]
    effective: float | None = None


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


def spread(values: NDArray[np.floating], groups: Sequence[Hashable]) -> Spread:
    """Return the distribution of values (N,), N >= 1, of so many groups (N,).

    Quantiles are of Hyndman and Fan's (1996) type 7.
    """
    numbers = values.astype(np.float64)
    sd = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    levels = np.quantile(numbers, QUANTILES)
    effective = effective_size(numbers.tolist(), groups)
    return Spread(len(numbers), float(numbers.mean()), sd, tuple(map(float, levels)), effective)


def reference_of(
    pictures: Sequence[PictureStatistics],
    scores: NDArray[np.floating],
    defective: NDArray[np.bool_],
    review: float,
    groups: Sequence[Hashable],
) -> Reference:
    """Return the reference of a calibration set.

    Args:
        pictures: statistics of N pictures.
        scores: defect scores (N,).
        defective: which are defective, (N,) bool.
        review: the review threshold in [0, 1], chosen on that set.
        groups: part or lot of each picture, (N,).
    """
    names = np.array(groups, dtype=object)

    def spread_where(values: NDArray[np.floating], chosen: NDArray[np.bool_]) -> Spread | None:
        return spread(values[chosen], names[chosen].tolist()) if chosen.any() else None

    def spread_of(statistic: str) -> Spread:
        return spread(np.array([getattr(each, statistic) for each in pictures]), groups)

    return Reference(
        brightness=spread_of("brightness"),
        contrast=spread_of("contrast"),
        sharpness=spread_of("sharpness"),
        good_score=spread_where(scores, ~defective),
        defective_score=spread(scores[defective], names[defective].tolist()),
        passed_score=spread_where(scores, scores < review),
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
                None if value.get("effective") is None else float(value["effective"]),
            )
            for name, value in stored.items()
        }
        if any(len(each.quantiles) != len(QUANTILES) or each.n < 1 for each in spreads.values()):
            raise ValueError("a distribution of another form")
        return Reference(**spreads)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise PackageError(f"the model's reference statistics cannot be read: {error!r}") from error
