"""Draws a finding on a tiled picture: the whole picture reduced, and a close-up with every pixel."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from explainers.tile_maps import tiles_overlay
from reports.content.finding import Box, FindingPage, Map
from reports.pdf.framed_region import Region
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
    CloseUp,
    Column,
    Figure,
    FindingFigures,
    Pixels,
    close_up_place,
    compressed_asset,
    resize_pixels,
    scale_bar,
    to_dots,
)

# Bytes: a page stays below 100 kB. A defect of a few pixels must outlive the compression of the close-up.
_BUDGETS = {"map": 12_000, "close-up": 36_000, "close-up-map": 18_000}
_SMALLEST_FRAME = 2.4  # mm: a smaller one is not seen on the whole picture
_WIDE = 2.2  # pictures wider than this, in heights, stand above their close-ups


@dataclass(frozen=True)
class _Arrangement:
    """The size of the whole picture and the room of each close-up, in mm, and whether they stand below it."""

    picture: tuple[float, float]
    close_up: tuple[float, float]
    below: bool


def draw_tiles(
    missing: FindingFigures,
    finding: FindingPage,
    pixels: Pixels,
    tiles: Sequence[tuple[Box, Map]],
    region: Region | None,
    folder: str,
    assets: dict[str, Asset],
    room: float,
) -> FindingFigures:
    """Draw a tiled picture with the maps of its tiles, the close-up, and the close-up with the maps.

    Args:
        missing: the page's other figures.
        finding: the finding.
        pixels: of the picture.
        tiles: rectangle and map of the tiles that have one.
        region: what is framed; without it the close-up shows the strongest tile.
        folder: the figures' place in `assets`.
        assets: what the document may refer to; the figures' bytes are added.
        room: height in mm for the figures, with the captions right below them.
    """
    height_px, width_px = pixels.shape[:2]

    def stored_figure(name: str, image: Pixels, size: tuple[float, float]) -> Figure:
        url = f"kensa:{folder}/{name}"
        assets[url] = compressed_asset(image, _BUDGETS[name])
        return Figure(url, *size)

    place = _arranged(width_px / height_px, max(room - CAPTIONS - SCALE_BAR, 20.0))
    dots_wide, dots_high = to_dots(place.picture[0]), to_dots(place.picture[1])
    whole = resize_pixels(pixels, dots_wide, dots_high)
    share = finding.explanation.outline_share
    figures = replace(
        missing,
        overlay=stored_figure(
            "map", tiles_overlay(whole, tiles, (0, 0, width_px, height_px), share=share), place.picture
        ),
        frames=() if region is None else _seen_frames(region, place.picture),
        width_px=width_px,
        height_px=height_px,
        reduced=width_px > dots_wide or height_px > dots_high,
        region=region,
    )
    left, top, right, bottom = finding.explanation.tiles[0].rectangle
    middle = ((left + right) / 2, (top + bottom) / 2)
    shown = region or Region(0.0, False, ((left, top, right, bottom),), 1, 0.0, middle, width_px, height_px)
    crop = close_up_place(shown, place.close_up, width_px, height_px)
    left, top, right, bottom = crop.box
    pixel_mm = crop.scale / DPI * 25.4
    size = round((right - left) * pixel_mm, 2), round((bottom - top) * pixel_mm, 2)
    part = np.ascontiguousarray(pixels[top:bottom, left:right])
    close_up = CloseUp(stored_figure("close-up", part, size), left, top, right, bottom, pixel_mm, crop.whole)
    close_up_map = None
    if tiles:
        # Drawn at print resolution, so that the outline stays fine where a pixel is many dots.
        base = resize_pixels(part, to_dots(size[0]), to_dots(size[1]))
        close_up_map = stored_figure("close-up-map", tiles_overlay(base, tiles, crop.box, share=share), size)
    wide, close = max(place.picture[0], NARROWEST), place.close_up[0]
    names = ("close-up", "close-up map") if tiles else ("close-up",)
    first, close_ups = Column(wide, ("map",)), tuple(Column(close, (name,)) for name in names)
    return replace(
        figures,
        panels=(first,) if place.below else (first, *close_ups),
        below=close_ups if place.below else (),
        close_up=close_up,
        close_up_map=close_up_map,
        scale_bar=scale_bar(close_up, finding.pixel_size),
    )


def _arranged(aspect: float, room: float) -> _Arrangement:
    """Place the whole picture beside its close-ups, or above them where it is wide.

    Args:
        aspect: width of the picture over its height.
        room: height in mm for the figures, and captions between two that stand below each other.
    """
    if aspect <= _WIDE:
        width = min(aspect * min(room, TALLEST), (TEXT_WIDTH - 2 * GUTTER) / 3)
        close = (TEXT_WIDTH - 2 * GUTTER - max(width, NARROWEST)) / 2
        return _Arrangement(_sized(width, aspect), (close, min(room, close)), below=False)
    width = min(TEXT_WIDTH, aspect * 0.4 * room)
    close = (TEXT_WIDTH - GUTTER) / 2
    left = room - width / aspect - CAPTION
    return _Arrangement(_sized(width, aspect), (close, max(min(left, close), 10.0)), below=True)


def _sized(width: float, aspect: float) -> tuple[float, float]:
    return round(width, 2), round(max(width / aspect, 0.2), 2)


def _seen_frames(
    region: Region, printed: tuple[float, float]
) -> tuple[tuple[float, float, float, float], ...]:
    """Return `Region.percent_frames`, each so large on a picture of this size (mm) that it is seen."""
    least = [min(100.0, 100 * _SMALLEST_FRAME / side) for side in printed]
    frames = []
    for x, y, width, height in region.percent_frames:
        wide, high = max(width, least[0]), max(height, least[1])
        left = min(max(x + (width - wide) / 2, 0.0), 100 - wide)
        top = min(max(y + (height - high) / 2, 0.0), 100 - high)
        frames.append((left, top, wide, high))
    return tuple(frames)
