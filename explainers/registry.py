"""One registry of explanation methods behind one face."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from explainers.errors import ExplainerError
from explainers.explainer import Explainer

# Name -> where its class is: a method's module is imported when the method is first asked for.
_METHODS = {
    "ada-sise": "explainers.sise.sise:AdaSise",
    "extremal-perturbation": "explainers.baselines.extremal:ExtremalPerturbation",
    "fullgrad": "explainers.baselines.gradients:FullGrad",
    "grad-cam": "explainers.baselines.cam:GradCam",
    "grad-cam++": "explainers.baselines.cam:GradCamPlusPlus",
    "integrated-gradients": "explainers.baselines.gradients:IntegratedGradients",
    "layer-cam": "explainers.baselines.cam:LayerCam",
    "rise": "explainers.baselines.rise:Rise",
    "score-cam": "explainers.baselines.cam:ScoreCam",
    "sise": "explainers.sise.sise:Sise",
    "sise-fast": "explainers.sise.sise_fast:SiseFast",
}


def list_explainers() -> tuple[str, ...]:
    """Return the names of the methods that `create_explainer` knows, in alphabetical order."""
    return tuple(sorted(_METHODS))


def explainer_options(name: str) -> tuple[str, ...]:
    """Return the names of a method's options, in the order of its signature; every method has `activation`.

    Raises:
        ExplainerError: an unknown method.
    """
    return _explainer_class(name).option_names()


def create_explainer(
    name: str,
    model: nn.Module,
    *,
    forward: Callable[[Tensor], Tensor] | None = None,
    constant: bool = False,
    **options: Any,
) -> Explainer:
    """Return an explainer for a model.

    Args:
        name: one of `list_explainers()`.
        model: returns (B, K) logits; timm CNNs and plain VGGs and ResNets need no layer names.
        forward: computes the logits of masked pictures, on another runtime, say; see `Explainer`.
        constant: the model never changes, so that private copies of it may be kept; see `Explainer`.
        **options: of the method, see `explainer_options` and the class that `_METHODS` names; for "sise":
            layers, activation, mu, batch_size, baseline, fusion, mean, std, precision.

    Returns:
        A callable `(images, targets) -> Explanation`.

    Raises:
        ExplainerError: an unknown method or option, an option out of its range, a model that is no module.

    Example:
        >>> explainer = create_explainer("sise", model, mu=0.0, batch_size=16)
        >>> explanation = explainer(images, targets)
    """
    method = _explainer_class(name)
    if not isinstance(model, nn.Module):
        raise ExplainerError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    known = explainer_options(name)
    for option in options:
        if option not in known:
            raise ExplainerError(f"{name} has no option {option!r}; it has: {', '.join(known)}")
    return method(model, forward=forward, constant=constant, **options)


def _explainer_class(name: str) -> type[Explainer]:
    if name not in _METHODS:
        raise ExplainerError(f"no explainer is named {name!r}; there is: {', '.join(list_explainers())}")
    module, _, attribute = _METHODS[name].partition(":")
    method: type[Explainer] = getattr(import_module(module), attribute)
    return method
