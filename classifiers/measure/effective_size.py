"""How many independent pictures those of a set are worth that come in groups: several of a part or lot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from math import fsum

# Of fewer than five groups the variance between them is hardly known. By so much Korn and Graubard's factor
# for that lessens n: the squared ratio of the 97.5 % quantiles of the normal and of Student's distribution,
# with one degree of freedom less than groups. From five on bounds hold without it: see the tests.
_LEFT_BY_FEW = {1: 0.0, 2: (1.960 / 12.706) ** 2, 3: (1.960 / 4.303) ** 2, 4: (1.960 / 3.182) ** 2}


def effective_size(values: Sequence[float], groups: Sequence[Hashable]) -> float:
    """Return how many independent values would tell the mean as surely as these, which come in groups.

    That is n over the design effect (Kish 1965): the variance of the mean, by the sums over groups, over what
    it would be if each value stood for itself. Bounds of shares take it in the place of n
    (Korn and Graubard 1998).

    Args:
        values: (n,) what was measured.
        groups: (n,) the part or lot of each.

    Returns:
        n where every group has one value; at least what the groups are worth where all values of one are the
        same, n² over the sum of their squared sizes: that too where all values are. 0.0 of nothing.
    """
    n = len(values)
    if not n:
        return 0.0
    members: defaultdict[Hashable, list[float]] = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        members[group].append(float(value))
    least = n * n / sum(len(some) ** 2 for some in members.values())
    mean = fsum(values) / n
    total = fsum((value - mean) ** 2 for value in values)
    between = fsum(fsum(value - mean for value in some) ** 2 for some in members.values())
    if not total:
        return least
    size = n * min(1.0, total / between) if between else float(n)
    return max(least, size * _LEFT_BY_FEW.get(len(members), 1.0))
