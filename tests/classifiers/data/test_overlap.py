"""Which of the data that made a model is this, and does it share pictures with other data?"""

import csv
import os
from dataclasses import replace
from pathlib import Path

from classifiers.data.dataset import Dataset, load_dataset, split_by_group
from classifiers.data.overlap import Shared, recorded_digests, role_of, shared
from classifiers.package.package import ModelPackage


def made_from(package: ModelPackage, training: Dataset, validation: Dataset) -> ModelPackage:
    digests = {"training": training.digest, "validation": validation.digest, "elsewhere": "x"}
    return replace(package, training={"data_digests": digests})


def test_a_split_beside_the_model_is_known_by_its_pictures(
    package: ModelPackage, dataset: Dataset, tmp_path: Path
) -> None:
    training, validation = split_by_group(dataset, (0.7, 0.3))
    package = made_from(package, training, validation)
    assert package.thresholds is not None
    assert recorded_digests(package) == {
        "training": training.digest,
        "validation": validation.digest,
        "calibration": package.thresholds.dataset_digest,
    }
    path = tmp_path / "splits" / "training.csv"
    path.parent.mkdir()
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "label", "group"))
        for item in training.items:
            rows.writerow((os.path.relpath(item.path, path.parent), ";".join(item.labels), item.group))
    again = load_dataset(path, group_column="group", good_class="good")
    assert again.digest != training.digest  # the paths are written from another folder
    assert role_of(package, again) == "training"
    assert role_of(package, validation) == "validation"
    assert role_of(package, replace(again, items=again.items[1:])) is None
    relabelled = (replace(again.items[0], labels=("spot",)), *again.items[1:])
    assert role_of(package, replace(again, items=relabelled)) is None


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
