"""Control charts against published data, other implementations, and properties that hold for any data."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reports.content.inspection import ReportError
from reports.stats.control_chart import RULES, Subgroup, p_chart

# Montgomery, Introduction to Statistical Quality Control, example of the orange juice cans: 30 samples of 50.
CANS = (
    12,
    15,
    8,
    10,
    4,
    7,
    16,
    9,
    14,
    10,
    5,
    6,
    17,
    12,
    22,
    8,
    10,
    5,
    13,
    11,
    20,
    18,
    24,
    15,
    9,
    12,
    7,
    13,
    9,
    6,
)


def groups(counts, n, *, monitored=0):
    sizes = [n] * len(counts) if isinstance(n, int) else n
    first = len(counts) - monitored
    return [
        Subgroup(
            str(i + 1), size, int(x), reference=i < first, current=i == len(counts) - 1 and monitored > 0
        )
        for i, (size, x) in enumerate(zip(sizes, counts, strict=True))
    ]


def test_the_published_chart_of_the_orange_juice_cans():
    chart = p_chart(groups(CANS, 50))
    assert (chart.kind, chart.phase, chart.references) == ("p", "I", 30)
    assert chart.centre == pytest.approx(0.2313, abs=5e-5)
    assert chart.points[0].upper == pytest.approx(0.4102, abs=5e-5)
    assert chart.points[0].lower == pytest.approx(0.0524, abs=5e-5)
    assert [point.label for point in chart.points if point.outside] == ["15", "23"]
    assert dict(chart.fired)[1] == ("15", "23")
    assert any("varies more than binomial chance explains" in warning for warning in chart.warnings)
    # The book's revised limits: samples 15 and 23 left out of the reference, 301 of 1400.
    revised = p_chart([Subgroup(str(i + 1), 50, x, reference=i not in (14, 22)) for i, x in enumerate(CANS)])
    assert revised.phase == "II"
    assert revised.centre == pytest.approx(0.2150, abs=5e-5)
    assert (revised.points[0].lower, revised.points[0].upper) == pytest.approx((0.0407, 0.3893), abs=5e-4)
    assert [point.label for point in revised.points if point.outside] == ["15", "21", "23"]


def test_large_subgroups_take_laneys_limits():
    rng = np.random.default_rng(4)
    sizes = rng.integers(20_000, 60_000, 30)
    counts = rng.binomial(sizes, np.clip(rng.normal(0.03, 0.004, 30), 0, 1))
    chart = p_chart(groups(counts, sizes.tolist()))
    shares, centre = counts / sizes, counts.sum() / sizes.sum()
    z = (shares - centre) / np.sqrt(centre * (1 - centre) / sizes)
    sigma_z = np.abs(np.diff(z)).mean() / 1.128
    assert chart.kind == "laney"
    assert chart.name == "Laney p′ chart"
    assert chart.sigma_z == pytest.approx(sigma_z)
    assert sigma_z > 3
    reach = 3 * sigma_z * np.sqrt(centre * (1 - centre) / sizes)
    assert [point.lower for point in chart.points] == pytest.approx(np.maximum(0, centre - reach))
    assert [point.upper for point in chart.points] == pytest.approx(centre + reach)
    assert [point.z for point in chart.points] == pytest.approx(z / sigma_z)
    assert not any(point.outside for point in chart.points), "common variation is not a special cause"
    assert np.count_nonzero(np.abs(z) > 3) > 5, "which the plain p-chart would have called"


def test_large_subgroups_without_more_spread_keep_the_binomial_limits():
    rng = np.random.default_rng(7)
    kinds = [p_chart(groups(rng.binomial(2000, 0.05, 25), 2000)).kind for _ in range(60)]
    # sigma_z is above 1 about every second time; Laney's limits are then hardly wider.
    assert 10 < kinds.count("p") < 50
    assert set(kinds) == {"p", "laney"}
    same = p_chart(groups([100, 101] * 12, 2000))
    assert (same.kind, same.sigma_z) == (
        "laney",
        pytest.approx(1 / 2000 / sqrt(0.05025 * 0.94975 / 2000) / 1.128),
    )
    assert "vary less" in same.reason
    assert p_chart(groups([100] * 12, 2000)).kind == "p", "limits of no width would call everything"


def test_the_standard_error_of_sigma_z_is_that_of_simulated_scores():
    from reports.stats.control_chart import _sigma_z_error

    rng = np.random.default_rng(11)
    z = rng.normal(size=(40_000, 12))
    sigma_z = np.abs(np.diff(z, axis=1)).mean(axis=1) / 1.128
    assert sigma_z.mean() == pytest.approx(1, abs=0.01)
    assert sigma_z.std() == pytest.approx(_sigma_z_error(12), rel=0.02)


def test_few_expected_pictures_take_exact_limits():
    chart = p_chart(groups([2, 0, 1, 3, 1, 2, 0, 1, 2, 1, 13], 480, monitored=1))
    assert (chart.kind, chart.phase, chart.applied) == ("exact", "II", (1,))
    law = stats.binom(480, chart.centre)
    point = chart.points[-1]
    low, high = round(point.lower * 480), round(point.upper * 480)
    tail = stats.norm.sf(3)
    assert law.cdf(low - 1) < tail <= law.cdf(low)
    assert law.sf(high) <= tail < law.sf(high - 1)
    assert point.outside
    assert point.z == pytest.approx(stats.norm.isf(law.sf(13) + law.pmf(13) / 2))
    assert "Only rule 1 was tried" in " ".join(chart.warnings)
    assert "10 subgroups; fewer than 20 give trial limits" in " ".join(chart.warnings)
    assert chart.sentence.startswith(
        "11 is out of control: 2.71 % of 480 pictures is above its limits (0 % to 1."
    )
    within = p_chart(groups([2, 0, 1, 3, 1, 2, 0, 1, 2, 1, 6], 480, monitored=1))
    assert within.points[-1].upper * 480 == pytest.approx(high)
    assert not within.points[-1].rules


def test_exact_limits_raise_the_alarms_they_promise():
    reference = [Subgroup(f"r{i}", 400, 2) for i in range(30)]
    chart = p_chart([*reference, *(Subgroup(str(x), 400, x, reference=False) for x in range(40))])
    law = stats.binom(400, 0.005)
    false = sum(law.pmf(point.x) for point in chart.points if not point.reference and point.outside)
    assert chart.kind == "exact"
    assert false <= 2 * stats.norm.sf(3)
    normal = law.sf(int(400 * (0.005 + 3 * sqrt(0.005 * 0.995 / 400))))
    assert normal > 3 * false, "limits of the normal distribution would raise several times as many"


def test_a_reference_without_spread_has_no_limits():
    chart = p_chart(groups([0, 0, 0, 4], 500, monitored=1))
    assert (chart.kind, chart.applied, chart.points[-1].lower, chart.points[-1].z) == ("none", (), None, None)
    assert "no picture of the reference counts" in chart.reason
    assert "No limits can be drawn" in chart.sentence
    assert "every picture" in p_chart(groups([5, 5, 5], 5)).reason


def test_limits_come_from_the_reference_alone():
    alone, more = p_chart(groups(CANS, 50)), p_chart(groups([*CANS, 40, 41], 50, monitored=2))
    assert (more.phase, more.centre, more.references) == ("II", alone.centre, 30)
    assert more.points[0].upper == alone.points[0].upper
    assert more.present is not None
    assert more.present.rules == (1, 5)
    assert more.sentence.startswith("32 is out of control: 82 % of 50 pictures is above its limits")
    assert "and rule 5 fired" in more.sentence


def test_empty_subgroups_are_left_out_and_counted():
    chart = p_chart([Subgroup("a", 0, 0), *groups(CANS, 50)])
    assert chart.points[0].label == "1"
    assert "1 subgroup without a picture was left out." in chart.warnings
    assert p_chart([]) is None
    assert p_chart([Subgroup("a", 0, 0), Subgroup("b", 9, 3, reference=False)]) is None


def test_limits_of_parts_whose_views_are_alike():
    """Subgroups of 50 parts with 4 views that are all flagged or all not: limits are those of 50 pictures."""
    rng = np.random.default_rng(9)
    flagged = rng.binomial(50, 0.2, 30)
    views = [
        Subgroup(str(i), 200, 4 * int(x), parts=(16 * int(x), 16 * int(x), 16 * 50))
        for i, x in enumerate(flagged)
    ]
    parts = [Subgroup(str(i), 50, int(x)) for i, x in enumerate(flagged)]
    chart, truth = p_chart(views), p_chart(parts)
    assert chart.design_effect == pytest.approx(4)
    assert (chart.kind, truth.design_effect) == (truth.kind, 1)
    for one, other in zip(chart.points, truth.points, strict=True):
        assert (one.lower, one.upper, one.z) == pytest.approx((other.lower, other.upper, other.z))
        assert one.rules == other.rules
    assert "4.0 count as one independent picture" in " ".join(chart.warnings)
    alone = p_chart([replace(group, parts=None) for group in views])
    assert alone.design_effect == 1
    assert sum(point.outside for point in alone.points) > sum(point.outside for point in chart.points)


def test_exact_limits_of_parts_whose_views_are_alike():
    views = [
        Subgroup(str(i), 40, 4 * x, parts=(16 * x, 16 * x, 160)) for i, x in enumerate([0, 1, 0, 2, 1, 0, 8])
    ]
    parts = [Subgroup(str(i), 10, x) for i, x in enumerate([0, 1, 0, 2, 1, 0, 8])]
    chart, truth = p_chart(views), p_chart(parts)
    assert (chart.kind, chart.design_effect) == ("exact", pytest.approx(4))
    assert [(p.lower, p.upper, p.z, p.rules) for p in chart.points] == [
        (p.lower, p.upper, pytest.approx(p.z), p.rules) for p in truth.points
    ]


def test_more_than_all_is_an_error():
    with pytest.raises(ReportError, match=r"subgroup 'R1': 6 of 5 is not a share"):
        Subgroup("R1", 5, 6)


@st.composite
def series(draw):
    sizes = draw(st.lists(st.integers(0, 100_000), min_size=1, max_size=30))
    return [
        Subgroup(f"s{i}", n, draw(st.integers(0, n)), reference=draw(st.booleans()))
        for i, n in enumerate(sizes)
    ]


@settings(max_examples=150, deadline=None)
@given(series())
def test_any_series_makes_a_sound_chart(subgroups):
    chart = p_chart(subgroups)
    if chart is None:
        assert not any(group.reference and group.n for group in subgroups)
        return
    assert len(chart.points) == sum(group.n > 0 for group in subgroups)
    assert set(chart.applied) <= set(RULES)
    assert chart.sentence.endswith(".")
    for point in chart.points:
        assert set(point.rules) <= set(chart.applied)
        if chart.kind == "none":
            assert point.lower is None
            continue
        assert 0 <= point.lower <= chart.centre * (1 + 1e-9)
        assert chart.centre * (1 - 1e-9) <= point.upper <= 1
        slack = 1e-9
        if point.outside:
            assert point.share > point.upper - slack or point.share < point.lower + slack
        else:
            assert point.lower - slack <= point.share <= point.upper + slack
