"""Read labelled pictures in the layout that people have."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from classifiers.data.annotations import Annotation, MaskFile
from classifiers.data.dataset import DataError, Dataset, Item
from classifiers.data.formats import (
    coco,
    folders,
    kolektor,
    mvtec,
    severstal,
    table,
    visa,
    voc,
    yolo,
)
from classifiers.data.formats.format import Format, Reading, Row, folders_in, pictures_in
from classifiers.data.regions import annotated_area
from sources.decoding import upright_size
from sources.errors import Unreadable

# In the order in which they are tried: the more a layout demands, the earlier.
_PUBLISHED: tuple[Format, ...] = tuple(
    module.FORMAT for module in (severstal, visa, mvtec, kolektor, voc, yolo, coco)
)
FORMATS: dict[str, Format] = {each.name: each for each in (folders.FORMAT, table.FORMAT, *_PUBLISHED)}
AUTO = "auto"
# Folders that are parts of a layout, and hardly classes.
_PARTS = frozenset(
    {"train", "test", "val", "valid", "images", "labels", "annotations", "masks", "ground_truth"}
    | {"jpegimages", "imagesets", "train_images", "test_images"}
)


def load_dataset(
    root: str | os.PathLike[str],
    *,
    form: str = AUTO,
    label_column: str = "label",
    image_column: str = "image",
    group_column: str | None = None,
    group_pattern: str | None = None,
    mask_column: str | None = None,
    multi_label: bool = False,
    separator: str = ";",
    good_class: str | None = None,
    need_good: bool = True,
    cell_text: Callable[[str], str] = str,
) -> Dataset:
    """Read labelled pictures from a folder or a file.

    Args:
        root: a folder, or the file that describes the pictures.
        form: its layout, one of `FORMATS`, or "auto".
        label_column: a CSV's column with the label (multi-label: several with separators, or nothing).
        image_column: its column with the picture's path.
        group_column: its column with the group; without one, identical files form a group, as in layouts
            that do not tell.
        group_pattern: instead, a regular expression that is searched in the picture's relative path; what its
            first parentheses match is the group.
        mask_column: a CSV's column with the path of a mask, or nothing; without one, "mask" where there is
            such a column.
        multi_label: whether a picture may have any number of labels (not from a folder of classes). Without
            it a picture with defects of several classes has the one with most pixels as its label.
        separator: between labels.
        good_class: the label that means "no defect". Layouts that have a word for it use this one instead,
            and have their own where none is given.
        need_good: whether a good class that no picture has is refused.
        cell_text: what a cell of a CSV stands for, where it is not written as it is.

    Raises:
        DataError: naming the file, the line and what is wrong.
    """
    location = Path(root)
    chosen = reading_format(location, form)
    pattern = _group_pattern(group_pattern)
    reading = Reading(
        label_column, image_column, group_column, mask_column, separator if multi_label else None, cell_text
    )
    if chosen.good is not None and (group_column or mask_column):
        raise DataError(f"{location}: group and mask columns are of a CSV file, this is {chosen.title}")
    good = good_class if chosen.good is None else good_class or chosen.good
    notes: Counter[str] = Counter()
    items: dict[str, Item] = {}
    for row in chosen.rows(location, reading):
        if row.name in items:
            raise DataError(f"{row.where}: {row.name} appears twice")
        items[row.name] = _item(row, chosen, good, multi_label, pattern, notes)
    if not items:
        raise DataError(f"{location}: no pictures found")
    classes = tuple(sorted({label for item in items.values() for label in item.labels}))
    if chosen.good is not None and good not in classes:
        good = good_class  # the layout's own word for pictures that it does not hold
    if good is not None and not multi_label and need_good and good not in classes:
        raise DataError(f"{location}: good class {good!r} is not one of {', '.join(classes)}")
    return Dataset(
        tuple(items[name] for name in sorted(items)),
        classes,
        good,
        multi_label,
        layout=chosen.title,
        notes=tuple(f"{count} {text}" for text, count in notes.items()),
    )


def reading_format(location: Path, form: str = AUTO) -> Format:
    """Return the layout of a folder or file.

    Args:
        location: a folder or file.
        form: the name of a layout, which is not doubted; or "auto", to recognise it.

    Raises:
        DataError: there is no such folder, file or layout, or none is recognised.
    """
    if not location.exists():
        raise DataError(f"{location}: no such folder or file of labelled pictures")
    if form != AUTO:
        if form not in FORMATS:
            raise DataError(f"--format {form}: expected {', '.join((AUTO, *FORMATS))}")
        return FORMATS[form]
    found = next((each for each in _PUBLISHED if each.recognises(location)), None)
    if found is not None:
        return found
    if location.is_file():
        if location.suffix.lower() in (".json", ".xml", ".txt"):
            raise DataError(
                f"{location}: is no CSV, and no COCO JSON (with images, annotations and categories); of "
                f"other layouts name the folder: {_titles()}"
            )
        return table.FORMAT
    _check_class_folders(location)
    return folders.FORMAT


def _check_class_folders(root: Path) -> None:
    """Raise DataError where a folder's folders are no classes, with what may be meant."""
    held = folders_in(root)
    for folder in held:
        for each in _PUBLISHED:
            if each.recognises(folder):
                raise DataError(
                    f"{root}: holds folders in the layout of {each.title}: name one, such as {folder}"
                )
    if parts := [folder.name for folder in held if folder.name.lower() in _PARTS]:
        raise DataError(
            f"{root}: {', '.join(parts)} look like parts of a layout, and not like classes; it is none of "
            f"{_titles()} (docs/training.md shows what each needs). If the classes are one folder deeper, "
            "name the folder that holds them; if these are classes: --format folders"
        )
    if not held and pictures_in(root):
        raise DataError(
            f"{root}: holds pictures and nothing that labels them: put them into one folder for each class, "
            "or write a CSV with the columns image and label and name that"
        )


