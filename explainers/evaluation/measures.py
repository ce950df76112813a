"""The table's rows: which metrics there are, in which units, and how one map is measured by them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from explainers.errors import ExplainerError
from explainers.evaluation.models import EvaluatedModel
from explainers.metrics.faithfulness import insertion_deletion
from explainers.metrics.localisation import bbox, ebpg, miou, near_truth, pointing_game
from explainers.metrics.sanity import rank_correlation
from explainers.scoring import Precision
from explainers.trust import drop_increase


@dataclass(frozen=True)
class Measure:
    """A row of the table.

    Attributes:
        title: its heading, with the unit.
        better: which values are better; None where neither is.
        digits: after the point.
    """

    title: str
    better: Literal["high", "low"] | None
    digits: int


MEASURES = {
    "ebpg": Measure("EBPG, %", "high", 2),
    "miou": Measure("mIoU, %", "high", 2),
    "bbox": Measure("Bbox, %", "high", 2),
    "drop": Measure("Drop, %", "low", 2),
    "increase": Measure("Increase, %", "high", 2),
    "pointing_game": Measure("Pointing game, %", "high", 2),
    "insertion": Measure("Insertion AUC", "high", 4),
    "deletion": Measure("Deletion AUC", "low", 4),
    "rank_correlation": Measure("Rank correlation with the reference", None, 3),
    "seconds": Measure("Seconds per map", "low", 3),
    "masks": Measure("Masked passes per map", None, 1),
}
CHANCE, ATTAINABLE = "_chance", "_attainable"
"""After a metric's name: its value for a map that says nothing, and for the best map that there could be."""
CHOICES = tuple(name for name in MEASURES if name not in ("seconds", "masks"))
"""The metrics that can be asked for; seconds and masks are always measured."""


@dataclass(frozen=True)
class MeasureSettings:
    """Which metrics, and their settings.

    Attributes:
        names: out of CHOICES.
        tolerance: of the pointing game, in pixels of the network's input.
        insertion_steps: see `insertion_deletion`.
        batch_size: of its passes.
        precision: of its passes.
    """

    names: tuple[str, ...] = ("ebpg", "miou", "bbox", "drop", "increase")
    tolerance: float = 0.0
    insertion_steps: int = 32
    batch_size: int = 16
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if unknown := [name for name in self.names if name not in CHOICES]:
            raise ExplainerError(f"no metric is named {unknown[0]!r}; there is: {', '.join(CHOICES)}")
        if len(set(self.names)) != len(self.names):
            raise ExplainerError(f"metrics names one twice: {', '.join(self.names)}")


def measure(
    settings: MeasureSettings,
    model: EvaluatedModel,
    images: Tensor,
    targets: Tensor,
    maps: Tensor,
    masks: Tensor,
    reference: Tensor | None,
) -> dict[str, float | None]:
    """Return the values of the metrics for one map.

    Args:
        settings: which metrics.
        model: the explained model.
        images: (1, 3, H, W) float, normalised.
        targets: (1,) the explained output.
        maps: (1, H, W) float in [0, 1].
        masks: (1, H, W) bool, the true pixels.
        reference: (1, H, W) map of the reference explainer, or None.

    Returns:
        metric -> value in the table's units; None where the metric is not defined for this map. With them the
        `limits` of those that have any.

    Raises:
        ExplainerError: see `explainers.metrics`.
    """
    asked = set(settings.names)
    values: dict[str, float | None] = {}
    for name, score in (("ebpg", ebpg), ("miou", miou), ("bbox", bbox)):
        if name in asked:
            values[name] = _finite_percent(score(maps, masks))
    if "pointing_game" in asked:
        values["pointing_game"] = _finite_percent(pointing_game(maps, masks, settings.tolerance))
    if asked & {"drop", "increase"}:
        _, drop, increase = drop_increase(model.network, images, targets, maps, activation=model.activation)
        values |= {"drop": float(drop[0]), "increase": _finite_percent(increase)}
    if asked & {"insertion", "deletion"}:
        insertion, deletion = insertion_deletion(
            model.network,
            images,
            targets,
            maps,
            activation=model.activation,
            steps=settings.insertion_steps,
            batch_size=settings.batch_size,
            precision=settings.precision,
        )
        values |= {"insertion": float(insertion[0]), "deletion": float(deletion[0])}
    if "rank_correlation" in asked:
        values["rank_correlation"] = (
            None if reference is None else _finite_number(rank_correlation(maps, reference))
        )
    return {name: value for name, value in values.items() if name in asked} | limits(settings, masks)


def limits(settings: MeasureSettings, masks: Tensor) -> dict[str, float | None]:
    """Return chance level and attainable maximum of the metrics that judge where a map lies.

    They follow from the truth alone: a defect of 0.5 % of the pixels cannot overlap a map's top 20 % by more
    than 2.5 %. Chance is what a map gets that is the same everywhere, and of the pointing game the share of
    the pixels at which a peak counts. The maximum is what the truth itself would get as a map.

    Args:
        settings: which metrics.
        masks: (1, H, W) bool, the true pixels.

    Returns:
        The metric's name with `CHANCE` or `ATTAINABLE` -> value in the table's units; None where the truth is
        empty. Drop, Increase, insertion and deletion depend on the model and have no such limits.
    """
    even, perfect = torch.ones_like(masks, dtype=torch.float32), masks.float()
    values: dict[str, float | None] = {}
    for name, score in (("ebpg", ebpg), ("miou", miou), ("bbox", bbox)):
        if name in settings.names:
            values[name + CHANCE] = _finite_percent(score(even, masks))
            values[name + ATTAINABLE] = _finite_percent(score(perfect, masks))
    if "pointing_game" in settings.names:
        near = near_truth(masks, settings.tolerance)
        values["pointing_game" + CHANCE] = 100.0 * float(near.float().mean())
        values["pointing_game" + ATTAINABLE] = 100.0
    return values


def title(metric: str, tolerance: float) -> str:
    """Return a row's heading; that of the pointing game says how far from the truth a peak may lie."""
    if metric != "pointing_game":
        return MEASURES[metric].title
    where = f"within {tolerance:g} px of the truth" if tolerance else "on the truth"
    return f"Pointing game, peak {where}, %"


def _finite_number(values: Tensor) -> float | None:
    number = float(values[0])
    return number if math.isfinite(number) else None


def _finite_percent(values: Tensor) -> float | None:
    number = _finite_number(values)
    return None if number is None else 100.0 * number
