"""What all charts share: widths of labels, round axes, and labels that keep out of each other's way.

Lengths are in millimetres. Labels are set in 2.5 mm type of the embedded family.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO
from itertools import pairwise
from math import ceil, floor, isfinite, log10

from PIL import ImageFont

from reports.wording import clean, clip

WIDTH = 174.0
SIZE = 2.5  # mm, the size of the charts' labels


@dataclass(frozen=True)
class Frame:
    """Where a chart is drawn: the rectangle of its axes, and the size of the whole, which begins at 0, 0."""

    left: float
    right: float
    top: float
    bottom: float
    height: float
    width: float = WIDTH

    def slots(self, count: int) -> tuple[float, list[float]]:
        """Return the width of one of `count` equal slots side by side, and the middle of each."""
        slot = (self.right - self.left) / count
        return slot, [self.left + (i + 0.5) * slot for i in range(count)]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What every chart has: its frame, and what those hear of it who do not see it."""

    frame: Frame
    title: str
    desc: str = ""


@dataclass(frozen=True)
class Zone:
    """A stretch of the page's width that a verdict takes up, with its name where that is written inside."""

    verdict: str
    x: float
    width: float
    name: "Text | None" = None


@dataclass(frozen=True)
class Tick:
    """A tick of an axis, or a label at that height."""

    y: float
    text: str


@dataclass(frozen=True)
class Text:
    """A label on the chart, `anchor`ed at its start, middle or end."""

    x: float
    y: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True)
class Axis:
    """A linear axis: `low` lies at `start` mm, `high` at `end` mm; `ticks` are round values between them."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    decimals: int

    def at(self, value: float) -> float:
        """Return the place of a value in mm; for one beyond the axis, the nearer end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * share

    def texts(self, unit: str = "") -> tuple[Tick, ...]:
        """Return the ticks as labels."""
        return tuple(Tick(self.at(value), f"{value:.{self.decimals}f}{unit}") for value in self.ticks)


def axis(values: Iterable[float], start: float, end: float, *, most: int = 5) -> Axis:
    """Lay out an axis with a 1-2-5 step that reaches beyond all finite values, in about `most` steps."""
    finite = [value for value in values if isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-12):
        reach = abs(high) * 0.1 or 0.5
        low, high = low - reach, high + reach
    step = _step_of((high - low) / most)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    decimals = max(0, -floor(log10(step) + 1e-9))
    ticks = tuple(round(i * step, decimals + 2) for i in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], start, end, ticks, decimals)


def count_step(total: int) -> int:
    """Return the 1-2-5 step of whole numbers that gives at most five intervals."""
    return max(1, round(_step_of(total / 5)))


