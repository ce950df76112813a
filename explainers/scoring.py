"""The model's score: its probability of a class, the direction of its gradient, and the masked passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn

from explainers.errors import ExplainerError
from explainers.maps import upsample

Activation = Literal["softmax", "sigmoid"]
Precision = Literal["float32", "bfloat16", "float16"]
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def probabilities(logits: Tensor, activation: Activation) -> Tensor:
    """Return the probability of each class.

    Args:
        logits: (n, K) of any float type; the activation is taken in float32.
        activation: "softmax" for single-label models, "sigmoid" for multi-label and single-logit ones.

    Returns:
        (n, K) float32 in [0, 1].
    """
    single = logits.float()
    return single.softmax(dim=1) if activation == "softmax" else single.sigmoid()


def probability(logits: Tensor, targets: Tensor, activation: Activation) -> Tensor:
    """Return each row's probability of its target: (n,) in [0, 1], of logits (n, K), targets (n,) below K."""
    return probabilities(logits, activation).gather(1, targets[:, None])[:, 0]


def score_direction(logits: Tensor, target: int, activation: Activation) -> Tensor:
    """Return the direction of the score's gradient, d Psi / d logits, divided by its largest component.

    softmax: d Psi_t / d z = Psi_t (1 - Psi_t) (e_t - softmax(z without t)); sigmoid: Psi_t (1 - Psi_t) e_t.
    The factor Psi (1 - Psi) is left out. It is positive, so it changes neither which maps have a positive
    gradient nor which exceed mu times the largest. But a confident model's gradient drowns in it: the
    softmax is 1 in float32 from a logit gap of 17 on.

    Args:
        logits: (1, K).
        target: class index below K.
        activation: see `probability`.

    Returns:
        (1, K) float32, 1 at the target.

    Raises:
        ExplainerError: softmax over a single logit, which is 1 whatever the picture.
    """
    direction = torch.zeros_like(logits, dtype=torch.float32)
    if activation == "softmax":
        if logits.shape[1] < 2:
            raise ExplainerError("the softmax of a single logit is always 1: use activation='sigmoid'")
        others = logits.detach().float().clone()
        others[0, target] = -torch.inf
        direction -= others.softmax(dim=1)
    direction[0, target] = 1.0
    return direction


def check_class_count(targets: Tensor, classes: int) -> None:
    """Raise ExplainerError if a target index is not below the model's number of classes."""
    if int(targets.max()) >= classes:
        raise ExplainerError(
            f"targets holds class {int(targets.max())}, but the model has {classes} (0-{classes - 1})"
        )


@dataclass(frozen=True)
class Block:
    """Feature maps of one picture at one layer, each to become a mask.

    Attributes:
        image: index in the batch.
        layer: name.
        features: (n, h, w) float32, off the graph, none of them constant.
    """

    image: int
    layer: str
    features: Tensor


@dataclass(frozen=True)
class Scored:
    """The masks of a block, scored.

    Attributes:
        scores: (n, R) float32 in [0, 1], the model's probability of each of the picture's classes on the
            picture seen through each mask.
        low: (n,) float32, smallest value of each feature map at full size; the mask is (map - low) / span.
        span: (n,) float32, its range.
        area: (n,) float32, sum of the mask over the picture, in pixels.
        passes: (R,) int64, masked pictures behind the scores of each class.
        error: (R,) float32, root mean square error of scores that were predicted instead, 0 if none was.
    """

    scores: Tensor
    low: Tensor
    span: Tensor
    area: Tensor
    passes: Tensor
    error: Tensor


