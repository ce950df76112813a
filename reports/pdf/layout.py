"""Lays out HTML by WeasyPrint, which gets only what it is handed and leaves the process as it was."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from PIL import ImageFile

# Importing WeasyPrint makes Pillow accept truncated pictures in the whole process; an inspection must not.
_truncated_accepted = ImageFile.LOAD_TRUNCATED_IMAGES
from weasyprint import CSS, HTML  # noqa: E402
from weasyprint.text.fonts import FontConfiguration  # noqa: E402
from weasyprint.urls import URLFetcher, URLFetcherResponse  # noqa: E402

from db.files import workspace_prefix  # noqa: E402
from reports.errors import ReportError  # noqa: E402
from reports.pdf.missing_glyphs import FAMILY, box_font, unprintable  # noqa: E402
from reports.pdf.tags import tidy  # noqa: E402

ImageFile.LOAD_TRUNCATED_IMAGES = _truncated_accepted
# `Layout.write` takes care of characters that no font has: no warning of each.
logging.getLogger("weasyprint").addFilter(lambda record: not str(record.msg).startswith(".notdef glyph"))

_FONTS = {f"kensa:fonts/{name}": name for name in ("Inter-Regular.otf", "Inter-SemiBold.otf")}
_BOXES = "kensa:fonts/missing"


@dataclass(frozen=True)
class Asset:
    """Bytes that a document may refer to by URL."""

    data: bytes
    media_type: str


Find = Callable[[str], Asset | None]


class MemoryFetcher(URLFetcher):  # type: ignore[misc]  # WeasyPrint is untyped
    """Returns what is among a document's own assets; refuses everything else, and remembers that."""

    def __init__(self, find: Find) -> None:
        super().__init__(allowed_protocols=())
        self._find = find
        self._refused: ReportError | None = None

    def fetch(self, url: str, headers: Mapping[str, str] | None = None) -> URLFetcherResponse:
        """Return the asset of this URL.

        Raises:
            ReportError: any other URL. WeasyPrint logs that and goes on; `check` raises the first one again.
        """
        try:
            asset = self._find(url)
            if asset is None:
                raise ReportError(
                    f"the document refers to {url[:200]!r}, which it was not handed; "
                    "correct the template, a report never fetches"
                )
        except ReportError as error:
            self._refused = self._refused or error
            raise
        return URLFetcherResponse(url, asset.data, {"Content-Type": asset.media_type})

    def check(self) -> None:
        """Raise the first `ReportError` if anything was refused."""
        if self._refused is not None:
            raise self._refused


class _Fonts(FontConfiguration):  # type: ignore[misc]  # WeasyPrint is untyped
    """WeasyPrint's fonts, in a folder whose name says whose it is: a killed process's goes with the next run.

    WeasyPrint makes a folder of its own, `weasyprint-…`, only where there is none yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path(mkdtemp(prefix=workspace_prefix("fonts")))


@dataclass(frozen=True)
class Place:
    """A place on a page, in points from its lower left corner; pages are counted from 0."""

    page: int
    x: float
    y: float


@dataclass(frozen=True)
class Bookmark:
    """A bookmark, its level counted from 1."""

    level: int
    label: str
    place: Place


@dataclass(frozen=True)
class Laid:
    """The result of a layout: the number of pages, the place of each id, and the bookmarks in order."""

    pages: int
    anchors: dict[str, Place]
    bookmarks: tuple[Bookmark, ...]


class Sheets:
    """The style sheets of one document, each parsed once, with the fonts that it declares."""

    def __init__(self) -> None:
        self._parsed: dict[str, tuple[CSS, _Fonts]] = {}

    def parsed(self, css: str, fetcher: MemoryFetcher) -> tuple[CSS, _Fonts]:
        """Return a style sheet and its fonts, which the fetcher fetches the first time."""
        if css not in self._parsed:
            fonts = _Fonts()
            self._parsed[css] = CSS(string=css, url_fetcher=fetcher, font_config=fonts), fonts
        return self._parsed[css]


class Layout:
    """HTML laid out under a style sheet, with the assets to which both may refer.

    `sheets`: those of the document so far, where a process lays out several of its blocks.

    Raises:
        ReportError: the document asks for something that it was not handed.
    """

    def __init__(self, html: str, css: str, find: Find, sheets: Sheets | None = None) -> None:
        self._html, self._css, self._find = html, css, find
        self._document = self._render(css, find, sheets or Sheets())

    @property
    def laid(self) -> Laid:
        """The pages, places and bookmarks of this layout."""
        anchors: dict[str, Place] = {}
        bookmarks: list[Bookmark] = []
        for number, page in enumerate(self._document.pages):

            def place(x: float, y: float, number: int = number, height: float = page.height) -> Place:
                return Place(number, round(x * 0.75, 2), round((height - y) * 0.75, 2))  # px of 1/96 inch

            for name, (x, y, *_) in page.anchors.items():
                anchors.setdefault(name, place(x, y))
            for level, label, (x, y), _ in page.bookmarks:
                bookmarks.append(Bookmark(level, label, place(x, y)))
        return Laid(len(self._document.pages), anchors, tuple(bookmarks))

    def glyphs(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the glyph and the width (1/1000 em) of each character of a document in one font."""
        (font,) = self._document.fonts.values()
        glyphs = {text: glyph for glyph, text in font.to_unicode.items()}
        return glyphs, {text: font.widths[glyph] for text, glyph in glyphs.items()}

    def write(self) -> bytes:
        """Return a tagged PDF; characters that no font has are drawn as boxes with their number."""
        # WeasyPrint knows what is missing once it has drawn. Boxes may change the layout, and a font of boxes
        # the fonts of what stands beside them: until nothing more is missing.
        pdf, known = self._draw_pdf(), set[str]()
        while not (lacking := unprintable(self._document.fonts.values())) <= known:
            known |= lacking
            boxes = Asset(box_font(known), "font/ttf")
            face = f"@font-face {{ font-family: {FAMILY}; src: url({_BOXES}); }}\n"

            def find(url: str, boxes: Asset = boxes) -> Asset | None:
                return boxes if url == _BOXES else self._find(url)

            self._document = self._render(face + self._css, find, Sheets())
            pdf = self._draw_pdf()
        return pdf

    def _draw_pdf(self) -> bytes:
        pdf: bytes = self._document.write_pdf(finisher=tidy, pdf_tags=True)
        self._document.url_fetcher.check()  # pictures inside SVG are asked for when they are drawn
        return pdf

    def _render(self, css: str, find: Find, sheets: Sheets) -> Any:
        fetcher = MemoryFetcher(find)
        style, fonts = sheets.parsed(css, fetcher)
        document = HTML(string=self._html, base_url="kensa:part", url_fetcher=fetcher).render(
            stylesheets=[style], font_config=fonts
        )
        fetcher.check()
        return document


@lru_cache
def own_font(url: str) -> Asset | None:
    """Return a file of the embedded type family; None for any other URL."""
    name = _FONTS.get(url)
    return Asset(files("reports").joinpath("fonts", name).read_bytes(), "font/otf") if name else None
