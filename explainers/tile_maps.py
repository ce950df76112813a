"""One picture's map of the maps of its tiles, and one box of theirs. numpy, scipy-free, and Pillow alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from explainers.drawing import Floats, Mask, resize_map, top_mask
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
        rows, columns = (
            slice(first := min(int(start * side / full), side - 1), max(first + 1, round(stop * side / full)))
            for start, stop, side, full in (
                (top, bottom, size[0], picture[0]),
                (left, right, size[1], picture[1]),
            )
        )
        yield values, (rows, columns)


def _falling(length: int) -> npt.NDArray[np.float32]:
    """Return weights along a side: 1 in its middle, falling to nearly 0 at both ends."""
    places = (np.arange(length, dtype=np.float32) + 0.5) / length
    return np.minimum(places, 1 - places) * 2
