"""Bins of scores are finest where scores crowd, and lose none."""

from itertools import pairwise
from math import log

import pytest

from classifiers.measure.score_bins import SCORE_EDGES, bin_scores, score_bin


def test_edges_rise_from_0_to_1_and_are_the_same_from_both_ends():
    assert (SCORE_EDGES[0], SCORE_EDGES[-1]) == (0.0, 1.0)
    assert all(low < high for low, high in pairwise(SCORE_EDGES))
    assert [round(1 - edge, 6) for edge in reversed(SCORE_EDGES)] == list(SCORE_EDGES)


def test_steps_of_log_odds_are_nearly_equal():
    odds = [log(edge / (1 - edge)) for edge in SCORE_EDGES[1:-1]]
    assert all(0.25 < high - low < 0.65 for low, high in pairwise(odds))


def test_the_decisive_scores_do_not_share_a_bin():
    # One bar of twenty held all of these.
    scores = [0.951, 0.972, 0.983, 0.992, 0.996, 0.9991, 0.9996, 0.99995]
    assert len({score_bin(score) for score in scores}) == len(scores)


def test_every_score_is_counted_once_in_the_upper_bin_on_an_edge():
    counts = bin_scores([0.0, 0.00005, 0.5, 0.95, 0.9699, 1.0, 1.0])
    assert sum(counts) == 7
    assert (counts[0], counts[-1]) == (2, 2)
    assert counts[SCORE_EDGES.index(0.5)] == 1
    assert counts[SCORE_EDGES.index(0.95)] == 2
    assert sum(bin_scores(i / 997 for i in range(998))) == 998


@pytest.mark.parametrize("score", [-0.001, 1.001, float("nan")])
def test_what_is_no_score_is_named(score):
    with pytest.raises(ValueError, match=r"is outside \[0, 1\]"):
        score_bin(score)
