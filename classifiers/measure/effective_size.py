"""How many independent pictures those of a set are worth that come in groups: several of a part or lot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from math import fsum


def effective_size(values: Sequence[float], groups: Sequence[Hashable]) -> float:
    """Return how many independent values would tell the mean as surely as these, which come in groups.

    That is n over the design effect (Kish 1965): the variance of the mean, by the sums over groups, over what
    it would be if each value stood for itself. Bounds of shares take it in the place of n
    (Korn and Graubard 1998).

    Args:
        values: (n,) what was measured.
        groups: (n,) the part or lot of each.

    Returns:
        Within [1, n]; n where every group has one value, 1 where there is one group. Where all values are the
        same nothing tells how alike those of a group are: then each group counts as one. 0.0 of nothing.
    """
    n = len(values)
    members: defaultdict[Hashable, list[float]] = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        members[group].append(float(value))
    if len(members) in (0, 1, n):
        return float(len(members))
    mean = fsum(values) / n
    total = fsum((value - mean) ** 2 for value in values)
    if not total:
        return float(len(members))
    between = fsum(fsum(value - mean for value in some) ** 2 for some in members.values())
    return max(1.0, n * min(1.0, total / between)) if between else float(n)
