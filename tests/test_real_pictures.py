"""Real pictures, where they are: labels read, groups kept together, every file decoded."""

import os
from pathlib import Path

import pytest

from classifiers.data.dataset import split_by_group
from classifiers.data.reading import load_dataset
from sources.decoding import decode

DATA = Path(os.environ.get("KENSA_DATA", Path(__file__).parents[2] / "shared" / "data"))
TILES = DATA / "magnetic_tile"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not TILES.is_dir(), reason=f"no real pictures in {DATA}; set KENSA_DATA to where they are"
    ),
]


def test_no_tile_is_on_two_sides_of_the_split() -> None:
    tiles = load_dataset(TILES / "labels.csv", group_column="group_loose", good_class="MT_Free")
    assert len(tiles.items) == 1344
    assert tiles.counts()["MT_Free"] == 952
    sides = split_by_group(tiles, (0.58, 0.07, 0.2, 0.15))
    groups = [{item.group for item in side.items} for side in sides]
    assert sum(len(g) for g in groups) == len(set.union(*groups)) == 244
    assert sum(len(side.items) for side in sides) == 1344
    for side in sides:
        assert set(side.counts()) == set(tiles.classes), "every class on every side"


def test_real_pictures_decode_to_their_size() -> None:
    tiles = load_dataset(TILES / "labels.csv", group_column="group_loose", good_class="MT_Free")
    for item in tiles.items[::20]:
        decoded = decode(item.path.read_bytes())
        assert decoded.pixels.shape == (decoded.height, decoded.width, 3)
        assert 100 <= decoded.width <= 640
        assert decoded.format == "JPEG"
