"""Renders one block of a document, from its template to a PDF file: the unit of work of a worker."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from mimetypes import guess_type
from pathlib import Path
from typing import Any

import tinycss2

from reports import wording
from reports.charts import bars
from reports.compose.map_trust import FAIR_DROP, GOOD_DROP, Trust, judge_map
from reports.content.finding import Explanation, FindingPage
from reports.document import Block, Document, FindingPages, finding_anchor
from reports.errors import ReportError
from reports.pdf import finding_figures
from reports.pdf.framed_region import region_sentence, tiles_sentence
from reports.pdf.layout import Asset, Laid, Layout, Sheets, own_font
from reports.pdf.page_figures import DPI, FindingFigures
from reports.pdf.page_room import picture_room
from reports.pdf.templates import OWN, OwnFolder, print_block
from reports.style import Style

_PLACEHOLDER = 88  # printed for page numbers that are not known yet


@dataclass(frozen=True)
class Job:
    """One block to lay out.

    Attributes:
        document: the whole document, without its blocks and attached files.
        block: the block.
        index: the block's place in the document, counted from 0.
        first: the number of the block's first finding, counted from 1 in the whole document.
        target: the file to write.
        numbers: the page of each id in the whole document; None as long as that is not known.
    """

    document: Document
    block: Block | FindingPages
    index: int
    first: int
    target: Path
    numbers: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Rendered:
    """A block laid out. `path` is its file; None while it prints page numbers that are not known yet."""

    laid: Laid
    path: Path | None
    prints_numbers: bool


@dataclass(frozen=True)
class _Page:
    """A finding, with the figures and the bar drawn for it, and what is said of its map and the outline."""

    finding: FindingPage
    figures: FindingFigures
    bar: bars.ScoreBar
    trust: Trust
    region: str
    anchor: str


def render_block(job: Job, sheets: Sheets | None = None) -> Rendered:
    """Lay a block out and write it to its file.

    `sheets`: the document's so far, where this process renders several of its blocks.

    Raises:
        ReportError: see `templates.print_block` and `layout.Layout`.
    """
    printed = print_job(job)
    style = job.document.style
    own = None if style.templates is None else OwnFolder(style.templates)
    sheet = style_sheet(style, own, leads=job.index == 0)
    layout = Layout(printed.html, sheet, _Assets(printed.assets, own), sheets)
    if printed.has_numbers and job.numbers is None:
        return Rendered(layout.laid, None, prints_numbers=True)
    job.target.write_bytes(layout.write())
    return Rendered(layout.laid, job.target, printed.has_numbers)


@dataclass(frozen=True)
class Printed:
    """A block as HTML, with the pictures that it refers to."""

    html: str
    assets: Mapping[str, Asset]
    has_numbers: bool


def print_job(job: Job) -> Printed:
    """Return a block as HTML.

    Raises:
        ReportError: see `templates.print_block`.
    """
    assets = {finding_figures.SCALE: finding_figures.scale_asset()}
    numbers = _Numbers(job.numbers)
    template, context = "finding.html", {}
    if isinstance(job.block, Block):
        template, context = job.block.template, dict(job.block.context)
    else:
        context["pages"] = [
            _draw_page(finding, index, assets, job.document.style)
            for index, finding in enumerate(job.block.findings, start=job.first)
        ]
    html = print_block(job.document, template, context, numbers, _constants())
    return Printed(html, assets, numbers.asked)


def page_numbers(blocks: Sequence[Rendered]) -> dict[str, int]:
    """Return the page, counted from 1, of every id in the document.

    Raises:
        ReportError: an id that occurs twice.
    """
    numbers: dict[str, int] = {}
    for first, laid in place_blocks(blocks):
        for name, place in laid.anchors.items():
            if name in numbers:
                raise ReportError(
                    f"the id {name!r} occurs twice in the document; ids are unique in all its blocks"
                )
            numbers[name] = first + place.page + 1
    return numbers


def place_blocks(blocks: Sequence[Rendered]) -> Iterator[tuple[int, Laid]]:
    """Yield the first page of each block, counted from 0 in the whole document, and the block's layout."""
    first = 0
    for block in blocks:
        yield first, block.laid
        first += block.laid.pages


