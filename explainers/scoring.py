"""The model's score: its probability of a class, the direction of its gradient, and the masked passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
import torch.nn.functional as F
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
_CHUNK = 64  # masks at full size at a time, where their statistics need it


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
        statistics: what `mask_statistics` returns of them, where it is known already.
    """

    image: int
    layer: str
    features: Tensor
    statistics: tuple[Tensor, Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Scored:
    """The masks of a block, scored.

    Attributes:
        scores: (n, R) float32 in [0, 1], the model's probability of each of the picture's classes on the
            picture seen through each mask.
        low: (n,) float32, smallest value of each feature map at full size; the mask is (map - low) / span.
        span: (n,) float32, its range.
        area: (n,) float32, sum of the mask over the picture, in pixels.
        passes: (R,) int64 on the CPU, masked pictures behind the scores of each class.
        error: (R,) float32 on the CPU, root mean square error of scores that were predicted instead, 0 if
            none was.
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
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    classes: Tensor,
    blocks: Sequence[Block],
    *,
    activation: Activation,
    batch_size: int,
    floor: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> list[Scored]:
    """Score the pictures seen through their masks: docs/sise.md, "Scores and layer maps".

    All masks of all blocks form one list, which is cut into chunks of one size. So pictures share chunks, and
    the model sees one shape only. The size is `batch_size` or a little less, so that few rows of the last
    chunk are left over. A masked picture is scored for all classes of its picture at once. Full-size masks
    exist for one chunk at a time.

    Args:
        forward: from masked pictures (n, C, H, W) in `dtype` and `memory_format` to logits (n, K); it must
            not keep the pictures, as the next ones are written over them.
        images: (B, C, H, W) float32.
        classes: (B, R) int64, the classes to score each picture for.
        blocks: at least one.
        activation: see `probability`.
        batch_size: most masked pictures in one forward pass.
        floor: (C, 1, 1) float32, what a fully masked pixel becomes; None for 0.
        dtype: of what `forward` takes.
        memory_format: of what `forward` takes.

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
    sound = torch.zeros(chunks * batch_size, dtype=torch.bool, device=images.device)
    size = (images.shape[2], images.shape[3])
    statistics = [block.statistics or mask_statistics(block.features, size) for block in blocks]

    with torch.inference_mode():
        # Up-sampling is linear: what is stretched to [0, 1] at the layer's own resolution is so at full size.
        stretched = [
            (block.features - low[:, None, None]) / span[:, None, None]
            for block, (low, span, _) in zip(blocks, statistics, strict=True)
        ]
        lifted = images if floor is None else images - floor
        masked = torch.zeros((batch_size, *images.shape[1:]), dtype=dtype, device=images.device).contiguous(
            memory_format=memory_format
        )
        for first in range(0, chunks * batch_size, batch_size):
            chunk = slice(first, first + batch_size)
            for block, small, end in zip(blocks, stretched, ends, strict=True):
                begin = end - len(small)
                at = slice(max(begin, chunk.start), min(end, chunk.stop))
                if at.start >= at.stop:
                    continue
                masks = upsample(small[at.start - begin : at.stop - begin], size)[:, None]
                inside = masked[at.start - first : at.stop - first]
                if floor is None:
                    torch.mul(lifted[block.image], masks, out=inside)
                else:
                    torch.addcmul(floor, lifted[block.image], masks, out=inside)
            logits = forward(masked)
            scores[chunk] = probabilities(logits, activation).gather(1, wanted[chunk])
            sound[chunk] = torch.isfinite(logits).all(dim=1)

    unsound = (~sound).tolist()
    results = []
    for block, (low, span, area), end in zip(blocks, statistics, ends, strict=True):
        part = slice(end - len(block.features), end)
        if any(unsound[part]):
            raise ExplainerError(
                f"the model gave NaN or infinity for {sum(unsound[part])} of {len(block.features)} masked "
                f"pictures of layer {block.layer!r}, image {block.image} of the batch, in {dtype}; check the "
                "weights, or use precision='float32'"
            )
        passes = torch.full((classes.shape[1],), len(block.features))
        results.append(Scored(scores[part], low, span, area, passes, torch.zeros(len(passes))))
    return results


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
    total = (features @ columns) @ rows
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
