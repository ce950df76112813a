"""Predict batches of pictures with a model package, and derive the verdicts."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from classifiers.engines.choice import ENGINES, automatic_engine, fast_precisions
from classifiers.engines.engine import PRECISIONS, Engine, EngineError
from classifiers.engines.torch_engine import TorchEngine
from classifiers.errors import PackageError
from classifiers.package.network import fold_temperature
from classifiers.package.package import ModelPackage, build_model
from classifiers.package.parity import check_parity, parity_logits, parity_pictures

if TYPE_CHECKING:
    from numpy.typing import NDArray

_log = logging.getLogger("kensa")


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
        engine: "auto" (OpenVINO on the CPU where it is installed and computes this package, else torch),
            "torch" or "openvino".
        precision: "auto" (`automatic_precisions`), "float32", "bfloat16" or "float16".
        batch_size: pictures in one forward pass.

    Attributes:
        package: the package, its thresholds those of the precision in use.
        model: the float32 reference network in eval mode. Its logits are already divided by the temperature,
            which is folded into the last layer: for the explainers it stays a plain timm model.
        device: the torch device in use.
        engine: what computes the logits.
        refusal: why "auto" did not take the engine that it takes first on this machine; None where it did.

    Raises:
        PackageError: the weights changed, the device, engine or precision is unknown or not to be had here,
            or the logits are not the validated ones.
    """

    def __init__(
        self,
        package: ModelPackage,
        *,
        device: str = "auto",
        engine: str = "auto",
        precision: str = "auto",
        batch_size: int = 32,
    ) -> None:
        if batch_size < 1:
            raise PackageError(f"batch_size must be at least 1, not {batch_size}")
        self.package = package
        self.batch_size = batch_size
        self.device = resolve_device(device)
        first = automatic_engine(self.device.type) if engine == "auto" else engine
        if engine == "auto" and precision not in ("auto", "float32") and not package.calibrated_by_precision:
            first = "torch"  # as before 0.3: no calibration says how another engine's rounding moves scores
        if first not in ENGINES:
            raise PackageError(f"engine must be 'auto' or one of {ENGINES}, not {engine!r}")
        if precision not in ("auto", *PRECISIONS):
            raise PackageError(f"precision must be 'auto' or one of {tuple(PRECISIONS)}, not {precision!r}")
        if self.device.type == "cuda":
            # cuDNN rounds float32 convolutions to 10 bits (TF32) unless told not to: on an H200 the logits of
            # MobileNetV3 then differ by 6e-4 of their spread, where a CPU's differ by 1e-6.
            torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]  # untyped
        model = build_model(package)
        fold_temperature(model, package.temperature)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        check_parity(package.parity, parity_logits(self.model, package.preprocessing), "float32")
        self.refusal: str | None = None
        try:
            self.engine = self._checked_engine(first, precision)
        except EngineError as error:
            if engine != "auto" or first == "torch":
                raise
            self.refusal = str(error)
            _log.warning("engine torch is used: %s", error)
            self.engine = self._checked_engine("torch", precision)
        self._warn_of_thresholds()
        reduced = package.reduced_to(self.engine.name, self.engine.precision)
        if reduced is not None:
            self.package = replace(package, thresholds=reduced.thresholds)

    @property
    def precision(self) -> str:
        """The precision in use."""
        return self.engine.precision

    def sentence(self) -> str:
        """Say where, in which precision and by which engine it computes, in a few words."""
        refused = f" ({self.refusal})" if self.refusal else ""
        return f"{self.device} in {self.precision} by {self.engine.name} {self.engine.version}{refused}"

    def facts(self) -> dict[str, str]:
        """Return what computes, for the record: device, engine, precision, the libraries' versions.

        Where "auto" could not take the engine that it takes first, `engine_refusal` says why.
        """
        facts = {
            "device": str(self.device),
            "engine": self.engine.name,
            "precision": self.precision,
            "torch": torch.__version__,
            self.engine.name: self.engine.version,
        }
        return facts if self.refusal is None else {**facts, "engine_refusal": self.refusal}

    def _checked_engine(self, name: str, precision: str) -> Engine:
        """Return an engine whose logits are the validated ones; EngineError with the figure otherwise."""
        if precision != "auto":
            return self._engine(name, precision)
        *reduced, last = automatic_precisions(self.package, self.device, name)
        for each in reduced:
            try:
                return self._engine(name, each)
            except EngineError as error:
                _log.warning("precision %s is not used: %s", each, error)
        return self._engine(name, last)

    def _warn_of_thresholds(self) -> None:
        """Warn where a package of before 0.3 decides in another precision than its thresholds are from."""
        told = self.package.training.get("calibration")
        scored = told.get("precision", self.precision) if isinstance(told, dict) else self.precision
        if scored != self.precision and not self.package.calibrated_by_precision:
            _log.warning(
                "the thresholds of %s are from scores in %s, and it is to decide in %s: nothing shows "
                "that they keep their targets there; run `kensa calibrate` again",
                *(self.package.path, scored, self.precision),
            )

    def _engine(self, name: str, precision: str) -> Engine:
        package = self.package
        reduced = package.reduced_to(name, precision)
        if precision != "float32" and reduced is None and package.calibrated_by_precision:
            raise EngineError(
                f"{package.path}: not calibrated for {precision} by engine {name}, so nothing shows that it "
                f"keeps its targets there: run `kensa calibrate --engine {name} --precision {precision}`, or "
                "set model.precision to auto"
            )
        stored = package.parity if reduced is None else reduced.parity
        pictures = torch.stack([self.transform(picture) for picture in parity_pictures()]).to(self.device)

        def check(engine: Engine) -> None:
            for _ in range(2):  # the second time may be another way: a CUDA graph
                try:
                    check_parity(stored, engine(pictures).tolist(), precision, own=reduced is not None)
                except PackageError as error:
                    raise EngineError(f"engine {name} is not for this package: {error}") from error

        if name == "openvino":
            # Loaded for this engine alone: it is an extra, and takes its time.
            from classifiers.engines.openvino_engine import open_openvino_engine

            if self.device.type != "cpu":
                raise EngineError(
                    f"engine openvino computes on the CPU, not on {self.device}: set model.engine to torch, "
                    "or model.device to cpu"
                )
            return open_openvino_engine(self.model, self.package, precision, check)
        engine = TorchEngine(self.model, precision, len(self.package.classes))
        check(engine)
        return engine

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
        for chunk in torch.split(batch, self.batch_size) if len(batch) else ():
            chunk = chunk.to(self.device, non_blocking=True)
            part = self.engine(chunk)
            if self.precision != "float32" and not bool(torch.isfinite(part).all()):
                with torch.inference_mode():
                    part = self.model(chunk.to(memory_format=torch.channels_last))
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


