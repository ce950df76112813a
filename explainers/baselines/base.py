"""What all baselines share: the private copy, the checks, the scores, the min-max, the result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from explainers.errors import ExplainerError
from explainers.explanation import OK, UNDEFINED, Explanation, Layer, Targets
from explainers.isolation import Rows, isolated, model_device, model_name, private_images, private_rows
from explainers.maps import FLAT, minmax
from explainers.scoring import Activation, check_class_count, probability


@dataclass(frozen=True)
class Attribution:
    """What a method found, before the min-max.

    Attributes:
        maps: (F, H, W) float, one for each row, on any scale; a constant one means no attribution.
        layers: the probed layers; where there is one, `maps` is its map.
        masks: layer name, or "input", -> number of masked pictures behind every row.
    """

    maps: Tensor
    layers: tuple[Layer, ...] = ()
    masks: Mapping[str, int] = field(default_factory=dict)


class Baseline(ABC):
    """An explainer but for its attribution: subclasses say how `_attribute` finds the raw maps."""

    method: ClassVar[str]

    def __init__(self, model: nn.Module, activation: Activation) -> None:
        if activation not in get_args(Activation):
            raise ExplainerError(f"activation must be 'softmax' or 'sigmoid', got {activation!r}")
        self._model = model
        self._activation: Activation = activation

    @property
    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Keyword arguments that make this explainer again; JSON can hold them."""

    @abstractmethod
    def _attribute(self, model: nn.Module, pictures: Tensor, rows: Rows) -> Attribution:
        """Find the raw maps of `rows` of `pictures` (B, C, H, W) float32 with a private copy of the model."""

    def _reparameterised(self) -> bool:
        """Whether RepVGG-like branches are folded before the method runs: not where names are the user's."""
        return True

    def __call__(self, images: Tensor, targets: Targets) -> Explanation:
        """Explain classes of pictures.

        Args:
            images: (B, C, H, W) float, normalised as the model expects; on any device.
            targets: (B,) whole numbers, one class per picture; or per picture a list of classes.

        Returns:
            The explanation, one row for each picture and class, on the device of `images`.

        Raises:
            ExplainerError: bad pictures or targets; NaN or infinity from the model; a model the method
                cannot explain; a missing package.
        """
        with isolated(self._model, images, reparameterise=self._reparameterised()) as model:
            device = model_device(model, images)
            pictures = private_images(images, device)
            rows = private_rows(targets, len(pictures), device)
            scores = self._scores(model, pictures, rows)
            with finite_logits(model):
                found = self._attribute(model, pictures, rows)
        raw = found.maps.detach().double()
        if not bool(torch.isfinite(raw).all()):
            raise ExplainerError(f"{self.method} gave NaN or infinity for {model_name(self._model)}")
        maps = minmax(raw, noise=FLAT * raw.abs().amax(dim=(1, 2))).float().to(images.device)
        return Explanation(
            maps=maps,
            block_maps={layer.name: maps.clone() for layer in found.layers},
            scores=scores.to(images.device),
            masks={
                name: torch.full((len(rows),), count, dtype=torch.int64, device=images.device)
                for name, count in found.masks.items()
            },
            status=tuple(
                OK if defined else f"{UNDEFINED}: its map is constant"
                for defined in maps.flatten(1).any(dim=1).tolist()
            ),
            layers=found.layers,
            targets=rows.targets.to(images.device),
            images=rows.images.to(images.device),
            method=self.method,
            parameters=self.parameters,
        )

    def _scores(self, model: nn.Module, pictures: Tensor, rows: Rows) -> Tensor:
        """Probability of each row's class on its whole picture, (F,) float32; checks the logits."""
        scores = torch.zeros(len(rows), device=pictures.device)
        for image in sorted(set(rows.images.tolist())):
            logits = model(pictures[image : image + 1])
            if not isinstance(logits, Tensor) or logits.ndim != 2:
                raise ExplainerError(f"{model_name(model)} must return (B, K) logits")
            if not bool(torch.isfinite(logits).all()):
                raise ExplainerError(
                    f"{model_name(model)} gives NaN or infinity in the logits of image {image} of the batch; "
                    "check its weights and the normalisation of the picture"
                )
            if self._activation == "softmax" and logits.shape[1] < 2:
                raise ExplainerError("the softmax of a single logit is always 1: use activation='sigmoid'")
            own = rows.of(image)
            classes = rows.targets[own]
            check_class_count(classes, logits.shape[1])
            scores[own] = probability(logits.expand(len(own), -1), classes, self._activation)
        return scores


def whole(name: str, value: object, least: int = 1) -> int:
    """Check an option that must be a whole number.

    Raises:
        ExplainerError: it is none, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ExplainerError(f"{name} must be a whole number, {least} or more, got {value!r}")
    return value


@contextmanager
def eval_package(method: str) -> Iterator[None]:
    """Turn a failed import of a package of the `eval` extra into an error that says how to get it."""
    try:
        yield
    except ImportError as error:
        raise ExplainerError(
            f"{method} needs a package that is missing or does not load ({error}): pip install 'kensa[eval]'"
        ) from error


@contextmanager
def finite_logits(model: nn.Module) -> Iterator[None]:
    """Raise ExplainerError at the end of the block if any forward pass in it gave NaN or infinity.

    The libraries do not look (torchcam's sums skip NaN); checking at the end alone costs no waiting for
    the device between passes.
    """
    sound: list[Tensor] = []

    def look(_module: nn.Module, _inputs: object, logits: Tensor) -> None:
        now = torch.isfinite(logits).all()
        sound[:] = [now & sound[0] if sound else now]

    handle = model.register_forward_hook(look)
    try:
        yield
    finally:
        handle.remove()
    if sound and not bool(sound[0]):
        raise ExplainerError(
            f"{model_name(model)} gives NaN or infinity for a perturbed picture; check its weights, or use "
            "precision='float32' where the method has that option"
        )
