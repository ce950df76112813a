"""How a picture is cut into tiles of the network's input size.

Decoding processes import this module and no torch.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_SCALE = 64.0
Size = tuple[int, int]  # height, width
Box = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom exclusive


@dataclass(frozen=True)
class Tiling:
    """How the pictures of a model package are tiled, and how their tiles' scores become one.

    Attributes:
        scale: picture pixels per input pixel, along both sides: 1 is native, 2 shows the network half the
            resolution.
        overlap: input pixels that neighbouring tiles share at least, so that no defect is cut everywhere.
        highest: the picture's score is the mean of so many highest tile scores; 1 is the maximum.
    """

    scale: float = 1.0
    overlap: int = 0
    highest: int = 1

    def __post_init__(self) -> None:
        # What a package says arrives here as it was read: of any type.
        scale: object = self.scale
        number = isinstance(scale, int | float) and not isinstance(scale, bool)
        if not number or not 1 / MAX_SCALE <= self.scale <= MAX_SCALE:
            raise ValueError(
                f"tiling.scale must be a number from 1/{MAX_SCALE:g} to {MAX_SCALE:g}, "
                f"got {reprlib.repr(scale)}"
            )
        for name, least in (("overlap", 0), ("highest", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(
                    f"tiling.{name} must be a whole number from {least} on, got {reprlib.repr(value)}"
                )

    def check(self, tile: Size) -> None:
        """Raise ValueError where tiles of this size would share more than half of their shorter side."""
        if self.overlap > min(tile) // 2:
            raise ValueError(
                f"tiling.overlap must be at most half of the tile's shorter side, {min(tile) // 2}, "
                f"got {self.overlap}"
            )

    def grid(self, picture: Size, tile: Size) -> Grid:
        """Return the tiles of a picture of this height and width; `tile` is the network's input size."""
        scaled = tuple(max(1, round(side / self.scale)) for side in picture)
        tops, lefts = (
            _positions(side, length, self.overlap) for side, length in zip(scaled, tile, strict=True)
        )
        return Grid(picture, (scaled[0], scaled[1]), tile, tops, lefts)

    def picture_scores(self, scores: NDArray[np.float32]) -> float:
        """Return a picture's score in [0, 1] of its tiles' defect scores (n,)."""
        count = min(self.highest, len(scores))
        highest = np.sort(scores)[len(scores) - count :]
        return float(highest.mean(dtype=np.float64)) if count > 1 else float(highest[0])


@dataclass(frozen=True)
class Grid:
    """The tiles of one picture, row by row from its top left corner.

    Tiles are windows of the scaled picture. All have the network's input size and lie inside it; where a side
    of the scaled picture is shorter than a tile's, the tile has bars of the mean colour on both sides of it.

    Attributes:
        picture: height and width of the picture, in its own pixels.
        scaled: height and width of the scaled picture, in input pixels.
        tile: height and width of a tile, in input pixels.
        tops: first rows of the tiles in the scaled picture.
        lefts: first columns of the tiles.
    """

    picture: Size
    scaled: Size
    tile: Size
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def window(self, index: int) -> Box:
        """Return the part of the scaled picture that a tile shows, in input pixels."""
        row, column = divmod(index, len(self.lefts))
        top, left = self.tops[row], self.lefts[column]
        height, width = (min(length, side) for length, side in zip(self.tile, self.scaled, strict=True))
        return left, top, left + width, top + height

    def rectangle(self, index: int) -> Box:
        """Return the part of the picture that a tile shows, in the picture's pixels."""
        return self.in_picture(self.window(index))

    def in_picture(self, box: Sequence[float]) -> Box:
        """Return a box of the scaled picture (input pixels) in the picture's pixels, rounded outwards."""
        height, width = (side / scaled for side, scaled in zip(self.picture, self.scaled, strict=True))
        left, top, right, bottom = box
        return (
            math.floor(left * width),
            math.floor(top * height),
            min(self.picture[1], math.ceil(right * width)),
            min(self.picture[0], math.ceil(bottom * height)),
        )

    @property
    def content(self) -> Box:
        """Where a tile shows the picture, in the tile's pixels: all of it but for bars."""
        (height, width), (rows, columns) = self.tile, self.scaled
        top, left = max(0, height - rows) // 2, max(0, width - columns) // 2
        return left, top, left + min(width, columns), top + min(height, rows)

    def cut(
        self, pixels: NDArray[np.uint8], indices: Sequence[int], fill: tuple[int, int, int]
    ) -> NDArray[np.uint8]:
        """Return some tiles of the scaled picture (h, w, 3): (n, H, W, 3) uint8; `fill` colours the bars."""
        if pixels.shape != (*self.scaled, 3):
            raise ValueError(f"pixels must be {(*self.scaled, 3)}, got {pixels.shape}")
        left, top, right, bottom = self.content
        tiles = np.empty((len(indices), *self.tile, 3), dtype=np.uint8)
        if (left, top, right, bottom) != (0, 0, self.tile[1], self.tile[0]):
            tiles[:] = fill
        for tile, index in zip(tiles, indices, strict=True):
            first_column, first_row, last_column, last_row = self.window(index)
            tile[top:bottom, left:right] = pixels[first_row:last_row, first_column:last_column]
        return tiles


def _positions(side: int, length: int, overlap: int) -> tuple[int, ...]:
    """Return the first pixels of tiles that cover a side, spread evenly, the last one ending at its end."""
    if side <= length:
        return (0,)
    count = math.ceil((side - overlap) / (length - overlap))
    return tuple(round(index * (side - length) / (count - 1)) for index in range(count))
