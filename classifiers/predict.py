"""Predict batches of pictures with a model package, and derive the verdicts."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from classifiers.errors import PackageError
from classifiers.package.network import fold_temperature
from classifiers.package.package import ModelPackage, build_model
from classifiers.package.parity import check_parity, parity_logits

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Prediction:
    """Probabilities (B, K) and defect scores (B,), both float32 in [0, 1]."""

    probabilities: NDArray[np.float32]
    defect_scores: NDArray[np.float32]


@dataclass(frozen=True)
class Decision:
    """The verdict on one picture, by the package's thresholds.

    Attributes:
        verdict: "pass", "review" or "reject".
        score: the defect score, in [0, 1].
        flagged: (class name, class index, class probability) of each class that becomes a finding; empty
            for "pass".
    """

    verdict: str
    score: float
    flagged: tuple[tuple[str, int, float], ...]


class Predictor:
    """A network ready to predict: loaded once, checked for parity, used for any number of batches.

    Args:
        package: from `load_package`.
        device: "auto" (CUDA where there is a GPU), or any torch device.
        precision: "auto" (float16 on CUDA, float32 elsewhere), "float32", "bfloat16" or "float16".
        batch_size: pictures in one forward pass.

    Attributes:
        model: the float32 reference network in eval mode. Its logits are already divided by the temperature,
            which is folded into the last layer: for the explainers it stays a plain timm model.
        device: the torch device in use.
        precision: the precision in use.

    Raises:
        PackageError: the weights changed, the device or precision is unknown, or the logits are not the
            validated ones.
    """

    def __init__(
        self, package: ModelPackage, *, device: str = "auto", precision: str = "auto", batch_size: int = 32
    ) -> None:
        if batch_size < 1:
            raise PackageError(f"batch_size must be at least 1, not {batch_size}")
        self.package = package
        self.batch_size = batch_size
        self.device = resolve_device(device)
        if precision == "auto":
            # float16 has three more bits of mantissa than bfloat16. Where it overflows, which is rare,
            # `logits` falls back to float32.
            precision = "float16" if self.device.type == "cuda" else "float32"
        if precision not in PRECISIONS:
            raise PackageError(f"precision must be 'auto' or one of {tuple(PRECISIONS)}, not {precision!r}")
        self.precision = precision
        if self.device.type == "cuda":
            # cuDNN rounds float32 convolutions to 10 bits (TF32) unless told not to: on an H200 the logits of
            # MobileNetV3 then differ by 6e-4 of their spread, where a CPU's differ by 1e-6.
            torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]  # untyped
        model = build_model(package)
        fold_temperature(model, package.temperature)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        check_parity(package.parity, parity_logits(self.model, package.preprocessing), "float32")
        self._fast = self.model
        if precision != "float32":
            self._fast = copy.deepcopy(self.model).to(PRECISIONS[precision])
            check_parity(package.parity, parity_logits(self._fast, package.preprocessing), precision)

    def transform(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """Return a decoded picture (h, w, 3) uint8 as the network's input (3, H, W) float32, on the CPU."""
        return self.package.preprocessing.transform(pixels)

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) float32 on the CPU, divided by the temperature, for input (B, 3, H, W).

        Raises:
            PackageError: the input has another shape, or the logits are not finite even in float32.
        """
        expected = (3, *self.package.preprocessing.input_size)
        if batch.ndim != 4 or tuple(batch.shape[1:]) != expected:
            raise PackageError(
                f"input must be (B, {', '.join(map(str, expected))}), got {tuple(batch.shape)}"
            )
        parts = [torch.empty(0, len(self.package.classes))]
        with torch.inference_mode():
            for chunk in torch.split(batch, self.batch_size) if len(batch) else ():
                chunk = chunk.to(self.device, memory_format=torch.channels_last, non_blocking=True)
                part = self._fast(chunk.to(PRECISIONS[self.precision])).float()
                if self.precision != "float32" and not bool(torch.isfinite(part).all()):
                    part = self.model(chunk.float())
                parts.append(part.cpu())
        logits = torch.cat(parts)
        if not bool(torch.isfinite(logits).all()):
            raise PackageError(
                "the network gave logits that are not finite; is the input normalised and finite?"
            )
        return logits

    def predict(self, batch: torch.Tensor) -> Prediction:
        """Return probabilities and defect scores for normalised input (B, 3, H, W); B may be any number."""
        return to_prediction(self.package, self.logits(batch))


def resolve_device(device: str) -> torch.device:
    """Return the torch device of a name; "auto" is CUDA where there is a GPU, else the CPU.

    Raises:
        PackageError: torch does not know the device, or this machine lacks it.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise PackageError(f"device {device!r} is not known to torch; use 'auto', 'cpu' or 'cuda'") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise PackageError(f"device {device!r} is not available here; use 'auto' or 'cpu'")
    return resolved


def to_prediction(package: ModelPackage, logits: torch.Tensor) -> Prediction:
    """Return probabilities and defect scores for logits (B, K), already divided by the temperature."""
    activated = logits.softmax(dim=1) if package.activation == "softmax" else logits.sigmoid()
    probabilities = activated.float().numpy()
    return Prediction(probabilities, defect_scores(package, probabilities))


def defect_scores(package: ModelPackage, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return defect scores (...,) in [0, 1] for probabilities (..., K).

    Single-label: 1 - P(good), computed as the sum over the other classes, which stays precise where P(good)
    is close to 1. Multi-label: the largest probability.

    Raises:
        PackageError: a single-label package does not say which class is good.
    """
    if package.task == "multi-label":
        return np.asarray(probabilities.max(axis=-1), dtype=np.float32)
    if package.good_index is None:
        raise PackageError(f"{package.path}: no good_class, so there is no defect score; train with one")
    others = np.delete(probabilities, package.good_index, axis=-1).sum(axis=-1, dtype=np.float64)
    return np.asarray(np.minimum(others, 1.0), dtype=np.float32)


def decide(package: ModelPackage, probabilities: NDArray[np.float32]) -> Decision:
    """Return the verdict and the flagged classes for one picture's probabilities (K,).

    A score below the review threshold is "pass", below the reject threshold "review", else "reject"; without
    a target for overkill nothing is rejected (`Thresholds.rejects`). A single-label package flags the most
    probable defect class, a multi-label package every class whose probability reaches the review threshold.

    Raises:
        PackageError: the package is not calibrated, or the probabilities are not (K,) finite numbers.
    """
    thresholds = package.thresholds
    if thresholds is None:
        raise PackageError(
            f"{package.path}: not calibrated, so it cannot decide; run `kensa calibrate` first"
        )
    if probabilities.shape != (len(package.classes),) or not np.isfinite(probabilities).all():
        raise PackageError(
            f"probabilities must be {len(package.classes)} finite numbers, got {probabilities!r}"
        )
    score = float(defect_scores(package, probabilities))
    if score < thresholds.review:
        return Decision("pass", score, ())
    if package.task == "multi-label":
        indices = [index for index, value in enumerate(probabilities) if float(value) >= thresholds.review]
    else:
        defects = [index for index in range(len(package.classes)) if index != package.good_index]
        indices = [max(defects, key=lambda index: float(probabilities[index]))]
    flagged = tuple((package.classes[index], index, float(probabilities[index])) for index in indices)
    return Decision("reject" if thresholds.rejects(score) else "review", score, flagged)
