"""Draws the pictures and maps of a finding, sized and compressed for print."""

from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from math import floor

import numpy as np
import numpy.typing as npt
from PIL import Image

from explainers.drawing import colourise, overlay, resize_map, top_mask
from reports.content.finding import Evidence, FindingPage, Map
from reports.pdf.framed_region import Region, outlined_region
from reports.pdf.layout import Asset
from sources.decoding import decode
from sources.errors import Unreadable

Pixels = npt.NDArray[np.uint8]

DPI = 150
_TEXT_WIDTH = 174.0  # mm, of the page's text area
_GUTTER = 4.0  # mm, between columns
DECISIONS = 2  # the last so many of a finding's dispositions are printed on its page
_CAPTION = 6.5  # mm, of a caption of one line and the space below it
_CAPTIONS = 11.5  # mm, of the highest captions below the pictures
_TALLEST = 100.0  # mm, of a picture
_ALONE = 58.0  # mm, of one without a close-up that is no taller than wide: more would show no more pixels
_NARROWEST = 34.0  # mm, of a column with a caption
_CLOSE_WIDTH = (_TEXT_WIDTH - 2 * _GUTTER) / 3  # mm that the close-up has at least beside others
_CLOSE_HEIGHT = 26.0  # mm that it has below others
_MOST_ENLARGED = 8.0  # dots that a picture's pixel is drawn with in each direction, at most
_WIDE = 5.0  # block maps of pictures wider than this, in heights, stand in fewer columns
# Bytes: a page stays below 60 kB. Most go to the close-up, on which a person judges.
_BUDGETS = {"picture": 8_000, "map": 9_000, "close-up": 17_000, "block": 1_900}
_QUALITIES = (90, 85, 80, 75, 70, 65, 60, 55, 50, 45, 40)


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
class CloseUp:
    """A part of the picture with every pixel of it drawn.

    Attributes:
        figure: the part; a pixel of the picture is `pixel_mm` wide and high on paper.
        left, top, right, bottom: its place in the picture, in pixels, the last two exclusive.
        whole: whether it holds all of the framed piece with the map's peak, or a part around the peak alone.
    """

    figure: Figure
    left: int
    top: int
    right: int
    bottom: int
    pixel_mm: float
    whole: bool


@dataclass(frozen=True)
class Column:
    """Figures that stand below each other in a column: "picture", "map", "close-up"."""

    width_mm: float
    panels: tuple[str, ...]


@dataclass(frozen=True)
class FindingFigures:
    """The figures of a finding page.

    Attributes:
        panels: the columns in which picture, map and close-up stand side by side.
        columns: how many block maps stand side by side.
        gap: why there is no picture.
        map_gap: why there is no map.
        width_px, height_px: size of the picture as it was taken.
        reduced: whether fewer pixels are printed than the picture has.
        region: what the outline holds, and the frames around its pieces; None without a picture or a map.
    """

    columns: int
    panels: tuple[Column, ...] = ()
    picture: Figure | None = None
    overlay: Figure | None = None
    close_up: CloseUp | None = None
    gap: str | None = None
    map_gap: str | None = None
    width_px: int = 0
    height_px: int = 0
    reduced: bool = False
    region: Region | None = None
    blocks: tuple[BlockFigure, ...] = ()


