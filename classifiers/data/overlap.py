"""Are examined pictures among those that a model has seen?"""

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
    """What two data sets have in common.

    Attributes:
        pictures: of the first, those whose bytes are in the second.
        groups: of the first, those that are in the second by name.
    """

    pictures: int
    groups: int


def recorded_digests(package: ModelPackage) -> dict[str, str]:
    """The digests of the data a package says it was made from, by role: as far as it says."""
    digests = {
        role: digest
        for role, digest in dict(package.training.get("data_digests", {})).items()
        if role in RECORDED and isinstance(digest, str)
    }
    if package.thresholds is not None and package.thresholds.dataset_digest:
        digests["calibration"] = package.thresholds.dataset_digest
    return digests


def role_of(package: ModelPackage, dataset: Dataset) -> str | None:
    """Which of the data a package was made from this is; None where it is none of it, or cannot be shown.

    A data set's digest covers the pictures' names, which are relative to where the labels lay: a split that
    `kensa train` wrote beside the model names the same pictures from another folder. So the names are tried
    from every folder above the pictures.
    """
    roles = {digest: role for role, digest in recorded_digests(package).items()}
    return next((roles[one.digest] for one in _readings(package, dataset) if one.digest in roles), None)


def shared(examined: Dataset, seen: Dataset) -> Shared:
    """Count pictures (by their bytes) and groups (by name) of `examined` that `seen` has too."""
    digests, groups = {item.sha256 for item in seen.items}, {item.group for item in seen.items}
    return Shared(
        sum(item.sha256 in digests for item in examined.items),
        len({item.group for item in examined.items} & groups),
    )


def _readings(package: ModelPackage, dataset: Dataset) -> Iterator[Dataset]:
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
