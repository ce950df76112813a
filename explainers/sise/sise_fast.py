"""sise-fast: SISE from a small share of its masked passes; the scores of the other masks are predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from explainers.scoring import Block, Scored, mask_statistics
from explainers.sise.copies import Forward
from explainers.sise.score_prediction import predict_scores, spread
from explainers.sise.sise import Kept, Sise, on_cpu

_SIDE = 16  # masks are compared at this resolution at most
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
        self,
        forward: Forward,
        pictures: Tensor,
        classes: Tensor,
        kept: Sequence[Kept],
        floor: Tensor | None,
    ) -> list[Scored]:
        """Return the scores of chosen masks, and predictions of the others'."""
        size = (pictures.shape[2], pictures.shape[3])
        measured = [mask_statistics(block.features, size) for block in kept]
        # Choosing and predicting are many small steps, which a GPU would wait for Python to start.
        points = on_cpu(
            [
                _mask_points(block.features, low, span)
                for block, (low, span, _) in zip(kept, measured, strict=True)
            ]
        )
        chosen = [spread(one, count) for one, count in zip(points, self._pass_counts(kept), strict=True)]
        scored = self._model_scores(
            forward,
            pictures,
            classes,
            [
                _part(block, statistics, at.to(pictures.device))
                for block, statistics, at in zip(kept, measured, chosen, strict=True)
            ],
            floor,
        )
        known = on_cpu([one.scores for one in scored])
        results = []
        for block, own, at, scores, (low, span, area) in zip(
            kept, points, chosen, known, measured, strict=True
        ):
            predicted, error = predict_scores(own, at, scores[:, : len(block.keeps)])
            passes = torch.where(block.keeps.any(dim=1), len(at), 0)
            results.append(Scored(predicted.to(pictures.device), low, span, area, passes, error))
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


def _part(block: Block, statistics: tuple[Tensor, Tensor, Tensor], at: Tensor) -> Block:
    """Return some masks of a block."""
    low, span, area = statistics
    return Block(block.image, block.layer, block.features[at], (low[at], span[at], area[at]))


def _mask_points(features: Tensor, low: Tensor, span: Tensor) -> Tensor:
    """Return masks as points (n, d) float32; a distance is the root mean square difference of two masks."""
    masks = (features - low[:, None, None]) / span[:, None, None]
    side = (min(masks.shape[1], _SIDE), min(masks.shape[2], _SIDE))
    points = F.adaptive_avg_pool2d(masks[:, None], side).flatten(1)
    return points / math.sqrt(points.shape[1])
