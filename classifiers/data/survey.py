"""Look at labelled pictures before a training: their size, that of their defects, the input that suits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from classifiers.data.dataset import DataError, Dataset, defective_mask
from classifiers.data.pictures import read_pixels
from classifiers.data.regions import annotated_area

USUAL_SIDE = 224
"""Pixels of a side of the input where nothing speaks against it."""
SMALLEST_DEFECT = 8
"""Pixels of the input that the side of a defect should have; docs/training.md says why."""
MOST_PIXELS = 4 * USUAL_SIDE**2
"""Pixels of an input that is chosen unasked: four times the time and memory of the usual one."""
LONGEST_SQUARE = 1.5
"""Sides in a larger proportion than this leave more than a third of a square input to bars."""
STEP = 32
"""Sides are multiples of it: most CNNs halve their input five times."""
_MOST_LOOKED_AT = 64

_T = TypeVar("_T")


@dataclass(frozen=True)
class Survey:
    """What a look at labelled pictures found; sizes are medians, in pixels.

    Attributes:
        height, width: of the pictures.
        alike: whether nearly all pictures have about the same proportions.
        defect: side of a square as large as a small defect: three quarters of the defects are larger. None
            where no mask tells.
        masks: annotated defects that were looked at.
        unreadable: of masks that cannot be read, what is wrong.
    """

    height: int
    width: int
    alike: bool
    defect: float | None
    masks: int = 0
    unreadable: tuple[str, ...] = ()

    def scale(self, input_size: tuple[int, int]) -> float:
        """Return how many pixels of an input a pixel of the picture becomes, with its proportions kept."""
        return min(input_size[0] / self.height, input_size[1] / self.width)

    @property
    def proposed_size(self) -> tuple[int, int]:
        """Height and width of an input that suits the pictures: multiples of 32, at most `MOST_PIXELS`.

        224 x 224 where that suits. Long pictures get an input of their own proportions, whose shorter side
        has 224 pixels. Where small defects would have fewer than `SMALLEST_DEFECT` pixels, it is larger.
        """
        long = max(self.height, self.width) / min(self.height, self.width) > LONGEST_SQUARE
        scale = self.scale((USUAL_SIDE, USUAL_SIDE))
        needed = 0.0 if self.defect is None else min(1.0, SMALLEST_DEFECT / self.defect)
        if self.alike and long:
            scale = min(1.0, USUAL_SIDE / min(self.height, self.width))
        elif 0.9 * needed <= scale:  # a tenth of the pixels that a defect lacks is not worth another input
            return USUAL_SIDE, USUAL_SIDE
        scale = max(scale, needed)
        height, width = self._room
        scale = min(scale, math.sqrt(MOST_PIXELS / (height * width)))
        rows, columns = self.size_at(scale)
        while rows * columns > MOST_PIXELS:
            # Rounding has made it too large: the longer side gives way, where a step costs least.
            rows, columns = (rows - STEP, columns) if rows >= columns else (rows, columns - STEP)
        return rows, columns

    def size_at(self, scale: float) -> tuple[int, int]:
        """Return the input, in multiples of 32, into which pictures fit when shrunk by `scale`."""
        rows, columns = (max(STEP, STEP * round(side * scale / STEP)) for side in self._room)
        return rows, columns

    @property
    def _room(self) -> tuple[int, int]:
        """Height and width that pictures take, at their own size: a square where they lie and stand."""
        longer = max(self.height, self.width)
        return (self.height, self.width) if self.alike else (longer, longer)


def survey_pictures(dataset: Dataset) -> Survey:
    """Return what some 64 pictures and 64 masks of defects, spaced evenly over a data set, look like.

    Raises:
        DataError: a picture cannot be read. What cannot be read of masks is listed.
    """
    sizes = np.array([read_pixels(item).shape[:2] for item in _spaced(dataset.items)])
    proportions = np.log(sizes[:, 0] / sizes[:, 1])
    spread = float(np.quantile(proportions, 0.9) - np.quantile(proportions, 0.1))
    defective = defective_mask(dataset, dataset.good_class)
    annotated = [item for item, bad in zip(dataset.items, defective, strict=True) if bad and item.annotations]
    sides, unreadable = [], []
    for item in _spaced(annotated):
        try:
            areas = [annotated_area(annotation) for annotation in item.annotations]
        except DataError as error:
            unreadable.append(str(error))
            continue
        sides += [math.sqrt(area) for area in areas if area]
    return Survey(
        height=round(float(np.median(sizes[:, 0]))),
        width=round(float(np.median(sizes[:, 1]))),
        alike=spread <= math.log(LONGEST_SQUARE),
        defect=float(np.quantile(sides, 0.25)) if sides else None,
        masks=len(sides),
        unreadable=tuple(unreadable),
    )


def _spaced(values: Sequence[_T]) -> Sequence[_T]:
    return values[:: max(1, -(-len(values) // _MOST_LOOKED_AT))]
