"""How far to trust a map: what the score does when only the map's best pixels are left (docs/sise.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from explainers.drawing import top_mask
from explainers.errors import ExplainerError
from explainers.isolation import (
    default_modes,
    model_device,
    private_copy,
    private_images,
    private_rows,
)
from explainers.options import checked
from explainers.scoring import Activation, check_class_count, probability

Masking = Literal["hard", "soft"]

_BATCH = 16
_FEATHER = 27  # the shorter side over this is the soft edge's standard deviation: 6 pixels at 160


def drop_increase(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    maps: Tensor,
    keep: float = 0.15,
    activation: Activation = "softmax",
    masking: Masking = "hard",
    forward: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return Drop and Increase: pictures are scored again with all but the top `keep` of their pixels masked.

    "hard" is the paper's metric: a masked pixel is 0 in normalised space, the mean colour. On a dark or
    bright picture that draws a sharp edge around the kept pixels, and the model judges the edge. On the
    synthetic surfaces the score of maps right on the defect dropped by up to 100 %. "soft" is for judging one
    map: masked pixels take the picture's own mean colour, with a feathered edge. There the score of right
    maps dropped by 0 to 3 %, and that of maps pushed off the defect by 7 to 100 %, mostly over 90 %.

    Pixels where the map is 0 are never among the top ones (see `explainers.drawing.top_mask`), so an
    undefined map keeps nothing. Computed in float32 on a private copy of the model, or by `forward`.

    Args:
        model: returns (B, K) logits.
        images: (B, C, H, W) float, normalised.
        targets: (B,) whole numbers, class indices.
        maps: (B, H, W) float in [0, 1].
        keep: share of the pixels left, in (0, 1].
        activation: "softmax" or "sigmoid", as in the explainer.
        masking: "hard" or "soft", see above.
        forward: computes the logits in the place of a copy of the model, see `Explainer`.

    Returns:
        (B,) float32 masked scores O in [0, 1]; (B,) float32 drop, max(0, Y - O) / Y in percent, 0 where Y
        is 0; (B,) bool increase, O > Y; all on the device of `images`. Y is the score of the whole picture.

    Raises:
        ExplainerError: shapes that do not fit, a bad target, NaN or infinity in pictures, maps or logits.
    """
    checked("activation", activation)
    checked("masking", masking)
    with default_modes(model_device(model, images)):
        pictures, classes, values = rows_to_judge(model, images, targets, maps)
        kept = np.stack([top_mask(one, keep) for one in values.cpu().numpy()])
        shown = torch.from_numpy(kept).to(pictures.device)[:, None].to(pictures.dtype)
        masked = _shown_on_mean_colour(pictures, shown) if masking == "soft" else pictures * shown
        judge = private_copy(model) if forward is None else forward
        both = torch.cat([pictures, masked])
        scores = class_scores(judge, both, classes.repeat(2), activation)
        whole_scores, masked_scores = scores.chunk(2)
        drop = (100.0 * (whole_scores - masked_scores).clamp_min(0.0) / whole_scores).nan_to_num(0.0)
        increase = masked_scores > whole_scores
        return masked_scores.to(images.device), drop.to(images.device), increase.to(images.device)


def _shown_on_mean_colour(pictures: Tensor, shown: Tensor) -> Tensor:
    """Return pictures (B, C, H, W) seen through a feathered mask (B, 1, H, W), on their own mean colour."""
    sigma = min(pictures.shape[2:]) / _FEATHER
    kernel = 2 * max(1, round(2 * sigma)) + 1
    feathered = shown
    if kernel // 2 < min(pictures.shape[2:]):  # else the picture is too small to have a soft edge
        # Rows and columns one after the other: the same, in 34 steps a pixel and not 289 at 224 pixels.
        feathered = gaussian_blur(shown, [kernel, 1], [sigma, sigma])
        feathered = gaussian_blur(feathered, [1, kernel], [sigma, sigma])
    own = pictures.mean(dim=(2, 3), keepdim=True)
    return own + (pictures - own) * feathered


def rows_to_judge(
    model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return copies, on the model's device, of what a metric judges: a picture, class and map for each row.

    Args:
        model: what is judged; pictures, classes and maps go to its device.
        images: (N, C, H, W) float, normalised.
        targets: (N,) whole numbers, class indices.
        maps: (N, H, W) float.

    Returns:
        (N, C, H, W) float32, (N,) int64, (N, H, W) float32.

    Raises:
        ExplainerError: shapes that do not fit, targets that are no such tensor, NaN or infinity in pictures.
    """
    device = model_device(model, images)
    pictures = private_images(images, device)
    if maps.shape != (len(pictures), *pictures.shape[2:]):
        raise ExplainerError(
            f"maps must be (B, H, W) like the images {tuple(images.shape)}, got {tuple(maps.shape)}"
        )
    if not isinstance(targets, Tensor):  # lists of classes would make other rows than there are maps
        raise ExplainerError(
            f"targets must be a tensor with the class of each map, got {type(targets).__name__}; repeat the "
            "picture of a map with images[explanation.images] and pass explanation.targets"
        )
    classes = private_rows(targets, len(pictures), device).targets
    return pictures, classes, maps.detach().to(device, torch.float32)


def class_scores(
    model: Callable[[Tensor], Tensor],
    pictures: Tensor,
    classes: Tensor,
    activation: Activation,
    batch_size: int = _BATCH,
) -> Tensor:
    """Return the probability that the model gives each picture's class.

    Args:
        model: in evaluation mode, returns (n, K) logits.
        pictures: (N, C, H, W), in the model's own type.
        classes: (N,) int64.
        activation: "softmax" or "sigmoid", taken in float32.
        batch_size: pictures in one forward pass, at least 1.

    Returns:
        (N,) float32 in [0, 1].

    Raises:
        ExplainerError: a class that the model does not have, NaN or infinity in the logits.
    """
    parts = []
    for batch, targets in zip(
        torch.split(pictures, batch_size), torch.split(classes, batch_size), strict=True
    ):
        logits = model(batch)
        if not bool(torch.isfinite(logits).all()):
            raise ExplainerError(
                f"the model gave NaN or infinity in {logits.dtype}; check its weights and the pictures"
            )
        check_class_count(targets, logits.shape[1])
        parts.append(probability(logits, targets, activation))
    return torch.cat(parts)
