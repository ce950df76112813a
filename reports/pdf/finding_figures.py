"""Draws the pictures and maps of a finding, sized and compressed for print."""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from math import floor

import numpy as np
import numpy.typing as npt
from PIL import Image

from explainers.drawing import colourise, overlay, resize_map
from reports.content.finding import Evidence, FindingPage
from reports.pdf.layout import Asset
from reports.style import Paper
from sources.decoding import decode
from sources.errors import Unreadable

Pixels = npt.NDArray[np.uint8]

DPI = 150
_TEXT_WIDTH = 174.0  # mm, of the page's text area
_GUTTER = 4.0  # mm, between columns
DECISIONS = 2  # the last so many of a finding's dispositions are printed on its page
_DECISION = 14.0  # mm that one takes up beyond the boxes to tick
_SPARE: dict[Paper, float] = {"A4": 44.0, "Letter": 33.5}  # mm for these and for block maps
_WIDE = 3.0  # pictures wider than this, in heights, are stacked instead of set side by side
_BUDGETS = {"picture": 19_500, "overlay": 13_500, "map": 1_900}  # bytes
_QUALITIES = (90, 85, 80, 75, 70, 65, 60, 55, 50)


@dataclass(frozen=True)
class Figure:
    """A printed picture: the URL of its bytes, and its size on paper."""

    url: str
    width_mm: float
    height_mm: float


@dataclass(frozen=True)
class BlockFigure:
    """A layer's map, or the fused map, in a column of `column_mm`."""

    layer: str
    figure: Figure
    column_mm: float
    fused: bool = False


@dataclass(frozen=True)
class FindingFigures:
    """The figures of a finding page.

    Attributes:
        stacked: whether the picture and its overlay stand one above the other, not side by side.
        columns: how many block maps stand side by side.
        gap: why there is no picture.
        map_gap: why there is no map.
        width_px, height_px: size of the picture as it was taken.
        reduced: whether fewer pixels are printed than the picture has.
        box: left, top, width and height of the finding's box, in percent of the picture.
    """

    stacked: bool
    columns: int
    picture: Figure | None = None
    overlay: Figure | None = None
    gap: str | None = None
    map_gap: str | None = None
    width_px: int = 0
    height_px: int = 0
    reduced: bool = False
    box: tuple[float, float, float, float] | None = None
    blocks: tuple[BlockFigure, ...] = ()


