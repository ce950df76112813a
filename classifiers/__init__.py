"""Classifiers: the model package on disk, training, calibration and batched prediction with timm CNNs.

The names below are what an inspection needs. Labelled data, training and measuring are in `classifiers.data`,
`classifiers.training` and `classifiers.measure`.

Importing this package is cheap: torch is loaded when one of these names is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from classifiers.errors import PackageError

if TYPE_CHECKING:
    from classifiers.package.package import ModelPackage, load_package, restore_package, save_package
    from classifiers.package.preprocessing import Preprocessing
    from classifiers.package.thresholds import Thresholds
    from classifiers.predict import Decision, Prediction, Predictor, decide

__all__ = [
    "Decision",
    "ModelPackage",
    "PackageError",
    "Prediction",
    "Predictor",
    "Preprocessing",
    "Thresholds",
    "decide",
    "load_package",
    "restore_package",
    "save_package",
]

_HOMES = {
    "Decision": "classifiers.predict",
    "ModelPackage": "classifiers.package.package",
    "Prediction": "classifiers.predict",
    "Predictor": "classifiers.predict",
    "Preprocessing": "classifiers.package.preprocessing",
    "Thresholds": "classifiers.package.thresholds",
    "decide": "classifiers.predict",
    "load_package": "classifiers.package.package",
    "restore_package": "classifiers.package.package",
    "save_package": "classifiers.package.package",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
