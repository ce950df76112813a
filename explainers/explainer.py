"""The base of all explainers: an explainer is its model and its options, and is called with pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from torch import Tensor, nn

from explainers.explanation import Explanation, Targets
from explainers.isolation import Rows, default_modes, model_device, private_images, private_rows
from explainers.options import checked

# How an explainer works, not what it makes: fields that are no options and are not recorded.
_MEANS = ("model", "forward", "constant")


@dataclass(frozen=True, eq=False)
class Explainer(ABC):
    """What `create_explainer` returns, whatever the method; the fields of a subclass are its options.

    Attributes:
        model: returns (B, K) logits. It is only run, on a private copy, when the explainer is called, and
            never changed: not its mode, gradients, hooks, buffers, weights.
        forward: computes the logits of masked pictures in the place of a copy of the model, from
            (n, C, H, W) float32, contiguous, on the model's device: (n, K) logits of the same function, on
            any runtime, in the precision that the option of that name records. It sees one shape in a call.
            SISE's methods and RISE use it. None: a private copy of the model in that precision.
        constant: the model never changes while this explainer is in use. Then SISE's methods keep their
            private copies of it, and what they have found out about its layers, from call to call.
    """

    method: ClassVar[str]
    """Name under which `create_explainer` makes it."""

    model: nn.Module = field(repr=False)
    forward: Callable[[Tensor], Tensor] | None = field(default=None, repr=False, kw_only=True)
    constant: bool = field(default=False, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        # Frozen from here on; a frozen dataclass lets its own __init__ set values in this way alone.
        for name in self.option_names():
            object.__setattr__(self, name, checked(name, getattr(self, name)))

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the names of the options, in the order of the signature."""
        return tuple(option.name for option in fields(cls) if option.init and option.name not in _MEANS)

    @property
    def parameters(self) -> dict[str, Any]:
        """Keyword arguments with which `create_explainer` makes this explainer again; JSON can hold them."""
        values = {name: getattr(self, name) for name in self.option_names()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def __call__(self, images: Tensor, targets: Targets) -> Explanation:
        """Explain one class per picture, or several.

        Args:
            images: (B, C, H, W) float, normalised as the model expects; on any device.
            targets: (B,) whole numbers, one class per picture; or per picture a list of classes, as in
                `[[0, 2], [], [1]]`: rows of the result are then (picture 0, class 0), (0, 2), (2, 1). A
                single-logit model (sigmoid) has the one class 0.

        Returns:
            The explanation, one row for each picture and class, on the device of `images`.

        Raises:
            ExplainerError: bad pictures or targets; NaN or infinity from the model; a model that the
                method cannot explain; a missing package.
        """
        device = model_device(self.model, images)
        with default_modes(device):
            pictures = private_images(images, device)
            explanation = self._explain(pictures, private_rows(targets, len(pictures), device))
        return explanation.to(images.device)

    @abstractmethod
    def _explain(self, pictures: Tensor, rows: Rows) -> Explanation:
        """Explain `rows` of `pictures` (B, C, H, W) float32, with a copy made by `private_copy`."""
