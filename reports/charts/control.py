"""Geometry of control charts and of trends inside the calibration band."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose

from reports.charts.layout import (
    WIDTH,
    Axis,
    Box,
    Chart,
    Frame,
    Text,
    Tick,
    axis,
    box_of,
    place,
    shortened,
    spread,
    thinned,
)
from reports.stats.control_chart import ControlPoint, PChart
from reports.stats.drift import Trend
from reports.wording import clip, percent, plural

_MARK = 1.1  # mm, half the size of a point


@dataclass(frozen=True)
class Mark:
    """A point of a chart: "dot", "out" (beyond its limits, or drifted) or "rule" (another rule fired)."""

    x: float
    y: float
    shape: str


@dataclass(frozen=True)
class Band:
    """A range of values or of the time axis, as a rectangle."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True)
class PointChart(Chart):
    """Points in the order of time, joined by a line.

    `present`: the strip behind the run that the report is about. `left_out` counts the oldest points, not
    drawn for lack of room.
    """

    ticks: tuple[Tick, ...]
    line: str
    marks: tuple[Mark, ...]
    labels: tuple[Text, ...]
    present: Band | None
    left_out: int


@dataclass(frozen=True, kw_only=True)
class ControlChart(PointChart):
    """A drawn control chart; `upper` and `lower` are paths of steps, `numbers` the rules at their points
    and `halos` the ground behind them; `unnumbered` counts the points whose numbers found no free place.
    """

    centre: float
    upper: str
    lower: str
    numbers: tuple[Text, ...]
    halos: tuple[Band, ...]
    limits: tuple[Tick, ...]
    present_label: Text | None
    boundary: float | None
    unnumbered: int


def control_chart(chart: PChart, *, what: str = "flagged pictures", most: int = 60) -> ControlChart:
    """Lay out a control chart over the page's width, with the last `most` points."""
    points = chart.points[-most:]
    left, right, top, bottom = 13.0, WIDTH - 24.0, 8.0, 48.0
    values = [v for p in points for v in (p.share, p.lower, p.upper) if v is not None]
    # An axis that begins at 0 shows shares in proportion; where all are high it would hide how they vary.
    ground = [0.0] if min(values) < max(values) / 2 else []
    scale = axis([100 * v for v in [*ground, *values, chart.centre]], bottom, top)
    if scale.low < 0 or scale.high > 100:
        scale = axis([max(0.0, scale.low), min(100.0, scale.high)], bottom, top)
    frame = Frame(left, right, top, bottom, bottom + 6.0)
    slot, xs = frame.slots(len(points))
    ys = [scale.at(100 * point.share) for point in points]
    marks = tuple(
        Mark(x, y, "out" if p.outside else "rule" if p.rules else "dot")
        for x, y, p in zip(xs, ys, points, strict=True)
    )
    numbers, unnumbered = _rule_numbers(points, marks, Box(left, top - 2.5, right, bottom - 0.4))
    now = next((i for i, point in enumerate(points) if point.current), None)
    # A dashed line parts the reference from what it judges, where the reference is all that came before.
    before = [i for i, point in enumerate(points) if point.reference]
    split = 0 < len(before) < len(points) and before == list(range(len(before)))
    return ControlChart(
        frame=frame,
        ticks=scale.texts(" %"),
        centre=scale.at(100 * chart.centre),
        upper=_limit_steps([p.upper for p in points], left, slot, scale),
        lower=_limit_steps([p.lower for p in points], left, slot, scale),
        line=_polyline(xs, ys),
        marks=marks,
        numbers=numbers,
        halos=tuple(_number_ground(number) for number in numbers),
        labels=_point_labels([p.label for p in points], xs, now, frame),
        limits=_limit_texts(points[-1], chart.centre, scale),
        present=None if now is None else _present_strip(xs[now], slot, frame, top),
        present_label=None if now is None else _present_label("present run", xs[now], right),
        boundary=left + len(before) * slot if split else None,
        title=f"{chart.name} of {what}: {chart.sentence}",
        desc=_points_sentence(points, what),
        left_out=len(chart.points) - len(points),
        unnumbered=unnumbered,
    )


@dataclass(frozen=True, kw_only=True)
class TrendChart(PointChart):
    """Means of a statistic run by run, over the bands that hold 98 % and 50 % of the calibration set."""

    wide: Band
    narrow: Band
    mean: float
    name: Text


