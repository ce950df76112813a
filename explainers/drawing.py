"""Attribution maps as pictures: colour scale, overlay, outline, figure. numpy and Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from explainers.errors import ExplainerError

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Ten equidistant colours of viridis (van der Walt and Smith, CC0): perceptually uniform, readable in
# greyscale print and with the common colour-vision deficiencies. Linear interpolation fills the rest.
_VIRIDIS = np.array(
    [
        (68, 1, 84),
        (72, 40, 120),
        (62, 73, 137),
        (49, 104, 142),
        (38, 130, 142),
        (31, 158, 137),
        (53, 183, 121),
        (110, 206, 88),
        (181, 222, 43),
        (253, 231, 37),
    ],
    dtype=np.float32,
)
# Pillow's built-in font has no such characters.
_DASHES = str.maketrans("–—−…", "---.")
_FONT_SIZE = 13
_MARGIN = 10
_LINE = (255, 255, 255)
_LINE_EDGE = (20, 20, 20)


def colourise(values: Floats) -> Pixels:
    """Return a map painted with viridis (dark violet 0, yellow 1).

    Args:
        values: (h, w) finite floats; what lies outside [0, 1] is clipped.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        ExplainerError: the map is not two-dimensional, is empty, or holds NaN or infinity.
    """
    position = np.clip(_checked_map(values), 0.0, 1.0) * (len(_VIRIDIS) - 1)
    lower = np.minimum(position.astype(np.intp), len(_VIRIDIS) - 2)
    share = (position - lower)[..., None]
    colours = _VIRIDIS[lower] * (1 - share) + _VIRIDIS[lower + 1] * share
    painted: Pixels = np.rint(colours).astype(np.uint8)
    return painted


def top_mask(values: Floats, share: float = 0.2) -> Mask:
    """Return the pixels among the highest `share` of a map.

    Pixels tied with the last one taken are all taken. A pixel at 0 is never taken: where fewer pixels than
    `share` are above 0, the rest is not filled up with arbitrary ones.

    Args:
        values: (h, w) finite floats, 0 meaning "no attribution".
        share: in (0, 1]; SISE's mIoU compares the top 20 % with the truth.

    Returns:
        (h, w) bool.

    Raises:
        ExplainerError: a bad map (see `colourise`) or a share outside (0, 1].
    """
    if not 0.0 < share <= 1.0:
        raise ExplainerError(f"share must lie in (0, 1], got {share}")
    checked = _checked_map(values)
    count = max(1, round(share * checked.size))
    threshold = np.partition(checked, checked.size - count, axis=None)[checked.size - count]
    taken: Mask = (checked >= threshold) & (checked > 0)
    return taken


def outline(values: Floats, share: float = 0.2, *, thickness: int = 1) -> Mask:
    """Return the edge of the region that holds the top `share` of a map's pixels.

    Args:
        values: (h, w) finite floats, 0 meaning "no attribution".
        share: in (0, 1], see `top_mask`.
        thickness: of the line, in pixels, at least 1, counted from the region's edge inwards.

    Returns:
        (h, w) bool, True on the line. Regions that touch the border of the picture are closed along it.

    Raises:
        ExplainerError: see `top_mask`; or a thickness below 1.
    """
    if thickness < 1:
        raise ExplainerError(f"thickness must be at least 1, got {thickness}")
    region = top_mask(values, share)
    core = region
    for _ in range(thickness):
        core = _eroded(core)
    return region & ~core


def resize_map(values: Floats, height: int, width: int) -> npt.NDArray[np.float32]:
    """Return a map brought to another size (bilinear, half-pixel centres).

    Args:
        values: (h, w) finite floats.
        height: rows of the result.
        width: columns of the result.

    Returns:
        (height, width) float32.

    Raises:
        ExplainerError: a bad map (see `colourise`).
    """
    checked = _checked_map(values)
    if checked.shape == (height, width):
        return checked
    resized = Image.fromarray(checked).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def overlay(
    pixels: Pixels, values: Floats, alpha: float = 0.5, outline: bool = True, *, share: float = 0.2
) -> Pixels:
    """Return a picture with its map laid over it: the higher the attribution, the stronger the colour.

    Where the map is 0 the picture stays as it was, so that nobody judges a defect through a tint.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        values: (h, w) floats in [0, 1]; brought to (H, W) when it has another size.
        alpha: opacity of the colour where the map is 1, in [0, 1].
        outline: also draw the edge of the top `share` of the pixels, white with a dark rim.
        share: in (0, 1], see `top_mask`.

    Returns:
        (H, W, 3) uint8 RGB, a new array.

    Raises:
        ExplainerError: pixels that are not RGB uint8, a bad map, alpha outside [0, 1].
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ExplainerError(f"pixels must be (H, W, 3) uint8 RGB, got {pixels.shape} {pixels.dtype}")
    if not 0.0 <= alpha <= 1.0:
        raise ExplainerError(f"alpha must lie in [0, 1], got {alpha}")
    height, width = pixels.shape[:2]
    resized = np.clip(resize_map(values, height, width), 0.0, 1.0)
    strength = alpha * resized[..., None]
    blended = pixels * (1.0 - strength) + colourise(resized) * strength
    result: Pixels = np.rint(blended).astype(np.uint8)
    if outline:
        # The region is the map's own, brought to size: pixels between those of the map would add to it.
        region = resize_map(top_mask(values, share).astype(np.float32), height, width) >= 0.5
        draw_outline(result, region, max(1, round(min(height, width) / 160)))
    return result


