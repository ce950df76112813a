"""Geometry of the charts, in millimetres; the templates draw it as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.charts.layout import (
    WIDTH,
    Chart,
    Frame,
    Text,
    Tick,
    Zone,
    broken,
    count_step,
    threshold_marks,
)
from reports.content.base import Counts
from reports.wording import clip, grouped, percent, plural

_ZONE_NAME = 12.0  # mm that a zone's name takes up


@dataclass(frozen=True)
class Bar:
    """One class of a Pareto chart: its bar, its point on the cumulative line, the slot that both stand in."""

    name: str
    label: tuple[str, ...]
    x: float
    y: float
    width: float
    height: float
    point_x: float
    point_y: float
    slot_x: float
    slot: float


@dataclass(frozen=True, kw_only=True)
class Pareto(Chart):
    """Bars in falling order under their cumulative line; both axes share one height: all findings = 100 %."""

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    percents: tuple[Tick, ...]

    @property
    def line(self) -> str:
        """Points of the cumulative line."""
        return " ".join(f"{bar.point_x:.2f},{bar.point_y:.2f}" for bar in self.bars)


def pareto(classes: Sequence[tuple[str, int]], most: int = 10) -> Pareto | None:
    """Lay out a Pareto chart of (class, count), sorted already; beyond `most` classes the rest is one bar."""
    if not classes:
        return None
    shown = list(classes)
    if len(shown) > most:
        rest = shown[most - 1 :]
        shown = [*shown[: most - 1], (f"{len(rest)} others", sum(n for _, n in rest))]
    total = sum(n for _, n in shown)
    frame = Frame(12.0, WIDTH - 14.0, 5.0, 29.0, height=38.0)
    slot, middles = frame.slots(len(shown))
    thick = min(slot * 0.68, 18.0)

    def height(part: int, whole: int = total) -> float:
        return (frame.bottom - frame.top) * part / whole

    bars: list[Bar] = []
    running = 0
    for i, (name, count) in enumerate(shown):
        running += count
        x = frame.left + i * slot
        bars.append(
            Bar(
                name=name,
                label=broken(name, slot - 1.5),
                x=x + (slot - thick) / 2,
                y=frame.bottom - height(count),
                width=thick,
                height=height(count),
                point_x=middles[i],
                point_y=frame.bottom - height(running),
                slot_x=x,
                slot=slot,
            )
        )
    first, most_frequent = shown[0]
    return Pareto(
        frame=frame,
        bars=tuple(bars),
        ticks=tuple(
            Tick(frame.bottom - height(n), grouped(n)) for n in range(0, total + 1, count_step(total))
        ),
        percents=tuple(Tick(frame.bottom - height(p, 100), f"{p} %") for p in (0, 25, 50, 75, 100)),
        title=(
            f"Pareto chart of {plural(total, 'finding')} in {plural(len(classes), 'class', 'classes')}; "
            f"most frequent: {clip(first, 60)} with {most_frequent} ({percent(most_frequent / total)})"
        ),
    )


@dataclass(frozen=True)
class ScoreBar:
    """The three zones of the score scale; x runs from 0 to `WIDTH`, `marks` are those of the thresholds."""

    review_x: float
    reject_x: float
    score_x: float
    score_label_x: float
    score_text: str
    class_x: float | None
    marks: tuple[tuple[float, Text], ...]
    zones: tuple[Text, ...]
    title: str


def score_bar(
    score: float, class_score: float, review: float, reject: float, texts: tuple[str, str, str], verdict: str
) -> ScoreBar:
    """Place a score among its zones; `texts` are the written score, review and reject thresholds."""
    score_text, review_text, reject_text = texts
    edges = [0.0, review * WIDTH, reject * WIDTH, WIDTH]
    # Two markers at one place would say less than one.
    class_x = class_score * WIDTH if abs(class_score - score) >= 0.0005 else None
    markers = [x for x in (score * WIDTH, class_x) if x is not None]
    zones = tuple(
        _zone_name(name, edges[i], edges[i + 1], markers)
        for i, name in enumerate(("pass", "review", "reject"))
        if edges[i + 1] - edges[i] >= _ZONE_NAME
    )
    return ScoreBar(
        review_x=edges[1],
        reject_x=edges[2],
        score_x=score * WIDTH,
        score_label_x=min(max(score * WIDTH, 8.0), WIDTH - 8.0),
        score_text=score_text,
        class_x=class_x,
        marks=threshold_marks((edges[1], edges[2]), (review_text, reject_text), 16.0),
        zones=zones,
        title=f"Score {score_text}: {verdict}; review from {review_text}, reject from {reject_text}",
    )


def share_bar(counts: Counts) -> tuple[Zone, ...]:
    """Lay the verdicts end to end over the page's width; a verdict that occurs is never thinner than 1 mm."""
    parts = [
        (name, n)
        for name, n in (
            ("pass", counts.passed),
            ("review", counts.review),
            ("reject", counts.reject),
            ("unreadable", counts.unreadable),
            ("open", max(0, counts.unaccounted)),
        )
        if n
    ]
    total = sum(n for _, n in parts)
    # One reject among a million pictures must be seen; the others give way in proportion.
    widths = [max(1.0, WIDTH * n / total) for _, n in parts]
    scale = WIDTH / sum(widths) if widths else 1.0
    zones: list[Zone] = []
    x = 0.0
    for (name, _), width in zip(parts, widths, strict=True):
        zones.append(Zone(name, x, width * scale))
        x += width * scale
    return tuple(zones)


def _zone_name(name: str, left: float, right: float, markers: Sequence[float]) -> Text:
    """Return a zone's name at its left end, or at its right end where a marker is in the way on the left."""
    if any(left <= x <= left + _ZONE_NAME for x in markers) and not any(
        right - _ZONE_NAME <= x <= right for x in markers
    ):
        return Text(right - 1.5, 9.2, name, "end")
    return Text(left + 1.5, 9.2, name, "start")
