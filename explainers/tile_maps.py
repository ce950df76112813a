"""One map of a picture, made of the maps of its tiles: composed, drawn, boxed. numpy and Pillow alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from explainers.drawing import (
    Floats,
    Mask,
    Pixels,
    captioned_sheet,
    draw_dashes,
    draw_outline,
    overlay,
    resize_map,
    top_mask,
)
from explainers.errors import ExplainerError

LONGEST = 2048  # of a composed map's sides, in pixels
Box = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom exclusive
TileMap = tuple[Box, Floats]  # a tile's place in the picture, in its pixels, and the map of it


def composed_map(
    tiles: Sequence[TileMap], height: int, width: int, *, longest: int = LONGEST
) -> tuple[npt.NDArray[np.float32], Mask]:
    """Return one map of a picture, made of the maps of some of its tiles.

    Where tiles overlap, their maps are blended by weights that fall off towards the edges of a tile, so that
    there are no seams. What no tile shows is 0 in the map, and not covered.

    Args:
        tiles: the maps with their places; each map covers the whole of its place, at any resolution.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        longest: the longer side of what is returned; a smaller picture keeps its size.

    Returns:
        (h, w) float32 in the range of the maps; (h, w) bool, whether a tile covers a pixel.

    Raises:
        ExplainerError: a place outside the picture.
    """
    size = composed_size(height, width, longest)
    total, weights = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for values, (rows, columns) in _placed(tiles, (height, width), size):
        down, across = (_falling(part.stop - part.start) for part in (rows, columns))
        weight = down[:, None] * across[None, :]
        total[rows, columns] += weight * resize_map(values, len(down), len(across))
        weights[rows, columns] += weight
    covered = weights > 0
    return np.divide(total, weights, out=total, where=covered), covered


def composed_outline(
    tiles: Sequence[TileMap], height: int, width: int, share: float, *, longest: int = LONGEST
) -> Mask:
    """Return where a tile's map is among the highest `share` of that map: (h, w) bool.

    Each tile has pixels of its own there, however weak it is beside others: arguments and errors are those of
    `composed_map`.
    """
    size = composed_size(height, width, longest)
    taken = np.zeros(size, bool)
    for values, (rows, columns) in _placed(tiles, (height, width), size):
        region = top_mask(values, share).astype(np.float32)
        taken[rows, columns] |= (
            resize_map(region, rows.stop - rows.start, columns.stop - columns.start) >= 0.5
        )
    return taken


def composed_size(height: int, width: int, longest: int = LONGEST) -> tuple[int, int]:
    """Return height and width of a picture's composed map."""
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def tiles_overlay(
    pixels: Pixels, tiles: Sequence[TileMap], part: Box, *, alpha: float = 0.5, share: float = 0.2
) -> Pixels:
    """Return a part of a picture with the maps of its tiles laid over it, as `overlay` does with one map.

    What was explained has an edge of dashes: outside it there is no map, and the picture is as it was.

    Args:
        pixels: (H, W, 3) uint8 RGB, the part at any size.
        tiles: all of the picture.
        part: the part's place in the picture, in its pixels; the whole of it, or a close-up.
        alpha: opacity of the colour where a map is 1, in [0, 1].
        share: of a tile's pixels that are outlined, see `top_mask`.

    Returns:
        (H, W, 3) uint8 RGB, a new array.
    """
    near = [(place, values) for place, values in tiles if _overlap(place, part)]
    if not near:
        return pixels.copy()
    places = np.array([part, *(place for place, _ in near)])
    (left, top), (right, bottom) = places[:, :2].min(axis=0), places[:, 2:].max(axis=0)
    shift = np.array([left, top, left, top])
    moved: list[TileMap] = []
    for place, values in near:
        first, second, third, fourth = (int(edge) for edge in np.array(place) - shift)
        moved.append(((first, second, third, fourth), values))
    height, width = int(bottom - top), int(right - left)
    values, covered = composed_map(moved, height, width)
    region = composed_outline(moved, height, width, share)
    down, across = values.shape[0] / height, values.shape[1] / width
    rows = _span(part[1] - top, part[3] - top, down, values.shape[0])
    columns = _span(part[0] - left, part[2] - left, across, values.shape[1])

    def shown(mask: Mask) -> Mask:
        size = pixels.shape[0], pixels.shape[1]
        return resize_map(mask[rows, columns].astype(np.float32), *size) >= 0.5

    drawn = overlay(pixels, values[rows, columns], alpha, outline=False)
    draw_dashes(drawn, shown(covered))
    draw_outline(drawn, shown(region), 1 if min(drawn.shape[:2]) < 240 else 2)
    return drawn


