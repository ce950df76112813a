"""Reviewed findings as COCO JSON, read by pycocotools and by kensa itself."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifiers.data.reading import load_dataset
from classifiers.data.regions import annotated_share
from db.artifacts import ArtifactStore
from operations.coco_annotations import CocoFile
from operations.inspection.map_files import encode_map
from tests.operations.test_dataset_export import PIT_IS_DENT, finding

SIZE = (40, 60)  # height, width
BOX = (12, 8, 24, 16)


# pycocotools 2.0.11 hands numpy 2 an __array__ without the copy keyword.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_boxes_and_masks_are_read_back(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    values = np.zeros((20, 30), dtype=np.float32)  # half of the picture's size: 6 x 4 become 12 x 8 pixels
    values[4:8, 6:12] = 1
    digest = store.put(encode_map(values), "map", "image/png").digest
    (tmp_path / "set" / "pictures").mkdir(parents=True)
    for number in range(3):
        Image.new("L", SIZE[::-1], 60 * number).save(tmp_path / "set" / "pictures" / f"{number}.png")
    names = {"group": "L1", "lot": "L1", "part": "P1"}
    coco = CocoFile(store)
    masked = replace(finding("pit", "pit"), box=BOX, map_digest=digest)
    coco.add("pictures/0.png", SIZE, ("pit",), names, [masked, masked])
    gone = replace(PIT_IS_DENT, box=BOX, map_digest="0" * 64)
    coco.add("pictures/1.png", SIZE, ("dent",), names, [gone])
    coco.add("pictures/2.png", SIZE, ("good",), names, [replace(finding("pit"), box=BOX)])
    file = tmp_path / "set" / "annotations.json"
    file.write_text(json.dumps(coco.content()))

    pycocotools = pytest.importorskip("pycocotools.coco")
    with contextlib.redirect_stdout(io.StringIO()):
        read = pycocotools.COCO(str(file))
    annotations = read.loadAnns(read.getAnnIds())
    assert [one["bbox"] for one in annotations] == [[12, 8, 12, 8]] * 2
    left, top, right, bottom = BOX
    for one in annotations:
        mask = read.annToMask(one)
        assert mask.shape == SIZE
        assert mask.sum() == mask[top:bottom, left:right].sum() == one["area"] == 96

    dataset = load_dataset(tmp_path / "set", good_class="good")
    assert dataset.layout == "COCO JSON"
    assert [(item.labels, item.group) for item in dataset.items] == [
        (("pit",), "L1"),
        (("dent",), "L1"),
        (("good",), "L1"),
    ]
    for item in dataset.items[:2]:
        assert annotated_share(item, [BOX], SIZE)[item.labels[0]].pixels.tolist() == [96]
    assert dataset.items[2].annotations == ()
