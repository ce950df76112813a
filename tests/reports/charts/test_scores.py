"""Score histograms and interval charts, against values worked out by hand."""

from itertools import combinations
from math import log, log10

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.measure.score_bins import SCORE_EDGES, bin_scores
from reports.charts.layout import box_of, text_width
from reports.charts.scores import interval_chart, score_histogram
from reports.content.model import Share
from reports.errors import ReportError

QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def test_few_pictures_get_a_linear_axis_of_counts():
    drawn = score_histogram([("pictures", (4, 0, 2, 0))], QUARTERS, 0.25, 0.75)
    assert drawn.unit == "pictures"
    assert [tick.text for tick in drawn.ticks] == ["0", "1", "2", "3", "4"]
    full = drawn.frame.bottom - drawn.frame.top
    assert [bar[3] for bar in drawn.bars] == pytest.approx([full, full / 2])
    span = drawn.frame.right - drawn.frame.left
    assert [bar[0] for bar in drawn.bars] == pytest.approx([drawn.frame.left, drawn.frame.left + span / 2])
    assert [(zone.verdict, zone.width) for zone in drawn.zones] == [
        ("pass", pytest.approx(span / 4)),
        ("review", pytest.approx(span / 2)),
        ("reject", pytest.approx(span / 4)),
    ]
    assert drawn.title == "Scores of 6 pictures (pictures); review from 0.25, reject from 0.75"
    assert drawn.desc == "pictures: 4 from 0 to 0.25, 2 from 0.5 to 0.75"
    assert (drawn.key, drawn.steps) == ((), "")


def test_without_a_reject_threshold_all_that_is_flagged_is_for_review():
    drawn = score_histogram([("pictures", (4, 0, 2, 0))], QUARTERS, 0.25, None)
    span = drawn.frame.right - drawn.frame.left
    assert [(zone.verdict, zone.width) for zone in drawn.zones] == [
        ("pass", pytest.approx(span / 4)),
        ("review", pytest.approx(span * 3 / 4)),
    ]
    assert [label.text for _, label in drawn.limits] == ["review from 0.25"]
    assert drawn.title == "Scores of 6 pictures (pictures); review from 0.25"


def test_many_pictures_get_a_logarithmic_axis_of_counts_that_shows_a_single_one():
    edges = (0.0, 0.2, 0.8, 1.0)
    drawn = score_histogram([("good", (9000, 1, 0)), ("defective", (0, 1, 60))], edges, 0.3, 0.9)
    assert drawn.unit == "pictures, logarithmic axis"
    assert [tick.text for tick in drawn.ticks] == ["1", "10", "100", "1000"]
    full = (drawn.frame.bottom - drawn.frame.top) / log10(9000 * 1.2 / 0.5)
    assert [bar[3] for bar in drawn.bars] == pytest.approx([full * log10(18_000), full * log10(2)])
    assert drawn.steps.startswith(
        f"M{drawn.frame.left:.2f},{drawn.frame.bottom:.2f} V{drawn.frame.bottom:.2f} H"
    )
    assert [text.text for text in drawn.key] == ["good", "defective"]
    assert not box_of(drawn.key[0]).meets(box_of(drawn.key[1]))


def test_the_last_twentieth_of_the_scores_has_more_than_a_bar():
    counts = bin_scores([0.951, 0.972, 0.983, 0.992, 0.996, 0.9991, 0.9996, 0.99995])
    drawn = score_histogram([("pictures", counts)], SCORE_EDGES, 0.97, 0.995)
    span = drawn.frame.right - drawn.frame.left
    assert len(drawn.bars) == 8
    assert drawn.frame.right - drawn.bars[0][0] > span / 4
    assert all(width > 1.5 for _, _, width, _ in drawn.bars)
    by_odds = [drawn.zones[1].x, drawn.zones[2].x]
    unit = (span - 2 * span / 48) / (2 * log(0.9999 / 0.0001))  # mm of a unit of log odds
    middle = (drawn.frame.left + drawn.frame.right) / 2
    assert by_odds == pytest.approx([middle + unit * log(0.97 / 0.03), middle + unit * log(0.995 / 0.005)])
    assert [text.text for text in drawn.scores] == [
        "0",
        "0.001",
        "0.01",
        "0.1",
        "0.5",
        "0.9",
        "0.99",
        "0.999",
        "1",
    ]
    assert drawn.note.endswith("The first bar holds all scores below 0.0001, the last all from 0.9999 on.")


