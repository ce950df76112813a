"""Geometry of the score histogram with its three zones, and of rates with their intervals and targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log, log10

from reports.charts.layout import (
    WIDTH,
    Axis,
    Box,
    Chart,
    Frame,
    Text,
    Tick,
    Zone,
    axis,
    box_of,
    broken,
    count_step,
    shortened,
    text_width,
    threshold_marks,
)
from reports.content.model import Share
from reports.errors import ReportError
from reports.wording import clip, grouped, percent, plural, threshold

_LINEAR_UP_TO = 20  # pictures in the fullest bin; above, a linear axis would hide the few beside the many


@dataclass(frozen=True, kw_only=True)
class Histogram(Chart):
    """Pictures by score: the first group as bars (x, y, width, height), the second as the outline `steps`.

    `note` says how to read the axis of scores.
    """

    zones: tuple[Zone, ...]
    bars: tuple[tuple[float, float, float, float], ...]
    steps: str
    ticks: tuple[Tick, ...]
    scores: tuple[Text, ...]
    limits: tuple[tuple[float, Text], ...]
    unit: str
    key: tuple[Text, ...]
    note: str


def score_histogram(
    groups: Sequence[tuple[str, Sequence[int]]], edges: Sequence[float], review: float, reject: float | None
) -> Histogram:
    """Lay out one or two groups of pictures, each (name, counts between two of the `edges`).

    Scores stand on an axis of log odds, on which those near 0 and near 1 are told apart. Above 20 pictures in
    the fullest bin the axis of counts is logarithmic.

    Args:
        groups: the first is drawn as bars, the second as an outline.
        edges: of the bins, rising from 0 to 1.
        review: the threshold, in [0, 1].
        reject: the threshold, in [0, 1]; None where nothing is rejected without a person.

    Raises:
        ReportError: other numbers of groups, counts that do not fit the edges, or edges that do not rise from
            0 to 1.
    """
    bins = len(edges) - 1
    if not 1 <= len(groups) <= 2 or any(len(counts) != bins for _, counts in groups) or bins < 1:
        raise ReportError("a score histogram needs one or two groups of pictures in the same bins")
    if edges[0] != 0.0 or edges[-1] != 1.0 or any(low >= high for low, high in pairwise(edges)):
        raise ReportError(f"a score histogram needs edges that rise from 0 to 1, got {list(edges)[:60]}")
    left, right, top, bottom = 13.0, WIDTH - 2.0, 9.0, 41.0
    frame = Frame(left, right, top, bottom, bottom + 9.5)
    fullest = max(1, *(max(counts) for _, counts in groups))
    logarithmic = fullest > _LINEAR_UP_TO
    scale, ticks = _counts_axis(fullest, logarithmic, bottom, top)
    places = _ScoreAxis(edges, left, right)
    xs = [places.at(edge) for edge in edges]

    def height(count: int) -> float:
        if not count:
            return bottom
        return scale.at(log10(count) if logarithmic else count)

    bars = tuple(
        (xs[i], height(count), xs[i + 1] - xs[i], bottom - height(count))
        for i, count in enumerate(groups[0][1])
        if count
    )
    steps = ""
    if len(groups) == 2:
        levels = " ".join(f"V{height(n):.2f} H{xs[i + 1]:.2f}" for i, n in enumerate(groups[1][1]))
        steps = f"M{left:.2f},{bottom:.2f} {levels} V{bottom:.2f}"
    ends = [left, places.at(review), right if reject is None else places.at(reject), right]
    limits = threshold_marks(
        (ends[1], ends[2]),
        (threshold(review), None if reject is None else threshold(reject)),
        bottom + 8.2,
    )
    totals = [sum(counts) for _, counts in groups]
    said = " and ".join(
        f"{plural(total, 'picture')} ({clip(name, 60)})"
        for (name, _), total in zip(groups, totals, strict=True)
    )
    return Histogram(
        frame=frame,
        zones=tuple(
            _score_zone(name, ends[i], ends[i + 1], top)
            for i, name in enumerate(("pass", "review") if reject is None else ("pass", "review", "reject"))
        ),
        bars=bars,
        steps=steps,
        ticks=ticks,
        scores=_score_labels(places, bottom + 3.8, [place for place, _ in limits]),
        limits=limits,
        unit="pictures, logarithmic axis" if logarithmic else "pictures",
        key=_key_labels([name for name, _ in groups], right),
        title=f"Scores of {said}; {', '.join(label.text for _, label in limits)}",
        desc="; ".join(
            f"{clip(name, 60)}: "
            + ", ".join(f"{n} from {edges[i]:g} to {edges[i + 1]:g}" for i, n in enumerate(counts) if n)
            for name, counts in groups
        ),
        note=_axis_note(edges),
    )


class _ScoreAxis:
    """An axis of log odds from the first inner edge to the last, with the outermost bins as wide as others.

    Inside those two the axis is linear: log odds of 0 and 1 are infinite.
    """

    def __init__(self, edges: Sequence[float], left: float, right: float) -> None:
        inner = edges[1:-1] or (0.5,)
        slot = (right - left) / max(2, len(edges) - 1)
        self._scores = (0.0, inner[0], inner[-1], 1.0)
        self._places = (left, left + slot, right - slot, right)

    def at(self, score: float) -> float:
        """Return the place of a score in mm."""
        zero, low, high, one = self._scores
        left, start, end, right = self._places
        if score <= low:
            return left + (start - left) * (score - zero) / (low - zero)
        if score >= high:
            return end + (right - end) * (score - high) / (one - high)
        return start + (end - start) * (_log_odds(score) - _log_odds(low)) / (
            _log_odds(high) - _log_odds(low)
        )


def _log_odds(score: float) -> float:
    return log(score / (1.0 - score))


def _score_labels(places: _ScoreAxis, y: float, lines: Sequence[float]) -> tuple[Text, ...]:
    """Return round scores below the axis: both ends, and of the others those that have room.

    `lines`: where the lines of the thresholds cross the labels' row, in mm.
    """
    labels = [Text(places.at(score), y, f"{score:g}") for score in (0.0, 1.0)]
    for score in (0.5, 0.1, 0.9, 0.01, 0.99, 0.001, 0.999):
        label = Text(places.at(score), y, f"{score:g}")
        room = box_of(label)
        wider = Box(room.left - 1.5, room.top, room.right + 1.5, room.bottom)
        crossed = any(room.left - 0.6 <= line <= room.right + 0.6 for line in lines)
        if not crossed and not any(wider.meets(box_of(other)) for other in labels):
            labels.append(label)
    return tuple(sorted(labels, key=lambda label: label.x))


def _axis_note(edges: Sequence[float]) -> str:
    if len(edges) < 3:
        return ""
    return (
        "The axis of scores is stretched towards both ends (log odds), where pictures crowd: from 0.9 to 0.99"
        " it takes nearly as much room as from 0.99 to 0.999. The first bar holds all scores below"
        f" {edges[1]:g}, the last all from {edges[-2]:g} on."
    )


def _counts_axis(fullest: int, logarithmic: bool, bottom: float, top: float) -> tuple[Axis, tuple[Tick, ...]]:
    if logarithmic:
        # One picture must be seen: the axis starts at half a picture.
        scale = Axis(log10(0.5), log10(fullest * 1.2), bottom, top, (), 0)
        powers = [10**power for power in range(len(str(fullest)))]
        return scale, tuple(Tick(scale.at(log10(value)), grouped(value)) for value in powers)
    step = count_step(fullest)
    values = range(0, fullest + step, step)
    scale = Axis(0.0, float(values[-1]), bottom, top, (), 0)
    return scale, tuple(Tick(scale.at(value), grouped(value)) for value in values)


def _score_zone(verdict: str, x: float, end: float, top: float) -> Zone:
    fits = end - x >= text_width(verdict) + 1.0
    return Zone(verdict, x, end - x, Text((x + end) / 2, top - 1.2, verdict) if fits else None)


def _key_labels(names: Sequence[str], right: float) -> tuple[Text, ...]:
    """Return the groups' names at the right end of the top line, with room for a swatch before each."""
    if len(names) < 2:
        return ()
    key: list[Text] = []
    x = right
    for name in reversed(names):
        text = shortened(name, 40.0)
        x -= text_width(text)
        key.insert(0, Text(x, 3.2, text, "start"))
        x -= 10.0
    return tuple(key)


