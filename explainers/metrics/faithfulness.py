"""Does the map name the pixels that the model uses? Insertion and deletion (Drop, Increase: `trust`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from explainers.isolation import isolated
from explainers.metrics.localisation import checked_maps
from explainers.options import checked
from explainers.scoring import DTYPES, Activation, Precision, prepare_for_masks
from explainers.trust import class_scores, rows_to_judge

_KERNEL, _SIGMA = 11, 5.0  # RISE's, in pixels


def insertion_deletion(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    maps: Tensor,
    *,
    activation: Activation = "softmax",
    steps: int = 32,
    batch_size: int = 16,
    precision: Precision | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the area under the score while the map's pixels are shown, or taken away, the highest first.

    Deletion goes from the picture to 0 in normalised space, the mean colour; insertion from the blurred
    picture (Gaussian, 11 x 11 pixels, sigma 5, mirrored at the border; cut down for a picture under 6
    pixels) to the picture. The area is the trapezoid rule over the share of pixels touched, from 0 to 1.
    Pixels with equal values follow each other in reading order. A map that is 0 everywhere ranks nothing
    and gets the worst there is: insertion 0, deletion 1.

    Args:
        model: returns (B, K) logits. Run on a private copy.
        images: (N, C, H, W) float, normalised; the picture of each row.
        targets: (N,) whole numbers, class indices.
        maps: (N, H, W) float in [0, 1].
        activation: "softmax" or "sigmoid", as in the explainer.
        steps: equal steps from 0 to all pixels, at least 1; a row costs 2 (steps + 1) forward passes. RISE
            takes as many as a picture has columns: on synthetic surfaces of 160 x 160, 32 steps were within
            0.02 of 160, picture by picture.
        batch_size: pictures in one forward pass, at least 1.
        precision: of the passes, "float32" (also None), "bfloat16" or "float16"; sums are float32.

    Returns:
        (N,) float32 insertion area (high is better) and (N,) float32 deletion area (low is better), both in
        [0, 1], on the device of `images`.

    Raises:
        ExplainerError: a setting out of its range, shapes that do not fit, a bad target, NaN or infinity in
            pictures, maps or logits, negative maps.

    Source: Petsiuk et al., RISE (2018), section 4.2.
    """
    checked("activation", activation)
    checked("steps", steps)
    checked("batch_size", batch_size)
    chosen: Precision = checked("precision", precision)
    with isolated(model, images) as private:
        pictures, classes, values = rows_to_judge(private, images, targets, maps)
        flat = checked_maps(values).flatten(1)
        prepare_for_masks(private, chosen)
        starts = torch.stack((torch.zeros_like(pictures), _blurred_pictures(pictures)))
        ranks = flat.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        pixels = flat.shape[1]
        counts = torch.linspace(0, pixels, min(steps, pixels) + 1, dtype=torch.float64).round()
        touched = counts.to(flat.device)
        # One flat list of (row, curve, point), curve 0 deleting and 1 inserting, so that rows share batches.
        curves = torch.zeros(len(flat), 2, len(counts), device=flat.device)
        for batch in torch.split(torch.arange(curves.numel(), device=flat.device), batch_size):
            row, curve, point = torch.unravel_index(batch, curves.shape)
            first = ranks[row] < touched[point, None]
            original = (first == (curve == 1)[:, None]).view(-1, 1, *pictures.shape[2:])
            mixed = torch.where(original, pictures[row], starts[curve, row])
            mixed = mixed.to(dtype=DTYPES[chosen], memory_format=torch.channels_last)
            curves[row, curve, point] = class_scores(private, mixed, classes[row], activation, batch_size)
        areas: Tensor = torch.trapezoid(curves, (touched / pixels).float(), dim=2)
        nothing = ~flat.any(dim=1)
        deletion, insertion = areas[:, 0].masked_fill(nothing, 1.0), areas[:, 1].masked_fill(nothing, 0.0)
        return insertion.to(images.device), deletion.to(images.device)


def _blurred_pictures(pictures: Tensor) -> Tensor:
    # Mirroring cannot reach further than the picture is wide.
    kernel = [min(_KERNEL, 2 * size - 1) for size in (pictures.shape[3], pictures.shape[2])]
    blurred: Tensor = gaussian_blur(pictures, kernel, [_SIGMA, _SIGMA])
    return blurred
