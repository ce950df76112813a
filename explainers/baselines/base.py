"""The base of the methods that SISE is compared with: checks, scores, min-max, result."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from explainers.errors import ExplainerError
from explainers.explainer import Explainer
from explainers.explanation import OK, UNDEFINED, Explanation, Layer
from explainers.isolation import Rows, hooked, model_name, private_copy
from explainers.maps import FLAT, minmax
from explainers.scoring import Activation, check_class_count, probability
from explainers.sise.layers import checked_logits


@dataclass(frozen=True)
class Attribution:
    """The raw maps that a method found, before the min-max.

    Attributes:
        maps: (F, H, W) float, one for each row, on any scale; a constant one means no attribution.
        layers: the probed layers; where there is one, `maps` is its map.
        masks: layer name, or "input", -> number of masked pictures behind every row.
    """

    maps: Tensor
    layers: tuple[Layer, ...] = ()
    masks: Mapping[str, int] = field(default_factory=dict)


class Baseline(Explainer):
    """Base of the methods that SISE is compared with: a subclass finds the raw maps in `_attribute`.

    Attributes:
        activation: of the scores on the result, "softmax" (single-label) or "sigmoid" (multi-label,
            single-logit). Every subclass declares it, in its place among its options.
    """

    activation: Activation

    @abstractmethod
    def _attribute(self, model: nn.Module, pictures: Tensor, rows: Rows) -> Attribution:
        """Return the raw maps of `rows` of `pictures` (B, C, H, W) float32, by a private model."""

    def _reparameterised(self) -> bool:
        """Return whether RepVGG-like branches are folded first: not where the user named layers."""
        return True

    def _explain(self, pictures: Tensor, rows: Rows) -> Explanation:
        model = private_copy(self.model, reparameterise=self._reparameterised())
        scores = self._scores(model, pictures, rows)
        with finite_logits(model):
            found = self._attribute(model, pictures, rows)
        raw = found.maps.detach().double()
        if not bool(torch.isfinite(raw).all()):
            raise ExplainerError(f"{self.method} gave NaN or infinity for {model_name(self.model)}")
        maps = minmax(raw, noise=FLAT * raw.abs().amax(dim=(1, 2))).float()
        return Explanation(
            maps=maps,
            block_maps={layer.name: maps.clone() for layer in found.layers},
            scores=scores,
            masks={name: torch.full_like(rows.targets, count) for name, count in found.masks.items()},
            status=tuple(
                OK if defined else f"{UNDEFINED}: its map is constant"
                for defined in maps.flatten(1).any(dim=1).tolist()
            ),
            layers=found.layers,
            targets=rows.targets,
            images=rows.images,
            method=self.method,
            parameters=self.parameters,
        )

    def _scores(self, model: nn.Module, pictures: Tensor, rows: Rows) -> Tensor:
        """Return the probability of each row's class on its whole picture, (F,) float32; check the logits."""
        scores = torch.zeros(len(rows), device=pictures.device)
        for image, own in rows.by_image().items():
            logits = checked_logits(model, model(pictures[image : image + 1]))
            if not bool(torch.isfinite(logits).all()):
                raise ExplainerError(
                    f"{model_name(model)} gives NaN or infinity in the logits of image {image} of the batch; "
                    "check its weights and the normalisation of the picture"
                )
            if self.activation == "softmax" and logits.shape[1] < 2:
                raise ExplainerError("the softmax of a single logit is always 1: use activation='sigmoid'")
            classes = rows.targets[own]
            check_class_count(classes, logits.shape[1])
            scores[own] = probability(logits.expand(len(own), -1), classes, self.activation)
        return scores


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

    The libraries do not check (torchcam's sums skip NaN). One check at the end does not make the device wait
    between passes.
    """
    sound: list[Tensor] = []

    def remember(_name: str, _module: nn.Module, _inputs: object, logits: Tensor) -> None:
        now = torch.isfinite(logits).all()
        sound[:] = [now & sound[0] if sound else now]

    with hooked({"": model}, remember):
        yield
    if sound and not bool(sound[0]):
        raise ExplainerError(
            f"{model_name(model)} gives NaN or infinity for a perturbed picture; check its weights, or use "
            "precision='float32' where the method has that option"
        )
