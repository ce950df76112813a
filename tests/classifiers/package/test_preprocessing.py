from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classifiers.data.pictures import measure_colour, network_pixels
from classifiers.data.reading import load_dataset
from classifiers.package.preprocessing import Preprocessing
from operations.inspection.preparation import Preparation, prepare
from sources.picture_statistics import picture_statistics


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
        {"jpeg_scaling": 1},
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


def large_jpeg(height: int = 304, width: int = 208) -> bytes:
    stream = BytesIO()
    row, column = np.mgrid[0:height, 0:width]
    wave = 128 + 60 * np.sin(row / 9) + 40 * np.sin(column / 7)
    Image.fromarray(wave.astype(np.uint8)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def test_a_jpeg_decoded_reduced_lies_where_the_whole_picture_would() -> None:
    """290 x 201 is 44 columns of 64; at a quarter it has 73 x 51 pixels, and they alone would make 45."""
    scaled = Preprocessing((64, 64), jpeg_scaling=True)
    reduced = scaled.decode(large_jpeg(290, 201))
    assert reduced.pixels.shape == (73, 51, 3)
    assert (reduced.height, reduced.width) == (290, 201)
    fitted = scaled.resize(reduced.pixels, (290, 201))
    assert (fitted[:, :10] == scaled.fill).all()
    assert (fitted[:, 54:] == scaled.fill).all()
    assert not (fitted[:, 10] == scaled.fill).all()
    assert not (fitted[:, 53] == scaled.fill).all()


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_a_jpeg_decoded_reduced_looks_like_the_whole_picture(fit: str) -> None:
    whole, scaled = Preprocessing((64, 64), fit=fit), Preprocessing((64, 64), fit=fit, jpeg_scaling=True)
    full, reduced = whole.decode(large_jpeg()), scaled.decode(large_jpeg())
    assert full.pixels.shape[0] > reduced.pixels.shape[0]
    fitted = scaled.resize(reduced.pixels, (304, 208)).astype(int)
    assert (
        np.abs(fitted - whole.resize(full.pixels)).mean() < 4
    )  # of 255: filters differ, the picture does not


def test_only_what_differs_from_before_is_recorded() -> None:
    """The digest of a package, and of an evaluation, is taken over this."""
    assert "jpeg_scaling" not in Preprocessing((8, 8)).record()
    content = Preprocessing((8, 8), jpeg_scaling=True).record()
    assert content["jpeg_scaling"] is True
    assert Preprocessing(**content).jpeg_scaling


def test_training_and_inspection_see_the_same_pixels(tmp_path: Path) -> None:
    """What calibration reads by `network_pixels`, a run reads by `prepare`: bit for bit, figures too."""
    for label in ("good", "line"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "one.jpg").write_bytes(large_jpeg())
    item = load_dataset(tmp_path).items[0]
    scaled = Preprocessing((64, 64), jpeg_scaling=True)
    seen: list[np.ndarray] = []
    resized = network_pixels(item, scaled, seen.append)
    facts, prepared = prepare(large_jpeg(), Preparation(scaled, 1_000_000, None))
    assert np.array_equal(scaled.network_input(resized), prepared)
    assert picture_statistics(seen[0]).sharpness == facts.sharpness
    assert (facts.height, facts.width) == (304, 208)
