"""Tiles cover every pixel, lie inside the picture, and share at least what they are told to."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.package.tiling import Tiling

SIDES = st.integers(1, 20_000)


@st.composite
def grids(draw, most=20_000):
    tile = draw(st.tuples(st.integers(1, 512), st.integers(1, 512)))
    tiling = Tiling(scale=draw(st.floats(0.25, 8)), overlap=draw(st.integers(0, min(tile) // 2)))
    tiling.check(tile)
    picture = draw(st.tuples(st.integers(1, most), st.integers(1, most)))
    return tiling, tiling.grid(picture, tile)


@given(grids())
@settings(max_examples=300, deadline=None)
def test_tiles_cover_every_pixel_and_lie_inside(made):
    tiling, grid = made
    for firsts, side, length in zip((grid.tops, grid.lefts), grid.scaled, grid.tile, strict=True):
        assert firsts[0] == 0
        assert firsts[-1] + min(length, side) == side
        for one, following in pairwise(firsts):
            assert one < following
            assert one + length - following >= tiling.overlap
    first, last = grid.rectangle(0), grid.rectangle(len(grid) - 1)
    assert first[:2] == (0, 0)
    assert last[2:] == (grid.picture[1], grid.picture[0])


@given(grids())
@settings(max_examples=100, deadline=None)
def test_a_tile_is_never_empty_in_the_picture(made):
    _, grid = made
    for index in {0, len(grid) // 2, len(grid) - 1}:
        left, top, right, bottom = grid.rectangle(index)
        assert 0 <= left < right <= grid.picture[1]
        assert 0 <= top < bottom <= grid.picture[0]


@given(grids(most=600), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_cut_tiles_hold_the_pixels_of_their_windows(made, seed):
    _, grid = made
    pixels = np.random.default_rng(seed).integers(0, 256, (*grid.scaled, 3), dtype=np.uint8)
    indices = sorted({0, len(grid) // 2, len(grid) - 1})
    left, top, right, bottom = grid.content
    for index, tile in zip(indices, grid.cut(pixels, indices, (7, 8, 9)), strict=True):
        first_column, first_row, last_column, last_row = grid.window(index)
        np.testing.assert_array_equal(
            tile[top:bottom, left:right], pixels[first_row:last_row, first_column:last_column]
        )
        bars = np.ones(grid.tile, bool)
        bars[top:bottom, left:right] = False
        assert (tile[bars] == (7, 8, 9)).all()


def test_a_native_strip_is_covered_by_tiles_that_overlap():
    grid = Tiling(overlap=32).grid((256, 1600), (224, 224))
    assert grid.tops == (0, 32)
    assert grid.lefts == (0, 172, 344, 516, 688, 860, 1032, 1204, 1376)
    assert len(grid) == 18
    assert grid.rectangle(17) == (1376, 32, 1600, 256)


def test_a_picture_smaller_than_a_tile_has_bars():
    grid = Tiling().grid((10, 300), (224, 224))
    assert len(grid) == 2
    assert grid.content == (0, 107, 224, 117)
    assert grid.rectangle(1) == (76, 0, 300, 10)


def test_boxes_of_a_scaled_picture_are_given_in_its_own_pixels():
    grid = Tiling(scale=2.0).grid((1000, 3000), (224, 224))
    assert grid.scaled == (500, 1500)
    assert grid.in_picture((10, 20, 30, 40)) == (20, 40, 60, 80)
    assert grid.rectangle(0) == (0, 0, 448, 448)


def test_a_pictures_score_is_the_mean_of_its_highest_tiles():
    scores = np.array([0.1, 0.9, 0.5, 0.7], np.float32)
    assert Tiling(highest=1).picture_scores(scores) == pytest.approx(0.9)
    assert Tiling(highest=3).picture_scores(scores) == pytest.approx(0.7)
    assert Tiling(highest=9).picture_scores(scores) == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"scale": 0.0}, "tiling.scale"),
        ({"scale": True}, "tiling.scale"),
        ({"scale": float("nan")}, "tiling.scale"),
        ({"overlap": -1}, "tiling.overlap"),
        ({"overlap": 1.5}, "tiling.overlap"),
        ({"highest": 0}, "tiling.highest"),
        ({"highest": "1"}, "tiling.highest"),
    ],
)
def test_wrong_values_are_named(values, named):
    with pytest.raises(ValueError, match=named):
        Tiling(**values)


def test_tiles_share_at_most_half_of_their_side():
    with pytest.raises(ValueError, match=r"tiling\.overlap must be at most"):
        Tiling(overlap=113).check((224, 300))