def _titles() -> str:
    return ", ".join(each.title for each in _PUBLISHED)


def _group_pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    pattern = re.compile(text)
    if not pattern.groups:
        raise DataError(f"group pattern {text!r} has no group; put parentheses around the part that counts")
    return pattern


def _item(
    row: Row,
    chosen: Format,
    good: str | None,
    multi_label: bool,
    pattern: re.Pattern[str] | None,
    notes: Counter[str],
) -> Item:
    """Return the item of a row; what was decided about it is counted in `notes`."""
    try:
        data = row.path.read_bytes()
    except OSError as error:
        raise DataError(f"{row.where}: cannot read {row.path}: {error.strerror}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    annotations = _annotations(row, chosen, data, good)
    labels = row.labels
    if multi_label:
        if good in labels and len(labels) > 1:
            raise DataError(f"{row.where}: labelled {good!r} and a defect at once: {labels}")
        labels = tuple(sorted(label for label in labels if label != good))
    elif chosen.good is not None:
        labels = _single_label(row, annotations, good or chosen.good, notes)
    if row.silent:
        notes["pictures have no annotation file: they count as good"] += 1
    group = row.group
    if pattern is not None:
        match = pattern.search(row.name)
        if match is None or match.group(1) is None:
            raise DataError(f"{row.where}: {row.name} does not match the group pattern {pattern.pattern!r}")
        group = match.group(1)
    return Item(row.path, row.name, labels, group or f"sha256:{sha256}", sha256, annotations, row.side)


def _annotations(row: Row, chosen: Format, data: bytes, good: str | None) -> tuple[Annotation, ...]:
    if row.annotations is None:
        return ()
    try:
        size = upright_size(data)
    except Unreadable as error:
        raise DataError(f"{row.path}: {error}; repair it or take it out of the labelled data") from error
    found = tuple(annotation for annotation in row.annotations(size) if annotation.label != good)
    for annotation in found if chosen.good is not None else ():
        if isinstance(annotation, MaskFile) and not annotation.path.is_file():
            raise DataError(f"{row.where}: there is no mask {annotation.path}")
    return found


def _single_label(
    row: Row, annotations: tuple[Annotation, ...], good: str, notes: Counter[str]
) -> tuple[str, ...]:
    """Return the one label of a picture: good without a defect, else the class with most pixels."""
    labels = [label for label in row.labels if label != good]
    if len(labels) < 2:
        return tuple(labels) or (good,)
    notes[
        "pictures show several classes: the one with most pixels is their label (--multi-label keeps all)"
    ] += 1
    areas = Counter(dict.fromkeys(labels, 0))
    for annotation in annotations:
        areas[annotation.label] += annotated_area(annotation)
    return (max(labels, key=lambda label: areas[label]),)