def prepare_for_masks(model: nn.Module, precision: Precision) -> None:
    """Make a private model ready for masked passes, in place: its precision, its weights channels-last."""
    model.to(dtype=DTYPES[precision])
    for parameter in model.parameters():
        if parameter.ndim == 4:  # Module.to(memory_format=...) refuses the 5-D weights of a Conv3d
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def score_masks(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    blocks: Sequence[Block],
    *,
    activation: Activation,
    batch_size: int,
    floor: Tensor,
) -> list[Scored]:
    """Score the pictures seen through their masks: docs/sise.md, "Scores and layer maps".

    All masks of all blocks form one list, which is cut into chunks of one size. So pictures share chunks, and
    the model sees one shape only. The size is `batch_size` or a little less, so that few rows of the last
    chunk are left over. A masked picture is scored for all classes of its picture at once. Full-size masks
    exist for one chunk at a time.

    Args:
        model: in evaluation mode, in the type in which the masked passes are to run.
        images: (B, C, H, W) float32.
        classes: (B, R) int64, the classes to score each picture for.
        blocks: at least one.
        activation: see `probability`.
        batch_size: most masked pictures in one forward pass.
        floor: (C, 1, 1) float32, what a fully masked pixel becomes.

    Returns:
        One result per block.

    Raises:
        ExplainerError: a masked pass gave NaN or infinity; names the layer.
    """
    ends = list(accumulate(len(block.features) for block in blocks))
    chunks = -(-ends[-1] // batch_size)
    batch_size = -(-ends[-1] // chunks)
    wanted = classes.new_zeros(chunks * batch_size, classes.shape[1])
    for block, end in zip(blocks, ends, strict=True):
        wanted[end - len(block.features) : end] = classes[block.image]
    scores = images.new_zeros(wanted.shape)
    low, span, area = (images.new_zeros(chunks * batch_size) for _ in range(3))
    sound = torch.zeros(chunks * batch_size, dtype=torch.bool, device=images.device)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    size = (images.shape[2], images.shape[3])

    with torch.inference_mode():
        lifted = images - floor
        masked = torch.zeros((batch_size, *images.shape[1:]), dtype=dtype, device=images.device).contiguous(
            memory_format=torch.channels_last
        )
        for first in range(0, chunks * batch_size, batch_size):
            chunk = slice(first, first + batch_size)
            for block, end in zip(blocks, ends, strict=True):
                begin = end - len(block.features)
                at = slice(max(begin, chunk.start), min(end, chunk.stop))
                if at.start >= at.stop:
                    continue
                masks = upsample(block.features[at.start - begin : at.stop - begin], size)
                low[at] = masks.amin(dim=(1, 2))
                span[at] = masks.amax(dim=(1, 2)) - low[at]
                masks = masks.sub_(low[at, None, None]).div_(span[at, None, None])
                area[at] = masks.sum(dim=(1, 2))
                inside = slice(at.start - first, at.stop - first)
                torch.addcmul(floor, lifted[block.image], masks[:, None], out=masked[inside])
            logits = model(masked)
            scores[chunk] = probabilities(logits, activation).gather(1, wanted[chunk])
            sound[chunk] = torch.isfinite(logits).all(dim=1)

    results = []
    for block, end in zip(blocks, ends, strict=True):
        part = slice(end - len(block.features), end)
        if not bool(sound[part].all()):
            bad = f"{int((~sound[part]).sum())} of {len(block.features)}"
            raise ExplainerError(
                f"the model gave NaN or infinity for {bad} masked pictures of layer {block.layer!r}, "
                f"image {block.image} of the batch, in {dtype}; check the weights, or use "
                "precision='float32'"
            )
        passes = torch.full((classes.shape[1],), len(block.features), device=images.device)
        results.append(
            Scored(scores[part], low[part], span[part], area[part], passes, images.new_zeros(len(passes)))
        )
    return results


def weighted_masks(
    features: Tensor, low: Tensor, span: Tensor, weights: Tensor, size: tuple[int, int]
) -> Tensor:
    """Return the sum of weighted masks: V of docs/sise.md, "Scores and layer maps", before its min-max.

    The sum is taken at the layer's own resolution and up-sampled once, which is the same (up-sampling is
    linear, min-max is affine), and in float64: layer maps are often nearly flat, and min-max stretches
    rounding with the rest.

    Args:
        features: (n, h, w) float32.
        low: (n,), see `Scored`.
        span: (n,), see `Scored`.
        weights: (R, n) float64.
        size: (H, W).

    Returns:
        (R, H, W) float64.
    """
    scaled = weights / span.double()
    sums = torch.einsum("rn,nhw->rhw", scaled, features.double()) - (scaled @ low.double())[:, None, None]
    return upsample(sums, size)
