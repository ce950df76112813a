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
    """Mean 2.5; squared deviations 5 together; sums of deviations -2 and 2, squared 8 together."""
    assert effective_size([1, 2, 3, 4], ["a", "a", "b", "b"]) == 4 * 5 / 8
    assert effective_size([1, 1, 4, 4], ["a", "a", "b", "b"]) == 2
    assert effective_size([1, 4, 2, 3], ["a", "a", "b", "b"]) == 4, "groups that even out are worth no more"


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


def test_the_bound_holds_for_parts_whose_views_are_alike() -> None:
    """Of 60 parts with 5 like views 10 % are missed: the bound covers that; that of 300 does not."""
    rng = np.random.default_rng(11)
    parts = np.repeat(np.arange(60), 5).tolist()
    covered = plain = 0
    for _ in range(300):
        missed = np.repeat(rng.random(60) < 0.1, 5)
        size = effective_size(missed.astype(float).tolist(), parts)
        covered += upper_bound(int(missed.sum()), 300, effective=size) >= 0.1
        plain += upper_bound(int(missed.sum()), 300) >= 0.1
    assert covered / 300 >= 0.93
    assert plain / 300 < 0.9
