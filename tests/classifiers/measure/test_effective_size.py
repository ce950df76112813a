"""How many independent pictures grouped ones are worth: known cases, and samples whose truth is known."""

import numpy as np
import pytest

from classifiers.measure.effective_size import effective_size
from classifiers.measure.intervals import upper_bound


def test_known_cases() -> None:
    assert effective_size([], []) == 0
    assert effective_size([0.1, 0.5, 0.2], ["a", "b", "c"]) == 3
    assert effective_size([0.1, 0.5, 0.2], ["a", "a", "a"]) == 1
    assert effective_size([0.7] * 6, ["a", "a", "b", "b", "c", "c"]) == 3


def test_by_hand() -> None:
    """Mean 3.5; squared deviations 35 / 2 together; sums of deviations -4, 0 and 4: squared 32 together."""
    assert effective_size([1, 2, 3, 4, 5, 6], list("aabbcc")) == 3, "and at least one for each group"
    assert effective_size([1] * 20 + [2] * 19 + [3], "a" * 20 + "b" * 20) == pytest.approx(1600 / 800)
    # Mean 3 of five groups; each value twice: worth half.
    assert effective_size([1, 1, 2, 2, 3, 3, 4, 4, 5, 5], list("aabbccddee")) == 5
    assert effective_size([1, 5, 2, 4, 3, 3, 4, 2, 5, 1], list("aabbccddee")) == 10, "groups that even out"


@pytest.mark.parametrize(("alike", "expected"), [(0.0, 1600), (1.0, 200), (0.5, 1600 / (1 + 7 * 0.5))])
def test_a_sample_of_200_parts_with_8_views(alike: float, expected: float) -> None:
    """Kish: n / (1 + (m - 1) rho), where rho is the share of the variance that lies between parts."""
    rng = np.random.default_rng(7)
    parts = np.repeat(np.arange(200), 8)
    found = []
    for _ in range(20):
        between, within = rng.normal(size=200)[parts], rng.normal(size=1600)
        values = np.sqrt(alike) * between + np.sqrt(1 - alike) * within
        found.append(effective_size(values.tolist(), parts.tolist()))
    assert np.mean(found) == pytest.approx(expected, rel=0.07)


@pytest.mark.parametrize("groups", [2, 3, 4, 5, 10, 30])
@pytest.mark.parametrize("alike", [0.2, 0.6])
def test_bounds_hold_for_groups_that_are_alike(groups: int, alike: float) -> None:
    """Of 240 pictures in groups a tenth are missed; the bound is too low one time in twenty at most."""
    rng = np.random.default_rng(groups)
    names = np.repeat(np.arange(groups), 240 // groups)
    too_low = plain = 0
    for _ in range(300):
        between, within = rng.normal(size=groups)[names], rng.normal(size=240)
        scores = np.sqrt(alike) * between + np.sqrt(1 - alike) * within
        missed = int((scores < -1.2816).sum())  # the 10 % quantile of a normal distribution
        too_low += upper_bound(missed, 240, effective=effective_size(scores.tolist(), names.tolist())) < 0.1
        plain += upper_bound(missed, 240) < 0.1
    assert too_low <= 300 * 0.05 + 6, "and two standard errors of the count"
    assert plain > too_low
