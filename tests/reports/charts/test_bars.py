"""Chart geometry, against values worked out by hand."""

import pytest

from reports.charts import bars
from reports.charts.layout import text_width
from reports.content.base import Counts


def test_pareto_bars_and_line_share_one_scale():
    chart = bars.pareto([("scratch", 6), ("pit", 3), ("patch", 1)])
    assert chart is not None
    full = chart.frame.bottom - chart.frame.top
    assert [bar.height for bar in chart.bars] == pytest.approx([0.6 * full, 0.3 * full, 0.1 * full])
    rises = [chart.frame.bottom - bar.point_y for bar in chart.bars]
    assert rises == pytest.approx([0.6 * full, 0.9 * full, full])
    # the line starts at the top of the first bar and ends at the top of the scale
    assert chart.bars[0].point_y == pytest.approx(chart.bars[0].y)
    assert chart.bars[-1].point_y == pytest.approx(chart.frame.top)
    assert [tick.text for tick in chart.ticks] == ["0", "2", "4", "6", "8", "10"]
    assert [tick.text for tick in chart.percents] == ["0 %", "25 %", "50 %", "75 %", "100 %"]
    assert "10 findings in 3 classes" in chart.title
    assert "scratch with 6 (60 %)" in chart.title


def test_pareto_gathers_the_tail():
    chart = bars.pareto([(f"class {i}", 20 - i) for i in range(14)])
    assert chart is not None
    assert len(chart.bars) == 10
    total, full = sum(20 - i for i in range(14)), chart.frame.bottom - chart.frame.top
    assert chart.bars[-1].name == "5 others"
    assert chart.bars[-1].height == pytest.approx(full * (11 + 10 + 9 + 8 + 7) / total)
    assert chart.bars[-1].point_y == pytest.approx(chart.frame.top)
    assert chart.bars[-1].x + chart.bars[-1].width < chart.frame.right


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("pit", ("pit",)),
        ("rolled-in_scale", ("rolled-in_", "scale")),
        ("deep scratch", ("deep", "scratch")),
        ("W" * 40, ("W" * 5, "W" * 4 + "…")),
        ("検査検査検査検査", ("検査検査検", "査検査")),
    ],
)
def test_labels_fit_under_their_bars(name, label):
    chart = bars.pareto([(name, 2), *((f"c{i}", 1) for i in range(9))])
    assert chart is not None
    assert chart.bars[0].label == label  # 14.8 mm a bar


def test_pareto_of_nothing():
    assert bars.pareto([]) is None


@pytest.mark.parametrize(
    ("total", "step"), [(1, 1), (5, 1), (6, 2), (11, 5), (26, 10), (480, 100), (501, 200)]
)
def test_ticks_are_round(total, step):
    chart = bars.pareto([("a", total)])
    assert chart is not None
    assert len(chart.ticks) <= 6
    assert int(chart.ticks[1].text) == step


@pytest.mark.parametrize(
    ("review", "reject"),
    [(0.31, 0.87), (0.0, 0.0), (1.0, 1.0), (0.0004, 0.0009), (0.5, 0.5), (0.9991, 0.9998)],
)
def test_threshold_labels_never_collide_and_stay_on_the_page(review, reject):
    texts = ("0.9000", f"{review:.6g}", f"{reject:.6g}")
    bar = bars.score_bar(0.9, 0.9, review, reject, texts, "reject")
    (first, second), half = bar.marks, [text_width(label.text) / 2 for _, label in bar.marks]
    assert first[1].x - half[0] >= -1e-9
    assert second[1].x + half[1] <= bars.WIDTH + 1e-9
    assert second[1].x - half[1] >= first[1].x + half[0]
    assert (first[0], second[0]) == (review * bars.WIDTH, reject * bars.WIDTH)


def test_score_bar():
    bar = bars.score_bar(0.999, 0.9, 0.25, 0.75, ("0.9990", "0.25", "0.75"), "reject")
    assert bar.score_x == pytest.approx(0.999 * 174)
    assert bar.score_label_x <= 166
    assert bar.class_x == pytest.approx(0.9 * 174)
    assert [zone.text for zone in bar.zones] == ["pass", "review", "reject"]
    assert bar.title == "Score 0.9990: reject; review from 0.25, reject from 0.75"
    assert bars.score_bar(0.9, 0.9, 0.01, 0.02, ("", "", ""), "reject").class_x is None
    assert [z.text for z in bars.score_bar(0.9, 0.9, 0.01, 0.02, ("", "", ""), "reject").zones] == ["reject"]
    crowded = bars.score_bar(0.76, 0.76, 0.25, 0.75, ("", "", ""), "reject").zones[2]
    assert crowded.anchor == "end"


@pytest.mark.parametrize(
    "counts", [Counts(480, 474, 2, 2, 2), Counts(5, 0, 0, 0, 5), Counts(9, 1, 1, 1, 1), Counts(1, 2, 0, 0, 0)]
)
def test_share_bar_fills_the_width(counts):
    segments = bars.share_bar(counts)
    assert sum(segment.width for segment in segments) == pytest.approx(bars.WIDTH)
    assert segments[0].x == 0
    assert all(segment.width > 0.9 for segment in segments)
    assert bars.share_bar(Counts(0, 0, 0, 0, 0)) == ()
