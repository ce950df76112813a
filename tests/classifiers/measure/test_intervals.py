from __future__ import annotations

import pytest

from classifiers.measure.intervals import interval, most_misses, needed_without_misses, upper_bound


def test_no_miss_in_59_bounds_five_percent() -> None:
    assert upper_bound(0, 59) == pytest.approx(1 - 0.05 ** (1 / 59), abs=1e-15)
    assert upper_bound(0, 59) <= 0.05 < upper_bound(0, 58)


@pytest.mark.parametrize(
    ("count", "total", "expected"),
    [(1, 10, 0.39416), (5, 10, 0.77756), (0, 1, 0.95), (10, 10, 1.0), (1, 1, 1.0), (2, 100, 0.06162)],
)
def test_one_sided_bounds(count: int, total: int, expected: float) -> None:
    assert upper_bound(count, total) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("count", "total", "lower", "upper"),
    [(0, 10, 0.0, 0.30850), (5, 10, 0.18709, 0.81291), (1, 20, 0.00127, 0.24873), (20, 20, 0.83157, 1.0)],
)
def test_two_sided_intervals(count: int, total: int, lower: float, upper: float) -> None:
    assert interval(count, total) == pytest.approx((lower, upper), abs=1e-5)


def test_a_bound_is_where_the_binomial_tail_is_five_percent() -> None:
    from math import comb

    for count, total in ((1, 30), (4, 60), (10, 25)):
        p = upper_bound(count, total)
        tail = sum(comb(total, k) * p**k * (1 - p) ** (total - k) for k in range(count + 1))
        assert tail == pytest.approx(0.05, abs=1e-9)


@pytest.mark.parametrize(
    ("target", "needed"), [(0.05, 59), (0.01, 299), (0.1, 29), (0.001, 2995), (0.5, 5), (0.95, 1), (0.99, 1)]
)
def test_needed_without_misses(target: float, needed: int) -> None:
    """59, 299, 29: the zero-failure plans found in every table of 95 % tolerance limits."""
    assert needed_without_misses(target) == needed


@pytest.mark.parametrize(
    ("total", "misses"),
    [(58, None), (59, 0), (92, 0), (93, 1), (123, 1), (124, 2), (152, 2), (153, 3), (180, 3), (181, 4)],
)
def test_most_misses_at_five_percent(total: int, misses: int | None) -> None:
    """59, 93, 124, 153, 181: the published 95/95 tolerance plans (Wilks)."""
    assert most_misses(total, 0.05) == misses


@pytest.mark.parametrize(("count", "total"), [(-1, 5), (6, 5), (0, 0)])
def test_no_share_of_nothing(count: int, total: int) -> None:
    with pytest.raises(ValueError, match="not a share"):
        upper_bound(count, total)


@pytest.mark.parametrize("target", [0, 1, -0.1, 2])
def test_targets_lie_between(target: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        needed_without_misses(target)
