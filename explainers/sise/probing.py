"""The gradient pass: feature maps of the chosen layers and how much each speaks for a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from explainers.errors import ExplainerError
from explainers.isolation import model_name
from explainers.scoring import Activation, check_class_count, probability, score_direction
from explainers.sise.layers import candidates, choose


@dataclass(frozen=True)
class Tap:
    """A chosen layer of one picture.

    Attributes:
        name: of the layer.
        features: (C, h, w) float32, off the graph.
        alpha: (R, C) float32, per class the sum over positions of the score's gradient, but for a positive
            factor (see `scoring.score_direction`).
    """

    name: str
    features: Tensor
    alpha: Tensor


def probe(
    model: nn.Module,
    index: int,
    picture: Tensor,
    targets: Tensor,
    *,
    layers: Sequence[str] | None,
    activation: Activation,
    compare: bool = True,
) -> tuple[list[Tap], Tensor]:
    """Run one picture forward once, and backward once for each class: SISE.md, sections 1 and 2.

    Args:
        model: private float32 copy, see `isolation.isolated`.
        index: of the picture in the batch, for messages.
        picture: (1, C, H, W) float32.
        targets: (R,) int64, the classes to explain.
        layers: names, or None for the layer rule.
        activation: see `scoring.probabilities`.
        compare: see `layers.candidates`.

    Returns:
        the chosen layers, shallow to deep; (R,) float32 scores of the whole picture.

    Raises:
        ExplainerError: see `layers.candidates` and `layers.choose`; a class the model does not have; NaN or
            infinity, naming the layer.
    """
    with torch.enable_grad():
        # The clone is no leaf, so a model may begin with an in-place operation.
        found = candidates(model, picture.clone().requires_grad_().clone(), layers, compare=compare)
        check_class_count(targets, found.logits.shape[1])
        for name, feature in zip(found.names, found.features, strict=True):
            _check_finite(feature, model, f"layer {name!r}", index, "feature maps")
        _check_finite(found.logits, model, "the logits", index, "values")
        gradients = [
            torch.autograd.grad(
                found.logits,
                found.features,
                score_direction(found.logits, target, activation),
                allow_unused=True,
                retain_graph=number < len(targets),
            )
            for number, target in enumerate(targets.tolist(), start=1)
        ]
    chosen = [choose(found, gradient, model) for gradient in gradients]
    taps = []
    for same in zip(*chosen, strict=True):  # one layer, as each class sees it
        for probed in same:
            _check_finite(probed.gradients, model, f"layer {probed.name!r}", index, "gradients")
        alpha = torch.stack([probed.gradients.sum(dim=(1, 2)) for probed in same])
        taps.append(Tap(same[0].name, same[0].features, alpha))
    logits = found.logits.detach().expand(len(targets), -1)
    return taps, probability(logits, targets, activation)


def _check_finite(values: Tensor, model: nn.Module, layer: str, index: int, what: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise ExplainerError(
            f"{model_name(model)} gives NaN or infinity in the {what} of {layer}, image {index} of the "
            "batch; check its weights and the normalisation of the picture"
        )
