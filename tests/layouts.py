"""Small data sets in the layouts that people have: grey pictures with squares, written as each wants it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 64)  # height, width
SQUARE = (20, 10, 36, 22)  # left, top, right, bottom of the defect
GOODS, DEFECTS = 10, 5
CLASSES = ("scratch", "pit")


def picture(path: Path, seed: int, *, defect: str | None = None, size: tuple[int, int] = SIZE) -> None:
    """Write a picture; no two are alike. A scratch is a bright square, a pit a dark one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(100, 140, size).astype(np.uint8)
    if defect is not None:
        left, top, right, bottom = SQUARE
        pixels[top:bottom, left:right] = 20 if defect == "pit" else 250
    Image.fromarray(pixels).save(path, quality=95)


def mask(path: Path, *, defect: bool = True, level: int = 255, size: tuple[int, int] = SIZE) -> None:
    """Write a mask with the defect's square, or a black one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.zeros(size, dtype=np.uint8)
    if defect:
        left, top, right, bottom = SQUARE
        levels[top:bottom, left:right] = level
    Image.fromarray(levels).save(path)


def named(folder: Path, suffix: str = ".png", first: int = 0) -> list[tuple[Path, str | None, int]]:
    """Return where pictures go, their defect and a seed: ten good ones, five of each class."""
    kinds = [None] * GOODS + [name for name in CLASSES for _ in range(DEFECTS)]
    return [(folder / f"{first + n:03}{suffix}", kind, first + n) for n, kind in enumerate(kinds)]


def mvtec(root: Path) -> Path:
    for number in range(GOODS):
        picture(root / "train" / "good" / f"{number:03}.png", number)
    picture(root / "test" / "good" / "000.png", 50)
    for place, name in enumerate(CLASSES):
        for number in range(DEFECTS):
            picture(root / "test" / name / f"{number:03}.png", 100 + 10 * place + number, defect=name)
            mask(root / "ground_truth" / name / f"{number:03}_mask.png")
    return root


def visa(root: Path) -> Path:
    """Return the folder of an object; beside it lies split_csv/2cls_highshot.csv."""
    rows, split = [], []
    for path, defect, seed in named(Path("candle/Data/Images"), ".JPG"):
        name = path.parent / ("Anomaly" if defect else "Normal") / path.name
        truth = Path("candle/Data/Masks/Anomaly") / f"{path.stem}.png" if defect else None
        picture(root / name, seed, defect=defect)
        if truth is not None:
            mask(root / truth, level=1)
        entry = (name.as_posix(), truth.as_posix() if truth else "")
        rows.append((entry[0], defect or "normal", entry[1]))
        label = "anomaly" if defect else "normal"
        split.append(("candle", "test" if seed % 5 == 0 else "train", label, *entry))
    write_csv(root / "candle" / "image_anno.csv", ("image", "label", "mask"), rows)
    write_csv(root / "split_csv" / "2cls_highshot.csv", ("object", "split", "label", "image", "mask"), split)
    return root / "candle"


def kolektor(root: Path) -> Path:
    """KolektorSDD: ten parts of two views, one in two with a defect."""
    for part in range(1, 11):
        for view in range(2):
            defect = "scratch" if part % 2 and view else None
            picture(root / f"kos{part:02}" / f"Part{view}.jpg", 10 * part + view, defect=defect)
            mask(root / f"kos{part:02}" / f"Part{view}_label.bmp", defect=bool(defect))
    return root


def kolektor2(root: Path) -> Path:
    """KolektorSDD2: a split of its own, of which both sides have defects."""
    for side, count in (("train", 16), ("test", 6)):
        for number in range(count):
            name = f"{20000 + number + 100 * count}"
            defect = "scratch" if number % 2 else None
            picture(root / side / f"{name}.png", 100 * count + number, defect=defect)
            mask(root / side / f"{name}_GT.png", defect=bool(defect))
    return root


VOC = """<annotation>
  <folder>JPEGImages</folder><filename>{name}</filename>
  <size><width>{width}</width><height>{height}</height><depth>1</depth></size>
  <object><name>{label}</name><difficult>0</difficult>
    <bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>
  </object>
