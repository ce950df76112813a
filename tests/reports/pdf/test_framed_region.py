"""What is outlined is measured, and every piece of it has a frame, or is told of."""

import numpy as np
import pytest

from reports.content.finding import Explanation
from reports.pdf.framed_region import outlined_region, region_sentence

MAP = Explanation("sise", map_digest="ab" * 32)


def region(values, **changes):
    height, width = values.shape
    return outlined_region(values, Explanation("sise", **changes), 2 * width, 3 * height)


def spots(*places):
    """A map of 100 by 100 that is 0 but for squares (row, column, side, value)."""
    values = np.zeros((100, 100), dtype=np.float32)
    for row, column, side, value in places:
        values[row : row + side, column : column + side] = value
    return values


def test_a_sparse_map_is_outlined_where_it_is_above_0_and_says_how_much_that_is():
    found = region(spots((10, 20, 12, 1.0)))
    assert found.share == pytest.approx(0.0144)
    assert found.everything
    assert found.frames == ((40, 30, 64, 66),)
    assert found.percent_frames == (pytest.approx((20, 10, 12, 12)),)
    assert region_sentence(found, "crack") == (
        "Map for “crack”: the stronger the colour, the higher. Outlined: 1.44 % of the picture, all pixels "
        "where the map is above 0. Framed: the outlined piece."
    )


def test_a_full_map_is_outlined_where_it_is_highest():
    found = region(np.linspace(0.01, 1, 10_000, dtype=np.float32).reshape(100, 100))
    assert found.share == pytest.approx(0.2)
    assert not found.everything
    assert "Outlined: 20 % of the picture, the pixels where it is highest." in region_sentence(found, "crack")


def test_every_piece_has_a_frame_that_with_the_peak_first_and_specks_are_told_of():
    values = spots((0, 0, 30, 0.5), (50, 50, 10, 1.0), (80, 0, 20, 0.6), (0, 90, 2, 0.9))
    found = region(values)
    assert found.pieces == 4
    assert found.frames == ((100, 150, 120, 180), (0, 0, 60, 90), (0, 240, 40, 300))
    assert found.unframed == pytest.approx(4 / (900 + 100 + 400 + 4))
    assert region_sentence(found, "crack").endswith(
        "Framed: 3 of its 4 pieces, the one with the map’s peak by a heavier line; those without a frame "
        "hold 0.28 % of what is outlined."
    )
    assert "Framed: its 3 pieces, the one" in region_sentence(region(values * (values != 0.9)), "crack")


def test_one_frame_among_specks_is_told_as_one():
    assert region_sentence(region(spots((0, 0, 30, 1.0), (80, 80, 2, 0.5))), "crack").endswith(
        "Framed: the one of its 2 pieces with the map’s peak; those without a frame hold 0.44 % of what is "
        "outlined."
    )


def test_of_many_pieces_six_have_a_frame():
    found = region(spots(*((10 * i, 10 * i, 5, 0.5 + i / 20) for i in range(10))))
    assert (len(found.frames), found.pieces) == (6, 10)
    assert found.frames[0] == (180, 270, 190, 285)
    assert found.unframed == pytest.approx(0.4)


def test_a_speck_with_the_peak_has_a_frame():
    assert len(region(spots((0, 0, 40, 0.5), (90, 90, 1, 1.0))).frames) == 2


@pytest.mark.parametrize(
    ("box", "frame"),
    [
        ((10, 20, 30, 40), (10, 20, 30, 40)),
        ((-5, 0, 999, 150), (0, 0, 200, 150)),
        ((50, 50, 50, 80), (40, 30, 64, 66)),
        (None, (40, 30, 64, 66)),
    ],
)
def test_the_recorded_box_frames_the_peak_inside_the_picture(box, frame):
    assert region(spots((10, 20, 12, 1.0)), box=box).frames == (frame,)


def test_an_empty_map_has_nothing_to_frame():
    found = region(np.zeros((4, 4), dtype=np.float32))
    assert (found.share, found.frames, found.pieces, found.unframed) == (0.0, (), 0, 0.0)
    assert region_sentence(found, "crack") == "The map for “crack” is 0 everywhere: nothing is outlined."
