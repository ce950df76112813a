"""The samples of an evaluation: one for each picture and class, with the pixels that are truly that class."""

from __future__ import annotations

import csv
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from explainers.errors import ExplainerError
from sources.decoding import decode
from sources.errors import Unreadable

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Truth = Literal["boxes", "masks"]
"""The true pixels of a class: the filled boxes of its objects, or their masks."""
Reader = Callable[[], tuple[Pixels, Mask]]


@dataclass(frozen=True)
class Sample:
    """A picture and one class that is in it.

    Attributes:
        image: name of the picture, unique in the data set (of a patch: strip and place).
        label: class name.
        path: the file the picture is read from.
        group: samples of one group are resampled together by the bootstrap; by default, those of a picture.
        read: returns the picture (H, W, 3) uint8 RGB and the class's pixels (H, W) bool; raises
            ExplainerError naming the file when it cannot.
    """

    image: str
    label: str
    path: Path
    group: str
    read: Reader = field(repr=False, compare=False)


@dataclass(frozen=True)
class SampleSet:
    """Samples of one data set, and what was passed over.

    Attributes:
        name: for people.
        samples: no (image, label) twice.
        truth: how the true pixels come about; JSON content, part of each result's settings digest.
        skipped: reason -> number of (picture, class) pairs that cannot be judged.
    """

    name: str
    samples: tuple[Sample, ...]
    truth: dict[str, Any]
    skipped: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        twice = Counter((sample.image, sample.label) for sample in self.samples)
        for (image, label), count in twice.items():
            if count > 1:
                raise ExplainerError(f"{self.name}: {image} with class {label!r} appears {count} times")

    def counts(self) -> dict[str, int]:
        """Return the number of samples of each class, by name."""
        return dict(sorted(Counter(sample.label for sample in self.samples).items()))


@dataclass(frozen=True)
class Choice:
    """Which pictures and classes of a data set are wanted.

    Attributes:
        classes: class names; None for all.
        paths: resolved paths of the pictures; None for all.
        names: their file names, where the place does not count; None for all.
    """

    classes: frozenset[str] | None = None
    paths: frozenset[Path] | None = None
    names: frozenset[str] | None = None

    def wants(self, path: Path, label: str) -> bool:
        """Return whether this picture and class is to be evaluated."""
        return (
            (self.classes is None or label in self.classes)
            and (self.names is None or path.name in self.names)
            and (self.paths is None or path.resolve() in self.paths)
        )


def choose(
    classes: Sequence[str] | None = None,
    subset: Path | None = None,
    column: str = "image",
    *,
    by_name: bool = False,
) -> Choice:
    """Return a choice made of class names and a CSV that lists pictures, such as a split's `test.csv`.

    Args:
        classes: class names; None for all.
        subset: CSV file, its paths relative to itself; None for all pictures.
        column: of the CSV.
        by_name: compare file names alone: patches are cut from strips that lie elsewhere.

    Raises:
        ExplainerError: the CSV cannot be read, or lists nothing.
    """
    wanted = None if classes is None else frozenset(classes)
    if subset is None:
        return Choice(wanted)
    listed = [Path(row[column]) for _, row in read_csv(subset, (column,)) if row[column]]
    if not listed:
        raise ExplainerError(f"{subset}: lists no picture in column {column!r}")
    if by_name:
        return Choice(wanted, names=frozenset(path.name for path in listed))
    return Choice(wanted, frozenset((subset.parent / path).resolve() for path in listed))


def known_only(dataset: SampleSet, classes: Collection[str]) -> SampleSet:
    """Return the samples of classes that the model knows; the others are counted as skipped.

    Raises:
        ExplainerError: it knows none of them, so that the model and the data do not belong together.
    """
    known = tuple(sample for sample in dataset.samples if sample.label in classes)
    if not known:
        raise ExplainerError(
            f"{dataset.name}: no sample of a class that the model knows; the data has "
            f"{', '.join(dataset.counts()) or 'no samples at all'}; the model knows "
            f"{', '.join(sorted(classes)[:20])}"
        )
    unknown = len(dataset.samples) - len(known)
    skipped = dataset.skipped | ({"class unknown to the model": unknown} if unknown else {})
    return replace(dataset, samples=known, skipped=skipped)


def draw(dataset: SampleSet, limit: int | None = None, seed: int = 0) -> SampleSet:
    """Return the first `limit` samples, ordered by turns: one of each class, then the next of each.

    So an evaluation that is stopped early is balanced over the classes. The same arguments give the same
    order.

    Args:
        dataset: to draw from.
        limit: most samples; None for all.
        seed: of the draw within each class.
    """
    classes: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(dataset.samples, key=lambda sample: (sample.image, sample.label)):
        classes[sample.label].append(sample)
    random_order = random.Random(seed)  # noqa: S311  a draw, not a secret
    for label in sorted(classes):
        random_order.shuffle(classes[label])
    turns = sorted(
        ((turn, label, sample) for label, members in classes.items() for turn, sample in enumerate(members)),
        key=lambda entry: entry[:2],
    )
    return replace(dataset, samples=tuple(sample for *_, sample in turns[:limit]))


def read_picture(path: Path) -> Pixels:
    """Decode a picture file to (H, W, 3) uint8 RGB.

    Raises:
        ExplainerError: naming the file.
    """
    try:
        return decode(path.read_bytes()).pixels
    except (OSError, Unreadable) as error:
        raise ExplainerError(f"{path}: cannot be read as a picture: {error}") from error


def matching(mask: Mask, pixels: Pixels, source: str) -> Mask:
    """Return a mask (H, W) that is as large as its picture (H, W, 3).

    Raises:
        ExplainerError: it is not; names its `source`.
    """
    if mask.shape != pixels.shape[:2]:
        raise ExplainerError(f"{source}: the mask is {mask.shape}, its picture {pixels.shape[:2]}")
    return mask


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Read a CSV with a header row.

    Args:
        path: the file, UTF-8.
        columns: that must be there.

    Yields:
        "FILE, line N" for messages, and the row with every cell stripped.

    Raises:
        ExplainerError: the file cannot be read, or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            names = reader.fieldnames or []
            for column in columns:
                if column not in names:
                    raise ExplainerError(
                        f"{path}: no column {column!r}; there are {', '.join(names) or 'none'}"
                    )
            for row in reader:
                yield (
                    f"{path}, line {reader.line_num}",
                    {name: value.strip() for name, value in row.items() if isinstance(value, str)},
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ExplainerError(f"{path}: cannot be read as CSV: {error}") from error