</annotation>
"""


def voc(root: Path) -> Path:
    """PASCAL VOC; good pictures have no XML, as labelImg leaves them."""
    (root / "Annotations").mkdir(parents=True)
    left, top, right, bottom = SQUARE
    for path, defect, seed in named(root / "JPEGImages", ".jpg"):
        picture(path, seed, defect=defect)
        if defect:
            text = VOC.format(
                name=path.name,
                label=defect,
                width=SIZE[1],
                height=SIZE[0],
                xmin=left + 1,  # VOC counts from 1, and its last pixel is inside
                ymin=top + 1,
                xmax=right,
                ymax=bottom,
            )
            (root / "Annotations" / f"{path.stem}.xml").write_text(text)
    return root


def coco_content(pictures: Sequence[tuple[Path, str | None, int]]) -> dict[str, list[dict[str, object]]]:
    left, top, right, bottom = SQUARE
    height, width = bottom - top, right - left
    images, annotations = [], []
    for path, defect, seed in pictures:
        images.append({"id": seed, "file_name": path.name, "height": SIZE[0], "width": SIZE[1]})
        if defect:
            entry: dict[str, object] = {
                "id": 1000 + seed,
                "image_id": seed,
                "category_id": 7 + CLASSES.index(defect),
                "bbox": [left, top, width, height],
                "area": width * height,
                "iscrowd": 0,
            }
            if defect == "scratch":
                entry["segmentation"] = [[left, top, right, top, right, bottom, left, bottom]]
            annotations.append(entry)
    categories = [{"id": 7 + place, "name": name} for place, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco(root: Path) -> Path:
    """COCO as published: annotations/instances_train2017.json and train2017/."""
    pictures = named(root / "train2017", ".jpg")
    for path, defect, seed in pictures:
        picture(path, seed, defect=defect)
    (root / "annotations").mkdir()
    file = root / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps(coco_content(pictures)))
    return root


def yolo(root: Path) -> Path:
    """YOLO with a split in folders: scratches are boxes, pits are outlines; good pictures have no file."""
    left, top, right, bottom = SQUARE
    height, width = SIZE
    for path, defect, seed in named(root / "images"):
        side = "val" if seed % 5 == 0 else "train"
        picture(root / "images" / side / path.name, seed, defect=defect)
        if defect == "scratch":
            numbers = (
                (left + right) / 2 / width,
                (top + bottom) / 2 / height,
                (right - left) / width,
                (bottom - top) / height,
            )
            line = "0 " + " ".join(f"{number:.6f}" for number in numbers)
        else:
            corners = ((left, top), (right, top), (right, bottom), (left, bottom))
            line = "1 " + " ".join(f"{x / width:.6f} {y / height:.6f}" for x, y in corners)
        if defect:
            file = root / "labels" / side / f"{path.stem}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(line + "\n")
    (root / "data.yaml").write_text(
        "path: ../datasets/parts\ntrain: images/train\nval: images/val\nnames:\n  0: scratch\n  1: pit\n"
    )
    return root


def severstal(root: Path) -> Path:
    """Severstal's strips, small: class 3 is a scratch, class 1 a pit; the last strip has both."""
    left, top, right, bottom = SQUARE
    rows = []

    def runs(first: int, last: int) -> str:
        return " ".join(f"{column * SIZE[0] + top + 1} {bottom - top}" for column in range(first, last))

    for path, defect, seed in named(root / "train_images", ".jpg"):
        picture(path, seed, defect=defect)
        if defect:
            rows.append((path.name, 3 if defect == "scratch" else 1, runs(left, right)))
    rows.append((rows[-1][0], 3, runs(left, left + 4)))
    write_csv(root / "train.csv", ("ImageId", "ClassId", "EncodedPixels"), rows)
    return root


def class_folders(root: Path) -> Path:
    for path, defect, seed in named(root):
        picture(root / (defect or "good") / path.name, seed, defect=defect)
    return root


def table(root: Path) -> Path:
    rows = []
    for path, defect, seed in named(root / "images"):
        picture(path, seed, defect=defect)
        truth = root / "masks" / path.name
        if defect:
            mask(truth)
        name = f"masks/{path.name}" if defect else ""
        rows.append((f"images/{path.name}", defect or "good", name))
    write_csv(root / "labels.csv", ("image", "label", "mask"), rows)
    return root / "labels.csv"


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "folders": class_folders,
    "csv": table,
    "mvtec": mvtec,
    "visa": visa,
    "kolektor": kolektor,
    "kolektor2": kolektor2,
    "voc": voc,
    "coco": coco,
    "yolo": yolo,
    "severstal": severstal,
}
