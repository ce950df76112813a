"""Arithmetic on attribution maps: min-max, Otsu's threshold, fusion of block maps. Pure tensor functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Fusion = Literal["otsu", "soft"]
_BINS = 256  # as in scikit-image
# A float32 map, or a list of scores, whose range is at most this share of its magnitude counts as constant:
# what varies in it is rounding noise.
FLAT = 1e-6


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (n, h, w) brought to (n, H, W), bilinear with half-pixel centres."""
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def minmax(maps: Tensor, noise: Tensor | float = 0.0) -> Tensor:
    """Return each map stretched to [0, 1]; a constant one becomes 0 everywhere.

    Args:
        maps: (n, H, W) float.
        noise: range up to which a map counts as constant, one number or (n,). At 0, the rounding noise of a
            map that is constant in real arithmetic would be stretched into a picture.

    Returns:
        (n, H, W) of the same type. A map that is not constant touches both 0 and 1.
    """
    low = maps.amin(dim=(1, 2), keepdim=True)
    span = maps.amax(dim=(1, 2), keepdim=True) - low
    limit = torch.as_tensor(noise, dtype=maps.dtype, device=maps.device).reshape(-1, 1, 1)
    varied = span > limit
    return torch.where(varied, (maps - low) / torch.where(varied, span, 1.0), 0.0)


def otsu_threshold(values: Tensor) -> Tensor:
    """Return Otsu's threshold of each row, of 256 bins over its own range: scikit-image's `threshold_otsu`.

    The arithmetic is scikit-image's, in its order and precision, and runs on the CPU once the histogram is
    made. Which of two nearly equal thresholds wins depends on rounding; it must not depend on the device.

    Args:
        values: (n, m) finite floats; the histogram is that of their float64 values.

    Returns:
        (n,) float64 on the CPU: the centre of a bin; for a constant row, its value. Foreground is above it.
    """
    exact = values.double()
    low = exact.amin(dim=1, keepdim=True)
    high = exact.amax(dim=1, keepdim=True)
    steps = torch.arange(_BINS + 1, dtype=torch.float64, device=exact.device)
    edges = low + steps * ((high - low) / _BINS)
    edges[:, -1:] = high
    flat = torch.bincount(_bins(exact, edges).flatten(), minlength=_BINS * len(exact)).cpu()

    # scikit-image counts in float32, which is exact below 2^24 pixels but rounds the product of weights.
    counts = flat.reshape(-1, _BINS).float()
    centres = ((edges[:, :-1] + edges[:, 1:]) / 2).cpu()
    below, above = counts.cumsum(1), counts.flip(1).cumsum(1)
    moments = counts.double() * centres
    mean_below = moments.cumsum(1) / below
    mean_above = (moments.flip(1).cumsum(1) / above).flip(1)
    variance = (below[:, :-1] * above.flip(1)[:, 1:]) * (mean_below[:, :-1] - mean_above[:, 1:]) ** 2
    best = centres.gather(1, variance.argmax(dim=1, keepdim=True))[:, 0]
    constant = (low == high)[:, 0].cpu()
    return torch.where(constant, low[:, 0].cpu(), best)


def _bins(values: Tensor, edges: Tensor) -> Tensor:
    """Return in which bin each value lies, counted over all rows: (n, m) int64, of rows of 256 each.

    Args:
        values: (n, m) float64.
        edges: (n, 257) float64, evenly spaced from a row's least value to its largest.
    """
    low, high = edges[:, :1], edges[:, -1:]
    per_value = torch.where(high > low, _BINS / (high - low), 0.0)
    bins = ((values - low) * per_value).long().clamp_(0, _BINS - 1)
    # Division may round to the bin beside the right one: the edges tell. (A search for each value takes four
    # times as long.)
    rows = torch.arange(len(values), device=values.device)[:, None]
    places = (bins + rows * (_BINS + 1)).flatten()
    flat, all_values = edges.flatten(), values.flatten()
    bins += (all_values >= flat.index_select(0, places + 1)).long().view_as(bins)
    bins -= (all_values < flat.index_select(0, places)).long().view_as(bins)
    return bins.clamp_(0, _BINS - 1) + rows * _BINS


def relevance_mask(block_map: Tensor, threshold: float, fusion: Fusion) -> Tensor:
    """Return B(V), the share of the shallower maps that a deeper map lets through (docs/sise.md, "Fusion").

    `otsu`: 1 above the threshold, else 0, as published. `soft`: the authors' course code,
    `sigmoid(100 (V - t))`, where `t` becomes 1.5 t if fewer than 10 % of the pixels exceed it.
    A mask that would wipe everything (no value above one half) is 1 everywhere instead.

    Args:
        block_map: (H, W) in [0, 1].
        threshold: Otsu's, of this map.
        fusion: "otsu" or "soft".

    Returns:
        (H, W) in [0, 1].
    """
    if fusion == "soft":
        few = (block_map > threshold).double().mean() < 0.1
        raised = torch.where(few, 1.5 * threshold, threshold)
        mask = torch.sigmoid(100.0 * (block_map - raised)).to(block_map.dtype)
    else:
        mask = (block_map.double() > threshold).to(block_map.dtype)
    return torch.where(mask.amax() > 0.5, mask, 1.0)


def fuse(block_maps: Sequence[Tensor], fusion: Fusion = "otsu") -> Tensor:
    """Return block maps fused from shallow to deep: E <- (E + V) * B(V), beginning with the shallowest V.

    A constant map, which `minmax` left as 0, has no Otsu threshold: its B is 1, so that it changes nothing.

    Args:
        block_maps: at least one (H, W) map in [0, 1], shallow to deep, each min-maxed.
        fusion: see `relevance_mask`.

    Returns:
        (H, W) in [0, 1], min-maxed once at the end; 0 everywhere if the fused map is constant.
    """
    fused, *deeper = block_maps
    thresholds = otsu_threshold(torch.stack(deeper).flatten(1)).tolist() if deeper else []
    for block_map, threshold in zip(deeper, thresholds, strict=True):
        varied = block_map.amax() > block_map.amin()
        mask = torch.where(varied, relevance_mask(block_map, threshold, fusion), 1.0)
        fused = (fused + block_map) * mask
    return minmax(fused[None])[0]
