"""YOLO: images/NAME.jpg, labels/NAME.txt, and the classes in data.yaml or classes.txt.

Sides of a split are folders, in images/ and labels/ or above them (Roboflow): images/train, or train/images.
The paths in data.yaml are not read. Pictures without a file of labels are good, as Ultralytics takes them.

A line is `class x y width height` of a box, or `class x y x y x y …` of an outline; all are shares of the
picture's width and height. Source: docs.ultralytics.com, dataset formats for detection and segmentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from classifiers.data.annotations import Annotation
from classifiers.data.dataset import DataError
from classifiers.data.formats.format import (
    Format,
    Reading,
    Row,
    Size,
    box_of,
    class_name,
    number_list,
    pictures_in,
    polygons_of,
    side_of,
    subfolder,
)

GOOD = "good"
_YAML = ("data.yaml", "data.yml", "dataset.yaml")
_LISTS = ("classes.txt", "obj.names", "labels/classes.txt")
_SIDE_FOLDERS = ("train", "valid", "val", "test")


def _root(location: Path) -> Path:
    return location.parent if location.is_file() else location


def _pairs(root: Path) -> list[tuple[Path, Path]]:
    """Return the folders of pictures with those of their labels."""
    parents = [root, *(folder for name in _SIDE_FOLDERS if (folder := subfolder(root, name)) is not None)]
    found = ((subfolder(parent, "images"), subfolder(parent, "labels")) for parent in parents)
    return [(images, labels) for images, labels in found if images is not None and labels is not None]


def _recognises(location: Path) -> bool:
    if location.is_file():
        return location.suffix.lower() in (".yaml", ".yml")
    if any((location / name).is_file() for name in _YAML):
        return True
    return any(True for _, labels in _pairs(location) for _ in labels.rglob("*.txt"))


def _rows(location: Path, reading: Reading) -> Iterator[Row]:
    root = _root(location)
    pairs = _pairs(root)
    if not pairs:
        raise DataError(
            f"{location}: YOLO has images/ and labels/ side by side, here or in train/, valid/, test/; they "
            "are not here"
        )
    names = _class_names(location, root)
    for images, labels in pairs:
        files = {file.relative_to(labels).with_suffix(""): file for file in sorted(labels.rglob("*.txt"))}
        files.pop(Path("classes"), None)  # the list of classes may lie among the labels
        for picture in pictures_in(images):
            inner = picture.relative_to(images)
            file = files.pop(inner.with_suffix(""), None)
            marks = [] if file is None else _marks(file, names)
            side = side_of(inner.parts[0]) or side_of(images.parent.name)
            yield Row(
                str(file or picture),
                picture,
                picture.relative_to(root).as_posix(),
                tuple(dict.fromkeys(label for label, _ in marks)),
                annotations=partial(_annotations, str(file), marks) if marks else None,
                side=side,
                silent=file is None,
            )
        if files:
            file = next(iter(files.values()))
            raise DataError(
                f"{file}: there is no picture for it in {images}, nor for {len(files) - 1} others"
            )


def _class_names(location: Path, root: Path) -> list[str]:
    """Return the classes' names in the order of their numbers."""
    yamls = [location] if location.is_file() else [root / name for name in _YAML]
    for file in yamls:
        if file.is_file():
            return _yaml_names(file)
    for file in (root / name for name in _LISTS):
        if file.is_file():
            try:
                lines = file.read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{file}: cannot be read: {error}") from error
            return [class_name(line, f"{file}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    raise DataError(
        f"{root}: labels are numbers, and neither data.yaml nor classes.txt says what they mean: write "
        f"{root / 'classes.txt'} with the name of a class on each line, number 0 first"
    )


def _yaml_names(file: Path) -> list[str]:
    # When asked for: the settings load pydantic, which a data set of another layout does not need.
    from configs.loading import ConfigError, read_yaml

    try:
        names = read_yaml(file).get("names")
    except ConfigError as error:
        raise DataError(str(error)) from error
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{file}: expected names: a list of the classes, or number: name from 0 on")
    return [class_name(name, f"{file}, names") for name in names]


def _marks(file: Path, names: list[str]) -> list[tuple[str, list[float]]]:
    """Return class and numbers of each line."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    marks = []
    for number, line in enumerate(lines, start=1):
        where = f"{file}, line {number}"
        if not line.strip():
            continue
        kind, *values = number_list(line.split(), where)
        if kind not in range(len(names)):
            raise DataError(
                f"{where}: class {kind:g}, and there are {len(names)} names of classes, from 0 on"
            )
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise DataError(
                f"{where}: expected class, x, y, width and height, or class and the corners of an outline"
            )
        if min(values) < -0.01 or max(values) > 1.01:
            raise DataError(f"{where}: numbers are shares of the picture's width and height, from 0 to 1")
        marks.append((names[int(kind)], values))
    return marks


def _annotations(where: str, marks: list[tuple[str, list[float]]], size: Size) -> tuple[Annotation, ...]:
    height, width = size
    found: list[Annotation] = []
    for label, values in marks:
        pixels = [value * (height if place % 2 else width) for place, value in enumerate(values)]
        if len(pixels) > 4:
            found.append(polygons_of(label, [pixels], size, where))
            continue
        x, y, wide, high = pixels
        # Six decimals are written usually: what they lose must not add a row or column of pixels.
        corners = [round(value, 1) for value in (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)]
        found.append(box_of(label, corners, size, where))
    return tuple(found)


FORMAT = Format("yolo", "YOLO", _recognises, _rows, GOOD)
