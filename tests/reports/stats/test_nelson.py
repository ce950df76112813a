"""Nelson's rules, each at the edge where it begins to fire, and against a plain reading of their wording."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.stats.nelson import RULES, nelson

UP_AND_DOWN = [0.1, 1.5] * 7


@pytest.mark.parametrize(
    ("rule", "z"),
    [
        (1, [0.0, 3.001]),
        (1, [-3.001]),
        (2, [0.5, 1.5, 0.4, 0.2, 1.2, 0.3, 0.1, 0.7, 0.01]),
        (2, [-0.5, -1.5, -0.4, -0.2, -1.2, -0.3, -0.1, -0.7, -0.01]),
        (3, [-1.4, -0.9, 0.0, 0.1, 0.2, 0.3]),
        (3, [1.4, 0.9, 0.3, 0.2, 0.1, -2.0]),
        (4, UP_AND_DOWN),
        (4, UP_AND_DOWN[::-1]),
        (5, [2.1, 0.0, 2.1]),
        (5, [-2.1, -2.1]),
        (6, [1.1, 1.1, 0.0, 1.1, 1.1]),
        (6, [-1.1, -1.1, -1.1, -1.1]),
        (7, [0.9, -0.9, 0.5, 0.4, -0.2, 0.0, 0.1, -0.3, 0.3, 0.99, -0.99, 0.2, 0.25, -0.6, 0.7]),
        (8, [1.1, 1.2, -1.1, -1.3, 1.4, -1.2, -1.5, 1.01]),
    ],
)
def test_a_rule_fires_at_the_point_that_completes_it(rule, z):
    fired = nelson(z)
    assert rule in fired[-1]
    assert not any(rule in rules for rules in fired[:-1])
    if rule in (2, 3, 4, 7, 8):
        assert rule not in nelson(z[1:])[-1], "one point fewer is not enough"


@pytest.mark.parametrize(
    ("rule", "z"),
    [
        (1, [3.0, -3.0]),
        (2, [0.5] * 8),
        (2, [0.5, 0.5, 0.5, 0.5, 0.0, 0.5, 0.5, 0.5, 0.5]),  # the centre line is on neither side
        (3, [0.1, 0.2, 0.3, 0.4, 0.5]),
        (3, [0.1, 0.2, 0.2, 0.3, 0.4, 0.5]),  # equal neighbours do not increase
        (4, UP_AND_DOWN[:13]),
        (4, [*UP_AND_DOWN[:7], *UP_AND_DOWN[6:13]]),
        (5, [2.1, 0.0, 0.0, 2.1]),
        (5, [2.1, -2.1]),  # not the same side
        (5, [2.0, 2.0]),
        (5, [2.1, 2.1, 0.0]),  # complete at the second point, not again at the third
        (6, [1.1, 1.1, 1.1]),
        (6, [1.1, 1.1, 1.1, -1.1, 0.0, 1.1]),
        (7, [0.5] * 14),
        (7, [0.5] * 7 + [1.0] + [0.5] * 7),
        (8, [1.1] * 8),  # one side only
        (8, [1.1, 1.1, -1.1, 1.0, -1.1, 1.1, 1.1, -1.1]),
    ],
)
def test_a_rule_does_not_fire_short_of_its_pattern(rule, z):
    assert rule not in nelson(z)[-1]


def plain(z):
    """Nelson's wording, read window by window with numpy; rules 5 and 6 for full windows only."""
    z = np.asarray(z)
    fired = [set() for _ in z]
    for i in range(len(z)):
        for rule, length in {1: 1, 2: 9, 3: 6, 4: 14, 5: 3, 6: 5, 7: 15, 8: 8}.items():
            if i + 1 < length:
                continue
            w = z[i + 1 - length : i + 1]
            d = np.diff(w)
            pattern = {
                1: np.all(np.abs(w) > 3),
                2: np.all(w > 0) or np.all(w < 0),
                3: np.all(d > 0) or np.all(d < 0),
                4: np.all(d[1:] * d[:-1] < 0),
                5: (np.sum(w > 2) >= 2 and w[-1] > 2) or (np.sum(w < -2) >= 2 and w[-1] < -2),
                6: (np.sum(w > 1) >= 4 and w[-1] > 1) or (np.sum(w < -1) >= 4 and w[-1] < -1),
                7: np.all(np.abs(w) < 1),
                8: np.all(np.abs(w) > 1) and np.any(w > 0) and np.any(w < 0),
            }[rule]
            if pattern:
                fired[i].add(rule)
    return fired


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-7, 7).map(lambda v: v / 2), max_size=40))
def test_the_rules_are_their_wording(z):
    expected = plain([0.0] * 4 + z)[4:]  # four harmless points make the first windows full
    got = [set(rules) for rules in nelson([0.0] * 4 + z)[4:]]
    assert got == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-9, 9), max_size=40))
def test_a_mirror_and_a_longer_past(z):
    fired = nelson(z)
    assert nelson([-value for value in z]) == fired
    assert nelson([*z, 0.0])[: len(z)] == fired, "what comes later does not change what fired"
    assert len(fired) == len(z)


def test_false_alarms_are_as_rare_as_published():
    z = np.random.default_rng(5).normal(size=60_000)
    fired = nelson(z.tolist())
    share = {rule: sum(rule in rules for rules in fired) / len(z) for rule in RULES}
    # One point: exact probabilities of a pattern that ends at a given point.
    assert share[1] == pytest.approx(0.0027, abs=0.0007)
    assert share[2] == pytest.approx(2 * 0.5**9, abs=0.0015)
    assert share[3] == pytest.approx(2 / 720, abs=0.001)
    assert share[7] == pytest.approx(0.6827**15, abs=0.0015)
    assert all(a <= b for a, b in pairwise(sorted(share.values())))
    assert max(share.values()) < 0.006