def automatic_precisions(package: ModelPackage, device: torch.device, engine: str) -> tuple[str, ...]:
    """Return the precisions that "auto" tries for a package, on a device, with an engine, in this order.

    They are those that the device is fast in and the package was calibrated for. Before 0.3 a package was
    calibrated without a word on precisions: it decides in float16 on CUDA, and in float32 elsewhere.
    """
    if not package.calibrated_by_precision:
        return ("float16",) if device.type == "cuda" else ("float32",)
    return tuple(
        each
        for each in fast_precisions(device.type)
        if each == "float32" or package.reduced_to(engine, each) is not None
    )


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


def decide(package: ModelPackage, probabilities: NDArray[np.float32], score: float | None = None) -> Decision:
    """Return the verdict and the flagged classes for one picture's probabilities (K,).

    A score below the review threshold is "pass", below the reject threshold "review", else "reject"; without
    a target for overkill nothing is rejected (`Thresholds.rejects`). A single-label package flags the most
    probable defect class, a multi-label package every class whose probability reaches the review threshold.

    Args:
        package: a calibrated one.
        probabilities: of each class.
        score: the defect score, where it is not that of these probabilities.

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
    if score is None:
        score = float(defect_scores(package, probabilities))
    verdict = thresholds.verdict(score)
    if verdict == "pass":
        return Decision(verdict, score, ())
    if package.task == "multi-label":
        indices = [index for index, value in enumerate(probabilities) if float(value) >= thresholds.review]
    else:
        defects = [index for index in range(len(package.classes)) if index != package.good_index]
        indices = [max(defects, key=lambda index: float(probabilities[index]))]
    flagged = tuple((package.classes[index], index, float(probabilities[index])) for index in indices)
    return Decision(verdict, score, flagged)
