"""The pixels that annotations name, and how much of each defect lies in a part of the picture."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifiers.data.annotations import Annotation, Box, MaskFile, Polygons, Runs
from classifiers.data.dataset import DataError, Item
from sources.decoding import decode
from sources.errors import Unreadable

CELL = 8
"""Pixels of a mask that are no further apart than about this are of one defect: masks are often ragged."""
_ROUND = np.ones((3, 3), dtype=np.int8)
Size = tuple[int, int]  # height, width
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom exclusive


@dataclass(frozen=True)
class Region:
    """The pixels of one defect.

    Attributes:
        label: the defect's class.
        left, top: where `pixels` begins in the picture.
        pixels: (h, w) bool.
    """

    label: str
    left: int
    top: int
    pixels: NDArray[np.bool_]

    @property
    def area(self) -> int:
        """How many pixels the defect has."""
        return int(np.count_nonzero(self.pixels))

    def inside(self, rectangles: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many of the defect's pixels lie in each rectangle (n, 4) of the picture: (n,)."""
        height, width = self.pixels.shape
        offset = np.array((self.left, self.top, self.left, self.top))
        clipped = np.clip(rectangles - offset, 0, (width, height, width, height))
        counts = np.zeros(len(rectangles), dtype=np.int64)
        touching = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
        # Tiles are small beside a picture: counting in those that touch the defect needs no integral image,
        # which of a large mask would take eight times the mask's memory.
        for index in np.flatnonzero(touching):
            left, top, right, bottom = clipped[index]
            counts[index] = np.count_nonzero(self.pixels[top:bottom, left:right])
        return counts


@dataclass(frozen=True)
class Share:
    """What rectangles hold of the defects of one class; place i is rectangle i.

    Attributes:
        pixels: (n,) int64, how many annotated pixels of the class lie in the rectangle.
        share: (n,) float64, 0 to 1: of the defect that lies in it the furthest, the share of its own pixels.
            1 where the rectangle holds a whole defect, however many others lie elsewhere.
    """

    pixels: NDArray[np.int64]
    share: NDArray[np.float64]


def annotated_share(
    item: Item, rectangles: Sequence[Rectangle], size: Size | None = None
) -> dict[str, Share]:
    """Return for each annotated class of a picture how much of its defects each rectangle holds.

    Args:
        item: the picture.
        rectangles: in the picture's pixels, (left, top, right, bottom).
        size: height and width of the picture: a mask of another size is refused.

    Returns:
        class -> share, empty where nothing is annotated. A class whose masks are all black is there, with
        zeros.

    Raises:
        DataError: a mask cannot be read, or is not as large as the picture.
    """
    wanted = np.array(rectangles, dtype=np.int64).reshape(-1, 4)
    annotations: dict[str, list[Annotation]] = defaultdict(list)
    for annotation in item.annotations:
        annotations[annotation.label].append(annotation)
    shares = {}
    for label, own in annotations.items():
        regions = [region for annotation in own for region in defect_regions(annotation, size)]
        share = np.zeros(len(wanted))
        for region in regions:
            share = np.maximum(share, region.inside(wanted) / max(1, region.area))
        union = _union(label, regions)
        pixels = np.zeros(len(wanted), dtype=np.int64) if union is None else union.inside(wanted)
        shares[label] = Share(pixels, share)
    return shares


def annotated_area(annotation: Annotation) -> int:
    """Return how many pixels an annotation names; see `defect_regions`."""
    return sum(region.area for region in defect_regions(annotation))


def defect_regions(annotation: Annotation, size: Size | None = None) -> Iterator[Region]:
    """Yield the defects of an annotation, each with a pixel at least.

    Args:
        annotation: of a picture.
        size: height and width of the picture, where they are known.

    Raises:
        DataError: a mask cannot be read, or is not as large as the picture.
    """
    label = annotation.label
    match annotation:
        case Box(_, left, top, right, bottom):
            # A view of one value: the box takes no memory, however large it is.
            yield Region(label, left, top, np.broadcast_to(np.True_, (bottom - top, right - left)))
        case Polygons(_, rings):
            yield _polygon_region(label, rings)
        case Runs():
            if size is not None and annotation.size != size:
                raise DataError(
                    f"the run lengths of {label} are of {_text(annotation.size)} pixels, the picture has "
                    f"{_text(size)}"
                )
            yield from _mask_regions(label, run_mask(annotation), single=annotation.single)
        case MaskFile():
            yield from _mask_regions(label, file_mask(annotation, size), single=False)


def run_mask(runs: Runs) -> NDArray[np.bool_]:
    """Return the mask (h, w) bool that run lengths stand for."""
    values = np.arange(len(runs.counts)) % 2 == 1
    height, width = runs.size
    return np.repeat(values, runs.counts).reshape(width, height).T


