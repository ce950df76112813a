from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classifiers.data.dataset import load_dataset
from classifiers.data.pictures import measure_colour
from classifiers.package.preprocessing import Preprocessing


def test_content_box_by_hand() -> None:
    pad = Preprocessing((100, 200))
    assert pad.content_box(50, 50) == (0, 50, 100, 150)  # doubled, bars of 50 left and right
    assert pad.content_box(100, 400) == (25, 0, 75, 200)  # halved, bars of 25 above and below
    assert pad.content_box(1, 1000) == (49, 0, 50, 200)  # at least one pixel high
    assert Preprocessing((100, 200), fit="stretch").content_box(50, 50) == (0, 0, 100, 200)


@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize("size", [(40, 20), (7, 90), (64, 64), (1, 1)])
def test_no_corner_is_cropped_away(fit: str, size: tuple[int, int]) -> None:
    preprocessing = Preprocessing((32, 48), fit=fit)
    top, left, bottom, right = preprocessing.content_box(*size)
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        pixels = np.zeros((*size, 3), np.uint8)
        pixels[row, column] = 255
        content = preprocessing.resize(pixels)[top:bottom, left:right]
        assert content[row, column].max() > 0
        assert content.shape[:2] == (bottom - top, right - left)


def test_bars_have_the_mean_colour_and_input_is_not_changed() -> None:
    preprocessing = Preprocessing((8, 16), mean=(0.2, 0.4, 0.6))
    pixels = np.full((8, 8, 3), 255, np.uint8)
    resized = preprocessing.resize(pixels)
    assert resized[0, 0].tolist() == [51, 102, 153]
    assert resized[:, 4:12].min() == 255
    assert pixels.min() == 255
    normalised = preprocessing.normalise(torch.from_numpy(resized).permute(2, 0, 1))
    assert normalised[:, 0, 0].abs().max() < 1e-6  # the mean becomes zero


def test_normalise_by_hand() -> None:
    preprocessing = Preprocessing((1, 1), (0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    result = preprocessing.transform(np.full((1, 1, 3), 255, np.uint8))
    assert result.shape == (3, 1, 1)
    assert result.dtype == torch.float32
    assert result.flatten().tolist() == pytest.approx([1.0, 3.0, 1.0])


@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_one_grey_plane_gives_the_bits_of_three(fit: str, interpolation: str) -> None:
    preprocessing = Preprocessing((48, 64), interpolation=interpolation, fit=fit)
    grey = np.random.default_rng(0).integers(0, 256, (90, 70, 1), dtype=np.uint8)
    plane = np.broadcast_to(grey, (90, 70, 3))
    assert np.array_equal(preprocessing.network_input(plane), preprocessing.network_input(plane.copy()))


@pytest.mark.parametrize(
    "changes",
    [
        {"input_size": (0, 4)},
        {"input_size": (4.0, 4.0)},
        {"std": (1.0, 0.0, 1.0)},
        {"interpolation": "lanczos"},
        {"fit": "crop"},
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        Preprocessing(**{"input_size": (4, 4), **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_other_arrays_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        Preprocessing((4, 4)).resize(pixels)


def test_the_training_pictures_own_colour_is_measured(tmp_path: Path) -> None:
    for index, value in enumerate((51, 153)):
        folder = tmp_path / f"class{index}"
        folder.mkdir()
        Image.new("RGB", (4, 4), (value, 102, 255)).save(folder / "one.png")
    mean, std = measure_colour(load_dataset(tmp_path))
    assert mean == (0.4, 0.4, 1.0)  # (51 + 153) / 2 / 255
    assert std == (0.2, 0.01, 0.01)  # half the distance; a floor where all are equal
