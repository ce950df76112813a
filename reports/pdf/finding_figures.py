"""Draws the pictures and maps of a finding, sized and compressed for print."""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import floor

import numpy as np
from PIL import Image

from explainers.drawing import colourise, overlay, resize_map, top_mask
from reports.content.finding import Box, Evidence, FindingPage, Map
from reports.pdf.framed_region import Region, outlined_region, tiles_region
from reports.pdf.layout import Asset
from reports.pdf.page_figures import (
    CAPTION,
    CAPTIONS,
    DPI,
    GUTTER,
    NARROWEST,
    SCALE_BAR,
    TALLEST,
    TEXT_WIDTH,
    BlockFigure,
    CloseUp,
    Column,
    Figure,
    FindingFigures,
    Pixels,
    close_up_place,
    compressed_asset,
    image_bytes,
    resize_pixels,
    scale_bar,
    to_dots,
)
from reports.pdf.tiled_figures import draw_tiles
from sources.decoding import decode
from sources.errors import Unreadable

DECISIONS = 2  # the last so many of a finding's dispositions are printed on its page
_ALONE = 58.0  # mm, of one without a close-up that is no taller than wide: more would show no more pixels
_CLOSE_WIDTH = (TEXT_WIDTH - 2 * GUTTER) / 3  # mm that the close-up has at least beside others
_CLOSE_HEIGHT = 26.0  # mm that it has below others
_WIDE = 5.0  # block maps of pictures wider than this, in heights, stand in fewer columns
# Bytes: a page stays below 60 kB. Most go to the close-up, on which a person judges.
_BUDGETS = {"picture": 8_000, "map": 9_000, "close-up": 17_000, "block": 1_900}


