"""SISE: semantic input sampling for explanation (Sattarzadeh et al., AAAI 2021, arXiv 2010.00672)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from explainers.errors import ExplainerError
from explainers.explanation import OK, PARTIAL, UNDEFINED, Explanation, Layer, Targets
from explainers.isolation import Rows, isolated, model_device, private_images, private_rows
from explainers.maps import FLAT, Fusion, fuse, minmax, otsu_threshold
from explainers.scoring import (
    DTYPES,
    Activation,
    Block,
    Precision,
    Scored,
    for_masks,
    score_masks,
    weighted_masks,
)
from explainers.sise.folding import Pairs, fold, foldable_pairs
from explainers.sise.probing import Tap, probe


@dataclass(frozen=True)
class Kept(Block):
    """A block whose maps at least one of the picture's classes keeps.

    Attributes:
        keeps: (R, n) bool, which maps each class keeps.
    """

    keeps: Tensor


class Sise:
    """Explains a CNN's score by masking the picture with the CNN's own feature maps.

    One gradient pass per picture chooses the feature maps that speak for the class, at every resolution;
    each becomes a mask, the model scores the masked picture, the masks weighted by score and area make a
    map per layer, and the layer maps are fused from shallow to deep. Every step and edge case: SISE.md.

    The gradient pass runs picture by picture, and the masked passes in one shape per call, so that what a
    picture gets does not depend on what else is in the batch (beyond the last float32 digits). Several
    classes of one picture share the forward part of the gradient pass, and every mask that more than one of
    them keeps is scored for all of them in one masked pass.
    """

    method = "sise"

    def __init__(
        self,
        model: nn.Module,
        *,
        layers: Sequence[str] | None = None,
        activation: Activation = "softmax",
        mu: float = 0.0,
        batch_size: int = 16,
        baseline: str = "mean",
        fusion: Fusion = "otsu",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        precision: Precision | None = None,
    ) -> None:
        """Keep the settings; the model is only run, on a private copy, when the explainer is called.

        Args:
            model: returns (B, K) logits. Never changed: not its mode, gradients, hooks, buffers, weights.
            layers: module names to probe, or None for the rule of `explainers.sise.layers`.
            activation: "softmax" (single-label) or "sigmoid" (multi-label, single-logit).
            mu: keep the maps whose gradient exceeds `mu` times the layer's largest; in [0, 1).
            batch_size: masked pictures per forward pass: 4-16 is best on a CPU, hundreds on a GPU.
            baseline: what masked-out pixels become: "mean" (0 in normalised space) or "black".
            fusion: "otsu" as published, or "soft" as in the authors' course code.
            mean: per channel, of the normalisation; needed for "black".
            std: per channel, of the normalisation; needed for "black".
            precision: of the masked passes, "float32" (also None), "bfloat16" or "float16". The gradient
                pass and all sums are float32.

        Raises:
            ExplainerError: a setting out of its range.
        """
        if activation not in get_args(Activation):
            raise ExplainerError(f"activation must be 'softmax' or 'sigmoid', got {activation!r}")
        if not 0.0 <= mu < 1.0:
            raise ExplainerError(f"mu must lie in [0, 1), got {mu}")
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ExplainerError(f"batch_size must be a whole number, 1 or more, got {batch_size!r}")
        if fusion not in get_args(Fusion):
            raise ExplainerError(f"fusion must be 'otsu' or 'soft', got {fusion!r}")
        if precision is not None and precision not in DTYPES:
            raise ExplainerError(f"precision must be one of {', '.join(DTYPES)}, got {precision!r}")
        if baseline not in ("mean", "black"):
            raise ExplainerError(f"baseline must be 'mean' or 'black', got {baseline!r}")
        if baseline == "black" and (mean is None or std is None or len(mean) != len(std) or min(std) <= 0):
            raise ExplainerError(
                "baseline='black' needs the normalisation's mean and std, one per channel, std > 0"
            )
        self._model = model
        self._layers = None if layers is None else (layers if isinstance(layers, str) else tuple(layers))
        self._activation: Activation = activation
        self._mu = float(mu)
        self._batch_size = batch_size
        self._baseline = baseline
        self._fusion: Fusion = fusion
        self._mean = None if mean is None else tuple(float(value) for value in mean)
        self._std = None if std is None else tuple(float(value) for value in std)
        self._precision: Precision = precision or "float32"
        # The structure of the last model met, and which of its batch norms can be folded: what takes extra
        # passes to find out is found out once.
        self._met: tuple[tuple[tuple[str, type], ...], Pairs] | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """Keyword arguments that make this explainer again; JSON can hold them."""
        return {
            "layers": None if self._layers is None else list(self._layers),
            "activation": self._activation,
            "mu": self._mu,
            "batch_size": self._batch_size,
            "baseline": self._baseline,
            "fusion": self._fusion,
            "mean": None if self._mean is None else list(self._mean),
            "std": None if self._std is None else list(self._std),
            "precision": self._precision,
        }

    def __call__(self, images: Tensor, targets: Targets) -> Explanation:
        """Explain one class per picture, or several.

        Args:
            images: (B, C, H, W) float, normalised as the model expects; on any device.
            targets: (B,) class indices, or per picture a list of them; a single-logit model (sigmoid) has
                the one class 0.

        Returns:
            The explanation, one row per picture and class, on the device of `images`.

        Raises:
            ExplainerError: bad pictures or targets; a model that is no CNN or has no layers to probe; NaN
                or infinity from the model, naming the layer.
        """
        with isolated(self._model, images, reparameterise=self._layers is None) as model:
            device = model_device(model, images)
            pictures = private_images(images, device)
            rows = private_rows(targets, len(pictures), device)
            floor = self._floor(pictures)
            # The pictures that have something to explain, with their rows, in order.
            asked = {image: rows.of(image) for image in sorted(set(rows.images.tolist()))}
            probes: dict[int, tuple[list[Tap], Tensor]] = {}
            kept: list[Kept] = []
            structure = tuple((name, type(module)) for name, module in model.named_modules())
            met = self._met is not None and self._met[0] == structure
            for image, own in asked.items():
                probes[image] = probe(
                    model,
                    image,
                    pictures[image, None],
                    rows.targets[own],
                    layers=self._layers,
                    activation=self._activation,
                    compare=not met and not kept,
                )
                kept += [block for tap in probes[image][0] if (block := self._kept(image, tap)) is not None]
            classes = rows.targets.new_zeros(len(pictures), max(map(len, asked.values())))
            for image, own in asked.items():
                classes[image, : len(own)] = rows.targets[own]
            if not met or self._met is None:
                self._met = (structure, foldable_pairs(model, pictures[:1]))
            fold(model, self._met[1])
            for_masks(model, self._precision)
            scored = self._scored(model, pictures, classes, kept, floor) if kept else []
            maps = {
                (block.image, block.layer): _block_maps(block, one, pictures.shape[2:])
                for block, one in zip(kept, scored, strict=True)
            }
            made = {(block.image, block.layer): one for block, one in zip(kept, scored, strict=True)}
            return self._assembled(images, rows, probes, maps, made)

    def _keeps(self, alpha: Tensor) -> Tensor:
        """Which maps each class keeps: (R, C) bool from alpha (R, C)."""
        return alpha > self._mu * alpha.amax(dim=1, keepdim=True)

    def _scored(
        self, model: nn.Module, pictures: Tensor, classes: Tensor, kept: Sequence[Kept], floor: Tensor
    ) -> list[Scored]:
        """Find the scores of every mask of every block; a class's passes are the masks it keeps."""
        scored = score_masks(
            model,
            pictures,
            classes,
            kept,
            activation=self._activation,
            batch_size=self._batch_size,
            floor=floor,
        )
        return [replace(one, passes=block.keeps.sum(dim=1)) for block, one in zip(kept, scored, strict=True)]

    def _finished(self, fused: Tensor) -> Tensor:
        """Last step on a fused map (H, W) in [0, 1]."""
        return fused

    def _kept(self, image: int, tap: Tap) -> Kept | None:
        """Choose the maps that become masks: those that a class keeps and that are not constant."""
        keeps = self._keeps(tap.alpha) & _varied(tap.features)
        union = keeps.any(dim=0)
        if not bool(union.any()):
            return None
        return Kept(image, tap.name, tap.features[union], keeps[:, union])

    def _floor(self, pictures: Tensor) -> Tensor:
        channels = pictures.shape[1]
        if self._baseline == "mean":
            return pictures.new_zeros(channels, 1, 1)
        mean, std = pictures.new_tensor(self._mean), pictures.new_tensor(self._std)
        if len(mean) != channels:
            raise ExplainerError(f"mean and std have {len(mean)} values, the images {channels} channels")
        return (-mean / std)[:, None, None]

    def _assembled(
        self,
        images: Tensor,
        rows: Rows,
        probes: dict[int, tuple[list[Tap], Tensor]],
        maps: dict[tuple[int, str], Tensor],
        made: dict[tuple[int, str], Scored],
    ) -> Explanation:
        """Fuse each row's layer maps (SISE.md, section 4), and say which layers gave nothing."""
        device = images.device
        empty = torch.zeros(images.shape[2:], dtype=torch.float32, device=rows.images.device)
        # The rule looks at shapes alone, so all pictures of a batch share the layers.
        layers = tuple(Layer(tap.name, *tap.features.shape) for tap in next(iter(probes.values()))[0])
        block_maps: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
        masks: dict[str, list[int]] = {layer.name: [] for layer in layers}
        errors: dict[str, list[float]] = {layer.name: [] for layer in layers}
        fused, status = [], []
        for image, (taps, _) in probes.items():
            for row in range(len(taps[0].alpha)):
                own, remarks = [], []
                for tap in taps:
                    scored = made.get((image, tap.name))
                    count = 0 if scored is None else int(scored.passes[row])
                    block_map = maps[image, tap.name][row] if count else empty
                    block_maps[tap.name].append(block_map)
                    masks[tap.name].append(count)
                    errors[tap.name].append(0.0 if scored is None else float(scored.error[row]))
                    if count:
                        own.append(block_map)
                    if not bool(block_map.any()):
                        remarks.append(f"{tap.name}: {self._why_empty(tap, row, count)}")
                fused.append(self._finished(fuse(own, self._fusion)) if own else empty)
                said = "; ".join(remarks)
                if not bool(fused[-1].any()):
                    status.append(f"{UNDEFINED}: {said}")
                else:
                    status.append(f"{PARTIAL}: {said}" if said else OK)
        return Explanation(
            maps=torch.stack(fused).to(device),
            block_maps={name: torch.stack(each).to(device) for name, each in block_maps.items()},
            scores=torch.cat([scores for _, scores in probes.values()]).to(device),
            masks={name: torch.tensor(count, device=device) for name, count in masks.items()},
            score_errors={name: torch.tensor(error, device=device) for name, error in errors.items()},
            status=tuple(status),
            layers=layers,
            targets=rows.targets.to(device),
            images=rows.images.to(device),
            method=self.method,
            parameters=self.parameters,
        )

    def _why_empty(self, tap: Tap, row: int, count: int) -> str:
        if count:
            return "its map is constant"
        if bool(self._keeps(tap.alpha[row, None]).any()):
            return "every kept map is constant"
        return "no map with a positive gradient"


