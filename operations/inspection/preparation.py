"""From a picture's bytes to what the network sees and the record keeps; numpy and Pillow, and no torch."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classifiers.package.preprocessing import Preprocessing
from classifiers.package.tiling import Tiling
from sources.decoding import decode
from sources.picture_statistics import picture_statistics

FloatInput = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Preparation:
    """How pictures are decoded and prepared, the same for all of a run."""

    preprocessing: Preprocessing
    max_pixels: int
    grey_range: tuple[int, int] | None
    tiling: Tiling | None = None


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


def prepare(
    data: bytes, how: Preparation, memory: int | None = None
) -> tuple[PictureFacts, FloatInput | Pixels]:
    """Return what is recorded of a picture, and what the model is given of it.

    That is the network's input (3, H, W) float32; of a picture that is tiled the scaled picture (h, w, 3)
    uint8, where a grey one is one plane in memory (a stride of 0).

    Raises:
        Unreadable, MemoryError: see `decode`, which is given `memory` too.
    """
    # Tiles are cut at their own scale: of a JPEG decoded reduced too little is left.
    decoding = how.preprocessing.decode if how.tiling is None else decode
    decoded = decoding(data, max_pixels=how.max_pixels, grey_range=how.grey_range, memory=memory)
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
    size = decoded.height, decoded.width
    if how.tiling is not None:
        grid = how.tiling.grid(size, how.preprocessing.input_size)
        return facts, how.preprocessing.scaled(decoded.pixels, grid.scaled)
    return facts, how.preprocessing.network_input(decoded.pixels, size)