@dataclass(frozen=True)
class Shown:
    """The evidence of a finding, decoded and measured: what there is to draw, and why what is missing is.

    `kept` is the share of the picture's pixels that were left when the masked score was measured, in [0, 1].
    Of a tiled picture `tiles` holds the maps with their rectangles; `map`, `blocks` and `kept` are of the
    strongest tile.
    """

    pixels: Pixels | None
    map: Map | None
    blocks: tuple[tuple[str, Map], ...]
    gap: str | None
    map_gap: str | None
    region: Region | None
    kept: float | None
    tiles: tuple[tuple[Box, Map], ...] = ()

    @property
    def block_aspect(self) -> float:
        """Width of a block map over its height: of a tiled picture, the tile's."""
        if self.tiles and self.map is not None:
            return float(self.map.shape[1] / self.map.shape[0])
        return self.aspect

    @property
    def aspect(self) -> float:
        """Width of the picture over its height."""
        shown = self.pixels if self.pixels is not None else self.map
        return 1.0 if shown is None else shown.shape[1] / shown.shape[0]

    @property
    def columns(self) -> int:
        """How many block maps stand side by side, so that there are two rows of them at most."""
        blocks = len(self.blocks) + (self.map is not None)
        if self.block_aspect > _WIDE:
            return 3 if blocks <= 6 else 4 if blocks <= 8 else 7
        return max(6, min(8, blocks))

    @property
    def rows(self) -> int:
        """How many rows of block maps there are."""
        return -(-(len(self.blocks) + (self.map is not None)) // self.columns)

    @property
    def thumb(self) -> tuple[float, float, float]:
        """Width of a block map's column, width and height of a block map, in mm."""
        widest = floor((TEXT_WIDTH - (self.columns - 1) * GUTTER) / self.columns * 10) / 10
        tallest = (
            18.0
            if self.block_aspect > _WIDE
            else 25.6
            if self.rows == 1 and self.block_aspect >= 1.0
            else 22.0
            if self.rows == 1
            else 14.0
        )
        return widest, *_fit_size(self.block_aspect, 1.0, widest, tallest)


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
    tiles = evidence.tiles if explanation.has_map else ()
    if explanation.tiles:
        fused = dict(tiles).get(explanation.tiles[0].rectangle)
        if pixels is not None:
            region = tiles_region(tiles, explanation, pixels.shape[1], pixels.shape[0])
    if fused is None and not tiles:
        reason = explanation.status if explanation.status != "ok" else "not in the record"
        map_gap = evidence.map_gap or reason
    elif fused is not None:
        kept = float(top_mask(fused, explanation.kept_share).mean())
        if pixels is not None and not tiles:
            region = outlined_region(fused, explanation, pixels.shape[1], pixels.shape[0])
    blocks = evidence.block_maps if fused is not None or not explanation.tiles else ()
    return Shown(pixels, fused, blocks, gap if pixels is None else None, map_gap, region, kept, tiles)


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
        assets[url] = compressed_asset(image, _BUDGETS[kind])
        return Figure(url, width, height)

    thumb_rows, thumb_columns = to_dots(thumb[1]), to_dots(thumb[0])
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
    if finding.explanation.tiles:
        return draw_tiles(
            missing, finding, pixels, shown.tiles, shown.region, f"findings/{index}", assets, room
        )
    region = shown.region
    height_px, width_px = pixels.shape[:2]
    room = max(room - CAPTIONS - (SCALE_BAR if finding.pixel_size else 0.0), 10.0)
    place = _arrange(shown.aspect, room, close_up=region is not None and bool(region.frames))
    crop = None
    if region is not None and place.close_up is not None:
        crop = close_up_place(region, place.close_up, width_px, height_px)
        if crop.size == (width_px, height_px):  # it would show the picture once more
            crop, place = None, _arrange(shown.aspect, room, close_up=False)
    width_mm, height_mm = place.picture
    dots_wide, dots_high = to_dots(width_mm), to_dots(height_mm)
    reduced = width_px > dots_wide or height_px > dots_high
    printed = resize_pixels(pixels, dots_wide, dots_high) if reduced else pixels
    laid, close_up = None, None
    if fused is not None:
        # Drawn at print resolution, so that the outline stays fine on a small picture.
        base = printed if reduced else resize_pixels(pixels, dots_wide, dots_high)
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
        frames=() if region is None else region.percent_frames,
        close_up=close_up,
        scale_bar=scale_bar(close_up, finding.pixel_size) if close_up and finding.pixel_size else None,
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
    half = (room - CAPTION) / 2
    columns: tuple[Column, ...]
    if not close_up:
        tallest = TALLEST if aspect < 1.0 else _ALONE
        beside = min(aspect * min(room, tallest), (TEXT_WIDTH - GUTTER) / 2)
        below = min(aspect * half, TEXT_WIDTH)
        if beside >= below:
            wide = max(beside, NARROWEST)
            return _Arrangement((Column(wide, ("picture",)), Column(wide, ("map",))), _sized(beside, aspect))
        return _Arrangement((Column(TEXT_WIDTH, ("picture", "map")),), _sized(below, aspect))
    row = min(aspect * min(room, TALLEST), _CLOSE_WIDTH)
    pair = min(aspect * half, TEXT_WIDTH - GUTTER - _CLOSE_WIDTH)
    stack = min(aspect * (half - (_CLOSE_HEIGHT + CAPTION) / 2), TEXT_WIDTH)
    if row >= max(pair, stack):
        wide = max(row, NARROWEST)
        left = TEXT_WIDTH - 2 * (wide + GUTTER)
        # Beside a picture that is lower than the room, the close-up is a square at most.
        high = min(room, TALLEST, max(row / aspect, left))
        columns = (Column(wide, ("picture",)), Column(wide, ("map",)), Column(left, ("close-up",)))
        return _Arrangement(columns, _sized(row, aspect), (left, high))
    if pair >= stack:
        left = TEXT_WIDTH - GUTTER - pair
        high = min(room, max(2 * pair / aspect + CAPTION, left))
        columns = (Column(pair, ("picture", "map")), Column(left, ("close-up",)))
        return _Arrangement(columns, _sized(pair, aspect), (left, high))
    high = room - 2 * (stack / aspect + CAPTION)
    columns = (Column(TEXT_WIDTH, ("picture", "map", "close-up")),)
    return _Arrangement(columns, _sized(stack, aspect), (TEXT_WIDTH, high))


def _sized(width: float, aspect: float) -> tuple[float, float]:
    return round(width, 2), round(width / aspect, 2)


SCALE = "kensa:scale"


@lru_cache
def scale_asset() -> Asset:
    """Return the colour scale from 0 to 1, 256 pixels wide; all pages share this one picture."""
    row = np.linspace(0.0, 1.0, 256, dtype=np.float32)[None, :]
    return Asset(image_bytes(Image.fromarray(colourise(row)), "PNG", optimize=True), "image/png")


def _fit_size(width: float, height: float, most_wide: float, most_high: float) -> tuple[float, float]:
    factor = min(most_wide / width, most_high / height)
    return round(width * factor, 2), round(height * factor, 2)