def draw_finding(
    finding: FindingPage, evidence: Evidence, index: int, assets: dict[str, Asset], paper: Paper = "A4"
) -> FindingFigures:
    """Draw a finding's pictures, as large as fits on one page, and add their bytes to `assets`.

    A picture that is missing or cannot be decoded leaves a marked gap, never a lost report.
    """
    pixels: Pixels | None = None
    gap = evidence.picture_gap or "The picture is not in the record."
    if evidence.picture is not None:
        try:
            pixels = decode(evidence.picture, grey_range=finding.grey_range).pixels
        except Unreadable as error:
            gap = f"The picture cannot be shown: {error}"
    explanation = finding.explanation
    fused = evidence.map if explanation.has_map else None
    map_gap = None
    if fused is None:
        reason = explanation.status if explanation.status != "ok" else "not in the record"
        map_gap = evidence.map_gap or reason
    shown = pixels if pixels is not None else fused
    height_px, width_px = shown.shape[:2] if shown is not None else (1, 1)
    stacked = width_px / height_px > _WIDE
    blocks = list(evidence.block_maps)
    if fused is not None:
        blocks.append(("fused", fused))
    columns = _columns(len(blocks), stacked)
    rows = -(-len(blocks) // columns)
    tallest = 18.0 if stacked else 30.0 if rows == 1 else 14.0
    widest = floor((_TEXT_WIDTH - (columns - 1) * _GUTTER) / columns * 10) / 10
    thumb = _fit_size(width_px, height_px, widest, tallest)
    caption = 8.0 if columns < 8 else 11.0
    taken = rows * (thumb[1] + caption) + _DECISION * len(finding.decisions[-DECISIONS:])
    short = max(0.0, taken - _SPARE[paper] + (12.0 if stacked else 0.0))
    width, height = (
        (_TEXT_WIDTH, 28.0 - short / 2) if stacked else ((_TEXT_WIDTH - _GUTTER) / 2, 54.0 - short)
    )
    width_mm, height_mm = _fit_size(width_px, height_px, width, max(height, 14.0))

    def store(name: str, image: Pixels, kind: str, width: float, height: float) -> Figure:
        url = f"kensa:findings/{index}/{name}"
        assets[url] = _compress(image, _BUDGETS[kind])
        return Figure(url, width, height)

    thumb_rows, thumb_columns = _to_dots(thumb[1]), _to_dots(thumb[0])
    block_figures = tuple(
        BlockFigure(
            layer,
            store(f"block-{i}", colourise(resize_map(values, thumb_rows, thumb_columns)), "map", *thumb),
            widest,
            fused=fused is not None and i == len(blocks) - 1,
        )
        for i, (layer, values) in enumerate(blocks)
    )
    if pixels is None:
        return FindingFigures(stacked, columns, gap=gap, map_gap=map_gap, blocks=block_figures)
    dots_wide, dots_high = _to_dots(width_mm), _to_dots(height_mm)
    reduced = width_px > dots_wide or height_px > dots_high
    printed = _resize_pixels(pixels, dots_wide, dots_high) if reduced else pixels
    picture = store("picture", printed, "picture", width_mm, height_mm)
    laid = None
    if fused is not None:
        # Drawn at print resolution, so that the outline stays fine on a small picture.
        base = _resize_pixels(pixels, dots_wide, dots_high)
        drawn = overlay(base, fused, share=explanation.outline_share)
        laid = store("overlay", drawn, "overlay", width_mm, height_mm)
    return FindingFigures(
        stacked,
        columns,
        picture,
        laid,
        map_gap=map_gap,
        width_px=width_px,
        height_px=height_px,
        reduced=reduced,
        box=_percent_box(explanation.box, width_px, height_px),
        blocks=block_figures,
    )


def _columns(blocks: int, stacked: bool) -> int:
    """Choose how many block maps stand side by side, so that there are two rows of them at most."""
    if stacked:
        return 3 if blocks <= 6 else 4 if blocks <= 8 else 7
    return max(6, min(8, blocks))


SCALE = "kensa:scale"


@lru_cache
def scale_asset() -> Asset:
    """Return the colour scale from 0 to 1, 256 pixels wide; all pages share this one picture."""
    row = np.linspace(0.0, 1.0, 256, dtype=np.float32)[None, :]
    return Asset(_image_bytes(Image.fromarray(colourise(row)), "PNG", optimize=True), "image/png")


def _fit_size(width: float, height: float, most_wide: float, most_high: float) -> tuple[float, float]:
    factor = min(most_wide / width, most_high / height)
    return round(width * factor, 2), round(height * factor, 2)


def _to_dots(millimetres: float) -> int:
    return max(1, round(millimetres / 25.4 * DPI))


def _resize_pixels(pixels: Pixels, width: int, height: int) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def _compress(pixels: Pixels, budget: int) -> Asset:
    """Compress without loss where that fits the budget (bytes), else as the best JPEG that fits.

    Where none fits, the JPEG of the lowest quality is taken.
    """
    grey = bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    # PNG seldom halves a photograph: it is tried only where that would do.
    if pixels.size // (3 if grey else 1) <= 2 * budget:
        data = _image_bytes(image, "PNG", optimize=True)
        if len(data) <= budget:
            return Asset(data, "image/png")
    best = b""
    low, high = 0, len(_QUALITIES) - 1
    while low <= high:  # size falls with quality: search by halves
        middle = (low + high) // 2
        data = _image_bytes(image, "JPEG", quality=_QUALITIES[middle], subsampling=0, optimize=True)
        if len(data) <= budget:
            best, high = data, middle - 1
        else:
            low = middle + 1
    return Asset(
        best or _image_bytes(image, "JPEG", quality=_QUALITIES[-1], subsampling=0, optimize=True),
        "image/jpeg",
    )


def _image_bytes(image: Image.Image, file_format: str, **options: int) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _percent_box(
    box: tuple[int, int, int, int] | None, width: int, height: int
) -> tuple[float, float, float, float] | None:
    if box is None:
        return None
    left, right = (min(max(edge, 0), width) / width * 100 for edge in (box[0], box[2]))
    top, bottom = (min(max(edge, 0), height) / height * 100 for edge in (box[1], box[3]))
    if right <= left or bottom <= top:
        return None
    return left, top, right - left, bottom - top
