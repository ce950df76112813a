"""Choose the masks to score, and predict the scores of the others."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_ROUNDS = 12  # of k-means
_REACH = (0.5, 1.0, 2.0, 4.0, 8.0)  # length scales tried, in units of the median distance of scored masks
_NOISE = (1e-3, 1e-2, 1e-1)  # variances tried of what the masks' likeness cannot explain, over the kernel's
_EXTREME = 1e-4  # scores nearer to 0 or 1 count as this near


def spread(points: Tensor, count: int) -> Tensor:
    """Return points that stand for all: those nearest to the centres of k-means (Lloyd's).

    Deterministic: the first centre is the point nearest to the mean, each next one the point farthest from
    those before it.

    Args:
        points: (n, d) float, on the CPU.
        count: groups wanted, 1 or more.

    Returns:
        (k,) int64, ascending, k <= count: indices of the points nearest to the centres.
    """
    if count >= len(points):
        return torch.arange(len(points), device=points.device)
    begun = [(points - points.mean(dim=0)).square().sum(dim=1).argmin()]
    gap = torch.full((len(points),), torch.inf, device=points.device)
    while len(begun) < count:
        gap = torch.minimum(gap, (points - points[begun[-1]]).square().sum(dim=1))
        begun.append(gap.argmax())
    centres = points[torch.stack(begun)]
    for _ in range(_ROUNDS):
        before = centres
        member = F.one_hot(torch.cdist(points, centres).argmin(dim=1), count).to(points.dtype)
        sizes = member.sum(dim=0)[:, None]
        centres = torch.where(sizes > 0, (member.T @ points) / sizes.clamp_min(1), centres)
        if torch.equal(centres, before):
            break
    nearest: Tensor = torch.unique(torch.cdist(centres, points).argmin(dim=1))
    return nearest


def predict_scores(points: Tensor, at: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return every mask's scores, predicted from those of some by Gaussian-process regression of the logits.

    Args:
        points: (n, d) float on the CPU, as all of these, see `sise_fast._mask_points`.
        at: (k,) int64, which of them are scored.
        scores: (k, R) float32 in [0, 1].

    Returns:
        (n, R) float32 in [0, 1], at `at` the scores themselves; (R,) float32, the root mean square error of
        the scores when each of the k is predicted from the others; 0 where all n are scored, NaN for k = 1.
    """
    values = torch.logit(scores.double(), eps=_EXTREME)
    # Not by a matrix product: its rounding gives a point a distance from itself.
    to_known = torch.cdist(points.double(), points[at].double(), compute_mode="donot_use_mm_for_euclid_dist")
    between = to_known[at]
    apart = between[between > 0]
    if len(apart) == 0:
        predicted = values.mean(dim=0).expand(len(points), -1)
        left_out = values.mean(dim=0).expand(len(at), -1)
    else:
        reach = (torch.tensor(_REACH, dtype=values.dtype) * apart.median()).repeat_interleave(len(_NOISE))
        noise = torch.tensor(_NOISE, dtype=values.dtype).repeat(len(_REACH))
        residuals, weights, mean = _regress(between, values, reach, noise)
        best = residuals.square().mean(dim=1).argmin(dim=0)  # (R,)
        own = torch.arange(len(best))
        left_out = values - residuals[best, :, own].T
        kernels = {trial: _matern(to_known / reach[trial]) for trial in set(best.tolist())}
        predicted = torch.stack(
            [kernels[int(t)] @ weights[t, :, r] + mean[t, r] for r, t in enumerate(best)], dim=1
        )
    everywhere = torch.sigmoid(predicted).float()
    everywhere[at] = scores
    error = (torch.sigmoid(left_out) - scores.double()).square().mean(dim=0).sqrt().float()
    if len(at) == len(points):
        error = torch.zeros_like(error)
    elif len(at) == 1:
        error = torch.full_like(error, torch.nan)
    return everywhere, error


def _regress(between: Tensor, values: Tensor, reach: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what regression gives for each of T length scales and noises.

    Args:
        between: (k, k) distances of the known points.
        values: (k, R) at the known points.
        reach: (T,) length scales.
        noise: (T,) variances.

    Returns:
        (T, k, R) leave-one-out residuals; (T, k, R) weights and (T, R) means: the prediction at a point is
        its kernel with the known points times the weights, plus the mean.
    """
    inverse = torch.linalg.inv(
        _matern(between / reach[:, None, None])
        + noise[:, None, None] * torch.eye(len(between), dtype=between.dtype)
    )
    mean = (inverse.sum(dim=1) @ values) / inverse.sum(dim=(1, 2))[:, None]
    weights = inverse @ (values - mean[:, None])
    # Leave-one-out in closed form: Rasmussen and Williams 2006, equation 5.12.
    return weights / inverse.diagonal(dim1=1, dim2=2)[:, :, None], weights, mean


def _matern(distance: Tensor) -> Tensor:
    """Return the Matern kernel of order 3/2 (Rasmussen and Williams 2006, equation 4.17)."""
    scaled = math.sqrt(3.0) * distance
    return (1.0 + scaled) * torch.exp(-scaled)
