"""The data sets of an evaluation, each on a tiny copy of its published format."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explainers import ExplainerError
from explainers.evaluation.coco import coco_samples
from explainers.evaluation.folder import Columns, folder_samples
from explainers.evaluation.samples import Sample, SampleSet, choose, draw, known_only
from explainers.evaluation.severstal import Cut, severstal_samples, write_patches
from explainers.evaluation.voc import voc_samples


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def grey(height: int = 4, width: int = 6, value: int = 0) -> np.ndarray:
    return np.full((height, width), value, dtype=np.uint8)


def by_key(dataset: SampleSet) -> dict[tuple[str, str], Sample]:
    return {(sample.image, sample.label): sample for sample in dataset.samples}


# --- folder -----------------------------------------------------------------------------------------------


@pytest.fixture
def labels(tmp_path: Path) -> Callable[..., Path]:
    """Pictures a, b; masks left (columns 0, 1), dot (one pixel of 128), faint (127), none (all 0)."""
    left, dot = grey(), grey()
    left[:, :2] = 255
    dot[3, 5] = 128
    for name, mask in (("left", left), ("dot", dot), ("faint", grey(value=127)), ("none", grey())):
        save(tmp_path / f"masks/{name}.png", mask)
    for name in ("a", "b"):
        save(tmp_path / f"images/{name}.png", grey(value=90))

    def write(*rows: str, header: str = "image,label,mask") -> Path:
        path = tmp_path / "labels.csv"
        path.write_text("\n".join((header, *rows)) + "\n")
        return path

    return write


def test_csv_has_one_sample_for_each_picture_and_class(labels: Callable[..., Path]) -> None:
    path = labels(
        "images/a.png,pit,masks/left.png",
        "images/a.png,pit,masks/dot.png",  # a second instance of the same class
        "images/a.png,crack,masks/dot.png",
        "images/b.png,crack,",
        "images/b.png,pit,masks/none.png",
        "images/b.png,scale,masks/faint.png",
    )
    dataset = folder_samples(path)
    samples = by_key(dataset)
    assert set(samples) == {("images/a.png", "pit"), ("images/a.png", "crack")}
    assert dataset.skipped == {"no mask is given": 1, "the mask is empty": 2}
    pixels, mask = samples["images/a.png", "pit"].read()
    assert pixels.shape == (4, 6, 3)
    assert pixels.dtype == np.uint8
    assert mask.dtype == bool
    assert mask.sum() == 4 * 2 + 1
    assert samples["images/a.png", "crack"].read()[1].nonzero() == (3, 5)
    assert samples["images/a.png", "crack"].group == "images/a.png"


def test_threshold_columns_where_and_group(labels: Callable[..., Path]) -> None:
    path = labels(
        "images/a.png,pit,masks/faint.png,7,line-1",
        "images/b.png,pit,masks/faint.png,8,line-2",
        header="file,kind,truth,lot,line",
    )
    columns = Columns("file", "kind", "truth", "lot")
    dataset = folder_samples(path, columns=columns, where={"line": ["line-2"]}, threshold=126)
    (sample,) = dataset.samples
    assert (sample.image, sample.group, int(sample.read()[1].sum())) == ("images/b.png", "8", 24)
    assert dataset.truth == {"kind": "folder", "threshold": 126}


def test_folders_of_classes(tmp_path: Path) -> None:
    mask = grey(value=255)
    for label, name in (("pit", "x"), ("crack", "x"), ("pit", "y")):
        save(tmp_path / f"images/{label}/{name}.jpg", grey())
    save(tmp_path / "masks/pit/x.png", mask)
    save(tmp_path / "masks/crack/x.png", mask)
    dataset = folder_samples(tmp_path)
    assert set(by_key(dataset)) == {("images/pit/x.jpg", "pit"), ("images/crack/x.jpg", "crack")}
    assert dataset.skipped == {"no mask is given": 1}


def test_only_the_pictures_of_a_split(labels: Callable[..., Path], tmp_path: Path) -> None:
    path = labels("images/a.png,pit,masks/left.png", "images/b.png,pit,masks/left.png")
    (tmp_path / "model.splits").mkdir()
    split = tmp_path / "model.splits" / "test.csv"
    split.write_text("image,label,group\n../images/b.png,pit,7\n")
    dataset = folder_samples(path, choice=choose(subset=split))
    assert [sample.image for sample in dataset.samples] == ["images/b.png"]
    assert folder_samples(path, choice=choose(classes=["crack"])).samples == ()
    split.write_text("image\n")
    with pytest.raises(ExplainerError, match="lists no picture"):
        choose(subset=split)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("images/c.png,pit,masks/left.png", "line 2: there is no picture"),
        ("images/a.png,pit,masks/c.png", "line 2: there is no mask"),
        ("images/a.png,,masks/left.png", "line 2: column 'label' is empty"),
    ],
)
def test_csv_errors_name_file_and_line(labels: Callable[..., Path], row: str, words: str) -> None:
    with pytest.raises(ExplainerError, match=f"labels.csv, {words}"):
        folder_samples(labels(row))


def test_other_folder_errors(labels: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ExplainerError, match=r"labels.csv: no column 'mask'; there are image, label"):
        folder_samples(labels("a,b", header="image,label"))
    save(tmp_path / "masks/big.png", grey(8, 8, 255))
    dataset = folder_samples(labels("images/a.png,pit,masks/big.png"))
    with pytest.raises(ExplainerError, match=r"big.png: the mask is \(8, 8\), its picture \(4, 6\)"):
        dataset.samples[0].read()
    (tmp_path / "images/a.png").write_bytes(b"no picture")
    with pytest.raises(ExplainerError, match=r"a.png: cannot be read as a picture"):
        folder_samples(labels("images/a.png,pit,masks/left.png")).samples[0].read()
    with pytest.raises(ExplainerError, match="cannot be read as CSV"):
        folder_samples(tmp_path / "nowhere.csv")


# --- drawing ----------------------------------------------------------------------------------------------


def made(*keys: tuple[str, str]) -> SampleSet:
    samples = tuple(
        Sample(image, label, Path(image), image, lambda: (grey(), grey())) for image, label in keys
    )
    return SampleSet("made", samples, {})


def test_draw_takes_turns_over_the_classes() -> None:
    dataset = made(*((f"{n:02}", "common") for n in range(20)), ("x", "rare"), ("y", "rare"))
    drawn = draw(dataset, 6, seed=1)
    assert [sample.label for sample in drawn.samples] == [
        "common",
        "rare",
        "common",
        "rare",
        "common",
        "common",
    ]
    assert drawn.samples == draw(dataset, 6, seed=1).samples
    assert drawn.samples == draw(dataset, seed=1).samples[:6]
    assert drawn.samples != draw(dataset, 6, seed=2).samples
    assert len(draw(dataset).samples) == 22


def test_classes_unknown_to_the_model_are_counted() -> None:
    dataset = made(("a", "pit"), ("b", "moon"), ("c", "moon"))
    known = known_only(dataset, {"pit", "crack"})
    assert [sample.image for sample in known.samples] == ["a"]
    assert known.skipped == {"class unknown to the model": 2}
    with pytest.raises(ExplainerError, match=r"the data has moon, pit; the model knows crack"):
        known_only(dataset, {"crack"})
    with pytest.raises(ExplainerError, match="a with class 'pit' appears 2 times"):
        made(("a", "pit"), ("a", "pit"))


# --- Severstal --------------------------------------------------------------------------------------------


@pytest.fixture
def severstal(tmp_path: Path) -> Path:
    """Strips s1 (class 3: rows 0-199 of column 0; class 1: rows 0-9 of column 256), s2 (class 4: rows 250-255
    of column 255 and 0-249 of column 256), s3 (no defect)."""
    for name in ("s1", "s2", "s3"):
        strip = np.zeros((256, 1600), dtype=np.uint8) + 100
        strip[:, 256:] = 200
        save(tmp_path / f"train_images/{name}.jpg", strip)
    (tmp_path / "train.csv").write_text(
        "ImageId,ClassId,EncodedPixels\n"
        "s1.jpg,3,1 200\n"
        f"s1.jpg,1,{256 * 256 + 1} 10\n"
        f"s2.jpg,4,{255 * 256 + 251} 256\n"
    )
    return tmp_path


def test_severstal_runs_go_down_the_columns_and_are_cut_into_patches(severstal: Path) -> None:
    cut = Cut(min_area=6)
    dataset = severstal_samples(severstal / "train.csv", severstal / "train_images", cut=cut)
    samples = by_key(dataset)
    assert set(samples) == {
        ("s1.jpg@0,0", "3"),
        ("s1.jpg@0,256", "1"),
        ("s2.jpg@0,0", "4"),
        ("s2.jpg@0,256", "4"),
    }
    assert dataset.skipped == {"patch without a defect": 4 + 4}
    pixels, mask = samples["s1.jpg@0,0", "3"].read()
    assert pixels.shape == (256, 256, 3)
    assert abs(int(pixels[0, 0, 0]) - 100) < 3
    assert mask[:200, 0].all()
    assert mask.sum() == 200
    pixels, mask = samples["s1.jpg@0,256", "1"].read()
    assert abs(int(pixels[0, 9, 0]) - 200) < 3
    assert mask[:10, 0].all()
    assert mask.sum() == 10
    first, second = (samples[f"s2.jpg@0,{left}", "4"].read()[1] for left in (0, 256))
    assert first[250:, 255].all()
    assert first.sum() == 6
    assert second[:250, 0].all()
    assert second.sum() == 250
    assert {sample.group for sample in dataset.samples} == {"s1.jpg", "s2.jpg"}


def test_severstal_small_cuts_stride_and_classes(severstal: Path) -> None:
    table, images = severstal / "train.csv", severstal / "train_images"
    dataset = severstal_samples(table, images, class_names=("a", "b", "c", "d"))
    assert set(by_key(dataset)) == {("s1.jpg@0,0", "c"), ("s2.jpg@0,256", "d")}
    assert dataset.skipped["defect of less than 100 pixels in the patch"] == 2
    wide = Cut(patch=(256, 512), stride=(256, 128), min_area=5)
    one = severstal_samples(table, images, cut=wide, choice=choose(classes=["1", "3"]))
    assert ("s1.jpg@0,0", "3") in by_key(one)
    assert ("s1.jpg@0,0", "1") not in by_key(one)
    assert one.skipped["another defect class has more of the patch"] == 1
    both = severstal_samples(
        table, images, cut=Cut((256, 512), (256, 128), 5, every_class=True), choice=choose(["1", "3"])
    )
    assert {("s1.jpg@0,0", "3"), ("s1.jpg@0,0", "1"), ("s1.jpg@0,128", "1")} <= set(by_key(both))


def test_severstal_older_table(severstal: Path) -> None:
    table = severstal / "train.csv"
    expected = {key: int(s.read()[1].sum()) for key, s in by_key(both_forms(severstal)).items()}
    lines = ["ImageId_ClassId,EncodedPixels"]
    with table.open() as file:
        rows = {(row["ImageId"], row["ClassId"]): row["EncodedPixels"] for row in csv.DictReader(file)}
    for strip in ("s1.jpg", "s2.jpg", "s3.jpg"):
        lines += [f"{strip}_{number},{rows.get((strip, str(number)), '')}" for number in range(1, 5)]
    table.write_text("\n".join(lines) + "\n")
    assert {key: int(s.read()[1].sum()) for key, s in by_key(both_forms(severstal)).items()} == expected


def both_forms(folder: Path) -> SampleSet:
    return severstal_samples(folder / "train.csv", folder / "train_images", cut=Cut(min_area=1))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("s1.jpg,5,1 2", "ClassId 1 to 4"),
        ("s1.jpg,1,1 2 3", "pairs of start and length"),
        ("s1.jpg,1,one two", "pairs of start and length"),
        ("s1.jpg,1,0 2", "outside a strip"),
        (f"s1.jpg,1,{256 * 1600} 2", "outside a strip"),
        ("../s1.jpg,1,1 2", "plain file name"),
    ],
)
def test_severstal_errors_name_file_and_line(severstal: Path, row: str, words: str) -> None:
    (severstal / "train.csv").write_text(f"ImageId,ClassId,EncodedPixels\n{row}\n")
    with pytest.raises(ExplainerError, match=f"train.csv, line 2: .*{words}"):
        both_forms(severstal)


def test_severstal_other_errors(severstal: Path) -> None:
    (severstal / "train.csv").write_text("ImageId,ClassId,EncodedPixels\ns9.jpg,1,1 2\n")
    with pytest.raises(ExplainerError, match=r"there is no strip .*s9.jpg"):
        both_forms(severstal)
    (severstal / "train.csv").write_text("ImageId,ClassId,EncodedPixels\nsmall.jpg,1,1 200\n")
    save(severstal / "train_images/small.jpg", grey())
    with pytest.raises(
        ExplainerError, match=r"small.jpg: a strip is \(256, 1600\), this picture is \(4, 6\)"
    ):
        both_forms(severstal).samples[0].read()
    with pytest.raises(ExplainerError, match="does not fit into a strip"):
        Cut(patch=(512, 512))


def test_patches_to_train_on(severstal: Path) -> None:
    labels = write_patches(
        severstal / "train.csv", severstal / "train_images", severstal / "patches", cut=Cut(min_area=100)
    )
    with labels.open() as file:
        rows = list(csv.DictReader(file))
    found = {row["image"]: row["label"] for row in rows}
    assert found["images/3/s1_0_0.png"] == "3"
    assert found["images/4/s2_0_256.png"] == "4"
    assert sum(label == "none" for label in found.values()) == 4 + 4 + 6
    # Six pixels of class 4, and ten of class 1, are neither a defect nor none.
    assert len(rows) == 16
    with Image.open(severstal / "patches/images/4/s2_0_256.png") as patch:
        assert patch.size == (256, 256)
    # The split of such a training names the strips, which is how an evaluation leaves the others out.
    split = severstal / "test.csv"
    split.write_text("image,label,group\npatches/images/4/s2_0_256.png,4,s2.jpg\n")
    held_out = severstal_samples(
        severstal / "train.csv",
        severstal / "train_images",
        choice=choose(subset=split, column="group", by_name=True),
    )
    assert set(by_key(held_out)) == {("s2.jpg@0,256", "4")}
    with pytest.raises(ExplainerError, match="exists already"):
        write_patches(severstal / "train.csv", severstal / "train_images", severstal / "patches")
    few = write_patches(
        severstal / "train.csv", severstal / "train_images", severstal / "few", good=3, good_class="good"
    )
    assert few.read_text().count(",good,") == 3


# --- PASCAL VOC -------------------------------------------------------------------------------------------

OBJECT = """<object><name>{name}</name><pose>Left</pose><truncated>0</truncated>
<difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>
<ymax>{box[3]}</ymax></bndbox></object>"""


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """VOCdevkit/VOC2007, test: 000001 with a cat, a difficult dog and two persons; 000002 with a sheep."""
    root = tmp_path / "VOCdevkit" / "VOC2007"
    objects = {
        "000001": [
            ("cat", 0, (1, 1, 2, 3)),
            ("person", 0, (3, 1, 4, 1)),
            ("person", 0, (6, 4, 6, 4)),
            ("person", 1, (1, 4, 2, 4)),
            ("dog", 1, (1, 1, 6, 4)),
        ],
        "000002": [("sheep", 0, (2, 2, 5, 3))],
    }
    for name, things in objects.items():
        save(root / f"JPEGImages/{name}.jpg", grey())
        (root / "Annotations").mkdir(exist_ok=True)
        text = "".join(OBJECT.format(name=label, difficult=d, box=box) for label, d, box in things)
        (root / f"Annotations/{name}.xml").write_text(
            f"<annotation><folder>VOC2007</folder><filename>{name}.jpg</filename>"
            f"<size><width>6</width><height>4</height><depth>3</depth></size>{text}</annotation>"
        )
    mask = Image.fromarray(np.array([[8, 8, 0, 15, 255, 0]] * 4, dtype=np.uint8))
    mask.putpalette([value for n in range(256) for value in (n, 255 - n, n)])
    (root / "SegmentationClass").mkdir()
    mask.convert("P").save(root / "SegmentationClass/000001.png")
    for kind, names in (("Main", "000001\n000002\n"), ("Segmentation", "000001\n")):
        (root / "ImageSets" / kind).mkdir(parents=True)
        (root / "ImageSets" / kind / "test.txt").write_text(names)
    return tmp_path


def test_voc_boxes(voc: Path) -> None:
    dataset = voc_samples(voc)
    samples = by_key(dataset)
    assert set(samples) == {("000001", "cat"), ("000001", "person"), ("000002", "sheep")}
    assert dataset.skipped == {"only difficult objects of the class": 1}
    cat = samples["000001", "cat"].read()[1]
    assert cat[:3, :2].all()
    assert cat.sum() == 6
    person = samples["000001", "person"].read()[1]
    assert person[0, 2:4].all()
    assert person[3, 5]
    assert person.sum() == 3
    hard = by_key(voc_samples(voc, difficult=True))
    assert hard["000001", "dog"].read()[1].all()
    assert hard["000001", "person"].read()[1].sum() == 5


def test_voc_masks(voc: Path) -> None:
    samples = by_key(voc_samples(voc, truth="masks"))
    assert set(samples) == {("000001", "cat"), ("000001", "person")}
    assert samples["000001", "cat"].read()[1].sum() == 8
    assert samples["000001", "person"].read()[1][:, 3].all()


def test_voc_errors(voc: Path) -> None:
    with pytest.raises(ExplainerError, match=r"no PASCAL VOC 2007 test here .* expected VOCdevkit/VOC2007"):
        voc_samples(voc / "VOCdevkit")
    with pytest.raises(ExplainerError, match="truth must be"):
        voc_samples(voc, truth="outline")  # type: ignore[arg-type]
    (voc / "VOCdevkit/VOC2007/Annotations/000002.xml").write_text("<annotation><object>")
    with pytest.raises(ExplainerError, match=r"000002.xml: not a VOC annotation"):
        voc_samples(voc)


# --- MS COCO ----------------------------------------------------------------------------------------------


@pytest.fixture
def coco(tmp_path: Path) -> tuple[Path, Path]:
    """Two pictures of 8 x 10: one with a cat (polygon), a second cat, and a crowd of people (run lengths)."""
    for name in ("COCO_val2014_000000000001.jpg", "COCO_val2014_000000000002.jpg"):
        save(tmp_path / "val2014" / name, grey(8, 10))
    square = [2, 2, 6, 2, 6, 5, 2, 5]
    annotations = [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 17,
            "segmentation": [square],
            "bbox": [2, 2, 4, 3],
            "iscrowd": 0,
        },
        {
            "id": 2,
            "image_id": 1,
            "category_id": 17,
            "segmentation": [[8, 6, 10, 6, 10, 8, 8, 8]],
            "bbox": [8, 6, 2, 2],
            "iscrowd": 0,
        },
        {
            "id": 3,
            "image_id": 1,
            "category_id": 1,
            "segmentation": {"counts": [0, 8, 72], "size": [8, 10]},
            "bbox": [0, 0, 1, 8],
            "iscrowd": 1,
        },
    ]
    content = {
        "images": [
            {"id": n, "file_name": f"COCO_val2014_{n:012}.jpg", "height": 8, "width": 10} for n in (1, 2)
        ],
        "annotations": [{**one, "area": 1.0} for one in annotations],
        "categories": [{"id": 1, "name": "person"}, {"id": 17, "name": "cat"}],
    }
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "instances_val2014.json"
    file.write_text(json.dumps(content))
    return tmp_path / "val2014", file


def test_coco_masks_boxes_and_crowds(coco: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    dataset = coco_samples(*coco)
    (sample,) = dataset.samples
    assert (sample.image, sample.label) == ("COCO_val2014_000000000001.jpg", "cat")
    assert dataset.skipped == {"only crowd regions of the class": 1}
    mask = sample.read()[1]
    assert mask.shape == (8, 10)
    assert mask[2:5, 2:6].all()
    assert mask[6:, 8:].all()
    assert mask.sum() == 12 + 4
    crowd = by_key(coco_samples(*coco, crowd=True))["COCO_val2014_000000000001.jpg", "person"].read()[1]
    assert crowd[:, 0].all()
    assert crowd.sum() == 8
    boxes = coco_samples(*coco, truth="boxes").samples[0].read()[1]
    assert boxes.sum() == 12 + 4
    assert capsys.readouterr().out == ""


def test_coco_errors(coco: tuple[Path, Path]) -> None:
    images, file = coco
    with pytest.raises(ExplainerError, match="no such folder"):
        coco_samples(images / "x", file)
    file.write_text("{")
    with pytest.raises(ExplainerError, match=r"instances_val2014.json: not COCO"):
        coco_samples(images, file)