def draw_outline(pixels: Pixels, region: Mask, thickness: int) -> None:
    """Draw the edge of a region (H, W) into a picture (H, W, 3), in place: white with a dark rim.

    `thickness`: of each of the two, in pixels.
    """
    inner, rim = region, region
    for _ in range(thickness):
        inner = _eroded(inner)
        rim = _grown(rim)
    pixels[rim & ~region] = _LINE_EDGE
    pixels[region & ~inner] = _LINE


def draw_dashes(pixels: Pixels, region: Mask) -> None:
    """Draw the edge of a region (H, W) into a picture (H, W, 3), in place: thin, in dark and white dashes."""
    edge = region & ~_eroded(region)
    rows, columns = np.nonzero(edge)
    white = (rows + columns) // 4 % 2 == 0
    pixels[rows[white], columns[white]] = _LINE
    pixels[rows[~white], columns[~white]] = _LINE_EDGE


def figure(
    pixels: Pixels,
    values: Floats,
    block_maps: Sequence[tuple[str, Floats]],
    *,
    caption: str = "",
    share: float = 0.2,
    tile: int = 256,
) -> Pixels:
    """Return an explanation on one sheet: picture, outline, fused map; below, block maps, shallow to deep.

    Args:
        pixels: (H, W, 3) uint8 RGB, the picture.
        values: (h, w) floats in [0, 1], the fused map.
        block_maps: (layer name, (h, w) floats in [0, 1]), shallow to deep.
        caption: one line of text under the title row, such as class, score and status.
        share: of the pixels inside the outline, see `top_mask`.
        tile: longer side of every small picture, in pixels, at least 32.

    Returns:
        (rows, columns, 3) uint8 RGB on white, at least three tiles wide.

    Raises:
        ExplainerError: see `overlay`; or a tile below 32.
    """
    if tile < 32:
        raise ExplainerError(f"tile must be at least 32 pixels, got {tile}")
    bare = overlay(pixels, values, alpha=0.0, outline=False)  # also checks the picture and the map
    height, width = bare.shape[:2]
    scale = tile / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(bare).resize(size, Image.Resampling.LANCZOS)
    small = np.asarray(picture)

    def painted(layer: Floats) -> Pixels:
        return colourise(resize_map(layer, size[1], size[0]))

    outlined = top_mask(values, share).mean()
    top: list[tuple[str, Pixels]] = [
        ("picture", small),
        (f"attribution, outline: {outlined:.1%} of the pixels", overlay(small, values, share=share)),
        ("fused map", painted(values)),
    ]
    below = [
        (f"{number}. {name}", painted(layer)) for number, (name, layer) in enumerate(block_maps, start=1)
    ]
    columns = max(len(top), min(len(below), 5))
    cells = [*top, *[None] * (columns - len(top)), *below]
    font = ImageFont.load_default(_FONT_SIZE)
    head = _MARGIN + (_FONT_SIZE + _MARGIN if caption else 0)
    step_x, step_y = size[0] + _MARGIN, size[1] + _FONT_SIZE + 2 * _MARGIN
    rows = -(-len(cells) // columns)
    foot = _FONT_SIZE + 3 * _MARGIN
    sheet = Image.new("RGB", (_MARGIN + columns * step_x, head + rows * step_y + foot), "white")
    draw = ImageDraw.Draw(sheet)
    if caption:
        draw.text(
            (_MARGIN, _MARGIN // 2), _fitted_line(caption, sheet.width - 2 * _MARGIN, font), "black", font
        )
    for index, cell in enumerate(cells):
        if cell is None:
            continue
        label, part = cell
        x, y = _MARGIN + index % columns * step_x, head + index // columns * step_y
        draw.text((x, y), _fitted_line(label, size[0], font), "black", font)
        sheet.paste(Image.fromarray(part), (x, y + _FONT_SIZE + _MARGIN // 2))
    y = head + rows * step_y
    bar = colourise(np.linspace(0.0, 1.0, tile, dtype=np.float32)[None].repeat(_FONT_SIZE, axis=0))
    sheet.paste(Image.fromarray(bar), (_MARGIN + 2 * _FONT_SIZE, y))
    draw.text((_MARGIN + _FONT_SIZE // 2, y), "0", "black", font)
    draw.text((_MARGIN + 2 * _FONT_SIZE + tile + _MARGIN // 2, y), "1", "black", font)
    return np.array(sheet, dtype=np.uint8)


def captioned_sheet(whole: Image.Image, cells: Sequence[tuple[str, Image.Image]], *, caption: str) -> Pixels:
    """Return a picture under a caption, and below it labelled smaller ones, in rows as wide as they fit.

    Returns:
        (rows, columns, 3) uint8 RGB on white, wide enough for two of the smaller ones.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    step_x = max((picture.width for _, picture in cells), default=0) + _MARGIN
    step_y = max((picture.height for _, picture in cells), default=0) + _FONT_SIZE + 2 * _MARGIN
    width = max(whole.width + 2 * _MARGIN, 2 * step_x + _MARGIN)
    columns = (width - _MARGIN) // step_x // 2 * 2  # a picture and its map stand side by side
    rows = -(-len(cells) // columns)
    head = 2 * _MARGIN + _FONT_SIZE
    sheet = Image.new("RGB", (width, head + whole.height + _MARGIN + rows * step_y), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN // 2), _fitted_line(caption, width - 2 * _MARGIN, font), "black", font)
    sheet.paste(whole, (_MARGIN, head))
    for index, (label, picture) in enumerate(cells):
        x = _MARGIN + index % columns * step_x
        y = head + whole.height + _MARGIN + index // columns * step_y
        draw.text((x, y), _fitted_line(label, step_x - _MARGIN, font), "black", font)
        sheet.paste(picture, (x, y + _FONT_SIZE + _MARGIN // 2))
    return np.array(sheet, dtype=np.uint8)


def _fitted_line(text: str, width: int, font: Font) -> str:
    """Return a line shortened in its middle until it fits: a layer's name tells most at its ends."""
    # Pillow's built-in font knows Western European letters; a question mark is better than an empty box.
    whole = " ".join(text.translate(_DASHES).split()).encode("latin-1", "replace").decode("latin-1")
    line, kept = whole, len(whole)
    while font.getlength(line) > width and kept > 4:
        kept -= 1
        line = whole[: kept // 2] + "..." + whole[len(whole) - (kept - kept // 2) :]
    return line


def _checked_map(values: Floats) -> npt.NDArray[np.float32]:
    array = np.asarray(values, dtype=np.float32)
    if array.ndim != 2 or array.size == 0:
        raise ExplainerError(
            f"a map has two dimensions, (h, w), and at least one pixel; got shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ExplainerError("the map holds NaN or infinity")
    return array


def _eroded(region: Mask) -> Mask:
    """Return a region less one pixel of its edge, 4-connected; beyond the picture nothing belongs to it."""
    padded = np.pad(region, 1, constant_values=False)
    return region & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _grown(region: Mask) -> Mask:
    """Return a region with one pixel more around it, 4-connected."""
    padded = np.pad(region, 1, constant_values=False)
    return region | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
