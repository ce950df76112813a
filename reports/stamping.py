"""The page numbers: known when all parts are laid out, so they are drawn when these are joined."""

from io import BytesIO
from typing import Any

import pikepdf

from reports.document import Paper
from reports.weasy import Layout, own_font

_SIZE = 7.0  # points
_LINE = 4 / 25.4 * 72  # points, the line's height
# How far above the page's lower edge the foot's line begins, and how far from the right one it ends,
# in mm (a4.css, letter.css).
_PLACES: dict[Paper, tuple[float, float]] = {"A4": (18.0, 18.0), "Letter": (14.0, 20.95)}
_ASCENT, _DESCENT = 0.96875, 0.2412  # of the type family, in em
_NAME = "/KensaPage"
_ALPHABET = "Page 0123456789 of"
_CSS = """
@font-face { font-family: Kensa; src: url(kensa:fonts/Inter-Regular.otf); }
p { font: 7pt Kensa; font-variant-numeric: tabular-nums lining-nums; font-kerning: none; }
"""


class Stamp:
    """Draws "Page n of m" at the foot of a page, as an artifact."""

    def __init__(self, out: pikepdf.Pdf, paper: Paper) -> None:
        html = f'<html lang="en"><title>Page</title><body><p>{_ALPHABET}</p></body></html>'
        layout = Layout(html, _CSS, own_font)
        with pikepdf.open(BytesIO(layout.write())) as pdf:
            (font,) = pdf.pages[0].Resources.Font.values()
            self._font = out.copy_foreign(font)
        self._glyphs, self._widths = layout.glyphs()
        self._out = out
        self._before = out.make_indirect(pikepdf.Stream(out, b"q"))
        above, beside = _PLACES[paper]
        self._right = beside / 25.4 * 72
        self._base = above / 25.4 * 72 - (_LINE - (_ASCENT + _DESCENT) * _SIZE) / 2 - _ASCENT * _SIZE

    def prepare(self, page: Any) -> None:
        """Make the font known to a page, and to those that share its resources."""
        page.Resources.Font[_NAME] = self._font

    def draw(self, page: Any, number: int, total: int) -> None:
        """Draw a page's number, counted from 1."""
        text = f"Page {number} of {total}"
        width = sum(self._widths[char] for char in text) / 1000 * _SIZE
        x = float(page.MediaBox[2]) - self._right - width
        shown = "".join(f"{self._glyphs[char]:04x}" for char in text)
        drawn = (
            f"Q /Artifact <</Type /Pagination /Subtype /Footer>> BDC BT {_NAME} {_SIZE} Tf "
            f"0.0863 0.098 0.1137 rg {x:.2f} {self._base:.2f} Td <{shown}> Tj ET EMC"
        )
        stamp = pikepdf.Stream(self._out, drawn.encode())
        page.Contents = pikepdf.Array([self._before, page.Contents, self._out.make_indirect(stamp)])
