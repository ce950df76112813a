"""The confusion matrix: its figures, its shades, and how it merges what does not fit."""

import numpy as np
import pytest

from reports.charts.confusion import confusion_chart
from reports.charts.layout import text_width
from reports.content.inspection import ReportError


def test_figures_and_shades():
    drawn = confusion_chart(["good", "pit", "rare"], [[90, 10, 0], [5, 15, 0], [0, 0, 0]])
    cells = {(round(c.x, 2), round(c.y, 2)): c for c in drawn.cells}
    assert len(cells) == 9
    texts = [cell.text for cell in drawn.cells]
    assert texts == ["90", "10", "", "5", "15", "", "", "", ""]
    assert [cell.diagonal for cell in drawn.cells] == [i % 4 == 0 for i in range(9)]
    assert drawn.cells[2].fill == "#ffffff"
    assert drawn.cells[0].dark
    assert not drawn.cells[1].dark
    assert [row.recall for row in drawn.rows] == ["90 %", "75 %", "–"]
    assert [row.total for row in drawn.rows] == ["100", "20", "0"]
    assert drawn.title.startswith(
        "Confusion matrix of 120 pictures in 3 classes: 87.5 % were called by their own"
    )
    assert drawn.desc == "good: 90 called good, 10 called pit; pit: 5 called good, 15 called pit"


def test_rare_classes_are_merged_and_nothing_is_lost():
    rng = np.random.default_rng(2)
    table = rng.integers(0, 50, (30, 30)) + np.diag(np.arange(30) * 1000)
    names = [f"{'W' * 20}<b>{i}" for i in range(30)]
    drawn = confusion_chart(names, table.tolist(), most=12)
    assert (len(drawn.rows), drawn.rows[-1].name) == (12, "19 others")
    assert drawn.rows[-1].name == "19 others"
    kept = table.sum(axis=0) + table.sum(axis=1)
    expected = sorted(np.argsort(-kept, kind="stable")[:11])
    total = sum(int(row.total.replace("\u202f", "")) for row in drawn.rows)
    assert total == table.sum()
    assert drawn.rows[0].total.replace("\u202f", "") == str(table[expected[0]].sum())
    for cell in drawn.cells:
        assert text_width(cell.text) <= drawn.cell_width
    for row in drawn.rows:
        assert text_width(row.name) <= drawn.frame.left - 3
    for head in drawn.columns:
        assert all(text_width(line) <= drawn.cell_width or len(line) <= 2 for line in head.lines)
    assert drawn.frame.right + 28 <= drawn.frame.width


def test_what_is_no_matrix():
    assert confusion_chart([], []) is None
    assert confusion_chart(["a"], [[0]]) is None
    with pytest.raises(ReportError, match="2 classes need as many rows and columns"):
        confusion_chart(["a", "b"], [[1, 2]])
