"""Exact binomial intervals (Clopper and Pearson 1934), and the sample sizes that follow from them.

Where pictures come in groups, `effective` says how many independent ones they are worth
(`classifiers.measure.effective_size`): the share is then that of so many.

scipy is imported where it is called: prediction does not need it.
"""

from __future__ import annotations

import math
from bisect import bisect_right


def upper_bound(count: int, total: int, confidence: float = 0.95, effective: float | None = None) -> float:
    """Return the one-sided upper bound of a share after `count` of `total`.

    Raises:
        ValueError: `count` is not within 0..total, or `total` is 0.
    """
    _check_share(count, total)
    size = total if effective is None else effective
    if count == total:
        return 1.0
    if count == 0:  # 1 - (1 - confidence) ** (1 / size), without cancellation where it is small
        return float(-math.expm1(math.log1p(-confidence) / size))
    from scipy.stats import beta

    scaled = count * size / total
    return float(beta.ppf(confidence, scaled + 1, size - scaled))


def interval(
    count: int, total: int, confidence: float = 0.95, effective: float | None = None
) -> tuple[float, float]:
    """Return the two-sided interval (lower, upper) of a share after `count` of `total`.

    Raises:
        ValueError: `count` is not within 0..total, or `total` is 0.
    """
    _check_share(count, total)
    one_sided = (1 + confidence) / 2
    # The lower end for the events is one minus the upper end for the non-events.
    lower = 1 - upper_bound(total - count, total, one_sided, effective)
    return lower, upper_bound(count, total, one_sided, effective)


def needed_without_misses(target: float, confidence: float = 0.95) -> int:
    """Return how many pictures, none of them missed, bound the share of misses by `target`: about 3 / target.

    Raises:
        ValueError: `target` is not within (0, 1).
    """
    if not 0 < target < 1:
        raise ValueError(f"a target share must lie between 0 and 1, got {target}")
    about = math.ceil(math.log1p(-confidence) / math.log1p(-target))
    # The logarithms are rounded, so that this may be one off; the bound itself decides.
    nearby = range(max(1, about - 1), about + 2)
    return next(total for total in nearby if upper_bound(0, total, confidence) <= target)


def most_misses(
    total: int, target: float, confidence: float = 0.95, effective: float | None = None
) -> int | None:
    """Return the largest count of `total` whose upper bound is at most `target`; None if that of 0 is not."""
    # The bound grows with the count, to 1 where all of them are missed.
    possible = bisect_right(
        range(total), target, key=lambda count: upper_bound(count, total, confidence, effective)
    )
    return possible - 1 if possible else None


def _check_share(count: int, total: int) -> None:
    if total < 1 or not 0 <= count <= total:
        raise ValueError(f"{count} of {total} is not a share")
