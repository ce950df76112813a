"""Extremal perturbations (Fong, Patrick and Vedaldi, ICCV 2019, arXiv 1910.08485), written from the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from explainers.baselines.base import Attribution, Baseline
from explainers.isolation import Rows
from explainers.maps import FLAT, upsample
from explainers.scoring import Activation

# The paper's settings: SGD, the weight of the area term and its growth per step.
_RATE, _MOMENTUM = 0.01, 0.9
_WEIGHT, _GROWTH = 300.0, 1.0035
_TEMPERATURE = 0.05  # of the smooth maximum
# The paper's pixels at 224, as shares of the shorter side: strongest blur and step of the mask's grid.
_BLUR, _STEP = 20 / 224, 7 / 224
_LEVELS = 8  # of the blur pyramid, the picture itself included
_REACH = 5  # cells beyond which the kernel counts as 0: it is below 0.02 there


@dataclass(frozen=True, kw_only=True, eq=False)
class ExtremalPerturbation(Baseline):
    """Finds, for each area, the smooth mask of that area that keeps the logit highest; the rest is blurred.

    The map is the sum of the masks of all areas: what is in the smallest is in all of them. This is the
    paper's preservation game. It is played on the logit, whose gradient does not vanish where the model is
    sure.

    Choices: the smooth max-convolution is taken at the resolution of the mask's grid and up-sampled
    bilinearly (the paper takes it at full size, at about 50 times the cost); distances scale with the
    picture. Deterministic on the CPU; on a GPU up to the rounding of its gradients.

    Attributes:
        areas: of the masks, shares of the picture in (0, 1).
        iterations: steps of the optimisation, each one forward and one backward pass.
        batch_size: masks optimised at the same time, over areas and rows.
    """

    method = "extremal-perturbation"

    activation: Activation = "softmax"
    areas: Sequence[float] = (0.025, 0.05, 0.1, 0.2)
    iterations: int = 800
    batch_size: int = 16

    def _attribute(self, model: nn.Module, pictures: Tensor, rows: Rows) -> Attribution:
        count = len(self.areas)
        # One entry per mask to be found: its row and its area.
        row = torch.arange(len(rows), device=pictures.device).repeat_interleave(count)
        area = pictures.new_tensor(self.areas).repeat(len(rows))
        pyramids = {image: pyramid(pictures[image]) for image in set(rows.images.tolist())}
        masks, spans = [], []
        for own, wanted in zip(
            torch.split(row, self.batch_size), torch.split(area, self.batch_size), strict=True
        ):
            levels = torch.stack([pyramids[image] for image in rows.images[own].tolist()])
            found, flat = self._optimised_masks(model, levels, rows.targets[own], wanted)
            masks.append(found)
            spans.append(flat)
        size = pictures.shape[2:]
        summed = torch.cat(masks).reshape(len(rows), count, *size).sum(dim=1)
        # Where the logit never moved, the area term alone made the masks: their shape means nothing.
        still = torch.cat(spans).reshape(len(rows), count).all(dim=1)
        return Attribution(torch.where(still[:, None, None], 0.0, summed))

    def _optimised_masks(
        self, model: nn.Module, levels: Tensor, targets: Tensor, areas: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return n masks, found at once; each has its own terms in the loss and depends on no other.

        Args:
            model: private copy.
            levels: (n, levels, C, H, W), the blur pyramid of each mask's picture.
            targets: (n,) class indices.
            areas: (n,) shares.

        Returns:
            (n, H, W) masks in [0, 1]; (n,) bool, whether the logit stayed the same throughout.
        """
        size = (levels.shape[3], levels.shape[4])
        step = max(1, round(_STEP * min(size)))
        # Rows of r_a: zeros, then as many ones as the area has pixels.
        pixels = size[0] * size[1]
        ones = (areas * pixels).round().clamp_min(1)
        ideal = (torch.arange(pixels, device=areas.device) >= pixels - ones[:, None]).float()
        seeds = torch.full(
            (len(levels), -(-size[0] // step), -(-size[1] // step)), 0.5, device=levels.device
        ).requires_grad_()
        optimiser = torch.optim.SGD([seeds], lr=_RATE, momentum=_MOMENTUM)
        weight = _WEIGHT
        low, high = (torch.full((len(levels),), sign * torch.inf, device=levels.device) for sign in (1, -1))
        with torch.enable_grad():
            for number in range(self.iterations):
                masks = smooth_masks(seeds, size)
                logits = model(perturbed(levels, masks)).gather(1, targets[:, None])[:, 0]
                ranked = masks.flatten(1).sort(dim=1, stable=True).values
                # At first the mask is the same everywhere, and its ranking says nothing: let the logit begin.
                wanted = ideal if number else areas[:, None]
                loss = weight * (ranked - wanted).square().mean(dim=1) - logits
                optimiser.zero_grad()
                loss.sum().backward()
                optimiser.step()
                weight *= _GROWTH
                with torch.no_grad():
                    seeds.clamp_(0.0, 1.0)
                    low, high = torch.minimum(low, logits), torch.maximum(high, logits)
        flat = high - low <= FLAT * torch.maximum(low.abs(), high.abs())
        return smooth_masks(seeds.detach(), size), flat


def smooth_masks(seeds: Tensor, size: tuple[int, int]) -> Tensor:
    """Return masks grown from seeds by the paper's smooth max-convolution: nothing finer than its kernel.

    `m(u) = smax over v of k(u - v) seed(v)` with `k(d) = exp(-max(0, d - 1)^2 / 4)`, d in cells of the
    grid, and `smax f = sum f exp(f / T) / sum exp(f / T)`.

    Args:
        seeds: (n, h, w) in [0, 1].
        size: H and W of the masks.

    Returns:
        (n, H, W) in [0, 1].
    """
    side = torch.arange(-_REACH, _REACH + 1, device=seeds.device, dtype=seeds.dtype)
    distance = (side[:, None].square() + side.square()).sqrt()
    kernel = torch.exp(-(distance - 1).clamp_min(0).square() / 4).flatten()
    # Seeds are mirrored beyond the border, so that each counts in as many places as any other. With zeros
    # there, seeds in the corners would move the slowest, rank highest in the end, and turn up in the mask.
    rows, columns = (_mirrored_indices(length, seeds.device) for length in seeds.shape[1:])
    near = F.unfold(seeds[:, None, rows][..., columns], 2 * _REACH + 1) * kernel[:, None]
    grown = ((near / _TEMPERATURE).softmax(dim=1) * near).sum(dim=1)
    return upsample(grown.reshape(seeds.shape), size)


def _mirrored_indices(length: int, device: torch.device) -> Tensor:
    """Return indices that extend a row by `_REACH` on both sides: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ..."""
    index = torch.arange(-_REACH, length + _REACH, device=device).remainder(2 * length)
    return torch.where(index < length, index, 2 * length - 1 - index)


def pyramid(picture: Tensor) -> Tensor:
    """Return a picture (C, H, W) blurred ever less: (levels, C, H, W), the picture itself last."""
    strongest = _BLUR * min(picture.shape[1:])
    levels = [picture]
    for number in range(1, _LEVELS):
        sigma = strongest * number / (_LEVELS - 1)
        # Reflection needs a margin smaller than the picture.
        radius = min(math.ceil(3 * sigma), min(picture.shape[1:]) - 1)
        levels.append(gaussian_blur(picture, [2 * radius + 1] * 2, [sigma] * 2) if radius else picture)
    return torch.stack(levels[::-1])


def perturbed(levels: Tensor, masks: Tensor) -> Tensor:
    """Return each picture sharp where its mask is 1, most blurred where it is 0, and linear in between.

    Args:
        levels: (n, L, C, H, W), see `pyramid`.
        masks: (n, H, W) in [0, 1].

    Returns:
        (n, C, H, W).
    """
    position = masks * (levels.shape[1] - 1)
    number = torch.arange(levels.shape[1], device=masks.device, dtype=masks.dtype)
    # A hat function per level: only the two levels next to the position have a weight.
    shares = (1 - (position[:, None] - number[:, None, None]).abs()).clamp_min(0)
    return torch.einsum("nlhw,nlchw->nchw", shares, levels)
