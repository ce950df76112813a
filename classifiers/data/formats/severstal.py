"""Severstal's steel strips: train.csv with run lengths, train_images/.

Source: Kaggle, "Severstal: Steel Defect Detection" (2019), data description.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classifiers.data.annotations import Annotation, Runs
from classifiers.data.dataset import DataError
from classifiers.data.formats.format import Format, Reading, Row, Size, csv_header, csv_rows, pictures_in
from classifiers.data.regions import mask_counts

TABLE, IMAGES, GOOD = "train.csv", "train_images", "none"
_RUNS = "EncodedPixels"
StartsAndLengths = npt.NDArray[np.int64]
"""(n, 2) runs: start, from 1, column by column, and length."""


def read_runs(table: Path, size: Size | None = None) -> dict[str, dict[int, StartsAndLengths]]:
    """Read the defects of all strips from `train.csv`: ImageId, ClassId, EncodedPixels.

    The older form, ImageId_ClassId, EncodedPixels, has a row for each class, with or without a defect.

    Args:
        table: the file.
        size: height and width of all strips, where they are known: runs that leave them are refused.

    Returns:
        strip -> defect class 1 to 4 -> its runs.

    Raises:
        DataError: naming file and line.
    """
    found: dict[str, dict[int, StartsAndLengths]] = defaultdict(dict)
    for line, row in csv_rows(table, (_RUNS,)):
        if "ImageId_ClassId" in row:
            image, _, number = row["ImageId_ClassId"].rpartition("_")
        else:
            image, number = row.get("ImageId", ""), row.get("ClassId", "")
        if not image or number not in {"1", "2", "3", "4"}:
            raise DataError(
                f"{line}: expected ImageId and ClassId 1 to 4, or ImageId_ClassId such as 0002cc93b.jpg_1"
            )
        if Path(image).name != image or "\0" in image:
            raise DataError(f"{line}: {image!r} must be a plain file name")
        if not row[_RUNS]:
            continue
        if int(number) in found[image]:
            raise DataError(f"{line}: {image} has class {number} twice")
        runs = _parsed_runs(line, row[_RUNS])
        if size is not None:
            check_runs(runs, size, line)
        found[image][int(number)] = runs
    return dict(found)


def check_runs(runs: StartsAndLengths, size: Size, where: str) -> None:
    """Raise DataError where runs leave a strip of this height and width."""
    if (runs.sum(axis=1) - 1 > size[0] * size[1]).any():
        raise DataError(f"{where}: {_RUNS} names a pixel outside a strip of {size}")


def runs_mask(runs: StartsAndLengths, size: Size) -> npt.NDArray[np.bool_]:
    """Return the mask of a strip of this height and width, (h, w) bool."""
    flat = np.zeros(size[0] * size[1], dtype=bool)
    for start, length in runs:
        flat[start - 1 : start - 1 + length] = True
    return flat.reshape(size, order="F")


def _parsed_runs(line: str, text: str) -> StartsAndLengths:
    try:
        numbers = np.array([int(word) for word in text.split()], dtype=np.int64)
    except (ValueError, OverflowError):
        numbers = np.zeros(1, dtype=np.int64)
    if len(numbers) % 2:
        raise DataError(f"{line}: {_RUNS} must be pairs of start and length, got {text[:40]!r}")
    if (numbers < 1).any() or (numbers > 2**40).any():
        raise DataError(f"{line}: {_RUNS} names a pixel outside a strip: pixels count from 1")
    return numbers.reshape(-1, 2)


def _table(location: Path) -> Path:
    return location / TABLE if location.is_dir() else location


def _recognises(location: Path) -> bool:
    return _RUNS in csv_header(_table(location))


def _rows(location: Path, reading: Reading) -> Iterator[Row]:
    table = _table(location)
    defects = read_runs(table)
    images = table.parent / IMAGES
    if not images.is_dir():
        raise DataError(f"{table}: there is no folder {images} with the strips: unpack it there")
    files = {file.name: file for file in pictures_in(images)}
    if missing := sorted(defects.keys() - files.keys()):
        raise DataError(f"{table}: there is no strip {images / missing[0]}, nor {len(missing) - 1} others")
    for name, file in sorted(files.items()):
        own = defects.get(name, {})
        known = partial(_annotations, f"{table}, {name}", own) if own else None
        labels = tuple(str(number) for number in sorted(own))
        yield Row(
            f"{table}, {name}", file, file.relative_to(table.parent).as_posix(), labels, annotations=known
        )


def _annotations(where: str, defects: dict[int, StartsAndLengths], size: Size) -> tuple[Annotation, ...]:
    found = []
    for number, runs in sorted(defects.items()):
        check_runs(runs, size, where)
        counts = mask_counts(runs_mask(runs, size))
        found.append(Runs(str(number), size, counts, single=False))
    return tuple(found)


FORMAT = Format("severstal", "Severstal's steel strips", _recognises, _rows, GOOD)