def tiles_figure(
    pixels: Pixels, tiles: Sequence[TileMap], *, caption: str, box: Box | None = None, tile: int = 320
) -> Pixels:
    """Return a picture with the maps of its tiles on one sheet; below, each tile, as it is and with its map.

    Args:
        pixels: (H, W, 3) uint8 RGB, the whole picture.
        tiles: the maps with their places, at least one.
        caption: one line of text above the picture.
        box: drawn on the picture, however small it is there.
        tile: longer side of a tile on the sheet, in pixels.

    Returns:
        (rows, columns, 3) uint8 RGB on white; the picture's longer side has at most `LONGEST` pixels.
    """
    height, width = pixels.shape[:2]
    size = composed_size(height, width)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    small = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.LANCZOS))
    whole = Image.fromarray(tiles_overlay(small, tiles, (0, 0, width, height)))
    if box is not None:
        _draw_box(whole, [edge * size[1] / width for edge in box])
    cells: list[tuple[str, Image.Image]] = []
    for number, (place, values) in enumerate(tiles, start=1):
        left, top, right, bottom = place
        cut = np.ascontiguousarray(pixels[top:bottom, left:right])
        scale = tile / max(right - left, bottom - top)
        shown = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
        drawn = np.asarray(Image.fromarray(cut).resize(shown, Image.Resampling.BICUBIC))
        cells.append((f"tile {number}: {place_text(place)}", Image.fromarray(drawn)))
        cells.append(("its map", Image.fromarray(tiles_overlay(drawn, [(place, values)], place))))
    return captioned_sheet(whole, cells, caption=caption)


def place_text(place: Box) -> str:
    """Return a place in a picture in words, as reports print it."""
    return f"x {place[0]} to {place[2]}, y {place[1]} to {place[3]}"


def merged_boxes(boxes: Sequence[Box]) -> list[Box]:
    """Return boxes that neither overlap nor touch: those that do become the one around them.

    A defect that several tiles show has a box in each of them.

    Returns:
        the one with the first of the given boxes first, the others in the order of theirs.
    """
    left = list(boxes)
    merged: list[Box] = []
    while left:
        box = left.pop(0)
        while touching := [other for other in left if _touch(box, other)]:
            left = [other for other in left if not _touch(box, other)]
            around = np.array([box, *touching])
            first, last = around[:, :2].min(axis=0), around[:, 2:].max(axis=0)
            box = (int(first[0]), int(first[1]), int(last[0]), int(last[1]))
        merged.append(box)
    return merged


def _draw_box(picture: Image.Image, edges: Sequence[float]) -> None:
    """Draw a frame of 12 pixels at least around a place in a picture, light within dark."""
    left, top, right, bottom = edges
    across, down = max(0.0, 12 - (right - left)) / 2, max(0.0, 12 - (bottom - top)) / 2
    frame = (left - across, top - down, right + across, bottom + down)
    draw = ImageDraw.Draw(picture)
    draw.rectangle([frame[0] - 1, frame[1] - 1, frame[2] + 1, frame[3] + 1], outline=(20, 20, 20))
    draw.rectangle(frame, outline=(255, 255, 255), width=2)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _span(start: float, stop: float, scale: float, side: int) -> slice:
    """Return where a part lies along a side of an array, one element of it at least."""
    first = min(int(start * scale), side - 1)
    return slice(first, max(first + 1, round(stop * scale)))


def _touch(one: Box, other: Box) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def _placed(
    tiles: Sequence[TileMap], picture: tuple[int, int], size: tuple[int, int]
) -> Iterator[tuple[Floats, tuple[slice, slice]]]:
    """Yield each map with its rows and columns in an array of `size`."""
    for (left, top, right, bottom), values in tiles:
        if not (0 <= left < right <= picture[1] and 0 <= top < bottom <= picture[0]):
            raise ExplainerError(
                f"tile {(left, top, right, bottom)} lies outside the picture of {picture[1]} x {picture[0]}"
            )
        rows = _span(top, bottom, size[0] / picture[0], size[0])
        yield values, (rows, _span(left, right, size[1] / picture[1], size[1]))


def _falling(length: int) -> npt.NDArray[np.float32]:
    """Return weights along a side: 1 in its middle, falling to nearly 0 at both ends."""
    places = (np.arange(length, dtype=np.float32) + 0.5) / length
    return np.minimum(places, 1 - places) * 2
