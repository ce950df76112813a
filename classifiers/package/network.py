"""Make timm's networks, and no others."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import timm
import torch

from classifiers.errors import PackageError
from classifiers.package.limits import BoundedBuilding

LARGEST_ARGUMENT = 1_000_000  # in model_args: timm makes lists of this length of some, and none is near it

# Arguments that decide where timm takes weights from, or that are stated elsewhere in the package.
RESERVED_MODEL_ARGS = frozenset(
    {
        "model_name",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "pretrained_strict",
        "pretrained_filter_fn",
        "checkpoint_path",
        "cache_dir",
        "num_classes",
        "in_chans",
        "scriptable",
        "exportable",
        "no_jit",
        "features_only",
    }
)


def create_network(
    architecture: str,
    model_args: Mapping[str, Any],
    n_classes: int,
    *,
    weights: Mapping[str, torch.Tensor] | None = None,
    **extra: Any,
) -> torch.nn.Module:
    """Return a timm network with random weights; only names in timm's own registry are accepted.

    Args:
        architecture: a timm model name.
        model_args: further arguments of `timm.create_model`.
        n_classes: outputs of the network.
        weights: the state that the network is to take; a network that would be larger is not built.
        extra: arguments of `timm.create_model` that win over model_args.

    Raises:
        PackageError: the name is unknown or would fetch something ("hf-hub:", "local-dir:"), arguments decide
            where weights come from, timm cannot build the network, or it would be larger than `weights`.
    """
    if not timm.is_model(architecture) or not set(architecture) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
    ):
        raise PackageError(
            f"architecture {architecture!r} is not a model of timm {timm.__version__} (timm.list_models())"
        )
    if reserved := RESERVED_MODEL_ARGS & set(model_args):
        raise PackageError(f"model_args may not hold {', '.join(sorted(reserved))}")
    if any(abs(number) > LARGEST_ARGUMENT for number in _numbers(model_args)):
        raise PackageError(f"model_args may not hold a number above {LARGEST_ARGUMENT}")
    try:
        with nullcontext() if weights is None else BoundedBuilding(weights):
            network = timm.create_model(
                architecture, pretrained=False, num_classes=n_classes, **{**model_args, **extra}
            )
    except Exception as error:
        raise PackageError(
            f"timm cannot build {architecture} with model_args {reprlib.repr(dict(model_args))}:"
            f" {type(error).__name__}: {str(error)[:300]}"
        ) from error
    assert isinstance(network, torch.nn.Module)  # noqa: S101  timm is untyped
    return network


def _numbers(value: Any) -> Iterator[int | float]:
    """Yield the numbers in a value from JSON, whose nesting is bounded."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _numbers(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner)


def fold_temperature(model: torch.nn.Module, temperature: float) -> None:
    """Divide the last layer's weights by the temperature, in place, and with them the logits.

    Raises:
        PackageError: the network's classifier is not one linear or convolutional layer.
    """
    if temperature == 1.0:
        return
    get_classifier = getattr(model, "get_classifier", None)
    layer = get_classifier() if callable(get_classifier) else None
    if not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
        raise PackageError(f"cannot fold a temperature into a classifier of type {type(layer).__name__}")
    with torch.no_grad():
        layer.weight.div_(temperature)
        if layer.bias is not None:
            layer.bias.div_(temperature)
