"""A CSV with a row for each picture; beside it, where they are known, a file of annotations.

The sides of the split that `kensa train` writes are of this form. Annotations stand in NAME.annotations.jsonl
beside NAME.csv, a line for each picture that has some.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from classifiers.data.annotations import Annotation, Box, MaskFile, Polygons, Runs
from classifiers.data.dataset import DataError, Dataset
from classifiers.data.formats.format import (
    Format,
    Reading,
    Row,
    Size,
    always,
    box_of,
    csv_rows,
    number_list,
    polygons_of,
)

MASK_COLUMN = "mask"


def write_table(path: Path, dataset: Dataset) -> None:
    """Write a data set as a CSV, and its annotations beside it, with paths relative to the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "label", "group"))
        for item in dataset.items:
            image = _relative(item.path, path.parent)
            writer.writerow((image, ";".join(item.labels), item.group))
            if item.annotations:
                entries = [_entry(annotation, path.parent) for annotation in item.annotations]
                lines.append(json.dumps({"image": image, "annotations": entries}, ensure_ascii=False))
    beside = _annotation_file(path)
    if lines:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        beside.unlink(missing_ok=True)  # of another data set that was written here before


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _annotation_file(table: Path) -> Path:
    return table.with_name(f"{table.stem}.annotations.jsonl")


def _entry(annotation: Annotation, folder: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"label": annotation.label}
    match annotation:
        case Box(_, left, top, right, bottom):
            entry["box"] = [left, top, right, bottom]
        case Polygons(_, rings):
            entry["polygons"] = [list(ring) for ring in rings]
        case Runs(_, size, counts, single):
            entry |= {"runs": list(counts), "size": list(size), "single": single}
        case MaskFile(_, path, above):
            entry |= {"mask": _relative(path, folder), "above": above}
    return entry


def _read_annotations(table: Path) -> dict[str, tuple[str, list[Any]]]:
    """Return picture -> where it stands and its annotations, from the file beside a CSV if there is one."""
    file = _annotation_file(table)
    found: dict[str, tuple[str, list[Any]]] = {}
    if not file.is_file():
        return found
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        where = f"{file}, line {number}"
        try:
            content = json.loads(line)
            name, entries = content["image"], content["annotations"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{where}: expected image and annotations as JSON: {error}") from error
        if not isinstance(name, str) or not isinstance(entries, list):
            raise DataError(f"{where}: expected image (text) and annotations (a list)")
        found[name] = where, entries
    return found


def _annotations(where: str, entries: list[Any], folder: Path, size: Size) -> tuple[Annotation, ...]:
    return tuple(_annotation(where, entry, folder, size) for entry in entries)


def _annotation(where: str, entry: Any, folder: Path, size: Size) -> Annotation:
    """Return what an entry of the file says; see `_entry`."""
    match entry:
        case {"label": str(label), "box": [_, _, _, _] as corners}:
            return box_of(label, number_list(corners, where), size, where)
        case {"label": str(label), "polygons": [_, *_] as rings}:
            return polygons_of(label, [number_list(ring, where) for ring in rings], size, where)
        case {"label": str(label), "runs": list(counts), "single": bool(single)}:
            whole = all(type(count) is int and count >= 0 for count in counts)
            if whole and sum(counts) == size[0] * size[1]:
                return Runs(label, size, tuple(counts), single)
        case {"label": str(label), "mask": str(path), "above": int(above)}:
            return MaskFile(label, folder / path, above)
    raise DataError(f"{where}: not an annotation of this picture: {str(entry)[:80]}")


def _rows(file: Path, reading: Reading) -> Iterator[Row]:
    annotated = _read_annotations(file)
    optional = filter(None, (reading.group_column, reading.mask_column))
    for where, row in csv_rows(file, (reading.image_column, reading.label_column, *optional)):
        cells = {column: reading.cell_text(cell).strip() for column, cell in row.items()}
        name, text = cells[reading.image_column], cells[reading.label_column]
        if not name:
            raise DataError(f"{where}: column {reading.image_column!r} is empty")
        if reading.separator is None:
            labels: tuple[str, ...] = (text,)
            if not text:
                raise DataError(f"{where}: column {reading.label_column!r} is empty")
        else:
            labels = tuple(sorted({part.strip() for part in text.split(reading.separator) if part.strip()}))
        group = cells[reading.group_column] if reading.group_column else None
        if group == "":
            raise DataError(f"{where}: column {reading.group_column!r} is empty")
        known: Callable[[Size], tuple[Annotation, ...]] | None = None
        if mask := cells.get(reading.mask_column or MASK_COLUMN):
            known = always(*(MaskFile(label, file.parent / mask) for label in labels))
        elif name in annotated:
            known = partial(_annotations, *annotated[name], file.parent)
        yield Row(where, file.parent / name, Path(name).as_posix(), labels, group, known)


FORMAT = Format("csv", "a CSV with a row for each picture", lambda path: path.is_file(), _rows)
