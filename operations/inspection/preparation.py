"""From a picture's bytes to what the network sees and the record keeps; numpy and Pillow, and no torch."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classifiers.package.preprocessing import Preprocessing
from sources.picture_statistics import picture_statistics

FloatInput = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Preparation:
    """How pictures are decoded and prepared, the same for all of a run."""

    preprocessing: Preprocessing
    max_pixels: int
    grey_range: tuple[int, int] | None


@dataclass(frozen=True)
class PictureFacts:
    """What the record keeps of a decoded picture; see `DecodedImage` and `PictureStatistics`."""

    width: int
    height: int
    format: str
    mode: str
    brightness: float
    contrast: float
    sharpness: float


def prepare(data: bytes, how: Preparation, memory: int | None = None) -> tuple[PictureFacts, FloatInput]:
    """Return what is recorded of a picture, and the network's input (3, H, W).

    Raises:
        Unreadable, MemoryError: see `decode`, which is given `memory` too.
    """
    decoded = how.preprocessing.decode(
        data, max_pixels=how.max_pixels, grey_range=how.grey_range, memory=memory
    )
    statistics = picture_statistics(decoded.pixels)
    facts = PictureFacts(
        width=decoded.width,
        height=decoded.height,
        format=decoded.format,
        mode=decoded.mode,
        brightness=statistics.brightness,
        contrast=statistics.contrast,
        sharpness=statistics.sharpness,
    )
    return facts, how.preprocessing.network_input(decoded.pixels, (decoded.height, decoded.width))