@pytest.mark.parametrize(
    ("groups", "edges"),
    [
        ([], QUARTERS),
        ([("a", (1, 2)), ("b", (1,))], (0.0, 0.5, 1.0)),
        ([("a", (1,))] * 3, (0.0, 1.0)),
        ([("a", ())], (0.0,)),
        ([("a", (1, 2))], ()),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, edges):
    with pytest.raises(ReportError, match="one or two groups of pictures in the same bins"):
        score_histogram(groups, edges, 0.2, 0.8)


@pytest.mark.parametrize("edges", [(0.0, 0.6, 0.4, 1.0), (0.1, 0.4, 0.6, 1.0), (0.0, 0.4, 0.6, 0.9)])
def test_edges_that_are_none_are_refused(edges):
    with pytest.raises(ReportError, match="edges that rise from 0 to 1"):
        score_histogram([("a", (1, 2, 3))], edges, 0.2, 0.8)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 10**7), min_size=5, max_size=5),
    st.lists(st.floats(1e-6, 1 - 1e-6), min_size=4, max_size=4, unique=True).map(sorted),
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    st.text(max_size=80),
)
def test_histogram_labels_keep_apart_and_inside(counts, inner, limits, name):
    drawn = score_histogram([(name, counts), (name * 40, counts)], (0.0, *inner, 1.0), *limits)
    named = [zone.name for zone in drawn.zones if zone.name]
    for row in ([text for _, text in drawn.limits], drawn.scores, [*named], drawn.key):
        for a, b in combinations(row, 2):
            assert not box_of(a).meets(box_of(b))
        for text in row:
            assert box_of(text).left >= -1e-9
            assert box_of(text).right <= drawn.frame.width + 1e-9
    for text in drawn.scores[1:-1]:
        assert not any(box_of(text).left <= x <= box_of(text).right for x, _ in drawn.limits)
    assert drawn.key[0].x - 6 > text_width(drawn.unit)
    assert all(drawn.frame.top - 1e-9 <= bar[1] <= drawn.frame.bottom for bar in drawn.bars)
    assert all(bar[2] > 0 for bar in drawn.bars)


def test_intervals():
    rates = [
        ("Escape rate", Share(3, 600, 0.002, 0.0117, 0.0117)),
        ("Overkill rate", Share(80, 1000, 0.05, 0.10, 0.09)),
        ("Nothing", Share(0, 0)),
    ]
    drawn = interval_chart(rates, "Rates")
    assert drawn.title == "Rates"
    assert [tick.text for tick in drawn.ticks] == ["0 %", "2 %", "4 %", "6 %", "8 %", "10 %"]
    frame = drawn.frame
    span = frame.right - frame.left
    first, over, nothing = drawn.rows
    assert over.dot == pytest.approx(frame.left + 0.8 * span)
    assert (over.start, over.end) == (pytest.approx(frame.left + span / 2), pytest.approx(frame.right))
    assert (first.text, first.note) == ("0.50 %, 0.20 % to 1.17 %", "n = 600")
    assert (nothing.text, nothing.dot, nothing.start, nothing.end) == ("not measured", None, None, None)
    assert "Overkill rate: 8 %, 5 % to 10 %; n = 1000" in drawn.desc
    assert interval_chart([], "Rates") is None


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=300), st.floats(0, 1), st.integers(1, 10**7), st.floats(0, 1))
def test_interval_names_and_figures_fit(name, low, count, high):
    measured = count / 10**7
    share = Share(count, 10**7, low * measured, measured + high * (1 - measured), 1.0)
    (row,) = interval_chart([(name, share)], "Rates").rows
    assert all(text_width(line) <= 44 or len(line) <= 2 for line in row.name)
    assert len(row.name) <= 2
    assert text_width(row.text) <= 48
    assert text_width(row.note) <= 48
    assert row.start - 1e-9 <= row.dot <= row.end + 1e-9
