from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifiers.data.annotations import MaskFile
from classifiers.data.dataset import DataError
from classifiers.data.reading import load_dataset
from classifiers.data.survey import MOST_PIXELS, Survey, survey_pictures


@pytest.mark.parametrize(
    ("height", "width", "defect", "proposed"),
    [
        # Nothing speaks against the usual input: its own size, not too long, or nothing known of defects.
        (224, 224, None, (224, 224)),
        (480, 640, None, (224, 224)),
        (2048, 2048, None, (224, 224)),
        (200, 200, 4.0, (224, 224)),  # not shrunk: a larger input would show no more
        # Long pictures: the shorter side has 224 pixels, 1260 * 224 / 500 = 564 is nearest to 576.
        (1260, 500, None, (576, 224)),
        (500, 1260, None, (224, 576)),
        (1260, 500, 20.0, (576, 224)),  # 20 * 0.448 = 9 pixels are enough
        # Small defects: 8 / 10 of the size, which is within four times the usual input.
        (480, 640, 10.0, (384, 512)),
        # Never more than that, nor larger than the picture is.
        (256, 4096, 10.0, (128, 1568)),
        (100, 300, 2.0, (96, 288)),
    ],
)
def test_the_proposed_input_follows_the_pictures(
    height: int, width: int, defect: float | None, proposed: tuple[int, int]
) -> None:
    survey = Survey(height, width, alike=True, defect=defect)
    assert survey.proposed_size == proposed


def test_proposals_are_bounded_multiples_of_32() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        height, width = (int(side) for side in np.exp(rng.uniform(np.log(16), np.log(20_000), 2)))
        defect = float(rng.uniform(1, 100)) if rng.random() < 0.5 else None
        rows, columns = Survey(height, width, alike=bool(rng.random() < 0.5), defect=defect).proposed_size
        assert rows % 32 == columns % 32 == 0
        assert min(rows, columns) >= 32
        assert rows * columns <= MOST_PIXELS


def test_pictures_of_unlike_proportions_get_a_square() -> None:
    assert Survey(1260, 500, alike=False, defect=None).proposed_size == (224, 224)
    assert Survey(332, 273, alike=False, defect=11.8).proposed_size == (224, 224)  # 8.0 pixels, nearly
    assert Survey(332, 273, alike=False, defect=10.0).proposed_size == (256, 256)  # 332 * 8 / 10 = 266


def write_set(folder: Path) -> Path:
    """Six pictures 60 wide and 150 high; four defects of 4, 16, 64 and 100 pixels."""
    rows = []
    for index, side in enumerate((2, 4, 8, 10, 0, 0)):
        Image.fromarray(np.full((150, 60), 120, dtype=np.uint8)).save(folder / f"p{index}.png")
        mask = np.zeros((150, 60), dtype=np.uint8)
        mask[5 : 5 + side, 5 : 5 + side] = 255
        mask[60:, :] = 127  # not above the threshold
        Image.fromarray(mask).save(folder / f"m{index}.png")
        rows.append((f"p{index}.png", "crack" if side else "good", f"m{index}.png" if index != 5 else ""))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label", "mask"), *rows])
    return folder / "labels.csv"


def test_a_survey_measures_pictures_and_defects(tmp_path: Path) -> None:
    file = write_set(tmp_path)
    dataset = load_dataset(file, good_class="good")
    assert [item.annotations for item in dataset.items] == [
        *((MaskFile("crack", tmp_path / f"m{index}.png"),) for index in range(4)),
        *((), ()),  # a good picture has no defect to show
    ]
    survey = survey_pictures(dataset)
    # Sides 2, 4, 8, 10: a quarter of the way from the first to the last is 3.5.
    assert survey == Survey(150, 60, alike=True, defect=3.5, masks=4)
    (tmp_path / "m1.png").write_bytes(b"")
    (tmp_path / "m2.png").unlink()
    survey = survey_pictures(dataset)
    assert survey.masks == 2
    assert [text.partition(": ")[0] for text in survey.unreadable] == [
        str(tmp_path / name) for name in ("m1.png", "m2.png")
    ]


def test_masks_may_have_a_column_of_another_name_and_change_no_digest(tmp_path: Path) -> None:
    file = write_set(tmp_path)
    before = load_dataset(file)
    file.write_text(file.read_text().replace("mask\n", "truth\n", 1).replace("mask\r\n", "truth\r\n", 1))
    unmasked = load_dataset(file)
    assert not any(item.annotations for item in unmasked.items)
    assert unmasked.digest == before.digest
    assert load_dataset(file, mask_column="truth").items == before.items
    with pytest.raises(DataError, match="no column 'mask'"):
        load_dataset(file, mask_column="mask")
    assert survey_pictures(unmasked).defect is None


def test_pictures_of_all_proportions_are_not_alike(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    for index in range(10):
        size = (40, 100) if index % 2 else (100, 40)
        Image.new("L", size).save(tmp_path / "good" / f"{index}.png")
    assert not survey_pictures(load_dataset(tmp_path)).alike
