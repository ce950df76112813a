"""Labelled pictures read for a model that there is: to calibrate, examine or follow it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from classifiers.data.dataset import Dataset
from classifiers.data.reading import AUTO, load_dataset, reading_format
from classifiers.package.package import ModelPackage


def load_package_data(
    package: ModelPackage,
    location: Path,
    *,
    form: str = AUTO,
    good_class: str | None = None,
    group_column: str | None = None,
    **reading: Any,
) -> Dataset:
    """Return labelled pictures in the form of a package's task, with its good class.

    Args:
        package: the model.
        location: as for `load_dataset`.
        form: as for `load_dataset`.
        good_class: what multi-label labels call a picture without a defect.
        group_column: of a CSV; other layouts have none.
        reading: further arguments of `load_dataset`.

    Raises:
        DataError: as `load_dataset` raises it.
    """
    multi_label = package.task == "multi-label"
    # Single-label data need not hold a good picture; in multi-label data a name stands for no label.
    found = load_dataset(
        location,
        form=form,
        multi_label=multi_label,
        good_class=good_class if multi_label else package.good_class,
        need_good=False,
        group_column=group_column if reading_format(location, form).name == "csv" else None,
        **reading,
    )
    return replace(found, good_class=package.good_class)
