"""How far to trust a map: what the score does when only the map's best pixels are left (SISE.md, metrics)."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from explainers.drawing import top_mask
from explainers.errors import ExplainerError
from explainers.isolation import isolated, model_device, private_images, private_targets
from explainers.scoring import Activation, check_class_count, probability

Masking = Literal["hard", "soft"]

_CHUNK = 16
_FEATHER = 27  # the shorter side over this is the soft edge's standard deviation: 6 pixels at 160


def drop_increase(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    maps: Tensor,
    keep: float = 0.15,
    activation: Activation = "softmax",
    masking: Masking = "hard",
) -> tuple[Tensor, Tensor, Tensor]:
    """Drop and Increase: score the pictures again with all but the top `keep` of their pixels masked.

    "hard" is the paper's metric: a masked pixel is 0 in normalised space, the mean colour. On a dark or
    bright picture that draws a sharp edge around the kept pixels, and the model judges the edge: on the
    synthetic surfaces, maps right on the defect lost up to 100 % by it. "soft" is for judging one map:
    what is masked takes the picture's own mean colour, with a feathered edge; there right maps lost
    0 to 3 %, and maps pushed off the defect 7 to 100 %, most of them over 90 %.

    Pixels where the map is 0 are never among the top ones (see `explainers.drawing.top_mask`), so an
    undefined map keeps nothing. Computed in float32 on a private copy of the model.

    Args:
        model: returns (B, K) logits.
        images: (B, C, H, W) float, normalised.
        targets: (B,) whole numbers, class indices.
        maps: (B, H, W) float in [0, 1].
        keep: share of the pixels left, in (0, 1].
        activation: "softmax" or "sigmoid", as in the explainer.
        masking: "hard" or "soft", see above.

    Returns:
        (B,) float32 masked scores O in [0, 1]; (B,) float32 drop, max(0, Y - O) / Y in percent, 0 where Y
        is 0; (B,) bool increase, O > Y; all on the device of `images`. Y is the score of the whole picture.

    Raises:
        ExplainerError: shapes that do not fit, a bad target, NaN or infinity in pictures, maps or logits.
    """
    if activation not in get_args(Activation):
        raise ExplainerError(f"activation must be 'softmax' or 'sigmoid', got {activation!r}")
    if masking not in get_args(Masking):
        raise ExplainerError(f"masking must be 'hard' or 'soft', got {masking!r}")
    if images.ndim == 4 and maps.shape != (len(images), *images.shape[2:]):
        raise ExplainerError(
            f"maps must be (B, H, W) like the images {tuple(images.shape)}, got {tuple(maps.shape)}"
        )
    with isolated(model, images) as private:
        device = model_device(private, images)
        pictures = private_images(images, device)
        classes = private_targets(targets, len(pictures), device)
        kept = np.stack([top_mask(values, keep) for values in maps.detach().float().cpu().numpy()])
        shown = torch.from_numpy(kept).to(device)[:, None].to(pictures.dtype)
        masked = _on_own_mean(pictures, shown) if masking == "soft" else pictures * shown
        whole_scores, masked_scores = (
            _scores(private, batch, classes, activation) for batch in (pictures, masked)
        )
        drop = (100.0 * (whole_scores - masked_scores).clamp_min(0.0) / whole_scores).nan_to_num(0.0)
        increase = masked_scores > whole_scores
        return masked_scores.to(images.device), drop.to(images.device), increase.to(images.device)


def _on_own_mean(pictures: Tensor, shown: Tensor) -> Tensor:
    """Show pictures (B, C, H, W) through a feathered mask (B, 1, H, W), on their own mean colour."""
    sigma = min(pictures.shape[2:]) / _FEATHER
    kernel = 2 * max(1, round(2 * sigma)) + 1
    feathered = shown
    if kernel // 2 < min(pictures.shape[2:]):  # else the picture is too small to have a soft edge
        feathered = gaussian_blur(shown, [kernel, kernel], [sigma, sigma])
    own = pictures.mean(dim=(2, 3), keepdim=True)
    return own + (pictures - own) * feathered


def _scores(model: nn.Module, batch: Tensor, classes: Tensor, activation: Activation) -> Tensor:
    parts = []
    for pictures, targets in zip(torch.split(batch, _CHUNK), torch.split(classes, _CHUNK), strict=True):
        logits = model(pictures)
        if not bool(torch.isfinite(logits).all()):
            raise ExplainerError("the model gave NaN or infinity; check its weights and the pictures")
        check_class_count(targets, logits.shape[1])
        parts.append(probability(logits, targets, activation))
    return torch.cat(parts)
