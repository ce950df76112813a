"""COCO JSON: one file, or a folder with one for each side of a split, as COCO itself and Roboflow write them.

Pictures without an annotation are good. What `kensa dataset export` writes says a picture's `labels` and
`group` as well, which readers of COCO pass over.

Source: Lin et al., Microsoft COCO: Common Objects in Context (2014); cocodataset.org, data format.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from classifiers.data.annotations import Annotation, Runs
from classifiers.data.dataset import DataError, Side
from classifiers.data.formats.format import (
    Format,
    Reading,
    Row,
    Size,
    box_of,
    check_size,
    class_name,
    number_list,
    polygons_of,
    relative_name,
    side_of,
)

GOOD = "good"
_OTHER_TASKS = ("captions", "person_keypoints", "panoptic", "image_info", "stuff")
_KEYS = ("images", "annotations", "categories")


def _files(location: Path) -> list[Path]:
    """Return the JSON files of annotations that a location stands for."""
    if location.is_file():
        return [location] if location.suffix.lower() == ".json" else []
    if not location.is_dir():
        return []
    found = [
        *location.glob("*.json"),
        *location.glob("annotations/*.json"),
        *location.glob("*/_annotations*.json"),
    ]
    return sorted({file for file in found if not file.name.startswith(_OTHER_TASKS) and _is_coco(file)})


def _is_coco(file: Path) -> bool:
    """Return whether a file's text has the keys of COCO; parsing it may take a minute."""
    try:
        text = file.read_bytes()
    except OSError:
        return False
    return all(f'"{key}"'.encode() in text for key in _KEYS)


def _recognises(location: Path) -> bool:
    return bool(_files(location))


def _rows(location: Path, reading: Reading) -> Iterator[Row]:
    files = _files(location)
    if not files:
        raise DataError(
            f"{location}: no JSON with {', '.join(_KEYS)} here, in annotations/ or in train/, valid/, test/"
        )
    root = location if location.is_dir() else _root(files[0])
    for file in files:
        yield from _file_rows(file, root)


def _root(file: Path) -> Path:
    """Return the folder of a data set that a file of annotations is of."""
    return file.parent.parent if file.parent.name.lower() == "annotations" else file.parent


def _file_rows(file: Path, root: Path) -> Iterator[Row]:
    content = _content(file)
    names: dict[Any, str] = {}
    for entry in content["categories"]:
        names[_key(entry, "id", file)] = class_name(entry.get("name"), f"{file}, category {entry.get('id')}")
    drawn: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for entry in content["annotations"]:
        where = f"{file}, annotation {entry.get('id')}"
        if _key(entry, "category_id", file) not in names:
            raise DataError(f"{where}: there is no category {entry['category_id']!r}")
        drawn[_key(entry, "image_id", file)].append(entry)
    base = _base(file, root, content["images"])
    side = _file_side(file)
    for image in content["images"]:
        number = _key(image, "id", file)
        where = f"{file}, image {number}"
        own = drawn.pop(number, [])
        path = base / relative_name(str(image.get("file_name", "")), where)
        if not path.is_file():
            raise DataError(f"{where}: there is no picture {path}")
        found = [names[entry["category_id"]] for entry in own]
        said = image.get("labels")
        if isinstance(said, list):
            found += [class_name(label, where) for label in said]
        group = image.get("group")
        size = [image.get("height"), image.get("width")]
        yield Row(
            where,
            path,
            path.relative_to(root).as_posix(),
            tuple(dict.fromkeys(found)),
            group if isinstance(group, str) and group else None,
            partial(_annotations, where, own, names, size) if own else None,
            side,
        )
    if drawn:
        raise DataError(f"{file}: annotations of image {next(iter(drawn))!r}, which is not among its images")


def _content(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as JSON: {error}") from error
    for key in _KEYS:
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"{file}: COCO has a list of objects called {key!r}, which is not here")
    return content  # type: ignore[no-any-return]


def _key(entry: dict[str, Any], name: str, file: Path) -> int | str:
    value = entry.get(name)
    if not isinstance(value, int | str):
        raise DataError(f"{file}: an entry lacks {name!r}: {str(entry)[:80]}")
    return value


def _base(file: Path, root: Path, images: list[dict[str, Any]]) -> Path:
    """Return the folder at which the pictures' names begin, found by the first picture that lies there."""
    stem = re.sub("^instances_", "", file.stem)
    folders = [
        file.parent,
        file.parent / "images",
        root,
        root / "images",
        root / stem,
        root / "images" / stem,
    ]
    if images:
        name = relative_name(str(images[0].get("file_name", "")), f"{file}, image {images[0].get('id')}")
        for folder in folders:
            if (folder / name).is_file():
                return folder
        looked = ", ".join(str(folder) for folder in dict.fromkeys(folders))
        raise DataError(f"{file}: its picture {name} is not found; looked for in {looked}")
    return root


def _file_side(file: Path) -> Side | None:
    """Return the side that a file or its folder is named after: instances_val, valid/_annotations.coco."""
    words = [*re.split(r"[^a-z]+", file.stem.lower()), file.parent.name]
    return next((side for word in words if (side := side_of(word)) is not None), None)


def _annotations(
    where: str, entries: list[dict[str, Any]], names: dict[Any, str], said: list[Any], size: Size
) -> tuple[Annotation, ...]:
    check_size(said, size, where)
    return tuple(
        _annotation(f"{where}, annotation {entry.get('id')}", entry, names[entry["category_id"]], size)
        for entry in entries
    )


def _annotation(where: str, entry: dict[str, Any], label: str, size: Size) -> Annotation:
    match entry.get("segmentation"):
        case [_, *_] as rings:
            return polygons_of(label, [number_list(ring, where) for ring in rings], size, where)
        case {"counts": counts, "size": [height, width]}:
            check_size([height, width], size, where)
            return Runs(label, size, _counts(counts, size, where))
    box = number_list(entry.get("bbox"), where)
    if len(box) != 4:
        raise DataError(f"{where}: expected a segmentation, or a bbox of x, y, width and height")
    left, top, width, height = box
    return box_of(label, (left, top, left + width, top + height), size, where)


def _counts(counts: object, size: Size, where: str) -> tuple[int, ...]:
    """Return the run lengths of a mask, of numbers or of COCO's compressed text."""
    found = unpacked_counts(counts) if isinstance(counts, str) else counts
    whole = isinstance(found, list) and all(type(count) is int and count >= 0 for count in found)
    if not isinstance(found, list) or not whole or sum(found) != size[0] * size[1]:
        raise DataError(f"{where}: its run lengths do not make a mask of {size[1]} x {size[0]} pixels")
    return tuple(found)


def unpacked_counts(text: str) -> list[int]:
    """Return the run lengths that COCO's compressed text stands for; nonsense gives nonsense, no error.

    Each number is written in groups of 5 bits, lowest first, as characters from "0" on; a sixth bit says that
    more follow. From the fourth number on it is the difference to the number before the last.
    Source: rleFrString in maskApi.c of github.com/cocodataset/cocoapi.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts


FORMAT = Format("coco", "COCO JSON", _recognises, _rows, GOOD)