@dataclass(frozen=True)
class Whisker:
    """One row: the x of the measured share (`dot`) and of its interval (`start`, `end`), if there are any."""

    y: float
    name: tuple[str, ...]
    text: str
    note: str
    dot: float | None
    start: float | None
    end: float | None


@dataclass(frozen=True, kw_only=True)
class IntervalChart(Chart):
    """Shares below each other on one axis."""

    ticks: tuple[Text, ...]
    rows: tuple[Whisker, ...]


def interval_chart(rates: Sequence[tuple[str, Share]], what: str) -> IntervalChart | None:
    """Lay out (name, share) as dots and whiskers, one row each; None without any."""
    if not rates:
        return None
    left, right, top, row = 46.0, WIDTH - 52.0, 2.0, 8.0
    bottom = top + row * len(rates)
    values = [100 * v for _, r in rates for v in (r.measured, r.low, r.high) if v is not None]
    scale = axis([0.0, *(values or [1.0])], left, right)
    rows = tuple(_whisker(name, share, scale, top + row * (i + 0.5)) for i, (name, share) in enumerate(rates))
    return IntervalChart(
        frame=Frame(left, right, top, bottom, bottom + 5.0),
        ticks=tuple(
            Text(scale.at(value), bottom + 3.8, f"{value:.{scale.decimals}f} %") for value in scale.ticks
        ),
        rows=rows,
        title=clip(what, 120),
        desc="; ".join(
            f"{clip(name, 80)}: {row.text}; {row.note}" for (name, _), row in zip(rates, rows, strict=True)
        ),
    )


def _whisker(name: str, share: Share, scale: Axis, y: float) -> Whisker:
    def at(value: float | None) -> float | None:
        return None if value is None else scale.at(100 * value)

    text = "not measured" if share.measured is None else percent(share.measured)
    if share.low is not None and share.high is not None:
        text += f", {percent(share.low)} to {percent(share.high)}"
    return Whisker(
        y=y,
        name=broken(name, 43.0),
        text=text,
        note=f"n = {grouped(share.total)}",
        dot=at(share.measured),
        start=at(share.low),
        end=at(share.high),
    )
