"""Every layout is recognised and read: classes, annotations, splits; what is half right is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifiers.data.annotations import Annotation, Box, Runs
from classifiers.data.dataset import DataError, Dataset, split_sides
from classifiers.data.formats.coco import unpacked_counts
from classifiers.data.formats.table import write_table
from classifiers.data.reading import load_dataset, reading_format
from classifiers.data.regions import annotated_share, defect_regions, mask_counts, run_mask
from tests import layouts
from tests.layouts import CLASSES, DEFECTS, GOODS, LAYOUTS, SIZE, SQUARE

AREA = (SQUARE[2] - SQUARE[0]) * (SQUARE[3] - SQUARE[1])
GOOD_NAMES = {"visa": "normal", "severstal": "none"}
Change = Callable[[Path], None]


def form_of(layout: str) -> str:
    return layout.removesuffix("2")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognised_and_counted(layout: str, tmp_path: Path) -> None:
    location = LAYOUTS[layout](tmp_path)
    assert reading_format(location).name == form_of(layout)
    dataset = load_dataset(location, good_class="good" if layout in ("folders", "csv") else None)
    assert dataset.good_class == GOOD_NAMES.get(layout, "good")
    counts = dataset.counts()
    if layout.startswith("kolektor"):
        expected = {"kolektor": {"good": 15, "defect": 5}, "kolektor2": {"good": 11, "defect": 11}}[layout]
        assert counts == expected
    elif layout == "severstal":
        # The last strip shows both classes: the pit has more pixels.
        assert counts == {"none": GOODS, "1": DEFECTS, "3": DEFECTS}
    else:
        good = GOODS + (layout == "mvtec")
        assert counts == {dataset.good_class: good, **dict.fromkeys(CLASSES, DEFECTS)}
    assert load_dataset(location, form=form_of(layout)).items == dataset.items


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "folders"])
def test_annotations_are_the_defects_own_pixels(layout: str, tmp_path: Path) -> None:
    dataset = load_dataset(LAYOUTS[layout](tmp_path), good_class="good")
    left, top, right, bottom = SQUARE
    rectangles = [SQUARE, (left, top, (left + right) // 2, bottom), (0, 0, left, SIZE[0])]
    for item in dataset.items:
        if item.labels == ("good",):
            assert item.annotations == ()
            continue
        shares = annotated_share(item, rectangles, SIZE)
        assert shares[item.labels[0]].pixels.tolist() == [AREA, AREA // 2, 0], item.name
        assert shares[item.labels[0]].share.tolist() == [1, 0.5, 0]


def test_good_pictures_may_have_another_name(tmp_path: Path) -> None:
    dataset = load_dataset(layouts.coco(tmp_path), good_class="fine")
    assert dataset.good_class == "fine"
    assert dataset.counts() == {"fine": GOODS, "pit": DEFECTS, "scratch": DEFECTS}


def test_multi_label_keeps_every_class_of_a_picture(tmp_path: Path) -> None:
    location = layouts.severstal(tmp_path)
    single = load_dataset(location)
    assert single.notes == (
        "1 pictures show several classes: the one with most pixels is their label (--multi-label keeps all)",
    )
    dataset = load_dataset(location, multi_label=True)
    assert dataset.counts() == {"1": DEFECTS, "3": DEFECTS + 1}
    assert (dataset.items[-1].labels, single.items[-1].labels) == (("1", "3"), ("1",))
    assert {annotation.label for annotation in single.items[-1].annotations} == {"1", "3"}
    assert (sum(not item.labels for item in dataset.items), dataset.good_class) == (GOODS, None)


def test_pictures_without_a_word_are_good_and_counted(tmp_path: Path) -> None:
    for layout in ("voc", "yolo"):
        dataset = load_dataset(LAYOUTS[layout](tmp_path / layout))
        assert dataset.notes == (f"{GOODS} pictures have no annotation file: they count as good",)


def test_groups_are_told_where_names_tell_them(tmp_path: Path) -> None:
    groups = {item.group for item in load_dataset(layouts.kolektor(tmp_path / "k")).items}
    assert groups == {f"kos{number:02}" for number in range(1, 11)}
    dataset = load_dataset(layouts.visa(tmp_path / "v"), group_pattern=r"/(\d\d)\d\.JPG")
    assert {item.group for item in dataset.items} == {"00", "01"}
    with pytest.raises(DataError, match="group and mask columns are of a CSV file, this is VisA"):
        load_dataset(tmp_path / "v" / "candle", group_column="lot")


def test_a_table_beside_a_split_carries_annotations_of_every_kind(tmp_path: Path) -> None:
    """What `kensa train` writes for the next model is read as it was."""
    for layout in ("csv", "mvtec", "visa", "kolektor", "voc", "coco", "yolo", "severstal"):
        dataset = load_dataset(LAYOUTS[layout](tmp_path / layout), good_class="good")
        file = tmp_path / f"{layout}.splits" / "training.csv"
        write_table(file, dataset)
        again = load_dataset(file, group_column="group", good_class=dataset.good_class)
        assert again.digest == dataset.digest
        before = {item.sha256: item.annotations for item in dataset.items}
        for item in again.items:
            assert [pixels_of(one) for one in item.annotations] == [
                pixels_of(one) for one in before[item.sha256]
            ]
    bare = load_dataset(layouts.class_folders(tmp_path / "bare"))
    write_table(file, bare)
    assert [path.name for path in file.parent.iterdir()] == ["training.csv"]


def pixels_of(annotation: Annotation) -> list[tuple[str, int, int, bytes]]:
    return [
        (region.label, region.left, region.top, region.pixels.tobytes())
        for region in defect_regions(annotation)
    ]


def test_annotations_beside_a_table_are_not_trusted(tmp_path: Path) -> None:
    file = tmp_path / "training.csv"
    write_table(file, load_dataset(layouts.coco(tmp_path)))
    beside = tmp_path / "training.annotations.jsonl"
    name = "train2017/010.jpg"
    for content, message in (
        ("no json", "line 1: expected image and annotations as JSON"),
        (json.dumps({"image": 1, "annotations": []}), "expected image"),
        (entry(name, {"label": "pit"}), "not an annotation of this picture"),
        (entry(name, {"label": "pit", "box": [0, 0, 1]}), "not an annotation of this picture"),
        (entry(name, {"label": "pit", "box": [0, 0, "nan", 1]}), "expected numbers, got 'nan'"),
        (entry(name, {"label": "pit", "box": [90, 0, 99, 9]}), "has no pixel of the picture"),
        (entry(name, {"label": "pit", "runs": [9], "size": [3, 3], "single": True}), "not an annotation"),
        (entry(name, {"label": "pit", "polygons": [[0, 0, 1, 1]]}), "three corners"),
        ("[" * 100_000, "expected image and annotations as JSON"),
    ):
        beside.write_text(content + "\n")
        with pytest.raises(DataError, match=message):
            load_dataset(file)


def entry(name: str, annotation: dict[str, object]) -> str:
    return json.dumps({"image": name, "annotations": [annotation]})


# Splits that layouts bring along.


def test_a_split_whose_training_side_shows_every_class_is_kept(tmp_path: Path) -> None:
    dataset = load_dataset(layouts.kolektor2(tmp_path))
    sides, sentence = split_sides(dataset, (0.55, 0.1, 0.2, 0.15))
    assert sentence == "its own split is kept: 6 for test; the other pictures are split anew"
    assert {item.name.partition("/")[0] for item in sides[3].items} == {"test"}
    assert sum(len(side.items) for side in sides[:3]) == 16
    assert all(side.counts()["defect"] for side in sides[:3])


def test_a_validation_side_is_kept_too(tmp_path: Path) -> None:
    sides, sentence = split_sides(load_dataset(layouts.yolo(tmp_path)), (0.5, 0.1, 0.2, 0.2))
    assert sentence == "its own split is kept: 4 for validation; the other pictures are split anew"
    assert all("/val/" in item.name for item in sides[1].items)
    assert [len(side.items) for side in sides] == [8, 4, 4, 4]


def test_a_split_with_good_pictures_alone_to_train_on_is_not_kept(tmp_path: Path) -> None:
    dataset = load_dataset(layouts.mvtec(tmp_path))
    sides, sentence = split_sides(dataset, (0.4, 0.2, 0.2, 0.2))
    assert sentence == (
        "its own split is not kept, since its training pictures show no pit, scratch: all pictures are split "
        "anew"
    )
    assert all(side.counts()["pit"] for side in sides)


def test_no_group_is_on_two_sides_of_a_kept_split(tmp_path: Path) -> None:
    """The same bytes are in train and in test: they count as test."""
    location = layouts.kolektor2(tmp_path)
    shutil.copy(location / "test" / "20601.png", location / "train" / "30000.png")
    shutil.copy(location / "test" / "20601_GT.png", location / "train" / "30000_GT.png")
    sides, sentence = split_sides(load_dataset(location), (0.55, 0.1, 0.2, 0.15))
    assert sentence is not None
    assert "7 for test" in sentence
    assert "1 moved" in sentence
    groups = [{item.group for item in side.items} for side in sides]
    assert sum(map(len, groups)) == len(set().union(*groups))


def test_sides_without_a_split_of_the_layout_are_those_of_always(tmp_path: Path) -> None:
    from classifiers.data.dataset import split_by_group

    dataset = load_dataset(layouts.table(tmp_path), good_class="good")
    fractions = (0.55, 0.1, 0.2, 0.15)
    assert split_sides(dataset, fractions, 3) == (split_by_group(dataset, fractions, 3), None)


def test_splits_are_told_by_lists_and_file_names(tmp_path: Path) -> None:
    location = layouts.voc(tmp_path / "voc")
    lists = location / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "test.txt").write_text("000\n010\n015  1\n")
    (lists / "pit_test.txt").write_text("001 -1\n")
    assert sides_of(load_dataset(location)) == {"000": "test", "010": "test", "015": "test"}
    location = layouts.coco(tmp_path / "coco")
    file = location / "annotations" / "instances_train2017.json"
    file.rename(location / "annotations" / "instances_val2017.json")
    (location / "train2017").rename(location / "val2017")
    assert set(sides_of(load_dataset(location)).values()) == {"validation"}
    table = layouts.visa(tmp_path / "visa").parent / "split_csv" / "2cls_highshot.csv"
    dataset = load_dataset(table)
    assert dataset.classes == ("anomaly", "normal")
    assert sides_of(dataset)["005"] == "test"
    assert sides_of(dataset)["006"] == "training"


def sides_of(dataset: Dataset) -> dict[str, str]:
    return {item.path.stem: item.side for item in dataset.items if item.side is not None}


# Variants that tools write.


def test_roboflow_writes_sides_as_folders(tmp_path: Path) -> None:
    for side, first in (("train", 0), ("valid", 30)):
        pictures = layouts.named(tmp_path / side, ".jpg", first)
        for path, defect, seed in pictures:
            layouts.picture(path, seed, defect=defect)
        (tmp_path / side / "_annotations.coco.json").write_text(json.dumps(layouts.coco_content(pictures)))
    dataset = load_dataset(tmp_path)
    assert dataset.counts() == {"good": 2 * GOODS, "pit": 2 * DEFECTS, "scratch": 2 * DEFECTS}
    assert set(sides_of(dataset).values()) == {"training", "validation"}
    one = load_dataset(tmp_path / "valid" / "_annotations.coco.json")
    assert len(one.items) == len(dataset.items) // 2


def test_yolo_with_sides_above_and_a_list_of_classes(tmp_path: Path) -> None:
    made = layouts.yolo(tmp_path / "made")
    for side in ("train", "val"):
        for kind in ("images", "labels"):
            shutil.move(made / kind / side, tmp_path / "set" / side / kind)
    (tmp_path / "set" / "classes.txt").write_text("scratch\npit\n")
    dataset = load_dataset(tmp_path / "set")
    assert dataset.counts() == {"good": GOODS, "pit": DEFECTS, "scratch": DEFECTS}
    assert set(sides_of(dataset).values()) == {"training", "validation"}


def test_run_lengths_of_coco(tmp_path: Path) -> None:
    """Numbers and compressed text, as pycocotools writes it, are the same mask."""
    coder = pytest.importorskip("pycocotools.mask")
    generator = np.random.default_rng(1)
    for share in (0.0, 0.5, 0.98, 1.0):
        mask = generator.random((37, 53)) < share
        packed = coder.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        counts = mask_counts(mask)
        assert unpacked_counts(packed) == list(counts)
        assert (run_mask(Runs("pit", mask.shape, counts)) == mask).all()
    location = layouts.coco(tmp_path)
    file = location / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    mask = np.zeros(SIZE, dtype=bool)
    mask[SQUARE[1] : SQUARE[3], SQUARE[0] : SQUARE[2]] = True
    packed = coder.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    for number, one in enumerate(content["annotations"]):
        counts = packed if number % 2 else list(mask_counts(mask))
        one["segmentation"] = {"counts": counts, "size": list(SIZE)}
    file.write_text(json.dumps(content))
    for item in load_dataset(location).items:
        for annotation in item.annotations:
            assert isinstance(annotation, Runs)
            assert (run_mask(annotation) == mask).all()


def test_sizes_are_of_the_upright_picture(tmp_path: Path) -> None:
    """A box that was drawn on a picture as it is shown lies in the picture as kensa decodes it."""
    location = layouts.coco(tmp_path)
    picture = Image.open(location / "train2017" / "010.jpg").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise when it is shown
    picture.save(location / "train2017" / "010.jpg", exif=exif)
    item = next(item for item in load_dataset(location).items if item.path.stem == "010")
    assert annotated_share(item, [SQUARE], SIZE)["scratch"].share.tolist() == [1]


def test_boxes_are_rounded_outwards_and_clipped(tmp_path: Path) -> None:
    location = layouts.coco(tmp_path)
    file = location / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][-1]["bbox"] = [-3.5, 10.25, 20.2, 100]
    file.write_text(json.dumps(content))
    assert load_dataset(location).items[-1].annotations == (Box("pit", 0, 10, 17, SIZE[0]),)


# What is half right.


def edit(name: str, before: str, after: str) -> Change:
    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert before in text
        (root / name).write_text(text.replace(before, after, 1))

    return change


def remove(name: str) -> Change:
    def change(root: Path) -> None:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def write(name: str, text: str) -> Change:
    def change(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    return change


COCO_FILE = "annotations/instances_train2017.json"
XML_FILE = "Annotations/010.xml"
BOMB = '<!DOCTYPE a [<!ENTITY b "lol">]><annotation>&b;</annotation>'
FOREIGN = '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation></annotation>'


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        ("mvtec", remove("train/good"), "here is no train/good; name the folder of one object"),
        ("mvtec", remove("ground_truth/pit/003_mask.png"), r"003\.png: there is no mask .*003_mask\.png"),
        (
            "mvtec",
            lambda root: layouts.picture(root / "train/pit/0.png", 1),
            "train holds good pictures alone",
        ),
        ("visa", remove("candle/Data/Masks/Anomaly/012.png"), r"image_anno\.csv, line 14: there is no mask"),
        ("visa", remove("candle/Data/Images/Normal/000.JPG"), "line 2: there is no picture"),
        ("visa", edit("candle/image_anno.csv", "candle/Data", "../candle/Data"), "must be a path within"),
        ("visa", edit("candle/image_anno.csv", "label", "class"), "no column 'label'"),
        ("kolektor", remove("kos03/Part1_label.bmp"), r"Part1\.jpg: has no mask Part1_label\.bmp"),
        ("kolektor", remove("kos03/Part1.jpg"), r"Part1_label\.bmp: is a mask without its picture Part1"),
        ("kolektor", write("kos03/Part1_label.bmp", "x"), r"Part1_label\.bmp: the mask cannot be read"),
        ("voc", remove("Annotations"), "no Annotations"),
        ("voc", remove("JPEGImages"), "no JPEGImages"),
        ("voc", remove("JPEGImages/010.jpg"), r"010\.xml: there is no picture"),
        ("voc", write(XML_FILE, BOMB), r"010\.xml: has a document type"),
        ("voc", write(XML_FILE, FOREIGN), r"010\.xml: has a document type"),
        ("voc", write(XML_FILE, "<annotation>"), r"010\.xml: cannot be read as XML"),
        ("voc", edit(XML_FILE, "<xmin>21", "<xmin>inf"), r"010\.xml: expected numbers, got 'inf'"),
        ("voc", edit(XML_FILE, "<width>64", "<width>640"), "was annotated at 640 x 48 pixels"),
        ("voc", edit(XML_FILE, "<name>scratch", "<name>"), r"010\.xml, object: expected the name of a class"),
        ("coco", edit(COCO_FILE, '"categories"', '"classes"'), "is none of"),
        ("coco", edit(COCO_FILE, "000.jpg", "../000.jpg"), "must be a path within the folder"),
        ("coco", edit(COCO_FILE, "000.jpg", "/etc/000.jpg"), "must be a path within the folder"),
        ("coco", edit(COCO_FILE, "003.jpg", "x.jpg"), r"image 3: there is no picture .*x\.jpg"),
        ("coco", remove("train2017"), r"its picture 000\.jpg is not found; looked for in"),
        ("coco", edit(COCO_FILE, '"category_id": 7', '"category_id": 9'), "there is no category 9"),
        ("coco", edit(COCO_FILE, '"image_id": 12', '"image_id": 99'), "annotations of image 99"),
        ("coco", edit(COCO_FILE, '"width": 64', '"width": 64,,'), "cannot be read as JSON"),
        (
            "coco",
            edit(COCO_FILE, '"bbox": [20, 10, 16, 12], "area": 192, "iscrowd": 0}', '"x": 0}'),
            "numbers",
        ),
        ("yolo", remove("data.yaml"), r"neither data\.yaml nor classes\.txt .*: write .*classes\.txt"),
        ("yolo", write("data.yaml", "names: 3\n"), r"data\.yaml: expected names"),
        ("yolo", write("data.yaml", "names: !!python/object:os.system {}\n"), r"data\.yaml"),
        ("yolo", remove("labels"), "YOLO has images/ and labels/ side by side"),
        ("yolo", remove("images/train/011.png"), r"011\.txt: there is no picture for it"),
        (
            "yolo",
            write("labels/train/011.txt", "2 0.5 0.5 0.1 0.1\n"),
            "line 1: class 2, and there are 2 names",
        ),
        (
            "yolo",
            write("labels/train/011.txt", "0 20 10 36 22\n"),
            "shares of the picture's width and height",
        ),
        ("yolo", write("labels/train/011.txt", "0 0.5 0.5 0.1\n"), "line 1: expected class, x, y, width"),
        ("severstal", remove("train_images"), "there is no folder .*train_images with the strips"),
        ("severstal", remove("train_images/010.jpg"), r"there is no strip .*010\.jpg, nor 0 others"),
        ("severstal", edit("train.csv", ",3,", ",5,"), "line 2: expected ImageId and ClassId 1 to 4"),
        ("severstal", edit("train.csv", ",3,", ",3,9999 "), "line 2: EncodedPixels must be pairs"),
        (
            "severstal",
            edit("train.csv", ",3,", ",3,3000 500 "),
            r"010\.jpg: EncodedPixels names a pixel outside",
        ),
        ("severstal", edit("train.csv", "010.jpg", "../010.jpg"), "must be a plain file name"),
    ],
)
def test_what_is_half_right_is_refused(layout: str, change: Change, message: str, tmp_path: Path) -> None:
    location = LAYOUTS[layout](tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        load_dataset(location)


def test_what_is_no_layout_says_what_may_be_meant(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder or file"):
        load_dataset(tmp_path / "absent")
    with pytest.raises(DataError, match="--format xml: expected auto, folders, csv, "):
        load_dataset(tmp_path, form="xml")
    for side in ("train", "test"):
        layouts.picture(tmp_path / "imagenet" / side / "dog" / "1.png", len(side))
    with pytest.raises(DataError, match=r"test, train look like parts of a layout.*--format folders"):
        load_dataset(tmp_path / "imagenet")
    assert load_dataset(tmp_path / "imagenet", form="folders").classes == ("test", "train")
    layouts.mvtec(tmp_path / "all" / "bottle")
    with pytest.raises(DataError, match=r"layout of MVTec AD: name one, such as .*bottle"):
        load_dataset(tmp_path / "all")
    layouts.picture(tmp_path / "flat" / "1.png", 1)
    with pytest.raises(DataError, match="nothing that labels them"):
        load_dataset(tmp_path / "flat")
    (tmp_path / "x.xml").write_text("<annotation/>")
    with pytest.raises(DataError, match="is no CSV, and no COCO JSON"):
        load_dataset(tmp_path / "x.xml")
