"""A picture's map, composed of the maps of its tiles; boxes that become one."""

import numpy as np
import pytest
from scipy import ndimage

from explainers.errors import ExplainerError
from explainers.tile_maps import (
    composed_map,
    composed_outline,
    merged_boxes,
    place_text,
    tiles_figure,
    tiles_overlay,
)


def test_equal_tiles_that_overlap_give_their_own_value():
    flat = np.full((10, 10), 0.5, np.float32)
    values, covered = composed_map([((0, 0, 10, 10), flat), ((6, 0, 16, 10), flat)], 20, 30)
    assert values.shape == covered.shape == (20, 30)
    assert covered.sum() == 160
    np.testing.assert_allclose(values[covered], 0.5, rtol=1e-6)
    assert not values[~covered].any()


def test_there_is_no_seam_where_tiles_overlap():
    low, high = np.full((40, 40), 0.2, np.float32), np.full((40, 40), 0.8, np.float32)
    values, _ = composed_map([((0, 0, 40, 40), low), ((20, 0, 60, 40), high)], 40, 60)
    row = values[20]
    np.testing.assert_allclose(row[:20], 0.2, rtol=1e-6)
    np.testing.assert_allclose(row[40:], 0.8, rtol=1e-6)
    steps = np.diff(row)
    assert (steps >= -1e-6).all()
    assert steps.max() < 0.05, "the step of 0.6 is spread over the 20 pixels that both show"


def test_the_order_of_tiles_does_not_matter():
    rng = np.random.default_rng(1)
    tiles = [
        ((x, y, x + 32, y + 32), rng.random((32, 32), np.float32)) for x, y in ((0, 0), (20, 5), (9, 30))
    ]
    one, _ = composed_map(tiles, 70, 60)
    other, _ = composed_map(tiles[::-1], 70, 60)
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_large_picture_has_a_map_of_2048_pixels_at_most():
    spot = np.zeros((224, 224), np.float32)
    spot[112, 112] = 1.0
    values, covered = composed_map([((6000, 4000, 6224, 4224), spot)], 8000, 12000)
    assert values.shape == (1365, 2048)
    rows, columns = np.nonzero(covered)
    assert (columns.min(), rows.min()) == (1024, 682)
    assert len(np.unique(columns)) == pytest.approx(224 * 2048 / 12000, abs=1.5)


def test_a_tile_keeps_a_pixel_however_small_the_map_is():
    values, covered = composed_map([((5, 0, 6, 1), np.ones((8, 8), np.float32))], 1, 5000, longest=10)
    assert values.shape == (1, 10)
    assert covered.sum() == 1
    assert values.max() == 1.0
    _, last = composed_map([((4999, 0, 5000, 1), np.ones((8, 8), np.float32))], 1, 5000, longest=10)
    assert last[0].tolist() == [False] * 9 + [True]


def test_each_tile_has_an_outline_of_its_own():
    strong, weak = np.zeros((10, 10), np.float32), np.zeros((10, 10), np.float32)
    strong[:2] = 1.0
    weak[-2:] = 0.1
    taken = composed_outline([((0, 0, 10, 10), strong), ((10, 0, 20, 10), weak)], 10, 20, share=0.2)
    assert taken[:2, :10].all()
    assert taken[-2:, 10:].all()
    assert taken.sum() == 40


def test_a_tile_outside_the_picture_is_refused():
    with pytest.raises(ExplainerError, match="outside the picture of 60 x 40"):
        composed_map([((30, 0, 61, 40), np.zeros((8, 8), np.float32))], 40, 60)


def test_boxes_that_overlap_or_touch_become_one():
    assert merged_boxes([(0, 0, 10, 10), (5, 5, 20, 8)]) == [(0, 0, 20, 10)]
    assert merged_boxes([(0, 0, 10, 10), (10, 2, 20, 8)]) == [(0, 0, 20, 10)]
    assert merged_boxes([(0, 0, 10, 10), (11, 2, 20, 8)]) == [(0, 0, 10, 10), (11, 2, 20, 8)]
    # Through a third one, and the first box's comes first.
    chain = [(30, 0, 40, 10), (0, 0, 10, 10), (100, 0, 110, 10), (8, 0, 32, 5)]
    assert merged_boxes(chain) == [(0, 0, 40, 10), (100, 0, 110, 10)]
    assert merged_boxes([]) == []


def grey(height, width):
    return np.full((height, width, 3), 128, np.uint8)


def test_the_overlay_leaves_what_was_not_explained_as_it_was():
    spot = np.zeros((64, 64), np.float32)
    spot[20:40, 20:40] = 1.0
    drawn = tiles_overlay(grey(100, 200), [((100, 10, 164, 74), spot)], (0, 0, 200, 100))
    changed = (drawn != 128).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (100, 10, 164, 74), "the dashes"
    assert np.ptp(drawn[40, 130].astype(int)) > 40, "coloured where the map is high"
    assert not changed[15, 110], "the picture shows where the map of an explained tile is 0"


def test_a_part_is_drawn_as_it_is_on_the_whole():
    rng = np.random.default_rng(3)
    soft = ndimage.gaussian_filter(rng.random((64, 64)), 6).astype(np.float32)
    soft = (soft - soft.min()) / np.ptp(soft)
    tiles = [((40, 20, 104, 84), soft), ((80, 30, 144, 94), soft[::-1].copy()), ((300, 0, 364, 64), soft)]
    whole = tiles_overlay(grey(120, 400), tiles, (0, 0, 400, 120))
    part = (60, 25, 130, 90)
    cut = tiles_overlay(grey(65, 70), tiles, part)
    inside = (slice(3, -3), slice(3, -3))  # the outline is closed along the part's edge
    same = whole[25:90, 60:130][inside] == cut[inside]
    assert same.mean() > 0.97


def test_a_part_without_a_map_is_returned_as_it_is():
    pixels = grey(30, 40)
    drawn = tiles_overlay(pixels, [((100, 0, 150, 50), np.ones((50, 50), np.float32))], (0, 0, 40, 30))
    assert (drawn == pixels).all()
    assert drawn is not pixels


def test_the_sheet_shows_the_picture_and_each_tile():
    spot = np.zeros((64, 64), np.float32)
    spot[30:34, 30:34] = 1.0
    tiles = [((10, 10, 74, 74), spot), ((5000, 30, 5064, 94), spot)]
    sheet = tiles_figure(grey(100, 6000), tiles, caption="scratch 0.97", box=(40, 40, 44, 44), tile=128)
    assert sheet.shape[1] == 2048 + 20
    # Caption, the picture 34 pixels high, one row of four cells.
    assert sheet.shape[0] == 33 + 34 + 10 + (128 + 13 + 20)
    assert place_text(tiles[1][0]) == "x 5000 to 5064, y 30 to 94"