def mask_counts(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Return the run lengths of a mask (h, w), see `Runs`."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(edges, prepend=0, append=len(flat)).tolist()
    return (0, *counts) if flat[0] else tuple(counts)


def file_mask(mask: MaskFile, size: Size | None = None) -> NDArray[np.bool_]:
    """Return the mask (h, w) bool of a file.

    Raises:
        DataError: it cannot be read, or is not of this height and width.
    """
    try:
        levels = decode(mask.path.read_bytes()).pixels
    except (OSError, Unreadable) as error:
        raise DataError(f"{mask.path}: the mask cannot be read: {error}; repair it or take it out") from error
    # Of a grey file the three channels are one plane; a coloured one counts where any channel is bright.
    brightest = levels[:, :, 0] if levels.strides[2] == 0 else levels.max(axis=2)
    if size is not None and brightest.shape != size:
        raise DataError(
            f"{mask.path}: the mask is {_text(brightest.shape)} pixels, its picture {_text(size)} (height x "
            "width): give the picture the mask that was drawn on it"
        )
    found: NDArray[np.bool_] = brightest > mask.above
    return found


def _mask_regions(label: str, mask: NDArray[np.bool_], *, single: bool) -> Iterator[Region]:
    """Yield the mask's defects: parts that are connected in cells of `CELL` pixels; or all of it."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return
    columns = np.flatnonzero(mask.any(axis=0))
    # From a multiple of the cell, so that the cells, and what they join, do not hang on where defects begin.
    top, left = (int(first) // CELL * CELL for first in (rows[0], columns[0]))
    mask = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    if single:
        yield Region(label, left, top, mask.copy())
        return
    height, width = mask.shape
    cells = np.add.reduceat(
        np.add.reduceat(mask, np.arange(0, height, CELL), axis=0, dtype=np.int32),
        np.arange(0, width, CELL),
        axis=1,
    )
    from scipy import ndimage  # where it is used: a bare GPU machine trains without it

    numbers, _ = ndimage.label(cells > 0, structure=_ROUND)
    for number, (high, wide) in enumerate(ndimage.find_objects(numbers), start=1):
        own = np.kron(numbers[high, wide] == number, np.ones((CELL, CELL), dtype=bool))
        first_row, first_column = high.start * CELL, wide.start * CELL
        part = mask[first_row : high.stop * CELL, first_column : wide.stop * CELL]
        pixels = part & own[: part.shape[0], : part.shape[1]]
        yield Region(label, left + first_column, top + first_row, pixels)


def _polygon_region(label: str, rings: tuple[tuple[float, ...], ...]) -> Region:
    """Return the pixels whose centre is inside a ring; of a polygon that holds none, those of its box."""
    corners = [np.array(ring, dtype=np.float64).reshape(-1, 2) for ring in rings]
    least, most = (np.array([edge(ring, axis=0) for ring in corners]) for edge in (np.min, np.max))
    left, top = (math.floor(value) for value in least.min(axis=0))
    right, bottom = (
        max(math.ceil(high), low + 1) for high, low in zip(most.max(axis=0), (left, top), strict=True)
    )
    pixels = np.zeros((bottom - top, right - left), dtype=bool)
    for ring in corners:
        pixels |= _ring_mask(ring - (left, top), pixels.shape)
    if not pixels.any():
        pixels[:] = True
    return Region(label, left, top, pixels)


def _ring_mask(ring: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which pixel centres lie in a ring of corners (k, 2), by the even-odd rule."""
    toggles = np.zeros((shape[0], shape[1] + 1), dtype=bool)
    for (x, y), (to_x, to_y) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if to_y < y:
            x, y, to_x, to_y = to_x, to_y, x, y
        # Rows whose centre the edge crosses; where it does, everything to the right of it changes sides.
        rows = np.arange(max(0, math.ceil(y - 0.5)), min(shape[0], math.ceil(to_y - 0.5)))
        if not len(rows):
            continue
        crossings = x + (rows + 0.5 - y) * (to_x - x) / (to_y - y)
        columns = np.clip(np.ceil(crossings - 0.5), 0, shape[1]).astype(np.int64)
        toggles[rows, columns] ^= True
    return np.logical_xor.accumulate(toggles, axis=1)[:, :-1]


def _union(label: str, regions: Sequence[Region]) -> Region | None:
    """Return the pixels of all regions as one; None of none."""
    if len(regions) < 2:
        return regions[0] if regions else None
    left, top = min(region.left for region in regions), min(region.top for region in regions)
    right = max(region.left + region.pixels.shape[1] for region in regions)
    bottom = max(region.top + region.pixels.shape[0] for region in regions)
    pixels = np.zeros((bottom - top, right - left), dtype=bool)
    for region in regions:
        row, column = region.top - top, region.left - left
        height, width = region.pixels.shape
        pixels[row : row + height, column : column + width] |= region.pixels
    return Region(label, left, top, pixels)


def _text(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"
