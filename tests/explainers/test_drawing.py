"""Colours, outlines and sheets."""

from __future__ import annotations

import numpy as np
import pytest

from explainers.drawing import colourise, figure, outline, overlay, resize_map, top_mask
from explainers.errors import ExplainerError

GREY = np.full((40, 60, 3), 128, dtype=np.uint8)


def blob(height=40, width=60):
    rows, columns = np.mgrid[:height, :width]
    distance = ((rows - height / 2) / height) ** 2 + ((columns - width / 2) / width) ** 2
    return np.exp(-20 * distance).astype(np.float32)


def test_colours_run_from_violet_to_yellow_and_grow_lighter():
    scale = colourise(np.linspace(0, 1, 256)[None])
    assert scale.dtype == np.uint8
    assert scale[0, 0].tolist() == [68, 1, 84]
    assert scale[0, -1].tolist() == [253, 231, 37]
    lightness = scale[0] @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > -0.5).all()
    assert colourise(np.array([[-1.0, 2.0]]))[0].tolist() == [[68, 1, 84], [253, 231, 37]]


# Vision without cones of one kind: Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
VISIONS = {
    "normal": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def lab(linear):
    """CIELAB (D65) of linear sRGB, (n, 3)."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750]]
    to_xyz += [[0.0193339, 0.1191920, 0.9503041]]
    xyz = linear @ np.array(to_xyz).T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_are_told_apart_by_everyone_and_in_grey_print(vision):
    colours = colourise(np.linspace(0, 1, 65)[None])[0] / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = lab(np.clip(linear @ np.array(VISIONS[vision]).T, 0, 1))
    lightness = np.diff(seen[:, 0])
    assert lightness.min() > 0, "grey print keeps the order"
    assert seen[-1, 0] - seen[0, 0] > 70
    if vision == "normal":  # equal steps of the map are about equal steps for the eye
        assert lightness.max() < 2 * lightness.min()
        steps = np.linalg.norm(np.diff(seen, axis=0), axis=1)
        assert steps.max() < 3 * steps.min()


def test_top_mask_counts_pixels_takes_ties_and_leaves_zeros():
    values = np.arange(100, dtype=np.float64).reshape(10, 10)
    assert np.array_equal(top_mask(values, 0.2), values >= 80)
    assert top_mask(np.ones((4, 4)), 0.2).all()
    assert not top_mask(np.zeros((4, 4)), 0.2).any()
    sparse = np.zeros((10, 10))
    sparse[3, 4] = 0.5
    assert top_mask(sparse, 0.2).sum() == 1


def test_outline_is_the_edge_of_the_top_region():
    values = np.zeros((7, 7))
    values[1:6, 1:6] = 1
    line = outline(values, 0.6)
    expected = np.zeros((7, 7), dtype=bool)
    expected[1:6, 1:6] = True
    expected[2:5, 2:5] = False
    assert np.array_equal(line, expected)
    assert outline(values, 0.6, thickness=2).sum() == 24
    assert outline(np.ones((3, 3)), 1.0).sum() == 8


def test_overlay_leaves_the_picture_where_there_is_no_attribution():
    values = np.zeros((40, 60), dtype=np.float32)
    assert np.array_equal(overlay(GREY, values), GREY)
    values[10, 10] = 1
    drawn = overlay(GREY, values, alpha=1.0, outline=False)
    assert drawn[10, 10].tolist() == [253, 231, 37]
    assert (drawn != GREY).any(axis=2).sum() == 1


def test_overlay_draws_a_white_line_with_a_dark_rim_around_the_region_only():
    values = np.zeros((40, 60), dtype=np.float32)
    values[10:20, 10:20] = 1
    drawn = overlay(GREY, values, alpha=0.0)
    assert (drawn == 255).all(axis=2).sum() == 36
    assert (drawn == 20).all(axis=2).sum() == 40
    assert (drawn == 128).all(axis=2).sum() == 40 * 60 - 76
    assert (GREY == 128).all()


def test_a_map_of_another_size_is_stretched_over_the_picture():
    assert resize_map(np.array([[0.0, 1.0]]), 1, 4).tolist() == [[0.0, 0.25, 0.75, 1.0]]
    assert overlay(GREY, blob(8, 12)).shape == GREY.shape


def test_a_figure_has_a_cell_for_every_map():
    maps = [(f"stages.{index}.with.a.rather.long.name.to.shorten", blob(4, 6)) for index in range(6)]
    sheet = figure(GREY, blob(), maps, caption="scratch 0.97 — ok, 検査", tile=90)
    assert sheet.dtype == np.uint8
    # 5 columns of 90 + 10, and a margin; 3 rows: the picture's, five block maps, the sixth.
    assert sheet.shape[1] == 10 + 5 * 100
    yellow = (np.abs(sheet.astype(int) - [253, 231, 37]).sum(axis=2) < 40).any(axis=1)
    assert yellow.sum() > 3
    assert np.array_equal(sheet, figure(GREY, blob(), maps, caption="scratch 0.97 — ok, 検査", tile=90))
    assert figure(GREY, blob(), []).shape[1] == 10 + 3 * 266


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: colourise(np.zeros(3)), "two dimensions"),
        (lambda: colourise(np.zeros((0, 3))), "at least one pixel"),
        (lambda: colourise(np.array([[np.nan]])), "NaN"),
        (lambda: top_mask(blob(), 0.0), "share"),
        (lambda: outline(blob(), thickness=0), "thickness"),
        (lambda: overlay(GREY[..., :1], blob()), "RGB"),
        (lambda: overlay(GREY.astype(float), blob()), "uint8"),
        (lambda: overlay(GREY, blob(), alpha=1.5), "alpha"),
        (lambda: figure(GREY, blob(), [], tile=8), "tile"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ExplainerError, match=message):
        call()
