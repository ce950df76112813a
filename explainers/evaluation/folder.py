"""Samples from a CSV, or from folders of classes, with one mask picture for each picture and class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from classifiers.data.formats.format import SUFFIXES
from explainers.errors import ExplainerError
from explainers.evaluation.samples import (
    Choice,
    Mask,
    Pixels,
    Sample,
    SampleSet,
    matching,
    read_csv,
    read_picture,
)

NO_MASK = "no mask is given"
EMPTY_MASK = "the mask is empty"


@dataclass(frozen=True)
class Columns:
    """Names of the CSV's columns; `group` is optional."""

    image: str = "image"
    label: str = "label"
    mask: str = "mask"
    group: str | None = None


def folder_samples(
    location: Path,
    *,
    columns: Columns | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    threshold: int = 127,
    choice: Choice | None = None,
) -> SampleSet:
    """Return samples of pictures with grey masks.

    Args:
        location: a CSV with one row for each picture and class (paths relative to it; several rows of the
            same picture and class are united), or a folder with images/CLASS/NAME.jpg and
            masks/CLASS/NAME.png.
        columns: of the CSV.
        where: CSV column -> values; other rows are not read.
        threshold: mask pixels above it (0 to 255) are the class.
        choice: which pictures and classes; all when None.

    Returns:
        The samples; pairs without a mask, or with an empty one, are counted as skipped.

    Raises:
        ExplainerError: naming file and line: a column, value or file that is not there.
    """
    if location.is_dir():
        if where:
            raise ExplainerError(f"{location}: 'where' filters the rows of a CSV; this is a folder")
        rows = _folder_rows(location)
    else:
        rows = _csv_rows(location, columns or Columns(), where or {})
    wanted = choice or Choice()
    skipped: Counter[str] = Counter()
    masks: dict[tuple[str, str], list[Path]] = {}
    about: dict[tuple[str, str], tuple[Path, str]] = {}
    for line, name, label, mask, group in rows:
        path = _base_folder(location) / name
        if not wanted.wants(path, label):
            continue
        if not path.is_file():
            raise ExplainerError(f"{line}: there is no picture {path}")
        if not mask:
            skipped[NO_MASK] += 1
            continue
        mask_path = _base_folder(location) / mask
        if not mask_path.is_file():
            raise ExplainerError(f"{line}: there is no mask {mask_path}")
        masks.setdefault((name, label), []).append(mask_path)
        about[name, label] = path, group or name
    samples = []
    for (name, label), files in masks.items():
        # Decoded now as well as later, so that a draw is made from samples that can be judged.
        if not any(_read_mask(file, threshold).any() for file in files):
            skipped[EMPTY_MASK] += 1
            continue
        path, group = about[name, label]
        samples.append(Sample(name, label, path, group, partial(_read_sample, path, tuple(files), threshold)))
    return SampleSet(str(location), tuple(samples), {"kind": "folder", "threshold": threshold}, dict(skipped))


def _base_folder(location: Path) -> Path:
    return location if location.is_dir() else location.parent


def _csv_rows(
    file: Path, columns: Columns, where: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, str, str, str]]:
    needed = [columns.image, columns.label, columns.mask, *([columns.group] if columns.group else []), *where]
    for line, row in read_csv(file, needed):
        if any(row[column] not in values for column, values in where.items()):
            continue
        for column in (columns.image, columns.label, *([columns.group] if columns.group else [])):
            if not row[column]:
                raise ExplainerError(f"{line}: column {column!r} is empty")
        group = row[columns.group] if columns.group else ""
        yield line, Path(row[columns.image]).as_posix(), row[columns.label], row[columns.mask], group


def _folder_rows(root: Path) -> Iterator[tuple[str, str, str, str, str]]:
    images, masks = root / "images", root / "masks"
    for folder in (images, masks):
        if not folder.is_dir():
            raise ExplainerError(f"{root}: expected the folders images/CLASS and masks/CLASS; no {folder}")
    for file in sorted(images.glob("*/*")):
        if file.suffix.lower() in SUFFIXES and file.is_file():
            label = file.parent.name
            mask = masks / label / f"{file.stem}.png"
            name = mask.relative_to(root).as_posix() if mask.is_file() else ""
            yield str(file), file.relative_to(root).as_posix(), label, name, ""


def _read_mask(path: Path, threshold: int) -> Mask:
    mask: Mask = read_picture(path).max(axis=2) > threshold
    return mask


def _read_sample(path: Path, files: tuple[Path, ...], threshold: int) -> tuple[Pixels, Mask]:
    pixels = read_picture(path)
    masks = [matching(_read_mask(file, threshold), pixels, str(file)) for file in files]
    return pixels, np.logical_or.reduce(masks)
