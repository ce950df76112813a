"""What a package was calibrated to in precisions other than float32, each with thresholds of its own.

Reduced precisions round the weights and every layer's output. That moves scores, and the thresholds chosen
from float32's scores are not shown to keep their targets on others. An engine rounds in its own way
(OpenVINO folds batch norms into the weights before it rounds them), so that a calibration holds for the
engine that scored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from classifiers.package.thresholds import Thresholds

REDUCED = ("bfloat16", "float16")


@dataclass(frozen=True)
class ReducedPrecision:
    """Thresholds chosen from the scores of one engine in one precision, and how far those are from float32's.

    Attributes:
        precision: "bfloat16" or "float16".
        engine: the engine that scored; the calibration holds for no other.
        device: the type of the device that it scored on, such as "cuda".
        thresholds: chosen from these scores, with their own evidence.
        parity: logits for the test pictures of `parity.py` by this engine in this precision.
        flips: calibration pictures whose verdict is not that of float32 with float32's thresholds.
        score_shift: the largest difference of a calibration picture's defect score from float32's, in [0, 1].
        logit_shift: the largest difference of a logit, which is divided by the temperature.
    """

    precision: str
    engine: str
    device: str
    thresholds: Thresholds
    parity: tuple[tuple[float, ...], ...]
    flips: int
    score_shift: float
    logit_shift: float

    def __post_init__(self) -> None:
        if self.precision not in REDUCED:
            raise ValueError(f"reduced.precision must be one of {REDUCED}, got {self.precision!r}")
        for name in ("engine", "device"):
            if not isinstance(text := getattr(self, name), str) or not text:
                raise ValueError(f"reduced.{name} must be text, got {text!r}")
        if isinstance(self.flips, bool) or not isinstance(self.flips, int) or self.flips < 0:
            raise ValueError(f"reduced.flips must be a count, got {self.flips!r}")
        for name, most in (("score_shift", 1.0), ("logit_shift", math.inf)):
            shift = getattr(self, name)
            if isinstance(shift, bool) or not isinstance(shift, int | float) or not 0 <= shift <= most:
                raise ValueError(f"reduced.{name} must be a number from 0 to {most:g}, got {shift!r}")


def thresholds_in_force(card: Mapping[str, Any], decision: Mapping[str, Any]) -> Thresholds:
    """Return the thresholds by which a recorded model decided.

    Args:
        card: the content of its model.json.
        decision: what the run's settings digest covers; engine and precision count.
    """
    where = (decision.get("engine", "torch"), decision.get("precision"))
    for entry in card.get("reduced", ()):
        if (entry["engine"], entry["precision"]) == where:
            return Thresholds(**entry["thresholds"])
    return Thresholds(**card["thresholds"])
