"""Geometry of the score histogram with its three zones, and of rates with their intervals and targets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, log10

from reports.charts.layout import (
    WIDTH,
    Axis,
    Chart,
    Frame,
    Text,
    Tick,
    Zone,
    axis,
    broken,
    count_step,
    shortened,
    text_width,
    threshold_marks,
)
from reports.content.model import Share
from reports.errors import ReportError
from reports.wording import clip, grouped, percent, plural, threshold

BINS = 50
_LINEAR_UP_TO = 20  # pictures in the fullest bin; above, a linear axis would hide the few beside the many


@dataclass(frozen=True, kw_only=True)
class Histogram(Chart):
    """Pictures by score: the first group as bars (x, y, width, height), the second as the outline `steps`."""

    zones: tuple[Zone, ...]
    bars: tuple[tuple[float, float, float, float], ...]
    steps: str
    ticks: tuple[Tick, ...]
    scores: tuple[Text, ...]
    limits: tuple[tuple[float, Text], ...]
    unit: str
    key: tuple[Text, ...]


def bin_scores(scores: Iterable[float], bins: int = BINS) -> tuple[int, ...]:
    """Count scores in [0, 1] in equal bins; a score of 1 is in the last. ReportError outside [0, 1]."""
    counts = [0] * bins
    for score in scores:
        if not 0.0 <= score <= 1.0:
            raise ReportError(f"score {score} is outside [0, 1]")
        counts[min(bins - 1, floor(score * bins))] += 1
    return tuple(counts)


def score_histogram(groups: Sequence[tuple[str, Sequence[int]]], review: float, reject: float) -> Histogram:
    """Lay out one or two groups of pictures, each (name, counts in equal bins over [0, 1]).

    Above 20 pictures in the fullest bin the axis is logarithmic. Raises `ReportError` for other numbers of
    groups, or groups of different bins.
    """
    bins = len(groups[0][1]) if groups else 0
    if not 1 <= len(groups) <= 2 or any(len(counts) != bins for _, counts in groups) or not bins:
        raise ReportError("a score histogram needs one or two groups of pictures in the same bins")
    left, right, top, bottom = 13.0, WIDTH - 2.0, 9.0, 41.0
    frame = Frame(left, right, top, bottom, bottom + 9.5)
    fullest = max(1, *(max(counts) for _, counts in groups))
    logarithmic = fullest > _LINEAR_UP_TO
    scale, ticks = _counts_axis(fullest, logarithmic, bottom, top)

    def height(count: int) -> float:
        if not count:
            return bottom
        return scale.at(log10(count) if logarithmic else count)

    slot, _ = frame.slots(bins)
    bars = tuple(
        (left + i * slot, height(count), slot, bottom - height(count))
        for i, count in enumerate(groups[0][1])
        if count
    )
    steps = ""
    if len(groups) == 2:
        levels = " ".join(
            f"V{height(n):.2f} H{left + (i + 1) * slot:.2f}" for i, n in enumerate(groups[1][1])
        )
        steps = f"M{left:.2f},{bottom:.2f} {levels} V{bottom:.2f}"
    edges = [left, *(left + limit * (right - left) for limit in (review, reject)), right]
    limits = threshold_marks((edges[1], edges[2]), (threshold(review), threshold(reject)), bottom + 8.2)
    totals = [sum(counts) for _, counts in groups]
    said = " and ".join(
        f"{plural(total, 'picture')} ({clip(name, 60)})"
        for (name, _), total in zip(groups, totals, strict=True)
    )
    return Histogram(
        frame=frame,
        zones=tuple(
            _score_zone(name, edges[i], edges[i + 1], top)
            for i, name in enumerate(("pass", "review", "reject"))
        ),
        bars=bars,
        steps=steps,
        ticks=ticks,
        scores=tuple(Text(left + s / 5 * (right - left), bottom + 3.8, f"{s / 5:g}") for s in range(6)),
        limits=limits,
        unit="pictures, logarithmic axis" if logarithmic else "pictures",
        key=_key_labels([name for name, _ in groups], right),
        title=f"Scores of {said}; {limits[0][1].text}, {limits[1][1].text}",
        desc="; ".join(
            f"{clip(name, 60)}: "
            + ", ".join(f"{n} from {i / bins:g} to {(i + 1) / bins:g}" for i, n in enumerate(counts) if n)
            for name, counts in groups
        ),
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
