"""Three figures of a picture that tell when a line's lamp, aperture or focus drifts.

They are computed from the decoded pixels, before anything a model does to them, and compare between pictures
of any size: large ones are first averaged down to the same working size.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from sources.decoding import Pixels, pillow_picture

WORKING_SIZE = 512  # pixels of the longer side, at most; smaller pictures are taken as they are


@dataclass(frozen=True)
class PictureStatistics:
    """Three figures of a picture; none of them has a unit.

    Attributes:
        brightness: mean grey level, in [0, 1].
        contrast: standard deviation of the grey level, in [0, 0.5].
        sharpness: standard deviation of the Laplacian over that of the grey level: 0 for a picture of one
            grey, about 4.5 for white noise, 8 for a chessboard of pixels.
    """

    brightness: float
    contrast: float
    sharpness: float


def picture_statistics(pixels: Pixels) -> PictureStatistics:
    """Return the figures of upright 8-bit RGB pixels (height, width, 3).

    Grey levels are ITU-R BT.601 luma over 255. A picture whose longer side is above `WORKING_SIZE` is
    averaged by area to it. The Laplacian is that of the four neighbours, where a pixel has all of them. Its
    variance is the focus measure of Pech-Pacheco et al. (2000, "Diatom autofocusing in brightfield
    microscopy"). Divided by the standard deviation of the grey level it does not change with the lamp;
    brightness and contrast do.
    """
    grey = pillow_picture(pixels).convert("L")
    scale = WORKING_SIZE / max(grey.size)
    if scale < 1:
        size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
        grey = grey.resize(size, Image.Resampling.BOX)
    levels = np.divide(np.asarray(grey), np.float32(255), dtype=np.float32)
    mean = levels.mean(dtype=np.float64, keepdims=True)
    contrast = float(levels.std(dtype=np.float64, mean=mean))
    sharpness = 0.0
    if contrast and min(levels.shape) > 2:
        # Term by term in place: recorded figures hang on the order in which float32 is rounded.
        laplacian = levels[:-2, 1:-1] + levels[2:, 1:-1]
        laplacian += levels[1:-1, :-2]
        laplacian += levels[1:-1, 2:]
        laplacian -= 4 * levels[1:-1, 1:-1]
        sharpness = float(laplacian.std(dtype=np.float64)) / contrast
    return PictureStatistics(float(mean[0, 0]), contrast, sharpness)
