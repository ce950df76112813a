"""Geometry of the confusion matrix: a table whose cells are shaded by their share of the row."""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.charts.layout import WIDTH, Chart, Frame, broken, shortened, text_width
from reports.errors import ReportError
from reports.wording import clip, grouped, percent, plural

# Colours of a cell without a picture, and of one with all pictures of its row.
_GROUND, _FULL = (255, 255, 255), (0x3D, 0x5A, 0x73)


@dataclass(frozen=True)
class Cell:
    """A cell of the matrix: pictures of one class (row) that the model called another (column)."""

    x: float
    y: float
    text: str
    fill: str
    dark: bool
    diagonal: bool


@dataclass(frozen=True)
class RowEnd:
    """What stands beside a row: its class, the number of its pictures, and the share called by its name."""

    y: float
    name: str
    total: str
    recall: str


@dataclass(frozen=True)
class ColumnHead:
    """A column's class, in one or two lines."""

    x: float
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Confusion(Chart):
    """A confusion matrix; where classes are many, the rarer ones share the last row and column."""

    cell_width: float
    cell_height: float
    cells: tuple[Cell, ...]
    rows: tuple[RowEnd, ...]
    columns: tuple[ColumnHead, ...]


def confusion_chart(
    classes: Sequence[str], table: Sequence[Sequence[int]], *, most: int = 12
) -> Confusion | None:
    """Lay out `table[i][j]`, the pictures of classes[i] called classes[j]; None without a picture.

    Beyond `most` classes the rarest are merged. ReportError where the table does not fit the classes.
    """
    if len(table) != len(classes) or any(len(row) != len(classes) for row in table):
        raise ReportError(f"confusion matrix: {len(classes)} classes need as many rows and columns")
    total = sum(map(sum, table))
    if not total:
        return None
    names, counts = _merge_rare(classes, table, most)
    k = len(names)
    left, top, cell_height = 42.0, 12.0, 6.5
    cell_width = min(18.0, (WIDTH - left - 32.0) / k)
    bottom = top + k * cell_height
    correct = sum(table[i][i] for i in range(len(classes)))
    return Confusion(
        frame=Frame(left, left + k * cell_width, top, bottom, bottom + 1.0),
        cell_width=cell_width,
        cell_height=cell_height,
        cells=tuple(
            _matrix_cell(counts, i, j, left + j * cell_width, top + i * cell_height, cell_width)
            for i in range(k)
            for j in range(k)
        ),
        rows=tuple(
            RowEnd(
                y=top + (i + 0.5) * cell_height + 0.9,
                name=shortened(name, left - 3.0),
                total=grouped(sum(counts[i])),
                recall=percent(counts[i][i] / sum(counts[i])) if sum(counts[i]) else "–",
            )
            for i, name in enumerate(names)
        ),
        columns=tuple(
            ColumnHead(left + (j + 0.5) * cell_width, broken(name, cell_width - 1.2))
            for j, name in enumerate(names)
        ),
        title=(
            f"Confusion matrix of {plural(total, 'picture')} in {plural(len(classes), 'class', 'classes')}: "
            f"{percent(correct / total)} were called by their own class; rows are the true classes, columns "
            "those that the model called"
        ),
        desc="; ".join(
            f"{clip(name, 60)}: "
            + ", ".join(f"{n} called {clip(names[j], 60)}" for j, n in enumerate(counts[i]) if n)
            for i, name in enumerate(names)
            if sum(counts[i])
        ),
    )


def _merge_rare(
    classes: Sequence[str], table: Sequence[Sequence[int]], most: int
) -> tuple[list[str], list[list[int]]]:
    """Keep the classes with the most pictures, in their order, and add the others up."""
    k = range(len(classes))
    if len(classes) <= most:
        return list(classes), [list(row) for row in table]
    size = [sum(table[i]) + sum(table[j][i] for j in k) for i in k]
    kept = sorted(sorted(k, key=lambda i: (-size[i], i))[: most - 1])
    groups = [[i] for i in kept] + [[i for i in k if i not in kept]]
    counts = [[sum(table[i][j] for i in a for j in b) for b in groups] for a in groups]
    return [*(classes[i] for i in kept), f"{len(groups[-1])} others"], counts


def _matrix_cell(counts: Sequence[Sequence[int]], i: int, j: int, x: float, y: float, room: float) -> Cell:
    count, total = counts[i][j], sum(counts[i])
    share = count / total if total else 0.0
    text = grouped(count) if count else ""
    if text_width(text) > room - 0.6:  # in narrow cells, thousands
        text = f"{count / 1000:.0f} k"
    red, green, blue = (
        # A cell with a single picture differs visibly from an empty one: shades begin at 8 %.
        round(a + (b - a) * (0.08 + 0.92 * share) if count else a)
        for a, b in zip(_GROUND, _FULL, strict=True)
    )
    return Cell(x, y, text, f"#{red:02x}{green:02x}{blue:02x}", share > 0.5, i == j)
