"""Does the map lie on the defect? EBPG, mIoU, Bbox and the pointing game (docs/sise.md, "Metrics").

**Ties.** SISE maps have large plateaus, most of all at 0, and the last of the top k pixels often falls on
one. Here the tied pixels share the places that are left in equal parts, so that the top set always weighs
exactly k pixels. That is the mean over all ways to break the tie. To take the first ones in reading order
would favour defects at the top of the picture. To take all or none of them would give each method another k,
and mIoU and Bbox compare methods at the same k.

**Nothing to judge.** A map that is 0 everywhere (an undefined one) scores 0. A row whose truth is empty has
no score: NaN.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from explainers.errors import ExplainerError
from explainers.options import checked


def ebpg(maps: Tensor, masks: Tensor) -> Tensor:
    """Return the energy-based pointing game: the share of the map's sum that lies inside the truth.

    Args:
        maps: (N, H, W) float in [0, 1].
        masks: (N, H, W) bool, True on the truth.

    Returns:
        (N,) float32 in [0, 1]; NaN where the truth is empty, 0 where the map is.

    Raises:
        ExplainerError: maps that are no such tensor or hold NaN, infinity or negative values; masks that
            are not bool or do not fit the maps.

    Source: Wang et al., Score-CAM (2020), section 4.2, with pixels of the truth for its bounding box.
    """
    values, truth = _flat_maps_and_truth(maps, masks)
    energy = values.double()
    return _scores_or_nan((energy * truth).sum(dim=1) / energy.sum(dim=1), values, truth)


def miou(maps: Tensor, masks: Tensor, share: float = 0.2) -> Tensor:
    """Return the intersection over union of the truth and the map's top `share` of pixels.

    Args:
        maps: (N, H, W) float in [0, 1].
        masks: (N, H, W) bool, True on the truth.
        share: of all pixels, in (0, 1]; rounded to whole pixels, at least one.

    Returns:
        (N,) float32 in [0, 1]; NaN where the truth is empty, 0 where the map is. Ties: see the module.

    Raises:
        ExplainerError: see `ebpg`; or a share outside (0, 1].

    Source: SISE, section 4.2 (20 %).
    """
    checked("share", share)
    values, truth = _flat_maps_and_truth(maps, masks)
    count = max(1, round(share * values.shape[1]))
    top = _top(values, torch.full((len(values),), count, device=values.device))
    both = (top * truth).sum(dim=1)
    return _scores_or_nan(both / (count + truth.sum(dim=1) - both), values, truth)


def bbox(maps: Tensor, masks: Tensor) -> Tensor:
    """Return, of as many top pixels of the map as the truth has pixels, the share inside the truth.

    Args:
        maps: (N, H, W) float in [0, 1].
        masks: (N, H, W) bool, True on the truth.

    Returns:
        (N,) float32 in [0, 1]; NaN where the truth is empty, 0 where the map is. Ties: see the module.

    Raises:
        ExplainerError: see `ebpg`.

    Source: Schulz et al., Restricting the Flow (2020), section 4.5; SISE, section 4.2.
    """
    values, truth = _flat_maps_and_truth(maps, masks)
    count = truth.sum(dim=1)
    return _scores_or_nan((_top(values, count) * truth).sum(dim=1) / count, values, truth)


def pointing_game(maps: Tensor, masks: Tensor, tolerance: float = 0) -> Tensor:
    """Return whether the map's peak lies on the truth, or within `tolerance` of it.

    Where several pixels tie for the peak, at least half of them must.

    Args:
        maps: (N, H, W) float in [0, 1].
        masks: (N, H, W) bool, True on the truth.
        tolerance: Euclidean distance in pixels, 0 or more; 15 is usual.

    Returns:
        (N,) bool; False where the truth is empty (leave such rows out of an average) or the map is.

    Raises:
        ExplainerError: see `ebpg`; or a negative tolerance.

    Source: Zhang et al., Excitation Backprop (2018), section 4.1.
    """
    values, truth = _flat_maps_and_truth(maps, masks)
    near = near_truth(masks, tolerance).to(values.device).flatten(1)
    peak = values == values.amax(dim=1, keepdim=True)
    hit = 2 * (peak & near).sum(dim=1) >= peak.sum(dim=1)
    return hit & truth.any(dim=1) & values.any(dim=1)


def near_truth(masks: Tensor, tolerance: float) -> Tensor:
    """Return the pixels on the truth or within `tolerance` of it, where the pointing game wants the peak.

    Args:
        masks: (N, H, W) bool, True on the truth.
        tolerance: Euclidean distance in pixels, 0 or more.

    Returns:
        (N, H, W) bool; of an empty truth, none or some of no meaning.

    Raises:
        ExplainerError: a negative tolerance.
    """
    if not tolerance >= 0:
        raise ExplainerError(f"tolerance must be 0 pixels or more, got {tolerance}")
    if tolerance == 0:
        return masks
    # The distance to the nearest True; without any, scipy measures to a point outside the picture.
    away = [distance_transform_edt(~mask) for mask in masks.cpu().numpy()]
    return torch.from_numpy(np.stack(away) <= tolerance)


def checked_maps(maps: Tensor, name: str = "maps") -> Tensor:
    """Return maps as float32, off the caller's graph.

    Args:
        maps: (N, H, W) float in [0, 1], at least one row.
        name: of the argument, for the error.

    Returns:
        (N, H, W) float32, on the same device.

    Raises:
        ExplainerError: another shape or type, no row or pixel, NaN, infinity or a negative value.
    """
    if maps.ndim != 3 or not maps.is_floating_point() or maps.numel() == 0:
        raise ExplainerError(
            f"{name} must be a (N, H, W) float tensor with at least one pixel, got {tuple(maps.shape)} "
            f"{maps.dtype}"
        )
    values = maps.detach().float()
    if not bool(torch.isfinite(values).all()):
        raise ExplainerError(f"{name} holds NaN or infinity")
    if bool((values < 0).any()):
        raise ExplainerError(
            f"{name} must lie in [0, 1], 0 meaning no attribution; the lowest value is {float(values.min())}"
        )
    return values


def _flat_maps_and_truth(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    values = checked_maps(maps)
    if masks.dtype != torch.bool or masks.shape != values.shape:
        raise ExplainerError(
            f"masks must be bool and shaped like the maps {tuple(values.shape)}, got {tuple(masks.shape)} "
            f"{masks.dtype}"
        )
    return values.flatten(1), masks.to(values.device).flatten(1)


def _top(values: Tensor, counts: Tensor) -> Tensor:
    """Return weights of each row's top `counts` pixels: (N, P) float64 in [0, 1] that sum to `counts`."""
    last = (counts - 1).clamp_min(0)[:, None]
    threshold = values.sort(dim=1, descending=True).values.gather(1, last)
    above, tied = values > threshold, values == threshold
    places = counts - above.sum(dim=1)
    return above.double() + tied * (places.double() / tied.sum(dim=1))[:, None]


def _scores_or_nan(scores: Tensor, values: Tensor, truth: Tensor) -> Tensor:
    """Return scores with 0 where there is no map and NaN where there is no truth."""
    scores = scores.masked_fill(~values.any(dim=1), 0.0)
    return scores.masked_fill(~truth.any(dim=1), torch.nan).float()
