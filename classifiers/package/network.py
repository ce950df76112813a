"""Make timm's networks, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch

from classifiers.errors import PackageError

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
    architecture: str, model_args: Mapping[str, Any], n_classes: int, **extra: Any
) -> torch.nn.Module:
    """Return a timm network with random weights; only names in timm's own registry are accepted.

    Raises:
        PackageError: the name is unknown or would fetch something ("hf-hub:", "local-dir:"), or arguments
            decide where weights come from.
    """
    if not timm.is_model(architecture) or not set(architecture) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
    ):
        raise PackageError(
            f"architecture {architecture!r} is not a model of timm {timm.__version__} (timm.list_models())"
        )
    if reserved := RESERVED_MODEL_ARGS & set(model_args):
        raise PackageError(f"model_args may not hold {', '.join(sorted(reserved))}")
    try:
        network = timm.create_model(
            architecture, pretrained=False, num_classes=n_classes, **{**model_args, **extra}
        )
    except (TypeError, ValueError, AssertionError, RuntimeError, KeyError) as error:
        raise PackageError(f"timm cannot build {architecture} with {dict(model_args)}: {error}") from error
    assert isinstance(network, torch.nn.Module)  # noqa: S101  timm is untyped
    return network


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
