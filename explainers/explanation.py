"""What an explainer is and what it hands back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

OK = "ok"
PARTIAL = "partial"
UNDEFINED = "undefined"


@dataclass(frozen=True)
class Layer:
    """One probed layer.

    Attributes:
        name: of the module that made the feature maps, or `intermediates.N` where no single module did.
        maps: number of feature maps (channels).
        height: of a map, in positions.
        width: of a map, in positions.
    """

    name: str
    maps: int
    height: int
    width: int


@dataclass(frozen=True)
class Explanation:
    """Attribution maps with everything needed to make them again.

    Attributes:
        maps: (B, H, W) float32 in [0, 1], the fused map; all 0 where `status` says "undefined".
        block_maps: layer name -> (B, H, W) float32 in [0, 1], shallow to deep; all 0 where a layer was
            skipped or flat for that picture.
        scores: (B,) float32, the model's probability of each target on the whole picture.
        masks: layer name -> (B,) int64, number of masks the layer map was made of.
        status: per picture "ok"; or "partial: ..." naming the layers that gave nothing; or
            "undefined: ..." when no layer gave anything, so that there is no attribution at all.
        layers: the probed layers, shallow to deep.
        targets: (B,) int64, the explained class indices.
        method: name under which `create_explainer` makes this explainer.
        parameters: its keyword arguments: `create_explainer(method, model, **parameters)` is the same one.
    """

    maps: Tensor
    block_maps: dict[str, Tensor]
    scores: Tensor
    masks: dict[str, Tensor]
    status: tuple[str, ...]
    layers: tuple[Layer, ...]
    targets: Tensor
    method: str
    parameters: dict[str, Any]

    @property
    def defined(self) -> tuple[bool, ...]:
        """Per picture: whether there is an attribution to look at ("ok" or "partial")."""
        return tuple(not status.startswith(UNDEFINED) for status in self.status)


class Explainer(Protocol):
    """What `create_explainer` returns, whatever the method."""

    @property
    def method(self) -> str:
        """Name under which `create_explainer` makes it."""
        ...

    @property
    def parameters(self) -> dict[str, Any]:
        """Keyword arguments with which `create_explainer` makes it again."""
        ...

    def __call__(self, images: Tensor, targets: Tensor) -> Explanation:
        """Explain `targets` (B,) int on `images` (B, C, H, W) normalised float."""
        ...
