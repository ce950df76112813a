"""Score histograms and interval charts, against values worked out by hand."""

from itertools import combinations
from math import log10

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.charts.layout import box_of, text_width
from reports.charts.scores import Interval, bin_scores, interval_chart, score_histogram
from reports.content.inspection import ReportError


def test_bins():
    assert bin_scores([0.0, 0.0999, 0.1, 0.55, 1.0], 10) == (2, 1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert sum(bin_scores([i / 997 for i in range(998)])) == 998
    with pytest.raises(ReportError, match=r"score 1.1 is outside \[0, 1\]"):
        bin_scores([1.1])


def test_few_pictures_get_a_linear_axis():
    drawn = score_histogram([("pictures", (4, 0, 2, 0))], 0.25, 0.75)
    assert drawn.unit == "pictures"
    assert [tick.text for tick in drawn.ticks] == ["0", "1", "2", "3", "4"]
    full = drawn.bottom - drawn.top
    assert [bar[3] for bar in drawn.bars] == pytest.approx([full, full / 2])
    span = drawn.right - drawn.left
    assert [bar[0] for bar in drawn.bars] == pytest.approx([drawn.left, drawn.left + span / 2])
    assert [(zone.verdict, zone.width) for zone in drawn.zones] == [
        ("pass", pytest.approx(span / 4)),
        ("review", pytest.approx(span / 2)),
        ("reject", pytest.approx(span / 4)),
    ]
    assert drawn.title == "Scores of 6 pictures (pictures); review from 0.25, reject from 0.75"
    assert drawn.desc == "pictures: 4 from 0 to 0.25, 2 from 0.5 to 0.75"
    assert (drawn.key, drawn.steps) == ((), "")


def test_many_pictures_get_a_logarithmic_axis_that_shows_a_single_one():
    drawn = score_histogram([("good", (9000, 1, 0)), ("defective", (0, 1, 60))], 0.3, 0.9)
    assert drawn.unit == "pictures, logarithmic axis"
    assert [tick.text for tick in drawn.ticks] == ["1", "10", "100", "1000"]
    full = (drawn.bottom - drawn.top) / log10(9000 * 1.2 / 0.5)
    assert [bar[3] for bar in drawn.bars] == pytest.approx([full * log10(18_000), full * log10(2)])
    assert drawn.steps.startswith(f"M{drawn.left:.2f},{drawn.bottom:.2f} V{drawn.bottom:.2f} H")
    assert [text.text for text in drawn.key] == ["good", "defective"]
    assert not box_of(drawn.key[0]).meets(box_of(drawn.key[1]))


@pytest.mark.parametrize("groups", [[], [("a", (1, 2)), ("b", (1,))], [("a", (1,))] * 3, [("a", ())]])
def test_groups_that_do_not_fit_are_refused(groups):
    with pytest.raises(ReportError, match="one or two groups of pictures in the same bins"):
        score_histogram(groups, 0.2, 0.8)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 10**7), min_size=5, max_size=5),
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    st.text(max_size=80),
)
def test_histogram_labels_keep_apart_and_inside(counts, limits, name):
    drawn = score_histogram([(name, counts), (name * 40, counts)], *limits)
    named = [zone.name for zone in drawn.zones if zone.name]
    for row in ([text for _, text in drawn.limits], drawn.scores, [*named], drawn.key):
        for a, b in combinations(row, 2):
            assert not box_of(a).meets(box_of(b))
        for text in row:
            assert box_of(text).left >= -1e-9
            assert box_of(text).right <= drawn.width + 1e-9
    assert drawn.key[0].x - 6 > text_width(drawn.unit)
    assert all(drawn.top - 1e-9 <= bar[1] <= drawn.bottom for bar in drawn.bars)


def test_intervals():
    rates = [
        Interval("Escape rate", 610, 0.0033, 0.0004, 0.0117, 0.02),
        Interval("Overkill rate", 1280, 0.08, 0.05, 0.10, 0.05),
        Interval("Of a class", 40, 0.02, 0.0, 0.06, 0.05),
        Interval("Bound alone", 300, 0.0, None, 0.0099),
        Interval("Nothing", 0, None, None, None, 0.05),
    ]
    assert [rate.standing for rate in rates] == ["met", "not met", "not shown", "", "not shown"]
    drawn = interval_chart(rates)
    assert [tick.text for tick in drawn.ticks] == ["0 %", "2 %", "4 %", "6 %", "8 %", "10 %"]
    span = drawn.right - drawn.left
    first, over = drawn.rows[0], drawn.rows[1]
    assert over.dot == pytest.approx(drawn.left + 0.8 * span)
    assert (over.start, over.end) == (pytest.approx(drawn.left + span / 2), pytest.approx(drawn.right))
    assert over.target == over.start
    assert (first.text, first.note) == ("0.33 %, 0.04 % to 1.17 %", "n = 610, target 2 %: met")
    assert (drawn.rows[3].text, drawn.rows[3].capped) == ("0 %, at most 0.99 %", False)
    assert drawn.rows[3].start == drawn.rows[3].dot
    assert (drawn.rows[4].text, drawn.rows[4].dot, drawn.rows[4].end) == ("not measured", None, None)
    assert "Overkill rate: 8 %, 5 % to 10 %; n = 1280, target 5 %: not met" in drawn.desc
    assert interval_chart([]) is None
    assert interval_chart(rates[4:]).rows[0].target is not None


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=300), st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)).map(sorted))
def test_interval_names_and_figures_fit(name, values):
    low, measured, high = values
    (row,) = interval_chart([Interval(name, 10**7, measured, low, high, 0.01)]).rows
    assert all(text_width(line) <= 44 or len(line) <= 2 for line in row.name)
    assert len(row.name) <= 2
    assert text_width(row.text) <= 48
    assert text_width(row.note) <= 48
    assert row.start - 1e-9 <= row.dot <= row.end + 1e-9


def test_a_rate_is_a_share():
    with pytest.raises(ReportError, match=r"rate 'x': 1.2 is outside \[0, 1\]"):
        Interval("x", 9, 1.2, None, None)