class _Numbers:
    """The function `page_of` of templates; it remembers whether it was asked."""

    def __init__(self, known: Mapping[str, int] | None) -> None:
        self._known = known
        self.asked = False

    def __call__(self, anchor: str) -> int:
        self.asked = True
        if self._known is None:
            return _PLACEHOLDER
        if anchor not in self._known:
            raise ReportError(f"page_of: nothing in the document has the id {anchor!r}; correct the template")
        return self._known[anchor]


@dataclass(frozen=True)
class _Assets:
    """A function that finds the assets of a block: its pictures, the type family, the user's folder."""

    pictures: Mapping[str, Asset]
    own: OwnFolder | None

    def __call__(self, url: str) -> Asset | None:
        if self.own is not None and url.startswith(OWN):
            name = url.removeprefix(OWN)
            data = self.own.read(name)
            kind = guess_type(name)[0] or "application/octet-stream"
            return None if data is None else Asset(data, kind)
        return self.pictures.get(url) or own_font(url)


def _draw_page(finding: FindingPage, index: int, assets: dict[str, Asset], style: Style) -> _Page:
    evidence = finding.load()
    limits = (finding.review_threshold, finding.reject_threshold)
    texts = (wording.score(finding.score, limits), *(wording.threshold(limit) for limit in limits))
    shown = finding_figures.decode_evidence(finding, evidence)
    trust = judge_map(finding.explanation, finding.class_score, finding.score, shown.map_gap, shown.kept)
    region = "" if shown.region is None else region_sentence(shown.region, finding.class_name)
    if finding.explanation.tiles and shown.pixels is not None:
        region = tiles_sentence(finding, shown.region, len(shown.tiles))
    room = picture_room(finding, shown, trust.sentence, region, style.paper)
    return _Page(
        finding=finding,
        figures=finding_figures.draw_finding(finding, shown, index, assets, room),
        bar=bars.score_bar(
            finding.score, finding.class_score, *limits, (texts[0], texts[1], texts[2]), finding.verdict
        ),
        trust=trust,
        region=region,
        anchor=finding_anchor(index),
    )


@lru_cache
def _constants() -> dict[str, Any]:
    """Return what templates may print besides a block's own context."""
    return {
        "scale": finding_figures.SCALE,
        "dpi": DPI,
        "shown_decisions": finding_figures.DECISIONS,
        "good_drop": GOOD_DROP,
        "fair_drop": FAIR_DROP,
        "kept_share": Explanation.kept_share,
    }


def style_sheet(style: Style, own: OwnFolder | None, *, leads: bool) -> str:
    """Return the style sheets of a block as one: kensa's, that of the paper, and the user's last.

    Args:
        style: names the paper.
        own: the user's folder, whose extra.css is read.
        leads: whether the block is the document's first, whose first page differs.

    Raises:
        ReportError: extra.css has a mistake, or imports another file.
    """
    names = ["report.css", f"{style.paper.lower()}.css", *(["first.css"] if leads else [])]
    sheets = [files("reports").joinpath("templates", name).read_text(encoding="utf-8") for name in names]
    if own is not None and (extra := own.text("extra.css")) is not None:
        for rule in tinycss2.parse_stylesheet(extra):
            if rule.type == "error":
                raise ReportError(f"extra.css, line {rule.source_line}: {rule.message}")
            if rule.type == "at-rule" and rule.lower_at_keyword == "import":
                raise ReportError(
                    f"extra.css, line {rule.source_line}: @import; copy the rules into the file"
                )
        sheets.append(extra)
    return "\n".join(sheets)
