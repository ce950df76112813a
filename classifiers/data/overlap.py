"""Find out whether examined pictures are among those that a model was made from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from classifiers.data.dataset import CONTENT, Dataset
from classifiers.package.package import ModelPackage

RECORDED = ("training", "validation", "calibration")
SIDES = (*RECORDED, "test")
"""The sides of the split that `kensa train` makes; the test pictures have no part in making a model."""


@dataclass(frozen=True)
class Shared:
    """How much of a data set is in another one.

    Attributes:
        pictures: how many have the same bytes as a picture of the other.
        groups: how many have the same name as a group of the other.
    """

    pictures: int
    groups: int


def split_record(
    sides: tuple[Dataset, ...], *, grouped_by: str | None, fractions: tuple[float, ...], seed: int
) -> dict[str, Any]:
    """Return what a package records of its split: the groups' column, fractions, seed, each side's digest."""
    digests = {role: side.digest for role, side in zip(SIDES, sides, strict=True)}
    return {"grouped_by": grouped_by, "fractions": list(fractions), "seed": seed, "digests": digests}


def split_of(package: ModelPackage) -> Mapping[str, Any]:
    """Return what a package records of its split, see `split_record`; nothing before kensa 0.3."""
    split = package.training.get("split")
    return split if isinstance(split, Mapping) else {}


def grouped_by(package: ModelPackage, dataset: Dataset) -> str | None:
    """Return the column by whose groups the data was split of which this is a side; None of other data."""
    split = split_of(package)
    digests, column = split.get("digests"), split.get("grouped_by")
    if isinstance(digests, Mapping) and isinstance(column, str) and dataset.digest in digests.values():
        return column
    return None


def recorded_digests(package: ModelPackage) -> dict[str, str]:
    """Return role -> digest of the data that a package says it was made from, as far as it says so."""
    digests = {
        role: digest
        for role, digest in dict(package.training.get("data_digests", {})).items()
        if role in RECORDED and isinstance(digest, str)
    }
    if package.thresholds is not None and package.thresholds.dataset_digest:
        digests["calibration"] = package.thresholds.dataset_digest
    return digests


def role_of(package: ModelPackage, dataset: Dataset) -> str | None:
    """Return the role that a data set had in making a package; None where it had none, or it does not show.

    Packages of kensa 0.1 and 0.2 have digests that cover the pictures' names as their labels wrote them:
    paths relative to the folder of the labels, or absolute ones. The same pictures may be named from another
    folder now, as in a split that `kensa train` wrote. Therefore such a digest is tried with absolute names,
    and with names from each folder above the pictures.
    """
    roles = {digest: role for role, digest in recorded_digests(package).items()}
    if dataset.digest in roles:
        return roles[dataset.digest]
    if all(digest.startswith(CONTENT) for digest in roles):
        return None
    digests = (one.named_digest for one in _with_other_names(package, dataset))
    return next((roles[digest] for digest in digests if digest in roles), None)


def shared(examined: Dataset, seen: Dataset) -> Shared:
    """Count the pictures (by their bytes) and groups (by name) of `examined` that are in `seen` too."""
    digests, groups = {item.sha256 for item in seen.items}, {item.group for item in seen.items}
    return Shared(
        sum(item.sha256 in digests for item in examined.items),
        len({item.group for item in examined.items} & groups),
    )


def _with_other_names(package: ModelPackage, dataset: Dataset) -> Iterator[Dataset]:
    """Yield the data set with its own names, with absolute ones, then with names from each folder above."""
    yield dataset
    paths = [Path(os.path.normpath(Path.cwd() / item.path)) for item in dataset.items]
    # The side of a split may lack one of the classes that the whole data had.
    whole = replace(dataset, classes=package.classes)

    def named(names: Iterable[str]) -> Dataset:
        items = (replace(item, name=name) for item, name in zip(dataset.items, names, strict=True))
        return replace(whole, items=tuple(sorted(items, key=lambda item: item.name)))

    yield named(path.as_posix() for path in paths)
    nearest = Path(os.path.commonpath([path.parent for path in paths]))
    for folder in (nearest, *nearest.parents):
        yield named(path.relative_to(folder).as_posix() for path in paths)
