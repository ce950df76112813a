"""VisA: OBJECT/image_anno.csv (image, label, mask); split_csv/NAME.csv (object, split, label, image, mask).

Paths in both are relative to the folder that holds the objects. The masks are above 0 where a defect is.

Source: Zou et al., SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and Segmentation
(2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from classifiers.data.annotations import MaskFile
from classifiers.data.dataset import DataError
from classifiers.data.formats.format import (
    Format,
    Reading,
    Row,
    always,
    class_name,
    csv_header,
    csv_rows,
    folders_in,
    relative_name,
    side_of,
)

TABLE = "image_anno.csv"
GOOD = "normal"
_SPLIT = ("object", "split", "label", "image", "mask")


def _tables(location: Path) -> list[Path]:
    """Return the tables that a location stands for: one that is named, of one object, or of all objects."""
    if location.is_file():
        return [location] if location.name == TABLE or set(_SPLIT) <= set(csv_header(location)) else []
    folders = (location, *folders_in(location)) if location.is_dir() else ()
    return [folder / TABLE for folder in folders if (folder / TABLE).is_file()]


def _recognises(location: Path) -> bool:
    return bool(_tables(location))


def _rows(location: Path, reading: Reading) -> Iterator[Row]:
    tables = _tables(location)
    if not tables:
        raise DataError(
            f"{location}: VisA has {TABLE} in each object's folder; name that folder, or a table of split_csv"
        )
    for table in tables:
        base = table.parent.parent
        for where, cells in csv_rows(table, ("image", "label", "mask")):
            name = relative_name(cells["image"], where)
            names = [class_name(part, where) for part in cells["label"].split(",")]
            labels = tuple(label for label in names if label != GOOD)
            if not (base / name).is_file():
                raise DataError(
                    f"{where}: there is no picture {base / name}: VisA's paths begin at the folder that "
                    "holds the objects' folders"
                )
            known = None
            if labels and cells["mask"]:
                mask = base / relative_name(cells["mask"], where)
                known = always(*(MaskFile(label, mask, above=0) for label in labels))
            yield Row(where, base / name, name, labels, None, known, side_of(cells.get("split", "")))


FORMAT = Format("visa", "VisA", _recognises, _rows, GOOD)
