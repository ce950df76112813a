"""Control and trend charts: what is drawn where, and that nothing collides or leaves the frame."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.charts.control import control_chart, trend_chart
from reports.charts.layout import box_of
from reports.stats.control_chart import Subgroup, p_chart
from reports.stats.drift import Reference, Sample, trend

HOSTILE = ("<b>&", "W" * 10_000, "\u202eevil", "検査" * 40, "a\nb", "")


def runs(counts, n=50, reference=None):
    reference = len(counts) if reference is None else reference
    return [
        Subgroup(f"R{i:06d}", n, x, reference=i < reference, current=i == len(counts) - 1)
        for i, x in enumerate(counts)
    ]


def test_a_control_chart():
    drawn = control_chart(p_chart(runs([12, 15, 8, 10, 4, 7, 16, 9, 14, 10, 28], reference=10)))
    assert drawn.left_out == drawn.unnumbered == 0
    assert [mark.shape for mark in drawn.marks] == ["dot"] * 10 + ["out"]
    assert [number.text for number in drawn.numbers] == ["1"]
    assert drawn.numbers[0].y < drawn.marks[-1].y
    slot = (drawn.frame.right - drawn.frame.left) / 11
    assert drawn.boundary == pytest.approx(drawn.frame.left + 10 * slot)
    assert drawn.present.x == pytest.approx(drawn.boundary)
    assert [limit.text.split()[0] for limit in drawn.limits] == ["upper", "centre", "lower"]
    assert drawn.centre == pytest.approx(
        drawn.frame.bottom - (drawn.frame.bottom - drawn.frame.top) * 21 / 60
    )
    assert drawn.upper.startswith(f"M{drawn.frame.left:.2f},")
    assert drawn.title.startswith("p-chart of flagged pictures: R000010 is out of control")
    assert drawn.desc.endswith("R000010: 56 %, rules 1")


def test_limits_are_steps_as_wide_as_their_points():
    chart = p_chart([Subgroup(str(i), n, n // 5) for i, n in enumerate((100, 100, 400, 100))])
    drawn = control_chart(chart)
    slot = (drawn.frame.right - drawn.frame.left) / 4
    assert drawn.ticks[-1].text == "40 %"
    heights = [
        drawn.frame.bottom - (drawn.frame.bottom - drawn.frame.top) * p.upper / 0.4 for p in chart.points
    ]
    edges = [drawn.frame.left + i * slot for i in range(5)]
    assert drawn.upper == (
        f"M{edges[0]:.2f},{heights[0]:.2f} H{edges[1]:.2f} H{edges[2]:.2f} V{heights[2]:.2f} H{edges[3]:.2f} "
        f"V{heights[3]:.2f} H{edges[4]:.2f}"
    )


def test_a_chart_without_limits_draws_none():
    drawn = control_chart(p_chart(runs([0, 0, 0])))
    assert (drawn.upper, drawn.lower) == ("", "")
    assert [limit.text for limit in drawn.limits] == ["centre 0 %"]
    assert drawn.ticks[0].text.startswith("0")


def test_long_histories_keep_the_newest():
    drawn = control_chart(p_chart(runs([5] * 149 + [30])), most=40)
    assert (len(drawn.marks), drawn.left_out) == (40, 110)
    assert drawn.marks[-1].shape == "out"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 5000), st.floats(0, 1), st.sampled_from(HOSTILE), st.booleans()),
        min_size=1,
        max_size=70,
    )
)
def test_nothing_collides_or_leaves_the_frame(rows):
    chart = p_chart([Subgroup(label, n, int(n * share), reference=r) for n, share, label, r in rows])
    if chart is None:
        return
    drawn = control_chart(chart)
    assert len(drawn.numbers) + drawn.unnumbered == sum(bool(p.rules) for p in chart.points[-60:])
    for labels in (drawn.numbers, drawn.labels):
        for a, b in combinations(labels, 2):
            assert not box_of(a).meets(box_of(b))
    for label in (*drawn.numbers, *drawn.labels):
        box = box_of(label)
        assert box.left >= -1e-9
        assert box.right <= drawn.frame.width + 1e-9
        assert box.top >= 0
        assert box.bottom <= drawn.frame.height
    for mark in drawn.marks:
        assert drawn.frame.left <= mark.x <= drawn.frame.right
        assert drawn.frame.top - 1e-9 <= mark.y <= drawn.frame.bottom + 1e-9
    gaps = [b.y - a.y for a, b in zip(drawn.limits, drawn.limits[1:], strict=False)]
    assert all(gap >= 3.2 - 1e-9 for gap in gaps)
    assert "\u202e" not in drawn.title + drawn.desc


@pytest.fixture
def reference():
    values = np.random.default_rng(1).normal(118, 9, 1800)
    levels = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
    return Reference(
        1800, values.mean(), values.std(ddof=1), tuple((q, float(np.quantile(values, q))) for q in levels)
    )


def test_a_trend_chart(reference):
    samples = [Sample(f"R{i}", 480, 118 + (9 if i == 5 else 0), 9, 5, 5, i == 5) for i in range(6)]
    drawn = trend_chart(trend("brightness", reference, samples), width=85)
    assert [mark.shape for mark in drawn.marks] == ["dot"] * 5 + ["out"]
    assert drawn.wide.y < drawn.narrow.y < drawn.mean < drawn.narrow.y + drawn.narrow.height
    assert drawn.narrow.y + drawn.narrow.height < drawn.wide.y + drawn.wide.height <= drawn.frame.bottom
    assert drawn.title == "Mean brightness of 6 runs against the calibration set: 1 run with signs of drift"
    assert drawn.desc.endswith("R5: 127 (drift)")
    assert drawn.present.x > drawn.marks[-2].x
    assert trend_chart(trend("brightness", reference, [])) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.sampled_from(HOSTILE)), min_size=1, max_size=70))
def test_trend_labels_never_collide(rows):
    flat = Reference(9, 5.0, 0.0, ((0.01, 5.0), (0.25, 5.0), (0.75, 5.0), (0.99, 5.0)))
    drawn = trend_chart(trend("x" * 500, flat, [Sample(t, 9, v, 1.0, 0, 0) for v, t in rows]), width=85)
    for a, b in combinations(drawn.labels, 2):
        assert not box_of(a).meets(box_of(b))
    for label in (*drawn.labels, drawn.name):
        assert box_of(label).left >= -1e-9
        assert box_of(label).right <= 85 + 1e-9
    assert min(drawn.wide.height, drawn.narrow.height) > 0
    assert all(drawn.frame.top - 1e-9 <= mark.y <= drawn.frame.bottom + 1e-9 for mark in drawn.marks)
