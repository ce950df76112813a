"""Nelson's eight rules: patterns on a control chart that chance alone seldom makes."""

from collections.abc import Sequence
from itertools import pairwise
from math import copysign

# Nelson, L. S. (1984), The Shewhart control chart: tests for special causes, Journal of Quality Technology
# 16 (4), 237-239. Zones A, B and C lie between 3 and 2, 2 and 1, 1 and 0 standard deviations from the centre.
RULES: dict[int, str] = {
    1: "one point more than 3 standard deviations from the centre line",
    2: "nine points in a row on the same side of the centre line",
    3: "six points in a row steadily increasing or decreasing",
    4: "fourteen points in a row alternating up and down",
    5: "two out of three points in a row more than 2 standard deviations from the centre line, same side",
    6: "four out of five points in a row more than 1 standard deviation from the centre line, same side",
    7: "fifteen points in a row within 1 standard deviation of the centre line, on either side",
    8: "eight points in a row, on both sides of the centre line, none within 1 standard deviation of it",
}


def nelson(z: Sequence[float]) -> tuple[tuple[int, ...], ...]:
    """Return for each z-score the numbers of the rules (see `RULES`) whose pattern it completes.

    Runs are as Nelson counts them: points, not steps. A point exactly on the centre line is on neither side,
    equal neighbours neither increase nor decrease, and a point exactly on a zone's edge is not beyond it. For
    rules 5 and 6 the point itself is one of those beyond; before the third (fifth) point, two (four) beyond
    are enough.
    """
    return tuple(tuple(rule for rule in RULES if _completes(rule, z, i)) for i in range(len(z)))


def _completes(rule: int, z: Sequence[float], i: int) -> bool:
    """Return whether point i completes a rule's pattern."""

    def last(count: int) -> Sequence[float]:
        return z[i + 1 - count : i + 1] if i + 1 >= count else ()

    def beyond(count: int, window: int, sigmas: float) -> bool:
        side = copysign(1.0, z[i])
        points = z[max(0, i + 1 - window) : i + 1]
        return side * z[i] > sigmas and sum(side * value > sigmas for value in points) >= count

    match rule:
        case 1:
            return abs(z[i]) > 3
        case 2:
            return bool(run := last(9)) and (all(v > 0 for v in run) or all(v < 0 for v in run))
        case 3:
            steps = _steps(last(6))
            return bool(steps) and (all(s > 0 for s in steps) or all(s < 0 for s in steps))
        case 4:
            steps = _steps(last(14))
            return bool(steps) and all(a * b < 0 for a, b in pairwise(steps))
        case 5:
            return beyond(2, 3, 2.0)
        case 6:
            return beyond(4, 5, 1.0)
        case 7:
            return bool(run := last(15)) and all(abs(v) < 1 for v in run)
        case _:
            run = last(8)
            return bool(run) and all(abs(v) > 1 for v in run) and min(run) < 0 < max(run)


def _steps(run: Sequence[float]) -> list[int]:
    """Return the signs of the steps from each point to the next."""
    return [(b > a) - (b < a) for a, b in pairwise(run)]
