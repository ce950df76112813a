"""Text of a report: hostile strings made harmless, numbers, times, verdicts in a word."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from reports.style import Style

_JOINERS = "\u200c\u200d"  # zero-width, but needed to write Persian, Indic scripts and emoji
_THIN_SPACE = "\u202f"
# What makes a spreadsheet take a cell for a formula, in either width; and our own mark.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")


def clean(text: str) -> str:
    """Return a text in which every character prints, and none changes how its neighbours print.

    Control characters, bidirectional and other invisible format characters, lone surrogates and line
    separators become "‹U+202E›". So do private and unassigned code points, which PDF/A does not take for
    text. Everything else stays as it is.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_harmless(char) else f"‹U+{ord(char):04X}›" for char in text)


def clip(text: str, limit: int) -> str:
    """Return a cleaned text of about `limit` characters; a longer one loses its middle, and says how much."""
    cleaned = clean(text)
    if len(cleaned) <= limit:
        return cleaned
    head, tail = limit * 2 // 3, limit // 3
    return f"{cleaned[:head]} […{grouped(len(cleaned) - head - tail)} characters left out…] {cleaned[-tail:]}"


def inert_cell(cell: str) -> str:
    """Return a cell of a CSV file that no spreadsheet runs as a formula.

    A cell that would be run gets an apostrophe before it, and so does one that begins with an apostrophe:
    taking one leading apostrophe away gives every text back.
    """
    return f"'{cell}" if cell.lstrip(" \xa0").startswith(_FORMULA) else cell


def plain_cell(cell: str) -> str:
    """Return the text of a cell that `inert_cell` made inert; any other cell as it is."""
    text = cell.removeprefix("'")
    return text if inert_cell(text) == cell else cell


def grouped(number: int) -> str:
    """Return a whole number with thin spaces between thousands from 10 000 on (ISO 80000-1)."""
    return f"{number:,}".replace(",", _THIN_SPACE) if abs(number) >= 10_000 else str(number)


def plural(number: int, singular: str, many: str | None = None) -> str:
    """Return "1 picture", "12 pictures"."""
    return f"{grouped(number)} {singular if number == 1 else many or singular + 's'}"


def verb(number: int, singular: str, many: str) -> str:
    """Return the verb that follows `plural`: of one, or of several."""
    return singular if number == 1 else many


def score(value: float, against: Sequence[float] = ()) -> str:
    """Return a score in [0, 1] with four decimals, or with as many as tell it from the thresholds `against`.

    Rounding must not move a score to the other side of a threshold: 0.499996 against 0.5 is not "0.5000".
    """
    for digits in range(4, 10):
        text = f"{value:.{digits}f}"
        shown = float(text)
        if all((shown >= limit) == (value >= limit) for limit in against):
            break
    if shown in (0.0, 1.0) and shown != value:
        return "< 0.0001" if shown == 0.0 else "> 0.9999"
    return text


def threshold(value: float) -> str:
    """Return a threshold in [0, 1] with up to six significant digits."""
    return f"{value:.6g}"


def percent(share: float, digits: int | None = None) -> str:
    """Return a share in [0, 1] as a percentage, with `digits` decimals or as many as say something."""
    value = share * 100
    if digits is None:
        digits = 0 if abs(value - round(value)) < 1e-9 else 1 if 9.95 <= value < 99.95 else 2
    return f"{value:.{digits}f} %"


def day(moment: datetime, style: Style) -> str:
    """Return the day of a moment in a report's zone and date format."""
    return moment.astimezone(style.tzinfo).strftime(style.date_format)


def when(moment: datetime, style: Style) -> str:
    """Return a moment in a report's zone and date format, as "2026-11-23 19:23:19 +09:00"."""
    local = moment.astimezone(style.tzinfo)
    offset = local.strftime("%z")
    return f"{day(local, style)} {local:%H:%M:%S} {offset[:3]}:{offset[3:5]}"


def second(moment: datetime) -> str:
    """Return a moment to the second in UTC, as "2026-11-23 10:23:19Z"."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def short_digest(digest: str) -> str:
    """Return the first 12 characters of a digest, which tell it from its neighbours."""
    return clean(digest.removeprefix("sha256:").removeprefix("content:"))[:12]


def lasting(duration: timedelta) -> str:
    """Return a duration as "2 h 03 min 04 s"; below a minute with one decimal."""
    seconds = duration.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min {rest:02d} s" if hours else f"{minutes} min {rest:02d} s"


@dataclass(frozen=True)
class Conclusion:
    """What the first page says first; `tone` is reject, review, gaps, pass, incomplete or nothing."""

    tone: str
    word: str
    sentence: str


def _is_harmless(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp") or char in _JOINERS