class AdaSise(Sise):
    """Ada-SISE (Sudhakar et al., ICASSP 2021, arXiv 2102.07799): SISE with an adaptive `mu` per layer.

    The positive gradients of a layer's maps, over their maximum, are split by Otsu's threshold of that
    one-dimensional set, and the maps above it are kept; all of them where they are equal.
    """

    method = "ada-sise"

    def __init__(
        self,
        model: nn.Module,
        *,
        layers: Sequence[str] | None = None,
        activation: Activation = "softmax",
        batch_size: int = 16,
        baseline: str = "mean",
        fusion: Fusion = "otsu",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        precision: Precision | None = None,
    ) -> None:
        """Keep the settings: those of `Sise` but for `mu`."""
        super().__init__(
            model,
            layers=layers,
            activation=activation,
            batch_size=batch_size,
            baseline=baseline,
            fusion=fusion,
            mean=mean,
            std=std,
            precision=precision,
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """Keyword arguments that make this explainer again; JSON can hold them."""
        return {name: value for name, value in super().parameters.items() if name != "mu"}

    def _keeps(self, alpha: Tensor) -> Tensor:
        keeps = alpha > 0
        for row, own in zip(keeps, alpha, strict=True):
            positive = own[row]
            if len(positive) and bool(positive.amax() > positive.amin()):
                share = (positive / positive.amax()).double()
                row[row.clone()] = share > otsu_threshold(share[None]).to(share.device)
        return keeps


def _varied(features: Tensor) -> Tensor:
    """Which maps (n, h, w) are not constant: (n,) bool."""
    span = features.amax(dim=(1, 2)) - features.amin(dim=(1, 2))
    return span > FLAT * features.abs().amax(dim=(1, 2))


def _block_maps(block: Kept, scored: Scored, size: Sequence[int]) -> Tensor:
    """V of SISE.md, section 3, per class: (R, H, W) float32 in [0, 1], 0 where it is constant."""
    parts = block.keeps * scored.scores.double().T[: len(block.keeps)] / scored.area.double()
    sums = weighted_masks(block.features, scored.low, scored.span, parts, (size[0], size[1]))
    # The largest V could be anywhere is the scale against which it is flat or not.
    return minmax(sums, noise=FLAT * parts.sum(dim=1)).float()