def trend_chart(trend: Trend, *, width: float = WIDTH, most: int = 60) -> TrendChart | None:
    """Lay out a trend; `width` in mm, 85 for two beside each other. None without a single run."""
    points = trend.points[-most:]
    if not points:
        return None
    left, right, top, bottom = 13.0, width - 2.0, 5.0, 33.0
    band = [trend.reference.quantile(level) for level in (0.01, 0.25, 0.75, 0.99)]
    scale = axis([*band, *(p.sample.mean for p in points)], bottom, top, most=4)
    frame = Frame(left, right, top, bottom, bottom + 6.0, width)
    slot, xs = frame.slots(len(points))
    ys = [scale.at(point.sample.mean) for point in points]
    now = next((i for i, point in enumerate(points) if point.sample.current), None)
    drifted = [point for point in points if point.warned]
    low, lower, upper, high = (scale.at(value) for value in band)
    title = (
        f"Mean {clip(trend.statistic, 60)} of {plural(len(points), 'run')} against the calibration set: "
        f"{plural(len(drifted), 'run')} with signs of drift"
    )
    return TrendChart(
        frame=frame,
        ticks=scale.texts(),
        wide=Band(left, high, right - left, max(0.3, low - high)),
        narrow=Band(left, upper, right - left, max(0.3, lower - upper)),
        mean=scale.at(trend.reference.mean),
        line=_polyline(xs, ys),
        marks=tuple(Mark(x, y, "out" if p.warned else "dot") for x, y, p in zip(xs, ys, points, strict=True)),
        labels=_point_labels([p.sample.label for p in points], xs, now, frame),
        present=None if now is None else _present_strip(xs[now], slot, frame, top + 2.5),
        name=Text(left, 2.4, shortened(trend.statistic, right - left), "start"),
        title=title,
        desc="; ".join(
            f"{clip(p.sample.label, 40)}: {p.sample.mean:.4g}{' (drift)' if p.warned else ''}" for p in points
        ),
        left_out=len(trend.points) - len(points),
    )


def _limit_steps(limits: Sequence[float | None], left: float, slot: float, scale: Axis) -> str:
    """Return limits as the path of steps, each as wide as its point's slot; empty without limits."""
    path: list[str] = []
    height = None
    for i, limit in enumerate(limits):
        if limit is None:
            return ""
        y = scale.at(100 * limit)
        start = left + i * slot
        if height is None:
            path.append(f"M{start:.2f},{y:.2f}")
        elif not isclose(y, height, abs_tol=0.005):
            path.append(f"V{y:.2f}")
        path.append(f"H{start + slot:.2f}")
        height = y
    return " ".join(path)


def _point_labels(
    names: Sequence[str], xs: Sequence[float], now: int | None, frame: Frame
) -> tuple[Text, ...]:
    """Return the labels below the points, that of the present one, or of the last, among them."""
    anchor = len(names) - 1 if now is None else now
    return thinned(names, xs, frame.bottom + 3.8, anchor, 0, frame.width)


def _polyline(xs: Sequence[float], ys: Sequence[float]) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in zip(xs, ys, strict=True))


def _rule_numbers(
    points: Sequence[ControlPoint], marks: Sequence[Mark], frame: Box
) -> tuple[tuple[Text, ...], int]:
    """Return the rules that fired, beside their points where they fit, and how many found no place."""
    taken = [Box(m.x - _MARK, m.y - _MARK, m.x + _MARK, m.y + _MARK) for m in marks]
    numbers = []
    missing = 0
    for point, mark in zip(points, marks, strict=True):
        if not point.rules:
            continue
        text = ",".join(map(str, point.rules))
        candidates = [
            Text(mark.x + shift, mark.y + lift, text, anchor)
            for lift in (-1.9, 3.5, -4.4, 6.0)
            for shift, anchor in ((0.0, "middle"), (0.6, "start"), (-0.6, "end"))
        ]
        found = place(candidates, taken, frame)
        if found is None:
            missing += 1
        else:
            numbers.append(found)
    return tuple(numbers), missing


def _number_ground(label: Text) -> Band:
    """Return the ground on which a number stays readable where lines cross it."""
    box = box_of(label)
    return Band(box.left, box.top, box.right - box.left, box.bottom - box.top)


def _limit_texts(point: ControlPoint, centre: float, scale: Axis) -> tuple[Tick, ...]:
    """Return labels of the centre line and the last point's limits at the right end, clear of each other."""
    values = [("upper", point.upper), ("centre", centre), ("lower", point.lower)]
    kept = [(name, value) for name, value in values if value is not None]
    heights = spread([scale.at(100 * value) + 0.9 for _, value in kept], 3.2, 6.0, 48.9)
    return tuple(Tick(y, f"{name} {percent(value)}") for (name, value), y in zip(kept, heights, strict=True))


def _present_strip(x: float, slot: float, frame: Frame, top: float) -> Band:
    wide = max(slot, 2.4)
    start = min(max(x - wide / 2, frame.left), frame.right - wide)
    return Band(start, top - 2.5, wide, frame.bottom - top + 2.5)


def _present_label(text: str, x: float, right: float) -> Text:
    """Return a word over a point, shifted to stay inside the frame."""
    label = Text(x, 4.6, text)
    over = box_of(label).right - right
    return Text(x - max(0.0, over), 4.6, text)


def _points_sentence(points: Sequence[ControlPoint], what: str) -> str:
    said = []
    for point in points:
        rules = f", rules {' '.join(map(str, point.rules))}" if point.rules else ""
        said.append(f"{clip(point.label, 40)}: {percent(point.share)}{rules}")
    return f"Share of {what}: {'; '.join(said)}"
