"""The gradient pass: feature maps of the chosen layers and how much each speaks for a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from explainers.errors import ExplainerError
from explainers.isolation import model_name
from explainers.scoring import Activation, check_class_count, probability, score_direction
from explainers.sise.layers import candidates, choose, gradients


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
) -> tuple[list[Tap], Tensor, int]:
    """Run one picture forward once, and backward once for each class; return the chosen layers.

    See docs/sise.md, "Layers" and "Masks".

    Args:
        model: private float32 copy, see `isolation.isolated`.
        index: of the picture in the batch, for messages.
        picture: (1, C, H, W) float32.
        targets: (R,) int64, the classes to explain.
        layers: names, or None for the layer rule.
        activation: see `scoring.probabilities`.
        compare: see `layers.candidates`.

    Returns:
        The chosen layers, shallow to deep; (R,) float32 scores of the whole picture; the model's number of
        classes.

    Raises:
        ExplainerError: see `layers.candidates` and `layers.choose`; a class the model does not have; NaN or
            infinity, naming the layer.
    """
    with torch.enable_grad():
        found = candidates(model, picture, layers, compare=compare)
        check_class_count(targets, found.logits.shape[1])
        _check_finite(
            {f"layer {name!r}": feature for name, feature in found.features.items()},
            model,
            index,
            "feature maps",
        )
        _check_finite({"the logits": found.logits}, model, index, "values")
        by_class = [
            gradients(
                found,
                score_direction(found.logits, target, activation),
                retain_graph=number < len(targets),
            )
            for number, target in enumerate(targets.tolist(), start=1)
        ]
    taps = []
    for name in choose(found, by_class[0], model):
        alpha = torch.stack([each[name][0].sum(dim=(1, 2)) for each in by_class])
        taps.append(Tap(name, found.features[name].detach()[0].contiguous(), alpha))
    # What is not finite in a gradient is not finite in its sum.
    _check_finite({f"layer {tap.name!r}": tap.alpha for tap in taps}, model, index, "gradients")
    logits = found.logits.detach().expand(len(targets), -1)
    return taps, probability(logits, targets, activation), logits.shape[1]


def _check_finite(values: Mapping[str, Tensor], model: nn.Module, index: int, what: str) -> None:
    """Raise ExplainerError naming the first place whose values are not finite; wait for the device once."""
    sound = [torch.isfinite(each).all() for each in values.values()]
    for place, fine in zip(values, torch.stack(sound).tolist() if sound else [], strict=True):
        if not fine:
            raise ExplainerError(
                f"{model_name(model)} gives NaN or infinity in the {what} of {place}, image {index} of the "
                "batch; check its weights and the normalisation of the picture"
            )
