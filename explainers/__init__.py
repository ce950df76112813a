"""Explanations of CNN verdicts: SISE and the methods it is compared with, behind one face.

    from explainers import create_explainer, list_explainers
    explainer = create_explainer("sise", model)         # any torch CNN; timm models need no layer names
    explanation = explainer(images, targets)            # (B, C, H, W) normalised floats, (B,) class indices
    explanation.maps                                    # (B, H, W) float32 in [0, 1]

Importing this package is cheap: torch comes in only when one of the names below is first asked for, so
that `explainers.drawing` (numpy and Pillow alone) serves rooms that never touch a model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from explainers.errors import ExplainerError

if TYPE_CHECKING:
    from explainers.explainer import Explainer
    from explainers.explanation import Explanation, Layer
    from explainers.registry import create_explainer, explainer_options, list_explainers
    from explainers.trust import drop_increase

__all__ = [
    "Explainer",
    "ExplainerError",
    "Explanation",
    "Layer",
    "create_explainer",
    "drop_increase",
    "explainer_options",
    "list_explainers",
]

_HOMES = {
    "Explainer": "explainers.explainer",
    "Explanation": "explainers.explanation",
    "Layer": "explainers.explanation",
    "create_explainer": "explainers.registry",
    "drop_increase": "explainers.trust",
    "explainer_options": "explainers.registry",
    "list_explainers": "explainers.registry",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
