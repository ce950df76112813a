"""The model's score: its probability of a class, the direction of its gradient, and the masked passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


def probability(logits: Tensor, targets: Tensor, activation: Activation) -> Tensor:
    """Probability of each row's target.

    Args:
        logits: (n, K) of any float type; the activation is taken in float32.
        targets: (n,) int64, below K.
        activation: "softmax" for single-label models, "sigmoid" for multi-label and single-logit ones.

    Returns:
        (n,) float32 in [0, 1].
    """
    single = logits.float()
    spread = single.softmax(dim=1) if activation == "softmax" else single.sigmoid()
    return spread.gather(1, targets[:, None])[:, 0]


def score_direction(logits: Tensor, target: int, activation: Activation) -> Tensor:
    """Direction of the score's gradient with respect to the logits: d Psi / d logits over its largest part.

    Which maps have a positive gradient, and which exceed mu times the largest, does not change when the
    gradient is multiplied by a positive number. So the factor Psi (1 - Psi), in which a confident model's
    gradient drowns (float32 softmax is 1 from a logit gap of 17 on), is left out:
    softmax: d Psi_t / d z = Psi_t (1 - Psi_t) (e_t - softmax(z without t)); sigmoid: Psi_t (1 - Psi_t) e_t.

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
    """The kept feature maps of one picture at one layer.

    Attributes:
        image: index in the batch.
        layer: name.
        features: (n, h, w) float32, off the graph, none of them constant.
    """

    image: int
    layer: str
    features: Tensor


@dataclass(frozen=True)
class _Piece:
    """A run of one block's maps inside a chunk: maps `start:stop` go to rows `row:row + stop - start`."""

    block: Block
    start: int
    stop: int
    row: int


def layer_maps(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    blocks: Sequence[Block],
    *,
    activation: Activation,
    batch_size: int,
    floor: Tensor,
) -> tuple[Tensor, Tensor]:
    """Score the masks of all blocks and sum them up: V of SISE.md, section 3, before its min-max.

    All masks of all blocks form one list, cut into chunks of exactly `batch_size` masked pictures (the
    last one filled up), so that pictures share chunks and the model sees one shape only. The weighted sum
    is taken at the layer's own resolution and up-sampled once, which is the same (up-sampling is linear,
    min-max is affine); full-size masks exist for one chunk at a time.

    Args:
        model: in evaluation mode, in the type in which the masked passes are to run.
        images: (B, C, H, W) float32.
        targets: (B,) int64.
        blocks: at least one.
        activation: see `probability`.
        batch_size: masked pictures in one forward pass.
        floor: (C, 1, 1) float32, what a fully masked pixel becomes.

    Returns:
        (n, H, W) float64, V of each block but for an additive constant, which min-max removes; and (n,)
        float64, the largest V could be anywhere, as the scale against which V is flat or not.

    Raises:
        ExplainerError: a masked pass gave NaN or infinity; names the layer.
    """
    total = sum(len(block.features) for block in blocks)
    chunks = -(-total // batch_size)
    owners = torch.tensor([block.image for block in blocks], device=images.device)
    lengths = torch.tensor([len(block.features) for block in blocks], device=images.device)
    rows = torch.zeros(chunks * batch_size, dtype=torch.int64, device=images.device)
    rows[:total] = targets[owners].repeat_interleave(lengths)
    scores, low, span, area = (images.new_zeros(chunks * batch_size) for _ in range(4))
    sound = torch.zeros(chunks * batch_size, dtype=torch.bool, device=images.device)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    size = (images.shape[2], images.shape[3])

    with torch.inference_mode():
        lifted = images - floor
        masked = torch.zeros((batch_size, *images.shape[1:]), dtype=dtype, device=images.device).contiguous(
            memory_format=torch.channels_last
        )
        for number, pieces in enumerate(_chunks(blocks, batch_size)):
            first = number * batch_size
            for piece in pieces:
                at = slice(first + piece.row, first + piece.row + piece.stop - piece.start)
                masks = upsample(piece.block.features[piece.start : piece.stop], size)
                low[at] = masks.amin(dim=(1, 2))
                span[at] = masks.amax(dim=(1, 2)) - low[at]
                masks = masks.sub_(low[at, None, None]).div_(span[at, None, None])
                area[at] = masks.sum(dim=(1, 2))
                inside = slice(piece.row, piece.row + piece.stop - piece.start)
                torch.addcmul(floor, lifted[piece.block.image], masks[:, None], out=masked[inside])
            logits = model(masked)
            chunk = slice(first, first + batch_size)
            scores[chunk] = probability(logits, rows[chunk], activation)
            sound[chunk] = torch.isfinite(logits).all(dim=1)

        # In float64: layer maps are often nearly flat, and min-max stretches rounding with the rest.
        weights = scores.double() / area.double()
        sums, ceilings, begin = [], [], 0
        for block in blocks:
            part = slice(begin, begin + len(block.features))
            begin = part.stop
            if not bool(sound[part].all()):
                bad = f"{int((~sound[part]).sum())} of {len(block.features)}"
                raise ExplainerError(
                    f"the model gave NaN or infinity for {bad} masked pictures of layer {block.layer!r}, "
                    f"image {block.image} of the batch, in {dtype}; check the weights, or use "
                    "precision='float32'"
                )
            normalised = (block.features.double() - low[part, None, None]) / span[part, None, None]
            sums.append(upsample(torch.einsum("n,nhw->hw", weights[part], normalised)[None], size)[0])
            ceilings.append(weights[part].sum())
    return torch.stack(sums), torch.stack(ceilings)


def _chunks(blocks: Sequence[Block], batch_size: int) -> Iterator[list[_Piece]]:
    pieces: list[_Piece] = []
    row = 0
    for block in blocks:
        start = 0
        while start < len(block.features):
            stop = min(len(block.features), start + batch_size - row)
            pieces.append(_Piece(block, start, stop, row))
            row += stop - start
            start = stop
            if row == batch_size:
                yield pieces
                pieces, row = [], 0
    if pieces:
        yield pieces
