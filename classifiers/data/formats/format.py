"""What a reader of a layout is, and what readers share. Nothing that a file says is trusted."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from classifiers.data.annotations import Annotation, Box, Polygons
from classifiers.data.dataset import DataError, Side

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
Size = tuple[int, int]  # height, width
_SIDES: Mapping[str, Side] = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Reading:
    """How labels are read; see `classifiers.data.reading.load_dataset`. `separator`: of multi-label data."""

    label_column: str = "label"
    image_column: str = "image"
    group_column: str | None = None
    mask_column: str | None = None
    separator: str | None = None
    cell_text: Callable[[str], str] = str


@dataclass(frozen=True)
class Row:
    """One labelled picture as a reader found it.

    Attributes:
        where: the file, and the line, where it stands: for messages.
        path: the picture.
        name: its name in the data set, with forward slashes.
        labels: its labels; where the format has a word for good pictures, its defects alone.
        group: the part, strip or lot; None where the layout does not tell.
        annotations: returns where its defects are, given height and width of the picture. None: nothing is
            known about that.
        side: of the layout's own split.
        silent: the layout has no word about the picture, which therefore counts as good.
    """

    where: str
    path: Path
    name: str
    labels: tuple[str, ...]
    group: str | None = None
    annotations: Callable[[Size], tuple[Annotation, ...]] | None = None
    side: Side | None = None
    silent: bool = False


@dataclass(frozen=True)
class Format:
    """A layout of labelled pictures.

    Attributes:
        name: on the command line.
        title: for people.
        recognises: returns whether a folder or file looks like this layout, half-right ones included: its
            reader says best what is missing.
        rows: reads it; raises DataError naming the file and the remedy.
        good: the class of pictures without a defect, unless another name is given; None where labels are
            names that the user chose.
    """

    name: str
    title: str
    recognises: Callable[[Path], bool]
    rows: Callable[[Path, Reading], Iterator[Row]]
    good: str | None = None


def always(*annotations: Annotation) -> Callable[[Size], tuple[Annotation, ...]]:
    """Return annotations as `Row.annotations` wants them, where the picture's size plays no part."""
    return lambda _: annotations


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures in a folder and in folders below it, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder by name; hidden ones are left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def subfolder(root: Path, *names: str) -> Path | None:
    """Return the first folder of these names, in whatever case they are written; None where there is none."""
    if not root.is_dir():
        return None
    found = {path.name.lower(): path for path in folders_in(root)}
    return next((found[name.lower()] for name in names if name.lower() in found), None)


def relative_name(text: str, where: str) -> str:
    """Return a path that a file names, with forward slashes.

    Raises:
        DataError: it is empty, absolute, or leads out of its folder.
    """
    name = PurePosixPath(text.replace("\\", "/"))
    drive = re.match(r"[A-Za-z]:", text)
    if not name.parts or name.is_absolute() or drive or ".." in name.parts or "\0" in text:
        raise DataError(f"{where}: {text[:80]!r} must be a path within the folder of the data set")
    return name.as_posix()


def side_of(name: str) -> Side | None:
    """Return the side of a split that a folder's or file's name stands for; None for any other name."""
    return _SIDES.get(name.lower())


def class_name(text: object, where: str) -> str:
    """Return a class's name without surrounding blanks; raise DataError where there is none."""
    name = text.strip() if isinstance(text, str) else str(text) if type(text) is int else ""
    if not name:
        raise DataError(f"{where}: expected the name of a class, got {text!r}")
    return name


def number_list(values: object, where: str) -> list[float]:
    """Return finite numbers, given as such or as text; raise DataError for anything else."""
    found = []
    for value in values if isinstance(values, Sequence) and not isinstance(values, str) else [values]:
        try:
            number = float(value) if isinstance(value, str | int | float) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number) or isinstance(value, bool):
            raise DataError(f"{where}: expected numbers, got {str(value)[:40]!r}")
        found.append(number)
    return found


def box_of(label: str, corners: Sequence[float], size: Size, where: str) -> Box:
    """Return a box (left, top, right, bottom) as whole pixels of the picture, rounded outwards.

    Raises:
        DataError: no pixel of the picture is in it.
    """
    height, width = size
    left, top = max(0, math.floor(corners[0])), max(0, math.floor(corners[1]))
    right, bottom = min(width, math.ceil(corners[2])), min(height, math.ceil(corners[3]))
    if right <= left or bottom <= top:
        shown = ", ".join(f"{corner:g}" for corner in corners)
        raise DataError(
            f"{where}: the box ({shown}) of {label} has no pixel of the picture, which is {width} wide and "
            f"{height} high: correct it or take it out"
        )
    return Box(label, left, top, right, bottom)


def polygons_of(label: str, rings: Sequence[Sequence[float]], size: Size, where: str) -> Polygons:
    """Return an outline with its corners inside the picture.

    Raises:
        DataError: a ring has fewer than three corners, or lies outside.
    """
    height, width = size
    clipped = []
    for ring in rings:
        if len(ring) < 6 or len(ring) % 2:
            raise DataError(f"{where}: a polygon of {label} needs x and y of three corners or more")
        box_of(label, (min(ring[::2]), min(ring[1::2]), max(ring[::2]), max(ring[1::2])), size, where)
        limits = (width, height)
        clipped.append(tuple(min(max(value, 0.0), limits[i % 2]) for i, value in enumerate(ring)))
    return Polygons(label, tuple(clipped))


def check_size(said: object, size: Size, where: str) -> None:
    """Raise DataError where an annotation was made for a picture of another height and width.

    Zeros and nonsense count as "not said": several tools write them.
    """
    known = isinstance(said, Sequence) and all(type(side) is int and side > 0 for side in said)
    if known and tuple(said) != size:  # type: ignore[arg-type]
        raise DataError(
            f"{where}: was annotated at {said[1]} x {said[0]} pixels, the picture is {size[1]} x {size[0]} "  # type: ignore[index]
            "(width x height, turned upright): give it the picture that was annotated"
        )


def csv_header(file: Path) -> list[str]:
    """Return the names of a CSV's columns; none of a file that cannot be read as one."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            return [name.strip() for name in next(csv.reader(stream), [])]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def csv_rows(file: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield "FILE, line N" and the cells, without surrounding blanks, of each row of a CSV.

    Raises:
        DataError: the file cannot be read, or lacks one of these columns.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader: Any = csv.DictReader(stream, restval="")
            names = reader.fieldnames or []
            for column in columns:
                if column not in names:
                    raise DataError(f"{file}: no column {column!r}; there are {', '.join(names) or 'none'}")
            for row in reader:
                cells = {name: (row[name] or "").strip() for name in names}
                yield f"{file}, line {reader.line_num}", cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as CSV in UTF-8: {error}") from error
