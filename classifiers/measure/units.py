"""What thresholds are chosen for: pictures, or parts, of which there are several pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from classifiers.package.package import ModelPackage

Unit = Literal["picture", "part"]


@dataclass(frozen=True, eq=False)
class Parts:
    """Parts in the order of their names.

    Attributes:
        scores: (P,) of each part the highest score of its pictures: the one that decides about it.
        defective: (P,) bool, whether any of its pictures is defective.
        groups: the parts' names.
    """

    scores: NDArray[np.floating]
    defective: NDArray[np.bool_]
    groups: list[str]


def of_parts(scores: NDArray[np.floating], defective: NDArray[np.bool_], groups: Sequence[str]) -> Parts:
    """Return the parts that pictures are of.

    Args:
        scores: (N,) of the pictures.
        defective: (N,) bool, which of them are.
        groups: (N,) the part of each.
    """
    names, place = np.unique(np.array(groups, dtype=str), return_inverse=True)
    highest = np.full(len(names), -np.inf, dtype=scores.dtype)
    np.maximum.at(highest, place, scores)
    bad = np.zeros(len(names), dtype=bool)
    np.logical_or.at(bad, place, defective)
    return Parts(highest, bad, names.tolist())


def calibrated_per(package: ModelPackage) -> Unit:
    """Return what a package's thresholds keep their targets for: pictures before kensa 0.4."""
    told = package.training.get("calibration")
    return "part" if isinstance(told, dict) and told.get("per") == "part" else "picture"
