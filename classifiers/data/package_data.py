"""Labelled pictures read for a model that there is: to calibrate, examine or follow it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from classifiers.data.dataset import Dataset, load_dataset
from classifiers.package.package import ModelPackage


def load_package_data(
    package: ModelPackage, location: Path, *, good_class: str | None = None, **reading: Any
) -> Dataset:
    """Return labelled pictures in the form of a package's task, with its good class.

    Args:
        package: the model.
        location: as for `load_dataset`.
        good_class: what multi-label labels call a picture without a defect.
        reading: further arguments of `load_dataset`.

    Raises:
        DataError: as `load_dataset` raises it.
    """
    multi_label = package.task == "multi-label"
    # Single-label data need not hold a good picture; in multi-label data a name stands for no label.
    found = load_dataset(
        location, multi_label=multi_label, good_class=good_class if multi_label else None, **reading
    )
    return replace(found, good_class=package.good_class)
