"""Scores counted in bins that are finest towards 0 and 1, where pictures crowd and thresholds lie."""

from bisect import bisect_right
from collections.abc import Iterable

_PARTS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)  # of a decade
_LOW = tuple(round(part * 10.0**power, 6) for power in (-4, -3, -2) for part in _PARTS)
_HALF = (*_LOW, 0.1, 0.15, 0.2, 0.3, 0.4)
# Nearly equal steps of log odds, at round numbers: from below 0.0001 to above 0.9999.
SCORE_EDGES = (0.0, *_HALF, 0.5, *(round(1.0 - edge, 6) for edge in reversed(_HALF)), 1.0)


def score_bin(score: float) -> int:
    """Return the bin, counted from 0, of a score in [0, 1]; one on an edge lies in the upper bin.

    Raises:
        ValueError: a score outside [0, 1].
    """
    if not 0.0 <= score <= 1.0:
        raise ValueError(f"score {score} is outside [0, 1]")
    return min(bisect_right(SCORE_EDGES, score), len(SCORE_EDGES) - 1) - 1


def bin_scores(scores: Iterable[float]) -> tuple[int, ...]:
    """Return how many scores lie in each bin between two of `SCORE_EDGES`.

    Raises:
        ValueError: a score outside [0, 1].
    """
    counts = [0] * (len(SCORE_EDGES) - 1)
    for score in scores:
        counts[score_bin(score)] += 1
    return tuple(counts)
