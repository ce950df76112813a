"""How much of a finding's page is left for its pictures, once its texts and block maps are set.

The lengths are those of report.css and finding.html. Lines are counted from the widths of the very letters.
"""

from math import ceil

from reports.charts.layout import SIZE, text_width
from reports.content.finding import Decided, FindingPage
from reports.pdf.finding_figures import DECISIONS, Shown
from reports.style import Paper
from reports.wording import clip

_PAGE: dict[Paper, float] = {"A4": 249.0, "Letter": 239.0}  # mm, between head and foot
_SPARE = 4.0  # mm that stay free: a line may hold fewer letters than counted
_HEADING = 8.8  # mm, of a heading inside the page
_TINY = 2.29  # mm, 6.5 pt, the size of the block maps' captions
_SMALL = 2.47  # mm, 7 pt, the size of captions
_NOTE = 2.65  # mm, 7.5 pt, the size of notes
_TABLE = 2.82  # mm, 8 pt, the size of tables
_PLAIN = 3.0  # mm, 8.5 pt, the size of sentences


def picture_room(finding: FindingPage, shown: Shown, trust: str, region: str, paper: Paper) -> float:
    """Return the height in mm that a finding's page leaves for picture, map, close-up and their captions.

    Args:
        finding: what the page prints.
        shown: its evidence, whose block maps stand on the page as well.
        trust: what is said of the map.
        region: the caption that pictures and map share.
        paper: the page's size.
    """
    explanation = finding.explanation
    names = [finding.part, finding.lot, finding.station]
    strip = max(_lines(clip(each or "", 80), _TABLE, 33.0) for each in names)
    method = "; ".join((explanation.method, ", ".join(f"{a} {b}" for a, b in explanation.parameters)))
    facts = [clip(finding.uri, 150), clip(method, 1500), *(["carried over"] if finding.carried_over else [])]
    taken = (
        _SPARE
        + 15.5  # the header, the strip's labels, spaces
        + 3.6 * strip
        + (1.5 + 3.4 * _lines(region, _SMALL, 174.0) if region else 0.0)
        + _HEADING
        + 17.0  # the score's bar
        + 4.0 * (_lines("x" * 100 + clip(finding.class_name, 60), _NOTE, 174.0) - 1)
        + _HEADING
        + 4.0 * _lines(trust, _PLAIN, 174.0)
        + _HEADING
        + sum(2.0 + 3.6 * _lines(fact, _TABLE, 151.0) for fact in facts)
        + 9.2  # the digests
        + _disposition(finding.decisions)
    )
    if finding.also:
        taken += 3.6 * _lines("x" * 50 + clip(", ".join(finding.also[:3]), 120), _TABLE, 151.0)
    if shown.rows:
        taken += _HEADING + shown.rows * (shown.thumb[2] + _block_caption(finding, shown) + 2.3)
    return _PAGE[paper] - taken


def _block_caption(finding: FindingPage, shown: Shown) -> float:
    masks = {each.layer: f"{each.kept} of {each.total} masks" for each in finding.explanation.masks}
    lines = (
        _lines(f"10. {clip(name, 48)}", _TINY, shown.thumb[0])
        + (_lines(masks[name], _TINY, shown.thumb[0]) if name in masks else 0)
        for name, _ in shown.blocks
    )
    return 3.1 * max(lines, default=1)


def _disposition(decisions: tuple[Decided, ...]) -> float:
    if not decisions:
        return 18.0
    taken = 16.0
    for each in decisions[-DECISIONS:]:
        who = f"{clip(each.person, 40)}, {clip(each.role, 30)}, {'0' * 26}"
        if each.approved_by:
            who += f"; approved by {clip(each.approved_by, 40)}, {'0' * 26}"
        told = _lines(clip(each.reason, 120), _NOTE, 130.0) + _lines(who, _NOTE, 130.0)
        taken += 2.1 + 3.6 * max(told, 2 + (each.class_name is not None))
    return taken


def _lines(text: str, size: float, width: float) -> int:
    """Return how many lines of `width` mm a text of this size (mm) takes up at most, one at least."""
    return max(1, ceil(text_width(text) * size / SIZE / (0.97 * width)))
