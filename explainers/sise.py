"""SISE: semantic input sampling for explanation (Sattarzadeh et al., AAAI 2021, arXiv 2010.00672)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from explainers.errors import ExplainerError
from explainers.explanation import OK, PARTIAL, UNDEFINED, Explanation, Layer
from explainers.isolation import isolated, model_device, model_name, private_images, private_targets
from explainers.layers import candidates, choose
from explainers.maps import Fusion, fuse, minmax
from explainers.scoring import (
    DTYPES,
    Activation,
    Block,
    Precision,
    check_class_count,
    layer_maps,
    probability,
    score_direction,
)

# In float32: a range this small against the magnitude is rounding noise, and the map a constant.
_FLAT = 1e-6


class Sise:
    """Explains a CNN's score by masking the picture with the CNN's own feature maps.

    One gradient pass per picture chooses the feature maps that speak for the class, at every resolution;
    each becomes a mask, the model scores the masked picture, the masks weighted by score and area make a
    map per layer, and the layer maps are fused from shallow to deep. Every step and edge case: SISE.md.

    The gradient pass runs picture by picture, and the masked passes in one fixed shape, so that what a
    picture gets does not depend on what else is in the batch (beyond the last float32 digits).
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
            layers: module names to probe, or None for the rule of `explainers.layers`.
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

    def __call__(self, images: Tensor, targets: Tensor) -> Explanation:
        """Explain one class per picture.

        Args:
            images: (B, C, H, W) float, normalised as the model expects; on any device.
            targets: (B,) whole numbers, class indices.

        Returns:
            The explanation, on the device of `images`.

        Raises:
            ExplainerError: bad pictures or targets; a model that is no CNN or has no layers to probe; NaN
                or infinity from the model, naming the layer.
        """
        with isolated(self._model, images, reparameterise=self._layers is None) as model:
            device = model_device(model, images)
            pictures = private_images(images, device)
            classes = private_targets(targets, len(pictures), device)
            floor = self._floor(pictures)
            probed = [
                self._probe(model, index, picture[None], target)
                for index, (picture, target) in enumerate(zip(pictures, classes.tolist(), strict=True))
            ]
            blocks = [block for probe in probed for block in probe.blocks]
            model.to(dtype=DTYPES[self._precision]).to(memory_format=torch.channels_last)
            found: dict[tuple[int, str], Tensor] = {}
            if blocks:
                sums, ceilings = layer_maps(
                    model,
                    pictures,
                    classes,
                    blocks,
                    activation=self._activation,
                    batch_size=self._batch_size,
                    floor=floor,
                )
                maps = minmax(sums, noise=_FLAT * ceilings).float()
                found = {(block.image, block.layer): v for block, v in zip(blocks, maps, strict=True)}
            return self._assembled(images, classes, probed, found)

    def _floor(self, pictures: Tensor) -> Tensor:
        channels = pictures.shape[1]
        if self._baseline == "mean":
            return pictures.new_zeros(channels, 1, 1)
        mean, std = pictures.new_tensor(self._mean), pictures.new_tensor(self._std)
        if len(mean) != channels:
            raise ExplainerError(f"mean and std have {len(mean)} values, the images {channels} channels")
        return (-mean / std)[:, None, None]

    def _probe(self, model: nn.Module, index: int, picture: Tensor, target: int) -> _Probe:
        """Gradient pass over one (1, C, H, W) picture: SISE.md, sections 1 and 2."""
        with torch.enable_grad():
            # The clone is no leaf, so a model may begin with an in-place operation.
            found = candidates(model, picture.clone().requires_grad_().clone(), self._layers)
            check_class_count(torch.tensor([target]), found.logits.shape[1])
            for name, feature in zip(found.names, found.features, strict=True):
                _check_finite(feature, model, f"layer {name!r}", index, "feature maps")
            _check_finite(found.logits, model, "the logits", index, "values")
            gradients = torch.autograd.grad(
                found.logits,
                found.features,
                score_direction(found.logits, target, self._activation),
                allow_unused=True,
            )
        layers: list[Layer] = []
        blocks: list[Block] = []
        remarks: dict[str, str] = {}
        for probed in choose(found, gradients, model):
            _check_finite(probed.gradients, model, f"layer {probed.name!r}", index, "gradients")
            maps, height, width = probed.features.shape
            layers.append(Layer(probed.name, maps, height, width))
            alpha = probed.gradients.sum(dim=(1, 2))
            kept = probed.features[alpha > self._mu * alpha.max()]
            span = kept.amax(dim=(1, 2)) - kept.amin(dim=(1, 2))
            varied = kept[span > _FLAT * kept.abs().amax(dim=(1, 2))]
            if len(varied):
                blocks.append(Block(index, probed.name, varied))
            else:
                remarks[probed.name] = (
                    "every kept map is constant" if len(kept) else "no map with a positive gradient"
                )
        score = probability(
            found.logits.detach(), torch.tensor([target], device=picture.device), self._activation
        )
        return _Probe(tuple(layers), tuple(blocks), remarks, score)

    def _assembled(
        self, images: Tensor, classes: Tensor, probes: Sequence[_Probe], found: dict[tuple[int, str], Tensor]
    ) -> Explanation:
        """Fuse each picture's layer maps (SISE.md, section 4), and say which layers gave nothing."""
        layers = probes[0].layers  # the rule looks at shapes alone, so all pictures of a batch share it
        empty = classes.new_zeros(images.shape[2:], dtype=torch.float32)
        counts = {layer.name: [0] * len(probes) for layer in layers}
        fused, status = [], []
        for index, probe in enumerate(probes):
            remarks = dict(probe.remarks)
            own = [found[index, block.layer] for block in probe.blocks]
            for block, block_map in zip(probe.blocks, own, strict=True):
                counts[block.layer][index] = len(block.features)
                if not bool(block_map.any()):
                    remarks[block.layer] = "its map is constant"
            fused.append(fuse(own, self._fusion) if own else empty)
            said = "; ".join(
                f"{layer.name}: {remarks[layer.name]}" for layer in layers if layer.name in remarks
            )
            if not bool(fused[-1].any()):
                status.append(f"{UNDEFINED}: {said}")
            else:
                status.append(f"{PARTIAL}: {said}" if said else OK)
        device = images.device
        return Explanation(
            maps=torch.stack(fused).to(device),
            block_maps={
                layer.name: torch.stack(
                    [found.get((index, layer.name), empty) for index in range(len(probes))]
                ).to(device)
                for layer in layers
            },
            scores=torch.cat([probe.score for probe in probes]).to(device),
            masks={name: torch.tensor(count, device=device) for name, count in counts.items()},
            status=tuple(status),
            layers=layers,
            targets=classes.to(device),
            method=self.method,
            parameters=self.parameters,
        )


@dataclass(frozen=True)
class _Probe:
    """What the gradient pass found out about one picture; `remarks` says why a layer has no block."""

    layers: tuple[Layer, ...]
    blocks: tuple[Block, ...]
    remarks: dict[str, str]
    score: Tensor


def _check_finite(values: Tensor, model: nn.Module, layer: str, index: int, what: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise ExplainerError(
            f"{model_name(model)} gives NaN or infinity in the {what} of {layer}, image {index} of the "
            "batch; check its weights and the normalisation of the picture"
        )
