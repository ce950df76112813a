"""Labelled pictures: read from a folder of classes or a CSV, split so that each group is on one side."""

from __future__ import annotations

import csv
import hashlib
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifiers.data.annotations import Annotation, MaskFile
from classifiers.errors import ClassifierError
from classifiers.package.manifest import canonical

CONTENT = "content:"
"""What a digest of the content begins with; digests before kensa 0.3 have no prefix and cover names too."""
REMEDY = (
    "Label pictures of more parts, group by something finer (--group-column), or add the pictures to the "
    "data of a model that there is: kensa train --from MODEL --add THESE"
)
MASK_COLUMN = "mask"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})


class DataError(ClassifierError):
    """Labelled data is missing, contradictory or too little; the message names file and remedy."""


@dataclass(frozen=True)
class Item:
    """One labelled picture.

    Attributes:
        path: the file.
        name: its path relative to the data set's root, with forward slashes.
        labels: one label (single-label), or any number (multi-label, where none means good).
        group: the part or lot, say; a split keeps the pictures of a group on one side.
        sha256: of the file's bytes.
        annotations: where its defects are, as far as that is known (`classifiers.data.regions` reads them).
            They tell how large defects are, and which tiles of a large picture show one.
    """

    path: Path
    name: str
    labels: tuple[str, ...]
    group: str
    sha256: str
    annotations: tuple[Annotation, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Labelled pictures with their classes.

    Attributes:
        items: in the order of their names.
        classes: in the order of the network's outputs (sorted); in multi-label data without the good class.
        good_class: the class that means "no defect", or None.
        multi_label: whether a picture may have any number of labels.
    """

    items: tuple[Item, ...]
    classes: tuple[str, ...]
    good_class: str | None = None
    multi_label: bool = False

    @property
    def digest(self) -> str:
        """`CONTENT` and a SHA-256 over each picture's own SHA-256, labels and group, in whatever order.

        Where the files lie and how a path is written does not count: the same data is known again.
        """
        rows = sorted([item.sha256, sorted(item.labels), item.group] for item in self.items)
        return CONTENT + hashlib.sha256(canonical(rows)).hexdigest()

    @property
    def named_digest(self) -> str:
        """SHA-256 over names, labels, groups, the files' SHA-256 and the classes, in the order of the names.

        It is the digest in packages of kensa 0.1 and 0.2. A training hangs on it still: the names decide the
        order in which pictures are drawn.
        """
        rows = [[item.name, item.labels, item.group, item.sha256] for item in self.items]
        content = [self.classes, self.good_class, self.multi_label, rows]
        return hashlib.sha256(canonical(content)).hexdigest()

    @property
    def task(self) -> str:
        """The task as model packages call it: "single-label" or "multi-label"."""
        return "multi-label" if self.multi_label else "single-label"

    def counts(self) -> dict[str, int]:
        """Return the number of pictures of each class; a multi-label picture counts for each label."""
        found = Counter(label for item in self.items for label in item.labels)
        return {name: found[name] for name in self.classes}


def load_dataset(
    root: str | os.PathLike[str],
    *,
    label_column: str = "label",
    image_column: str = "image",
    group_column: str | None = None,
    group_pattern: str | None = None,
    mask_column: str | None = None,
    multi_label: bool = False,
    separator: str = ";",
    good_class: str | None = None,
    cell_text: Callable[[str], str] = str,
) -> Dataset:
    """Read labelled pictures from a folder of class folders or from a CSV file.

    Args:
        root: a folder with one folder for each class, or a CSV file, whose paths are relative to its folder.
        label_column: the CSV's column with the label (multi-label: several with separators, or nothing).
        image_column: the CSV's column with the picture's path.
        group_column: the CSV's column with the group; without one, identical files form a group.
        group_pattern: instead, a regular expression that is searched in the picture's relative path; what its
            first parentheses match is the group.
        mask_column: the CSV's column with the path of a mask, or nothing; without one, "mask" where there is
            such a column.
        multi_label: whether a picture may have any number of labels (from a CSV file only).
        separator: between labels.
        good_class: the label that means "no defect".
        cell_text: what a cell of the CSV stands for, where it is not written as it is.

    Raises:
        DataError: naming the file, the line and what is wrong.
    """
    location = Path(root)
    if location.is_dir():
        if multi_label or group_column or mask_column:
            raise DataError(
                f"{location}: multi-label data, group and mask columns need a CSV file, this is a folder"
            )
        rows = _folder_rows(location)
        base = location
    elif location.is_file():
        rows = _csv_rows(
            location,
            image_column,
            label_column,
            group_column,
            mask_column,
            separator if multi_label else None,
            cell_text,
        )
        base = location.parent
    else:
        raise DataError(f"{location}: no such folder or CSV file")
    pattern = re.compile(group_pattern) if group_pattern is not None else None
    if pattern is not None and not pattern.groups:
        raise DataError(
            f"group pattern {group_pattern!r} has no group; put parentheses around the part that counts"
        )

    items: dict[str, Item] = {}
    for where, name, labels, group, mask in rows:
        if good_class is not None and multi_label:
            if good_class in labels and len(labels) > 1:
                raise DataError(f"{where}: labelled {good_class!r} and a defect at once: {labels}")
            labels = tuple(label for label in labels if label != good_class)
        if name in items:
            raise DataError(f"{where}: {name} appears twice")
        file = base / name
        try:
            sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"{where}: cannot read {file}: {error.strerror}") from error
        if pattern is not None:
            match = pattern.search(name)
            if match is None or match.group(1) is None:
                raise DataError(f"{where}: {name} does not match the group pattern {group_pattern!r}")
            group = match.group(1)
        items[name] = Item(
            file,
            name,
            labels,
            group if group is not None else f"sha256:{sha256}",
            sha256,
            tuple(MaskFile(label, base / mask) for label in labels if label != good_class) if mask else (),
        )
    if not items:
        raise DataError(f"{location}: no pictures found")
    classes = tuple(sorted({label for item in items.values() for label in item.labels}))
    if good_class is not None and not multi_label and good_class not in classes:
        raise DataError(f"{location}: good class {good_class!r} is not one of {', '.join(classes)}")
    return Dataset(tuple(items[name] for name in sorted(items)), classes, good_class, multi_label)


# Where it was read, relative path, labels, group, relative path of the mask.
Row = tuple[str, str, tuple[str, ...], str | None, str | None]


def _folder_rows(root: Path) -> Iterator[Row]:
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        for file in sorted(folder.rglob("*")):
            if file.suffix.lower() in SUFFIXES and file.is_file():
                yield str(file), file.relative_to(root).as_posix(), (folder.name,), None, None


def _csv_rows(
    file: Path,
    image_column: str,
    label_column: str,
    group_column: str | None,
    mask_column: str | None,
    separator: str | None,
    cell_text: Callable[[str], str],
) -> Iterator[Row]:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        columns = reader.fieldnames or []
        for column in (image_column, label_column, *filter(None, (group_column, mask_column))):
            if column not in columns:
                raise DataError(f"{file}: no column {column!r}; there are {', '.join(columns) or 'none'}")
        for row in reader:
            where = f"{file}, line {reader.line_num}"
            cells = {column: cell_text((row.get(column) or "").strip()).strip() for column in columns}
            name, text = cells[image_column], cells[label_column]
            if not name:
                raise DataError(f"{where}: column {image_column!r} is empty")
            if separator is None:
                labels: tuple[str, ...] = (text,)
                if not text:
                    raise DataError(f"{where}: column {label_column!r} is empty")
            else:
                labels = tuple(sorted({part.strip() for part in text.split(separator) if part.strip()}))
            group = cells[group_column] if group_column else None
            if group == "":
                raise DataError(f"{where}: column {group_column!r} is empty")
            yield where, Path(name).as_posix(), labels, group, cells.get(mask_column or MASK_COLUMN)


def split_by_group(dataset: Dataset, fractions: Sequence[float], seed: int = 0) -> tuple[Dataset, ...]:
    """Return the sides of a split: no group is on two, and classes spread as evenly as groups allow.

    The split is greedy. Groups are taken largest first, where a rare class weighs as much as a common one;
    each goes to the side where it most reduces the squared distance from the wanted class counts. The same
    arguments give the same split.

    Args:
        dataset: what to split.
        fractions: the share of each side, positive; they are scaled to add up to 1.
        seed: decides between groups that are alike.

    Raises:
        DataError: fewer groups than sides, or a side that would be empty.
    """
    if not fractions or min(fractions) <= 0:
        raise DataError(f"fractions must be positive numbers, got {tuple(fractions)}")
    groups: dict[str, list[Item]] = {}
    for item in dataset.items:
        groups.setdefault(item.group, []).append(item)
    if len(groups) < len(fractions):
        raise DataError(
            f"{len(groups)} groups cannot be split into {len(fractions)} sides; a group stays whole. {REMEDY}"
        )

    # A picture without labels is a class of its own, and the number of pictures counts like one more class.
    def weigh(members: list[Item]) -> Counter[str]:
        weights = Counter(f"label {label}" for item in members for label in item.labels or ("",))
        weights["pictures"] = len(members)
        return weights

    totals = weigh(list(dataset.items))
    weighed = {name: weigh(members) for name, members in groups.items()}
    order = sorted(groups)
    random.Random(seed).shuffle(order)  # noqa: S311  reproducible, not secret
    order.sort(key=lambda name: -sum(count / totals[key] for key, count in weighed[name].items()))
    wanted = [{key: total * share / sum(fractions) for key, total in totals.items()} for share in fractions]
    have: list[Counter[str]] = [Counter() for _ in fractions]

    def change(side: int, weights: Counter[str]) -> float:
        # d/dn of (have - wanted)^2 / (total * wanted): relative, so that small sides and rare classes count.
        return sum(
            count * (count + 2 * (have[side][key] - wanted[side][key])) / (totals[key] * wanted[side][key])
            for key, count in weights.items()
        )

    sides: list[list[Item]] = [[] for _ in fractions]
    for name in order:
        best = min(range(len(fractions)), key=lambda side: change(side, weighed[name]))
        have[best].update(weighed[name])
        sides[best].extend(groups[name])
    if not all(sides):
        raise DataError(
            f"{len(groups)} groups are too few for fractions {tuple(fractions)}: a side is empty. {REMEDY}"
        )
    return tuple(replace(dataset, items=tuple(sorted(side, key=lambda item: item.name))) for side in sides)


def label_matrix(dataset: Dataset, classes: Sequence[str]) -> NDArray[np.float32]:
    """Return targets (N, K) float32: 1 where the picture has the label, columns in the order of `classes`.

    Pass the model's classes: data that lacks one of them would number the others differently.
    """
    index = {name: position for position, name in enumerate(classes)}
    matrix = np.zeros((len(dataset.items), len(classes)), dtype=np.float32)
    for row, item in enumerate(dataset.items):
        matrix[row, [index[label] for label in item.labels]] = 1
    return matrix


def defective_mask(dataset: Dataset, good_class: str | None) -> NDArray[np.bool_]:
    """Return which pictures are defective, (N,) bool: those with any label but the good class."""
    return np.array([any(label != good_class for label in item.labels) for item in dataset.items], dtype=bool)
