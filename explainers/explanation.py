"""The result of an explainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

OK = "ok"
PARTIAL = "partial"
UNDEFINED = "undefined"

Targets = Tensor | Sequence[Sequence[int]]
"""Which classes to explain: (B,) class indices, one per picture, or per picture a list of them."""


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
    """Attribution maps with everything needed to make them again; one row for each picture and class.

    Attributes:
        maps: (F, H, W) float32 in [0, 1], the attribution map of each row (SISE: the fused one); all 0
            where `status` says "undefined".
        block_maps: layer name -> (F, H, W) float32 in [0, 1], shallow to deep; all 0 where a layer was
            skipped or flat for that row. Empty for methods that make no map per layer.
        scores: (F,) float32, the model's probability of each target on the whole picture.
        masks: layer name -> (F,) int64, number of masked pictures whose scores the map rests on ("input"
            for methods that mask the picture without a layer); empty for methods that mask nothing.
        status: per row "ok"; or "partial: ..." naming the layers that gave nothing; or
            "undefined: ..." when no layer gave anything, so that there is no attribution at all.
        layers: the probed layers, shallow to deep; empty for methods that probe none.
        targets: (F,) int64, the explained class indices.
        images: (F,) int64, the picture of each row: its index in the batch.
        method: name under which `create_explainer` makes this explainer.
        parameters: its keyword arguments: `create_explainer(method, model, **parameters)` is the same one.
        score_errors: layer name -> (F,) float32, where scores of masks are predicted instead of computed:
            the root mean square error of such predictions, found by leaving out one scored mask after the
            other; 0 where every mask was scored. Empty for methods that mask nothing.
    """

    maps: Tensor
    block_maps: dict[str, Tensor]
    scores: Tensor
    masks: dict[str, Tensor]
    status: tuple[str, ...]
    layers: tuple[Layer, ...]
    targets: Tensor
    images: Tensor
    method: str
    parameters: dict[str, Any]
    score_errors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def defined(self) -> tuple[bool, ...]:
        """Whether there is an attribution to look at ("ok" or "partial"), row by row."""
        return tuple(not status.startswith(UNDEFINED) for status in self.status)

    def row(self, index: int) -> Explanation:
        """Return one row as an explanation of its own, with F = 1."""
        one = slice(index, index + 1)
        return replace(self._with_tensors(lambda tensor: tensor[one]), status=self.status[one])

    def to(self, device: torch.device) -> Explanation:
        """Return the explanation with all its tensors on a device."""
        return self._with_tensors(lambda tensor: tensor.to(device))

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Explanation:
        return replace(
            self,
            maps=change(self.maps),
            block_maps={name: change(maps) for name, maps in self.block_maps.items()},
            scores=change(self.scores),
            masks={name: change(counts) for name, counts in self.masks.items()},
            targets=change(self.targets),
            images=change(self.images),
            score_errors={name: change(errors) for name, errors in self.score_errors.items()},
        )
