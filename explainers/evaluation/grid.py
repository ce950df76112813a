"""Example maps side by side, to be looked at: a row for each picture, a column for each explainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation

from explainers.drawing import Floats, Mask, Pixels, overlay
from explainers.errors import ExplainerError

_MARGIN = 8
_LINE = 16
_TRUTH = np.array(((255, 0, 190), (255, 255, 255)), dtype=np.uint8)  # dashes seen on any ground
_DASH = 3  # pixels
_ROUND = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class GridRow:
    """One picture with its maps.

    Attributes:
        caption: above the row.
        pixels: (H, W, 3) uint8 RGB.
        truth: (H, W) bool, the true pixels.
        maps: for each explainer its map (H, W), or the reason why there is none.
    """

    caption: str
    pixels: Pixels
    truth: Mask
    maps: tuple[Floats | str, ...]


def maps_grid(rows: Sequence[GridRow], explainers: Sequence[str], *, tile: int = 192) -> Pixels:
    """Return pictures with the outline of the truth, and beside each the maps laid over it.

    Args:
        rows: one for each picture and class; each with as many maps as there are explainers.
        explainers: headings of the columns.
        tile: longer side of each small picture, in pixels, at least 32.

    Returns:
        (h, w, 3) uint8 RGB on white.

    Raises:
        ExplainerError: no rows, a row with another number of maps, a tile below 32.
    """
    if not rows or tile < 32:
        raise ExplainerError(f"a grid needs rows and tiles of 32 pixels or more, got {len(rows)} and {tile}")
    if wrong := next((row.caption for row in rows if len(row.maps) != len(explainers)), None):
        raise ExplainerError(f"{wrong}: needs one map for each of {', '.join(explainers)}")
    font = ImageFont.load_default(12)
    step = tile + _MARGIN
    size = ((1 + len(explainers)) * step + _MARGIN, _LINE + _MARGIN + len(rows) * (step + _LINE))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)

    def write(text: str, x: int, y: int, width: int) -> None:
        known = " ".join(text.split()).encode("latin-1", "replace").decode("latin-1")
        while known and draw.textlength(known, font) > width:
            known = known[:-1]
        draw.text((x, y), known, "black", font)

    for column, heading in enumerate(("picture, truth", *explainers)):
        write(heading, _MARGIN + column * step, _MARGIN // 2, tile)
    for number, row in enumerate(rows):
        y = _LINE + _MARGIN + number * (step + _LINE)
        write(row.caption, _MARGIN, y, size[0] - 2 * _MARGIN)
        for column, content in enumerate((None, *row.maps)):
            x = _MARGIN + column * step
            if isinstance(content, str):
                write(content, x, y + _LINE + tile // 2, tile)
                continue
            painted = row.pixels if content is None else overlay(row.pixels, content, outline=False)
            sheet.paste(Image.fromarray(_with_truth(painted, row.truth, tile)), (x, y + _LINE))
    return np.array(sheet, dtype=np.uint8)


def save_grid(rows: Sequence[GridRow], explainers: Sequence[str], path: Path) -> None:
    """Write `maps_grid` as a PNG file."""
    Image.fromarray(maps_grid(rows, explainers)).save(path, format="PNG")


def _with_truth(pixels: Pixels, truth: Mask, tile: int) -> npt.NDArray[np.uint8]:
    """Return a picture at tile size, with a dashed line around the truth, one pixel away from it.

    The true pixels stay free: a thin map on a thin defect is seen, and not the line on top of it.
    """
    height, width = truth.shape
    scale = tile / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    # Any true pixel counts: a thin region must not fall between the pixels that are taken.
    shares = Image.fromarray(truth.astype(np.float32)).resize(size, Image.Resampling.BOX)
    gap = binary_dilation(np.asarray(shares) > 0, _ROUND)
    rows, columns = np.nonzero(binary_dilation(gap, _ROUND) & ~gap)
    small[rows, columns] = _TRUTH[(rows // _DASH + columns // _DASH) % 2]
    return small