def _step_of(least: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is not below `least`."""
    power = 10.0 ** floor(log10(least))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= least * (1 - 1e-9))


def text_width(text: str) -> float:
    """Return the width of a label in mm, in the bolder weight.

    A character that the family lacks counts as a square.
    """
    return sum(_advance(char) for char in text)


# Labels are measured, not guessed, in the very font that the page embeds; by character, without kerning.
@cache
def _advance(char: str) -> float:
    return float(_font().getlength(char)) / 100 * SIZE


@cache
def _font() -> ImageFont.FreeTypeFont:
    data = files("reports").joinpath("fonts/Inter-SemiBold.otf").read_bytes()
    return ImageFont.truetype(BytesIO(data), 100, layout_engine=ImageFont.Layout.BASIC)


def fitted(text: str, room: float) -> str:
    """Return the beginning of a text that fits into `room` mm, one character at least."""
    end = 1
    while end < len(text) and text_width(text[: end + 1]) <= room:
        end += 1
    return text[:end]


def shortened(text: str, room: float) -> str:
    """Return a cleaned text of at most `room` mm; the end of a longer one gives way to "…"."""
    text = clean(text[:400])  # far more than fits: a hostile name of megabytes is not measured whole
    return text if text_width(text) <= room else fitted(text, room - text_width("…")) + "…"


def broken(name: str, room: float) -> tuple[str, ...]:
    """Return a name in at most two lines of `room` mm, broken at a separator where there is one."""
    name = clip(name, 200)
    if text_width(name) <= room:
        return (name,)
    fitting = len(fitted(name, room))
    breaks = [i + 1 for i in range(fitting) if name[i] in "_- /."]
    cut = breaks[-1] if breaks else fitting
    return name[:cut].rstrip(), shortened(name[cut:], room)


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return places moved at least `gap` apart, in order and, as far as they fit, within low..high."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = [min(max(places[i], low), high) for i in order]
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    # The pass from the left may have pushed the last ones out: push back from the right end.
    if moved and moved[-1] > high:
        moved[-1] = high
        for i in range(len(moved) - 2, -1, -1):
            moved[i] = min(moved[i], moved[i + 1] - gap)
    result = [0.0] * len(places)
    for i, place in zip(order, moved, strict=True):
        result[i] = place
    return result


def threshold_marks(
    places: tuple[float, float], thresholds: tuple[str, str | None], y: float
) -> tuple[tuple[float, Text], ...]:
    """Return (place, label) of the review and the reject threshold; labels keep clear of each other.

    Without a reject threshold there is the one of the review threshold alone.
    """
    texts = (f"review from {thresholds[0]}", f"reject from {thresholds[1]}")
    first_width, second_width = (text_width(text) for text in texts)
    if thresholds[1] is None:
        return ((places[0], _within(Text(places[0], y, texts[0]), 0.0, WIDTH)),)
    gap = (first_width + second_width) / 2 + 3.0
    first = min(max(places[0], first_width / 2), WIDTH - second_width / 2 - gap)
    second = min(max(places[1], first + gap), WIDTH - second_width / 2)
    return (places[0], Text(first, y, texts[0])), (places[1], Text(second, y, texts[1]))


def key_places(entries: Sequence[tuple[str, float]]) -> tuple[tuple[float, float], ...]:
    """Return (start of the sign, start of its text) in mm for each (text, width of its sign) of a key.

    The entries stand in one line in the middle of the page, as far apart as there is room.
    """
    widths = [sign + 1.5 + text_width(text) for text, sign in entries]
    gap = min(9.0, max(0.0, WIDTH - sum(widths)) / max(1, len(entries) - 1))
    x = max(0.0, (WIDTH - sum(widths) - gap * (len(entries) - 1)) / 2)
    places: list[tuple[float, float]] = []
    for (_, sign), width in zip(entries, widths, strict=True):
        places.append((x, x + sign + 1.5))
        x += width + gap
    return tuple(places)


def thinned(
    names: Sequence[str], places: Sequence[float], y: float, anchor: int, low: float, high: float
) -> tuple[Text, ...]:
    """Return labels of every k-th place, that at index `anchor` among them; k is as small as fits."""
    texts = [shortened(name, 22.0) for name in names]
    for stride in range(1, len(texts) + 1):
        chosen = range(anchor % stride, len(texts), stride)
        labels = [_within(Text(places[i], y, texts[i]), low, high) for i in chosen]
        edges = [
            (label.x - text_width(label.text) / 2, label.x + text_width(label.text) / 2) for label in labels
        ]
        if all(left[1] + 1.5 <= right[0] for left, right in pairwise(edges)):
            return tuple(labels)
    return ()


def _within(label: Text, low: float, high: float) -> Text:
    half = text_width(label.text) / 2
    return Text(max(min(label.x, high - half), low + half), label.y, label.text, label.anchor)


@dataclass(frozen=True)
class Box:
    """A rectangle on the chart."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether the two overlap."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def box_of(label: Text) -> Box:
    """Return the rectangle that a label's letters take up."""
    width = text_width(label.text)
    left = label.x - {"start": 0.0, "middle": width / 2, "end": width}[label.anchor]
    return Box(left, label.y - 2.0, left + width, label.y + 0.5)


def place(label: Sequence[Text], taken: list[Box], frame: Box) -> Text | None:
    """Return the first of a label's places that is free and inside the frame, and add it to `taken`."""
    for candidate in label:
        box = box_of(candidate)
        wide = frame.left <= box.left and box.right <= frame.right
        high = frame.top <= box.top and box.bottom <= frame.bottom
        if wide and high and not any(box.meets(other) for other in taken):
            taken.append(box)
            return candidate
    return None
