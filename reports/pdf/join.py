"""Joins blocks into one PDF: pages, tag tree, named destinations and bookmarks (ISO 32000-1)."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pikepdf
from pikepdf import Array, Dictionary, Name, NameTree, OutlineItem, String

from reports.document import Document
from reports.errors import ReportError
from reports.pdf.blocks import Rendered, page_numbers, place_blocks
from reports.pdf.layout import Layout, own_font
from reports.pdf.metadata import attach_files, write_metadata
from reports.style import Paper


def join(document: Document, blocks: Sequence[Rendered], target: Path) -> None:
    """Write the blocks to a file as one PDF/A-3u and PDF/UA-1. The same blocks give the same bytes.

    Raises:
        ReportError: an id that occurs twice, or a link that leads nowhere.
    """
    opened = [pikepdf.open(block.path) for block in blocks if block.path is not None and block.laid.pages]
    try:
        with pikepdf.new() as out:
            _join_pages(out, document, opened, page_numbers(blocks))
            _mark_destinations(out, blocks)
            _mark_bookmarks(out, blocks)
            write_metadata(out, document)
            attach_files(out, document.attached)
            out.save(
                target,
                force_version="1.7",
                object_stream_mode=pikepdf.ObjectStreamMode.generate,
                deterministic_id=True,
            )
    finally:
        for pdf in opened:
            pdf.close()


def _join_pages(
    out: pikepdf.Pdf, document: Document, opened: Sequence[pikepdf.Pdf], numbers: Mapping[str, int]
) -> None:
    root = out.make_indirect(Dictionary(Type=Name.StructTreeRoot))
    whole = out.make_indirect(Dictionary(Type=Name.StructElem, S=Name.Document, P=root, K=Array()))
    # Pairs of the parent tree (ISO 32000-1, 14.7.4.4). A block has first a key for each page, with the
    # elements of its marked content, then one for each annotation, with its element.
    keys: list[Any] = []
    total = sum(len(pdf.pages) for pdf in opened)
    stamp = Stamp(out, document.style.paper)
    for pdf in opened:
        first = len(out.pages)
        for copied in pdf.pages:
            out.pages.append(copied)  # "extend" warns of named destinations, which are made below
        tree = out.copy_foreign(pdf.Root.StructTreeRoot)
        base = len(keys) // 2
        for at, item in enumerate(tree.ParentTree.Nums):
            keys.append(base + int(item) if at % 2 == 0 else item)
        for kid in tree.K[0].K:
            kid.P = whole
            whole.K.append(kid)
        stamp.prepare(out.pages[first])
        for place in range(first, len(out.pages)):
            page = out.pages[place].obj
            page.StructParents = base + place - first
            for annotation in page.get(Name.Annots, []):
                annotation.StructParent = base + int(annotation.StructParent)
                annotation.Contents = String(f"Page {_target_page(annotation, numbers)}")
            stamp.draw(page, place + 1, total)
    root.K = Array([whole])
    root.ParentTree = out.make_indirect(Dictionary(Nums=Array(keys)))
    root.ParentTreeNextKey = len(keys) // 2
    out.Root.StructTreeRoot = root


def _target_page(link: Any, numbers: Mapping[str, int]) -> int:
    """Return the page that a link leads to, counted from 1."""
    anchor = str(link.Dest)
    if anchor not in numbers:
        raise ReportError(f"a link leads to {anchor[:200]!r}, which is nowhere in the document")
    return numbers[anchor]


def _mark_destinations(out: pikepdf.Pdf, blocks: Sequence[Rendered]) -> None:
    tree = NameTree.new(out)
    for first, laid in place_blocks(blocks):
        for name, place in laid.anchors.items():
            page = out.pages[first + place.page]
            tree[name] = Array([page.obj, Name.XYZ, place.x, place.y, 0])
    out.Root.Names = Dictionary(Dests=tree.obj)


def _mark_bookmarks(out: pikepdf.Pdf, blocks: Sequence[Rendered]) -> None:
    """Write the outline. A bookmark hangs under the last one before it with a smaller level."""
    with out.open_outline() as outline:
        above: list[tuple[int, list[OutlineItem]]] = [(0, outline.root)]
        for first, laid in place_blocks(blocks):
            for mark in laid.bookmarks:
                place = mark.place
                item = OutlineItem(mark.label, first + place.page, "XYZ", left=place.x, top=place.y)
                while above[-1][0] >= mark.level:
                    above.pop()
                above[-1][1].append(item)
                above.append((mark.level, item.children))
    out.Root.PageMode = Name.UseOutlines


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
    """Draws "Page n of m" at the foot of pages, as an artifact.

    Only here is the number of all pages known. The glyphs are those of a font that WeasyPrint embeds for a
    page with all characters that are needed.
    """

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
        """Add the font to the resources of a page, which all pages of its block share."""
        page.Resources.Font[_NAME] = self._font

    def draw(self, page: Any, number: int, total: int) -> None:
        """Draw the number of a page, counted from 1, above its own content."""
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
