"""Classifiers: the model package on disk, training, calibration and batched prediction with timm CNNs.

This face is what an inspection needs. Training, calibration and evaluation live in their own modules:
`classifiers.data`, `classifiers.train`, `classifiers.calibrate`, `classifiers.evaluation`.
"""

from classifiers.package import (
    ModelPackage,
    PackageError,
    Preprocessing,
    Thresholds,
    load_package,
    restore_package,
    save_package,
)
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
