"""One registry of explanation methods behind one face."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from explainers.errors import ExplainerError
from explainers.explanation import Explainer
from explainers.sise import Sise

_METHODS: dict[str, Callable[..., Explainer]] = {"sise": Sise}


def list_explainers() -> tuple[str, ...]:
    """Names of the methods that `create_explainer` knows, in alphabetical order."""
    return tuple(sorted(_METHODS))


def create_explainer(name: str, model: nn.Module, **options: Any) -> Explainer:
    """Make an explainer for a model.

    Args:
        name: one of `list_explainers()`.
        model: returns (B, K) logits; timm CNNs and plain VGGs and ResNets need no layer names.
        **options: of the method; for "sise": layers, activation, mu, batch_size, baseline, fusion, mean, std,
            precision (see `explainers.sise.Sise`).

    Returns:
        A callable `(images, targets) -> Explanation`.

    Raises:
        ExplainerError: an unknown method or option, an option out of its range, a model that is no module.

    Example:
        >>> explainer = create_explainer("sise", model, mu=0.0, batch_size=16)
        >>> explanation = explainer(images, targets)
    """
    if name not in _METHODS:
        raise ExplainerError(f"no explainer is named {name!r}; there is: {', '.join(list_explainers())}")
    if not isinstance(model, nn.Module):
        raise ExplainerError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    method = _METHODS[name]
    known = [option for option in inspect.signature(method).parameters if option != "model"]
    for option in options:
        if option not in known:
            raise ExplainerError(f"{name} has no option {option!r}; it has: {', '.join(known)}")
    return method(model, **options)
