"""Which of the data that made a model is this, and does it share pictures with other data?"""

import csv
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from classifiers.data.dataset import Dataset, split_by_group
from classifiers.data.overlap import Shared, recorded_digests, role_of, shared
from classifiers.data.reading import load_dataset
from classifiers.package.package import ModelPackage


def made_from(package: ModelPackage, training: str, validation: str) -> ModelPackage:
    digests = {"training": training, "validation": validation, "elsewhere": "x"}
    return replace(package, training={"data_digests": digests})


def labels_file(file: Path, dataset: Dataset, name: Callable[[Path], str]) -> Path:
    """Write labels whose paths are what `name` makes of the pictures'."""
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("image", "label", "group"))
        for item in dataset.items:
            rows.writerow((name(item.path), ";".join(item.labels), item.group))
    return file


@pytest.mark.parametrize("digest", ["digest", "named_digest"])  # of now, and of kensa 0.1 and 0.2
def test_a_split_beside_the_model_is_known_by_its_pictures(
    package: ModelPackage, dataset: Dataset, tmp_path: Path, digest: str
) -> None:
    training, validation = split_by_group(dataset, (0.7, 0.3))
    recorded = getattr(training, digest), getattr(validation, digest)
    package = made_from(package, *recorded)
    assert package.thresholds is not None
    assert recorded_digests(package) == {
        "training": recorded[0],
        "validation": recorded[1],
        "calibration": package.thresholds.dataset_digest,
    }
    path = tmp_path / "splits" / "training.csv"
    labels_file(path, training, lambda picture: os.path.relpath(picture, path.parent))
    again = load_dataset(path, group_column="group", good_class="good")
    assert again.named_digest != training.named_digest  # the paths are written from another folder
    assert role_of(package, again) == "training"
    assert role_of(package, validation) == "validation"
    assert role_of(package, replace(again, items=again.items[1:])) is None
    relabelled = (replace(again.items[0], labels=("spot",)), *again.items[1:])
    assert role_of(package, replace(again, items=relabelled)) is None


@pytest.mark.parametrize("digest", ["digest", "named_digest"])
def test_labels_with_absolute_paths_are_known_by_their_split(
    package: ModelPackage, dataset: Dataset, tmp_path: Path, digest: str
) -> None:
    absolute = labels_file(tmp_path / "data" / "labels.csv", dataset, lambda picture: str(picture.resolve()))
    whole = load_dataset(absolute, group_column="group", good_class="good")
    training, validation = split_by_group(whole, (0.7, 0.3))
    package = made_from(package, getattr(training, digest), getattr(validation, digest))
    path = tmp_path / "splits" / "training.csv"
    labels_file(path, training, lambda picture: os.path.relpath(picture, path.parent))
    again = load_dataset(path, group_column="group", good_class="good")
    assert role_of(package, again) == "training"
    assert role_of(package, training) == "training"
    assert role_of(package, whole) is None


def test_shared_pictures_and_groups_are_counted(dataset: Dataset) -> None:
    first, second = split_by_group(dataset, (0.5, 0.5))
    assert shared(first, second) == Shared(0, 0)
    assert shared(first, dataset) == Shared(len(first.items), len({item.group for item in first.items}))
    copied = replace(second.items[0], group="another", name="copy.png")
    assert shared(replace(first, items=(copied,)), second) == Shared(1, 0)
    renamed = replace(first.items[0], group=second.items[0].group)
    assert shared(replace(first, items=(renamed,)), second) == Shared(0, 1)


def test_a_package_that_says_nothing_has_nothing_to_compare_with(
    package: ModelPackage, dataset: Dataset
) -> None:
    silent = replace(package, training={}, thresholds=None)
    assert recorded_digests(silent) == {}
    assert role_of(silent, dataset) is None
