"""Cohen's kappa against published tables, torchmetrics, and its own definition differentiated numerically."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torchmetrics.functional.classification import multiclass_cohen_kappa

from reports.stats.agreement import agreement


def pairs_of(table):
    return [(f"c{i}", f"c{j}") for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]


def test_the_published_table_of_fleiss():
    # Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions, 3rd edition, table 18.1.
    found = agreement(pairs_of([[75, 1, 4], [5, 4, 1], [0, 0, 10]]))
    assert (found.n, found.observed, found.expected) == (100, pytest.approx(0.89), pytest.approx(0.66))
    assert found.kappa == pytest.approx(0.676, abs=5e-4)
    assert found.standard_error == pytest.approx(0.088, abs=5e-4)
    assert found.interval == pytest.approx((0.504, 0.849), abs=2e-3)
    assert found.level == "substantial"
    assert found.sentence == (
        "Two people decided on 100 findings and agreed on 89 of them (89 %; 95 % interval 81.2 % to 94.4 %). "
        "Cohen’s kappa is 0.68 (95 % interval 0.50 to 0.85): substantial agreement beyond chance."
    )


def kappa_of(p):
    expected = p.sum(axis=1) @ p.sum(axis=0)
    return (np.trace(p) - expected) / (1 - expected)


def delta_error(table):
    """The error by the delta method: kappa differentiated numerically, multinomial covariance."""
    table = np.asarray(table, dtype=float)
    n, p = table.sum(), table / table.sum()
    gradient = np.zeros_like(p)
    for index in np.ndindex(p.shape):
        step = np.zeros_like(p)
        step[index] = 1e-6
        gradient[index] = (kappa_of(p + step) - kappa_of(p - step)) / 2e-6
    g, q = gradient.ravel(), p.ravel()
    return sqrt((np.sum(q * g**2) - np.sum(q * g) ** 2) / n)


@pytest.mark.parametrize(
    "table",
    [
        [[75, 1, 4], [5, 4, 1], [0, 0, 10]],
        [[106, 10, 4], [22, 28, 10], [2, 12, 6]],
        [[10, 30], [40, 5]],
        [[200, 1], [1, 3]],
    ],
)
def test_the_error_is_that_of_the_delta_method(table):
    assert agreement(pairs_of(table)).standard_error == pytest.approx(delta_error(table), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_kappa_is_that_of_torchmetrics(pairs):
    found = agreement([(str(a), str(b)) for a, b in pairs])
    first, second = (tensor(values) for values in zip(*pairs, strict=True))
    assert 0 <= found.observed_interval[0] <= found.observed <= found.observed_interval[1] <= 1
    assert found.sentence.endswith(".")
    if found.kappa is None:
        assert len(found.categories) == 1
        return
    assert found.kappa == pytest.approx(float(multiclass_cohen_kappa(first, second, 4)), abs=1e-5)
    assert -1 <= found.kappa <= 1
    if found.interval:
        assert -1 <= found.interval[0] <= found.kappa <= found.interval[1] <= 1
    swapped = agreement([(str(b), str(a)) for a, b in pairs])
    assert swapped.kappa == pytest.approx(found.kappa)
    assert swapped.standard_error == pytest.approx(found.standard_error, abs=1e-9)


def test_the_interval_holds_kappa_as_often_as_it_says():
    rng = np.random.default_rng(8)
    p = np.array([[0.5, 0.05], [0.1, 0.35]])
    true = kappa_of(p)
    held = 0
    for counts in rng.multinomial(150, p.ravel(), 400):
        low, high = agreement(pairs_of(counts.reshape(2, 2).tolist())).interval
        held += low <= true <= high
    assert 0.91 < held / 400 < 0.98


def test_one_category_leaves_kappa_undefined():
    found = agreement([("confirm", "confirm")] * 12)
    assert (found.kappa, found.standard_error, found.interval, found.level) == (None, None, None, None)
    assert "agreed on 12 of them (100 %; 95 % interval 73.5 % to 100 %)" in found.sentence
    assert "Kappa is undefined" in found.sentence
    assert agreement([]) is None


def test_perfect_agreement_has_no_interval():
    found = agreement([("confirm", "confirm")] * 8 + [("overrule", "overrule")] * 4)
    assert (found.kappa, found.standard_error, found.interval) == (1.0, 0.0, None)
    assert "is 1.00 (almost perfect); it has no interval" in found.sentence


@pytest.mark.parametrize(
    ("kappa_table", "level"),
    [
        ([[0, 10], [10, 0]], "poor"),
        ([[5, 5], [5, 5]], "slight"),
        ([[30, 10], [10, 30]], "moderate"),
        ([[8, 2], [2, 8]], "moderate"),  # 0.60 itself
        ([[81, 19], [19, 81]], "substantial"),
        ([[19, 1], [1, 19]], "almost perfect"),
    ],
)
def test_words(kappa_table, level):
    assert agreement(pairs_of(kappa_table)).level == level


def test_few_findings_are_said_to_be_few():
    assert (
        "With fewer than 30 findings the interval is rough." in agreement(pairs_of([[8, 2], [2, 8]])).sentence
    )
