"""Pictures whose brightness, contrast and sharpness are known by hand."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from sources.picture_statistics import WORKING_SIZE, PictureStatistics, picture_statistics


def rgb(levels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.repeat(levels.astype(np.uint8)[:, :, None], 3, axis=2)


def noise(low: int, high: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(low, high, (96, 96), dtype=np.uint8)


def test_one_grey_has_no_contrast_and_no_sharpness() -> None:
    assert picture_statistics(rgb(np.full((20, 30), 51))) == PictureStatistics(pytest.approx(0.2), 0.0, 0.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (WORKING_SIZE * 2, 1)])
def test_a_picture_too_small_for_a_neighbourhood_has_no_sharpness(shape: tuple[int, int]) -> None:
    found = picture_statistics(rgb(np.arange(shape[0] * shape[1]).reshape(shape) % 200))
    assert found.sharpness == 0


def test_half_black_half_white() -> None:
    """Inside, the Laplacian is 0 but for +1 and -1 in the two columns at the edge: a share of 2 in 8."""
    levels = np.zeros((10, 10))
    levels[:, 5:] = 255
    found = picture_statistics(rgb(levels))
    assert (found.brightness, found.contrast) == (0.5, 0.5)
    assert found.sharpness == pytest.approx(np.sqrt(2 / 8) / 0.5)


def test_a_chessboard_is_the_sharpest_there_is() -> None:
    """Each pixel differs from its four neighbours by 1: the Laplacian is 4 or -4, the deviation a half."""
    found = picture_statistics(rgb(np.indices((8, 8)).sum(axis=0) % 2 * 255))
    assert found == PictureStatistics(0.5, 0.5, 8.0)


def test_colours_count_by_their_luma() -> None:
    """ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B."""
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        pixels = np.zeros((4, 4, 3), dtype=np.uint8)
        pixels[:, :, channel] = 255
        assert picture_statistics(pixels).brightness == pytest.approx(weight, abs=0.5 / 255)


def test_a_large_picture_is_averaged_by_area() -> None:
    """A chessboard of single pixels becomes grey, one of whole blocks stays what it is."""
    side = 2 * WORKING_SIZE
    fine = picture_statistics(rgb(np.indices((side, side)).sum(axis=0) % 2 * 254))
    assert (fine.brightness, fine.contrast) == (pytest.approx(127 / 255), 0)
    blocks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).repeat(32, axis=0).repeat(32, axis=1)
    small = blocks[::4, ::4]
    assert picture_statistics(rgb(blocks)) == picture_statistics(rgb(small))


def test_the_lamp_changes_brightness_and_contrast_and_not_sharpness() -> None:
    before, after = (picture_statistics(rgb(levels)) for levels in (noise(60, 120), noise(60, 120) * 2 + 10))
    assert after.brightness == pytest.approx(2 * before.brightness + 10 / 255)
    assert after.contrast == pytest.approx(2 * before.contrast)
    assert after.sharpness == pytest.approx(before.sharpness)


def test_defocus_takes_sharpness() -> None:
    picture = Image.fromarray(rgb(noise(0, 256)))
    found = [
        picture_statistics(np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)))).sharpness
        for radius in (0, 0.7, 1.5, 3)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] > 4 * found[-1]
    # White noise: the Laplacian's weights are 4 and four times -1, their squares add up to 20.
    assert found[0] == pytest.approx(np.sqrt(20), rel=0.03)


def test_the_picture_is_left_as_it_was() -> None:
    pixels = rgb(noise(60, 120))
    before = pixels.copy()
    picture_statistics(pixels)
    assert (pixels == before).all()


@pytest.mark.parametrize("size", [(60, 90), (640, 480)])
def test_figures_are_those_that_earlier_versions_recorded(size: tuple[int, int]) -> None:
    """To the last bit: a package's calibration holds figures, and a run's are compared with them."""
    colour = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    one_plane = np.broadcast_to(colour[:, :, :1], colour.shape)
    for pixels in (colour, one_plane, one_plane.copy()):
        grey = Image.fromarray(np.ascontiguousarray(pixels)).convert("L")
        if (scale := WORKING_SIZE / max(size)) < 1:
            grey = grey.resize((round(size[1] * scale), round(size[0] * scale)), Image.Resampling.BOX)
        x = np.asarray(grey, dtype=np.float32) / np.float32(255)
        laplacian = x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] - 4 * x[1:-1, 1:-1]
        contrast = float(x.std(dtype=np.float64))
        sharpness = float(laplacian.std(dtype=np.float64)) / contrast
        brightness = float(x.mean(dtype=np.float64))
        assert picture_statistics(pixels) == PictureStatistics(brightness, contrast, sharpness)
