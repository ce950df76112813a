"""sise-fast: SISE from a small share of its masked passes; the scores of the other masks are predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explainers.maps import upsample
from explainers.scoring import Block, Scored, score_masks
from explainers.sise.score_prediction import predict_scores, spread
from explainers.sise.sise import Kept, Sise

_SIDE = 16  # masks are compared at this resolution at most
_CHUNK = 64  # masks at full size at a time
_DEEPER = 2.5  # times as many scored masks in a layer as in the one before it
_LEAST = 4  # scored masks of a layer, where the share allows


@dataclass(frozen=True, kw_only=True, eq=False)
class SiseFast(Sise):
    """SISE that lets the model score a small, well-spread share of the masks and predicts the other scores.

    In V = sum_k s_k m_k / area_k only the scores s_k cost a pass; the masks and their areas are at hand. And
    s is a smooth function of the mask, so:

    1. per layer, k-means on the masks finds groups, and the mask nearest to each centre is scored;
    2. the logits of the other scores are predicted from these by Gaussian-process regression (Matern 3/2
       kernel, constant mean; length scale and noise from a small grid by the leave-one-out error in closed
       form: Rasmussen and Williams 2006, sections 2.2 and 5.4.2);
    3. V is summed over *all* masks as in SISE, each with its own area, and fused as in SISE.

    Each layer gets more passes than the one before it, because the deepest map masks all that came before: on
    trained networks its Otsu mask alone decides most of the order of the pixels.

    One further step is not SISE's: the fused map is raised to the power `contrast`. This concentrates its
    energy (EBPG). It keeps the order of the pixels, and with it every measure that goes by rank.

    Attributes:
        share: of SISE's masked passes that are made, in (0, 1]; each layer gets one at least.
        contrast: see above; above 0.
    """

    method = "sise-fast"

    share: float = 0.06
    contrast: float = 1.5

    def _scored(
        self, model: nn.Module, pictures: Tensor, classes: Tensor, kept: Sequence[Kept], floor: Tensor
    ) -> list[Scored]:
        """Return the scores of chosen masks, and predictions of the others'."""
        size = (pictures.shape[2], pictures.shape[3])
        measured = [mask_statistics(block.features, size) for block in kept]
        points = [
            _mask_points(block.features, low, span)
            for block, (low, span, _) in zip(kept, measured, strict=True)
        ]
        chosen = [spread(one, count) for one, count in zip(points, self._pass_counts(kept), strict=True)]
        scored = score_masks(
            model,
            pictures,
            classes,
            [Block(b.image, b.layer, b.features[at]) for b, at in zip(kept, chosen, strict=True)],
            activation=self.activation,
            batch_size=self.batch_size,
            floor=floor,
        )
        results = []
        for block, one, at, own, (low, span, area) in zip(
            kept, scored, chosen, points, measured, strict=True
        ):
            classes_here = len(block.keeps)
            scores, error = predict_scores(own, at, one.scores[:, :classes_here])
            passes = torch.where(block.keeps.any(dim=1), len(at), 0)
            results.append(Scored(scores, low, span, area, passes, error))
        return results

    def _pass_counts(self, kept: Sequence[Kept]) -> list[int]:
        """Return how many masks to score per block: a share of its picture's masks, more in deeper layers."""
        budgets: list[int] = []
        for image in dict.fromkeys(block.image for block in kept):
            sizes = [len(block.features) for block in kept if block.image == image]
            left = self.share * sum(sizes)
            own: list[int] = []
            for index, size in enumerate(sizes):
                part = 1.0 / sum(_DEEPER**deeper for deeper in range(len(sizes) - index))
                own.append(
                    min(size, max(1, round(max(left * part, min(_LEAST, left / (len(sizes) - index))))))
                )
                left -= own[-1]
            for index in reversed(range(len(sizes))):  # what deep layers have no masks for
                more = min(sizes[index] - own[index], max(0, round(left)))
                own[index] += more
                left -= more
            budgets += own
        return budgets

    def _finished_map(self, fused: Tensor) -> Tensor:
        return fused**self.contrast


def mask_statistics(features: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return what feature maps would have at full size: their smallest value, range and mask area.

    They are not brought to full size for it. Bilinear up-sampling is linear, so the sum over the picture is a
    weighted sum over the map. Within a cell of four map positions the extremes lie at the cell's outermost
    pixels, whose places are known where the picture is a whole multiple of the map. Only elsewhere are the
    maps brought to full size, for the extremes.

    Args:
        features: (n, h, w) float32, none of them constant.
        size: (H, W).

    Returns:
        (n,) each: low, span, and the area in pixels of (map - low) / span.
    """
    height, width = features.shape[1:]
    whole = size[0] % height == 0 and size[1] % width == 0
    outer = (
        _outermost_values(_outermost_values(features, size[0] // height, 1), size[1] // width, 2)
        if whole
        else None
    )
    if outer is None:
        full = [
            torch.stack(upsample(each, size).flatten(1).aminmax(dim=1))
            for each in torch.split(features, _CHUNK)
        ]
        low, high = torch.cat(full, dim=1)
    else:
        low, high = outer.flatten(1).aminmax(dim=1)
    span = high - low
    rows, columns = (_column_sums(n, m, features) for n, m in ((height, size[0]), (width, size[1])))
    total = torch.einsum("h,nhw,w->n", rows, features, columns)
    return low, span, (total - size[0] * size[1] * low) / span


def _outermost_values(maps: Tensor, factor: int, dim: int) -> Tensor:
    """Return the values at the pixels next to each map position along one side: (n, 2h, w) or (n, h, 2w)."""
    if factor % 2:  # a pixel falls on the position itself
        return maps
    near = 1.0 / (2 * factor)
    first, last = maps.narrow(dim, 0, 1), maps.narrow(dim, maps.shape[dim] - 1, 1)
    before = torch.cat([first, maps.narrow(dim, 0, maps.shape[dim] - 1)], dim)
    after = torch.cat([maps.narrow(dim, 1, maps.shape[dim] - 1), last], dim)
    return torch.cat([torch.lerp(maps, before, near), torch.lerp(maps, after, near)], dim)


def _column_sums(small: int, large: int, like: Tensor) -> Tensor:
    """Return how much each of `small` positions counts in the sum over `large` pixels: (small,)."""
    identity = torch.eye(small, device=like.device, dtype=like.dtype)[None]
    return F.interpolate(identity, size=large, mode="linear", align_corners=False)[0].sum(dim=1)


def _mask_points(features: Tensor, low: Tensor, span: Tensor) -> Tensor:
    """Return masks as points (n, d) float32; a distance is the root mean square difference of two masks."""
    masks = (features - low[:, None, None]) / span[:, None, None]
    side = (min(masks.shape[1], _SIDE), min(masks.shape[2], _SIDE))
    points = F.adaptive_avg_pool2d(masks[:, None], side).flatten(1)
    return points / math.sqrt(points.shape[1])
