"""Find out whether examined pictures are among those that a model was made from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from classifiers.data.dataset import Dataset
from classifiers.package.package import ModelPackage

RECORDED = ("training", "validation", "calibration")


@dataclass(frozen=True)
class Shared:
    """How much of a data set is in another one.

    Attributes:
        pictures: how many have the same bytes as a picture of the other.
        groups: how many have the same name as a group of the other.
    """

    pictures: int
    groups: int


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

    A data set's digest covers the pictures' names, which are relative to the folder of the labels. A split
    that `kensa train` wrote beside the model names the same pictures from another folder. Therefore the
    digest is tried with names from each folder above the pictures.
    """
    roles = {digest: role for role, digest in recorded_digests(package).items()}
    named = _with_other_names(package, dataset)
    return next((roles[one.digest] for one in named if one.digest in roles), None)


def shared(examined: Dataset, seen: Dataset) -> Shared:
    """Count the pictures (by their bytes) and groups (by name) of `examined` that are in `seen` too."""
    digests, groups = {item.sha256 for item in seen.items}, {item.group for item in seen.items}
    return Shared(
        sum(item.sha256 in digests for item in examined.items),
        len({item.group for item in examined.items} & groups),
    )


def _with_other_names(package: ModelPackage, dataset: Dataset) -> Iterator[Dataset]:
    """Yield the data set with its own names, then with names from each folder above its pictures."""
    yield dataset
    paths = [Path(os.path.normpath(Path.cwd() / item.path)) for item in dataset.items]
    # The side of a split may lack one of the classes that the whole data had.
    whole = replace(dataset, classes=package.classes)
    nearest = Path(os.path.commonpath([path.parent for path in paths]))
    for folder in (nearest, *nearest.parents):
        items = (
            replace(item, name=path.relative_to(folder).as_posix())
            for item, path in zip(dataset.items, paths, strict=True)
        )
        yield replace(whole, items=tuple(sorted(items, key=lambda item: item.name)))