@dataclass(frozen=True)
class Shown:
    """The evidence of a finding, decoded and measured: what there is to draw, and why what is missing is.

    `kept` is the share of the picture's pixels that were left when the masked score was measured, in [0, 1].
    """

    pixels: Pixels | None
    map: Map | None
    blocks: tuple[tuple[str, Map], ...]
    gap: str | None
    map_gap: str | None
    region: Region | None
    kept: float | None

    @property
    def aspect(self) -> float:
        """Width of the picture over its height."""
        shown = self.pixels if self.pixels is not None else self.map
        return 1.0 if shown is None else shown.shape[1] / shown.shape[0]

    @property
    def columns(self) -> int:
        """How many block maps stand side by side, so that there are two rows of them at most."""
        blocks = len(self.blocks) + (self.map is not None)
        if self.aspect > _WIDE:
            return 3 if blocks <= 6 else 4 if blocks <= 8 else 7
        return max(6, min(8, blocks))

    @property
    def rows(self) -> int:
        """How many rows of block maps there are."""
        return -(-(len(self.blocks) + (self.map is not None)) // self.columns)

    @property
    def thumb(self) -> tuple[float, float, float]:
        """Width of a block map's column, width and height of a block map, in mm."""
        widest = floor((_TEXT_WIDTH - (self.columns - 1) * _GUTTER) / self.columns * 10) / 10
        tallest = (
            18.0
            if self.aspect > _WIDE
            else 25.6
            if self.rows == 1 and self.aspect >= 1.0
            else 22.0
            if self.rows == 1
            else 14.0
        )
        return widest, *_fit_size(self.aspect, 1.0, widest, tallest)


def decode_evidence(finding: FindingPage, evidence: Evidence) -> Shown:
    """Return what there is to draw of a finding.

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
    map_gap, region, kept = None, None, None
    if fused is None:
        reason = explanation.status if explanation.status != "ok" else "not in the record"
        map_gap = evidence.map_gap or reason
    else:
        kept = float(top_mask(fused, explanation.kept_share).mean())
        if pixels is not None:
            region = outlined_region(fused, explanation, pixels.shape[1], pixels.shape[0])
    return Shown(pixels, fused, evidence.block_maps, gap if pixels is None else None, map_gap, region, kept)


def draw_finding(
    finding: FindingPage, shown: Shown, index: int, assets: dict[str, Asset], room: float
) -> FindingFigures:
    """Draw a finding's pictures and maps, and add their bytes to `assets`.

    Args:
        finding: the finding.
        shown: its evidence.
        index: its number, counted from 1 in the whole document.
        assets: what the document may refer to.
        room: height in mm for picture, map and close-up, with the captions right below them.
    """
    columns = shown.columns
    widest, *thumb = shown.thumb
    pixels, fused = shown.pixels, shown.map
    blocks = list(shown.blocks)
    if fused is not None:
        blocks.append(("fused", fused))

    def store(name: str, image: Pixels, kind: str, width: float, height: float) -> Figure:
        url = f"kensa:findings/{index}/{name}"
        assets[url] = _compress(image, _BUDGETS[kind])
        return Figure(url, width, height)

    thumb_rows, thumb_columns = _to_dots(thumb[1]), _to_dots(thumb[0])
    block_figures = tuple(
        BlockFigure(
            layer,
            store(f"block-{i}", colourise(resize_map(values, thumb_rows, thumb_columns)), "block", *thumb),
            widest,
            fused=fused is not None and i == len(blocks) - 1,
        )
        for i, (layer, values) in enumerate(blocks)
    )
    missing = FindingFigures(columns, gap=shown.gap, map_gap=shown.map_gap, blocks=block_figures)
    if pixels is None:
        return missing
    region = shown.region
    height_px, width_px = pixels.shape[:2]
    room = max(room - _CAPTIONS, 10.0)
    place = _arrange(shown.aspect, room, close_up=region is not None and bool(region.frames))
    crop = None
    if region is not None and place.close_up is not None:
        crop = _close_up_place(region, place.close_up, width_px, height_px)
        if crop.size == (width_px, height_px):  # it would show the picture once more
            crop, place = None, _arrange(shown.aspect, room, close_up=False)
    width_mm, height_mm = place.picture
    dots_wide, dots_high = _to_dots(width_mm), _to_dots(height_mm)
    reduced = width_px > dots_wide or height_px > dots_high
    printed = _resize_pixels(pixels, dots_wide, dots_high) if reduced else pixels
    laid, close_up = None, None
    if fused is not None:
        # Drawn at print resolution, so that the outline stays fine on a small picture.
        base = printed if reduced else _resize_pixels(pixels, dots_wide, dots_high)
        drawn = overlay(base, fused, share=finding.explanation.outline_share)
        laid = store("map", drawn, "map", width_mm, height_mm)
    if crop is not None:
        left, top, right, bottom = crop.box
        pixel_mm = crop.scale / DPI * 25.4
        size = round((right - left) * pixel_mm, 2), round((bottom - top) * pixel_mm, 2)
        part = np.ascontiguousarray(pixels[top:bottom, left:right])
        figure = store("close-up", part, "close-up", *size)
        close_up = CloseUp(figure, left, top, right, bottom, pixel_mm, crop.whole)
    return replace(
        missing,
        panels=place.columns,
        picture=store("picture", printed, "picture", width_mm, height_mm),
        overlay=laid,
        close_up=close_up,
        width_px=width_px,
        height_px=height_px,
        reduced=reduced,
        region=region,
    )


@dataclass(frozen=True)
class _Arrangement:
    """Where the figures stand: the size of the picture and its map, and the room of the close-up, in mm."""

    columns: tuple[Column, ...]
    picture: tuple[float, float]
    close_up: tuple[float, float] | None = None


def _arrange(aspect: float, room: float, *, close_up: bool) -> _Arrangement:
    """Choose how picture, map and close-up stand: the way that shows the picture largest.

    Args:
        aspect: width of the picture over its height.
        room: height in mm for figures, and captions between two that stand below each other.
        close_up: whether there is one.
    """
    half = (room - _CAPTION) / 2
    columns: tuple[Column, ...]
    if not close_up:
        tallest = _TALLEST if aspect < 1.0 else _ALONE
        beside = min(aspect * min(room, tallest), (_TEXT_WIDTH - _GUTTER) / 2)
        below = min(aspect * half, _TEXT_WIDTH)
        if beside >= below:
            wide = max(beside, _NARROWEST)
            return _Arrangement((Column(wide, ("picture",)), Column(wide, ("map",))), _sized(beside, aspect))
        return _Arrangement((Column(_TEXT_WIDTH, ("picture", "map")),), _sized(below, aspect))
    row = min(aspect * min(room, _TALLEST), _CLOSE_WIDTH)
    pair = min(aspect * half, _TEXT_WIDTH - _GUTTER - _CLOSE_WIDTH)
    stack = min(aspect * (half - (_CLOSE_HEIGHT + _CAPTION) / 2), _TEXT_WIDTH)
    if row >= max(pair, stack):
        wide = max(row, _NARROWEST)
        left = _TEXT_WIDTH - 2 * (wide + _GUTTER)
        # Beside a picture that is lower than the room, the close-up is a square at most.
        high = min(room, _TALLEST, max(row / aspect, left))
        columns = (Column(wide, ("picture",)), Column(wide, ("map",)), Column(left, ("close-up",)))
        return _Arrangement(columns, _sized(row, aspect), (left, high))
    if pair >= stack:
        left = _TEXT_WIDTH - _GUTTER - pair
        high = min(room, max(2 * pair / aspect + _CAPTION, left))
        columns = (Column(pair, ("picture", "map")), Column(left, ("close-up",)))
        return _Arrangement(columns, _sized(pair, aspect), (left, high))
    high = room - 2 * (stack / aspect + _CAPTION)
    columns = (Column(_TEXT_WIDTH, ("picture", "map", "close-up")),)
    return _Arrangement(columns, _sized(stack, aspect), (_TEXT_WIDTH, high))


def _sized(width: float, aspect: float) -> tuple[float, float]:
    return round(width, 2), round(width / aspect, 2)


@dataclass(frozen=True)
class _Crop:
    """The place of a close-up in the picture, in pixels, and how many dots a pixel is drawn with."""

    box: tuple[int, int, int, int]
    scale: float
    whole: bool

    @property
    def size(self) -> tuple[int, int]:
        return self.box[2] - self.box[0], self.box[3] - self.box[1]


def _close_up_place(region: Region, room: tuple[float, float], width: int, height: int) -> _Crop:
    """Place a close-up that fills `room` (mm): the framed piece with the map's peak and what surrounds it.

    No pixel is left out: a piece that is too large for that is shown around the peak alone.
    """
    left, top, right, bottom = region.frames[0]
    dots_wide, dots_high = _to_dots(room[0]), _to_dots(room[1])
    across, down = (1.3 * (right - left) + 8, 1.3 * (bottom - top) + 8)
    scale = min(dots_wide / across, dots_high / down)
    whole = min(dots_wide / (right - left), dots_high / (bottom - top)) >= 1.0
    scale = min(max(scale, 1.0), _MOST_ENLARGED)
    size = min(width, int(dots_wide / scale)), min(height, int(dots_high / scale))
    middle = ((left + right) / 2, (top + bottom) / 2) if whole else region.peak
    x, y = (
        min(max(round(at - side / 2), 0), most - side)
        for at, side, most in zip(middle, size, (width, height), strict=True)
    )
    return _Crop((x, y, x + size[0], y + size[1]), scale, whole)


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
