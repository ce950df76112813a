"""How much of a defect lies in a rectangle of a picture, whatever form its annotation has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifiers.data.annotations import Annotation, Box, MaskFile, Polygons, Runs
from classifiers.data.dataset import DataError, Item
from classifiers.data.regions import annotated_share, defect_regions, run_mask

SIZE = (60, 100)  # height, width


def item(*annotations: Annotation) -> Item:
    return Item(Path("p.png"), "p.png", ("crack",), "g", "0" * 64, annotations)


def mask_file(path: Path, *boxes: tuple[int, int, int, int], level: int = 255) -> MaskFile:
    levels = np.zeros(SIZE, dtype=np.uint8)
    for left, top, right, bottom in boxes:
        levels[top:bottom, left:right] = level
    Image.fromarray(levels).save(path)
    return MaskFile("crack", path)


def runs_of(mask: np.ndarray, *, single: bool = True) -> Runs:
    """Encode a mask column by column, starting with what is not a defect."""
    flat = np.concatenate(([False], mask.T.ravel(), [False]))
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return Runs("crack", mask.shape, tuple(np.diff([0, *edges, mask.size]).tolist()), single)


def test_a_box_counts_its_area() -> None:
    shares = annotated_share(
        item(Box("crack", 10, 20, 30, 30)), [(0, 0, 100, 60), (20, 0, 100, 25), (30, 0, 60, 60)], SIZE
    )
    assert list(shares) == ["crack"]
    assert shares["crack"].pixels.tolist() == [200, 50, 0]
    assert shares["crack"].share.tolist() == [1, 0.25, 0]


def test_a_mask_its_runs_and_its_polygon_are_the_same(tmp_path: Path) -> None:
    mask = np.zeros(SIZE, dtype=bool)
    mask[20:30, 10:30] = True
    forms: list[Annotation] = [
        mask_file(tmp_path / "m.png", (10, 20, 30, 30)),
        runs_of(mask),
        runs_of(mask, single=False),
        Polygons("crack", ((10, 20, 30, 20, 30, 30, 10, 30),)),
        Box("crack", 10, 20, 30, 30),
    ]
    for form in forms:
        found = annotated_share(item(form), [(0, 0, 15, 25), (0, 0, 100, 60), (50, 0, 100, 60)], SIZE)[
            "crack"
        ]
        assert found.pixels.tolist() == [25, 200, 0], form
        assert found.share.tolist() == [0.125, 1, 0], form


def test_one_whole_defect_of_several_is_a_share_of_one(tmp_path: Path) -> None:
    """A tile shows its own scratch, however many others the picture has."""
    mask = mask_file(tmp_path / "m.png", (0, 0, 10, 10), (60, 40, 80, 50))
    found = annotated_share(item(mask), [(0, 0, 40, 40), (70, 30, 100, 60), (0, 0, 100, 60)])["crack"]
    assert found.pixels.tolist() == [100, 100, 300]
    assert found.share.tolist() == [1, 0.5, 1]


def test_a_ragged_mask_is_one_defect(tmp_path: Path) -> None:
    """Pixels that a few pixels part are of one defect: a stray one alone is no whole defect."""
    mask = mask_file(tmp_path / "m.png", (16, 16, 32, 20), (34, 18, 35, 19))
    assert len(list(defect_regions(mask))) == 1
    (found,) = annotated_share(item(mask), [(33, 0, 100, 60)]).values()
    assert found.pixels.tolist() == [1]
    assert found.share.tolist() == [1 / 65]


def test_overlapping_boxes_count_each_pixel_once() -> None:
    shares = annotated_share(
        item(Box("crack", 0, 0, 10, 10), Box("crack", 5, 0, 15, 10), Box("pit", 0, 0, 2, 2)),
        [(0, 0, 100, 60), (0, 0, 10, 10)],
    )
    assert shares["crack"].pixels.tolist() == [150, 100]
    assert shares["crack"].share.tolist() == [1, 1]
    assert shares["pit"].pixels.tolist() == [4, 4]


def test_a_polygon_holds_the_pixels_whose_centre_is_inside() -> None:
    """A triangle over half of a square of 8."""
    (region,) = defect_regions(Polygons("crack", ((4, 4, 12, 12, 4, 12),)))
    assert (region.left, region.top) == (4, 4)
    # Row i is crossed at x = i + 0.5, which is a centre: it is the first one outside.
    assert region.pixels.sum(axis=1).tolist() == list(range(8))
    (ring,) = defect_regions(Polygons("crack", ((0, 0, 9, 0, 9, 9, 0, 9), (20, 0, 22, 0, 22, 2, 20, 2))))
    assert ring.area == 81 + 4
    (thin,) = defect_regions(Polygons("crack", ((3, 3.1, 9, 3.1, 9, 3.2, 3, 3.2),)))
    assert (thin.left, thin.top, thin.area) == (3, 3, 6)


def test_shares_agree_with_counting_in_masks(tmp_path: Path) -> None:
    """Any mask, any rectangles: pixels are counted exactly, whatever is taken for one defect."""
    generator = np.random.default_rng(0)
    mask = generator.random(SIZE) > 0.97
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "m.png")
    corners = np.sort(generator.integers(0, 61, (50, 2, 2)), axis=1)
    rectangles = [(int(a[1]), int(a[0]), int(b[1]), int(b[0])) for a, b in corners]
    wanted = [int(mask[top:bottom, left:right].sum()) for left, top, right, bottom in rectangles]
    for form in (MaskFile("crack", tmp_path / "m.png"), runs_of(mask), runs_of(mask, single=False)):
        found = annotated_share(item(form), rectangles, SIZE)["crack"]
        assert found.pixels.tolist() == wanted
        assert ((found.share >= 0) & (found.share <= 1)).all()
        assert sum(region.area for region in defect_regions(form)) == mask.sum()
    assert (run_mask(runs_of(mask)) == mask).all()


def test_an_empty_mask_is_an_annotation_without_pixels(tmp_path: Path) -> None:
    found = annotated_share(item(mask_file(tmp_path / "m.png")), [(0, 0, 9, 9)])["crack"]
    assert (found.pixels.tolist(), found.share.tolist()) == ([0], [0])
    assert annotated_share(item(), [(0, 0, 9, 9)]) == {}


def test_masks_of_low_levels_count_from_the_level_that_is_named(tmp_path: Path) -> None:
    mask = mask_file(tmp_path / "m.png", (0, 0, 4, 4), level=1)
    assert list(defect_regions(mask)) == []
    (region,) = defect_regions(MaskFile("crack", mask.path, above=0))
    assert region.area == 16


def test_a_mask_that_is_not_the_pictures_is_refused(tmp_path: Path) -> None:
    mask = mask_file(tmp_path / "m.png", (0, 0, 4, 4))
    with pytest.raises(DataError, match=r"m\.png: the mask is 60 x 100 pixels, its picture 30 x 50"):
        annotated_share(item(mask), [(0, 0, 9, 9)], (30, 50))
    with pytest.raises(DataError, match="run lengths of crack"):
        annotated_share(item(Runs("crack", SIZE, (6000,))), [(0, 0, 9, 9)], (30, 50))
    mask.path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"m\.png: the mask cannot be read"):
        annotated_share(item(mask), [(0, 0, 9, 9)])
