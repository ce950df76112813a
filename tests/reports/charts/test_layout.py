"""Axes, widths and labels: what all charts rely on, for whatever strings and numbers."""

from itertools import combinations, pairwise
from math import isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.charts.layout import (
    WIDTH,
    Box,
    Text,
    axis,
    box_of,
    key_places,
    place,
    shortened,
    spread,
    text_width,
    thinned,
)

SETTINGS = settings(max_examples=100, deadline=None)


@pytest.mark.parametrize(
    ("values", "ticks", "texts"),
    [
        ([0, 48], (0, 10, 20, 30, 40, 50), ["0", "10", "20", "30", "40", "50"]),
        ([0.0032, 0.0131], (0.002, 0.004, 0.006, 0.008, 0.01, 0.012, 0.014), None),
        ([-0.2, 1.9], (-0.5, 0, 0.5, 1, 1.5, 2), ["-0.5", "0.0", "0.5", "1.0", "1.5", "2.0"]),
        ([7, 7], (6, 6.5, 7, 7.5, 8), None),
        ([], (0, 0.2, 0.4, 0.6, 0.8, 1), None),
    ],
)
def test_ticks_are_round_and_written_with_the_decimals_they_need(values, ticks, texts):
    scale = axis(values, 40, 0)
    assert scale.ticks == pytest.approx(ticks)
    assert (scale.at(scale.low), scale.at(scale.high)) == (40, 0)
    if texts:
        assert [tick.text for tick in scale.texts()] == texts


@SETTINGS
@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
def test_an_axis_reaches_beyond_its_values(values):
    scale = axis([*values, float("nan"), float("inf")], 40.0, 5.0)
    slack = 1e-6 * max(1e-9, scale.high - scale.low)
    assert scale.low - slack <= min(values)
    assert max(values) <= scale.high + slack
    assert 2 <= len(scale.ticks) <= 9
    steps = [b - a for a, b in pairwise(scale.ticks)]
    assert all(isclose(step, steps[0], rel_tol=1e-6) for step in steps)
    assert all(5.0 - 1e-9 <= scale.at(value) <= 40.0 + 1e-9 for value in values)
    assert (scale.at(-1e300), scale.at(1e300)) == (40.0, 5.0)
    assert len({tick.text for tick in scale.texts()}) == len(scale.ticks), "two ticks never read alike"


def test_widths_are_those_of_the_type():
    assert text_width("W") > text_width("m") > text_width("a") > text_width("i")
    assert text_width("検") == pytest.approx(2.5, abs=0.1)
    assert text_width("") == 0


@SETTINGS
@given(st.text(max_size=300), st.floats(4, 60))
def test_a_shortened_text_fits(text, room):
    short = shortened(text, room)
    assert text_width(short) <= room + 1e-9 or len(short) <= 2
    assert all(char.isprintable() or char in "\u200c\u200d" for char in short if char != "\ufffe") or text


@SETTINGS
@given(st.lists(st.floats(0, 50), max_size=12))
def test_spread_keeps_distance_order_and_frame(places):
    moved = spread(places, 3.0, 0.0, 50.0)
    by_place = sorted(range(len(places)), key=lambda i: places[i])
    assert all(moved[b] - moved[a] >= 3.0 - 1e-9 for a, b in pairwise(by_place))
    assert all(0 - 1e-9 <= place <= 50 + 1e-9 for place in moved)
    if all(abs(a - b) >= 3 for a, b in combinations(places, 2)):
        assert moved == pytest.approx(places)


def test_spread_leaves_the_frame_only_where_it_cannot_hold_all():
    assert spread([1, 1, 1, 1], 3, 0, 6) == [-3, 0, 3, 6]


@SETTINGS
@given(st.lists(st.text(max_size=60), min_size=1, max_size=60), st.data())
def test_thinned_labels_keep_the_anchor_and_never_collide(names, data):
    slot = 140 / len(names)
    places = [14 + (i + 0.5) * slot for i in range(len(names))]
    anchor = data.draw(st.integers(0, len(names) - 1))
    labels = thinned(names, places, 3.0, anchor, 0.0, 174.0)
    assert shortened(names[anchor], 22.0) in [label.text for label in labels]
    for a, b in combinations(labels, 2):
        assert not box_of(a).meets(box_of(b))
    for label in labels:
        assert box_of(label).left >= -1e-9
        assert box_of(label).right <= 174 + 1e-9


def test_place_takes_the_first_free_place():
    frame, taken = Box(0, 0, 20, 20), [Box(0, 0, 9, 5)]
    label = [Text(5, 3, "12"), Text(5, 30, "12"), Text(5, 9, "12"), Text(15, 9, "12")]
    assert place(label, taken, frame) == label[2]
    assert place(label, taken, frame) == label[3]
    assert place(label, taken, frame) is None


@pytest.mark.parametrize("unit", ["run", "day", "stretch"])
def test_the_entries_of_a_key_keep_apart_and_inside(unit):
    entries = [("1st to 99th percentile", 6.0), ("middle half of calibration", 6.0), ("its mean", 6.0)]
    entries += [(unit, 1.6), ("signs of drift", 3.0), (f"present {unit}", 2.4)]
    places = key_places(entries)
    ends = [text + text_width(name) for (name, _), (_, text) in zip(entries, places, strict=True)]
    assert all(sign + width < text for (_, width), (sign, text) in zip(entries, places, strict=True))
    assert all(end + 2.0 < sign for end, (sign, _) in zip(ends, places[1:], strict=False))
    assert places[0][0] >= 0.0
    assert ends[-1] <= WIDTH + 1e-9
