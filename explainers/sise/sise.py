"""SISE: semantic input sampling for explanation (Sattarzadeh et al., AAAI 2021, arXiv 2010.00672)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from explainers.errors import ExplainerError
from explainers.explainer import Explainer
from explainers.explanation import OK, PARTIAL, UNDEFINED, Explanation, Layer
from explainers.isolation import Rows, private_copy
from explainers.maps import FLAT, Fusion, fuse, minmax, otsu_threshold
from explainers.scoring import (
    Activation,
    Block,
    Precision,
    Scored,
    prepare_for_masks,
    score_masks,
    weighted_masks,
)
from explainers.sise.copies import (
    Copies,
    Forward,
    Structure,
    checked_forward,
    folded_copy,
    forward_of,
    in_precision,
    same_probes,
)
from explainers.sise.folding import Pairs, fold, foldable_pairs
from explainers.sise.probing import Tap, probe


@dataclass(frozen=True, kw_only=True)
class Kept(Block):
    """A block whose maps at least one of the picture's classes keeps.

    Attributes:
        keeps: (R, n) bool on the CPU, which maps each class keeps.
    """

    keeps: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Sise(Explainer):
    """Explains a CNN's score by masking the picture with the CNN's own feature maps.

    One gradient pass per picture chooses the feature maps that speak for the class, at every resolution. Each
    becomes a mask, and the model scores the picture seen through it. The masks, weighted by score and area,
    make a map per layer. The layer maps are fused from shallow to deep. Every step and edge case:
    docs/sise.md.

    A picture's maps do not depend on what else is in the batch, beyond the last float32 digits: the gradient
    pass runs picture by picture, and the masked passes of a call have one shape. Several classes of one
    picture share the forward part of the gradient pass. A mask that more than one of them keeps is scored
    for all of them in one masked pass.

    Attributes:
        layers: module names to probe, or None for the rule of `explainers.sise.layers`.
        activation: "softmax" (single-label) or "sigmoid" (multi-label, single-logit).
        mu: keep the maps whose gradient exceeds `mu` times the layer's largest; in [0, 1).
        batch_size: masked pictures per forward pass: 4-16 is best on a CPU, hundreds on a GPU.
        baseline: what masked-out pixels become: "mean" (0 in normalised space) or "black".
        fusion: "otsu" as published, or "soft" as in the authors' course code.
        mean: per channel, of the normalisation; needed for "black".
        std: per channel, of the normalisation; needed for "black".
        precision: of the masked passes, "float32" (also None), "bfloat16" or "float16". The gradient pass
            and all sums are float32.
    """

    method = "sise"

    layers: Sequence[str] | None = None
    activation: Activation = "softmax"
    mu: float = 0.0
    batch_size: int = 16
    baseline: str = "mean"
    fusion: Fusion = "otsu"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    precision: Precision = "float32"
    # Structures of models met before, and which of their batch norms can be folded: what takes extra passes
    # to find out is found out once.
    _met: set[Structure] = field(default_factory=set, init=False, repr=False)
    _foldable: dict[Structure, Pairs] = field(default_factory=dict, init=False, repr=False)
    # Of a constant model; as many as there were calls at the same time.
    _kept_copies: list[Copies] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        mean, std = self.mean, self.std
        if self.baseline == "black" and (not mean or not std or len(mean) != len(std) or min(std) <= 0):
            raise ExplainerError(
                "baseline='black' needs the normalisation's mean and std, one per channel, std > 0"
            )

    def _explain(self, pictures: Tensor, rows: Rows) -> Explanation:
        try:
            copies = self._kept_copies.pop()  # nobody else's for this call
        except IndexError:
            plain = private_copy(self.model, reparameterise=self.layers is None)
            copies = Copies(plain, tuple((name, type(module)) for name, module in plain.named_modules()))
        explanation = self._explained(copies, pictures, rows)
        if self.constant:
            self._kept_copies.append(copies)
        return explanation

    def _explained(self, copies: Copies, pictures: Tensor, rows: Rows) -> Explanation:
        floor = self._floor(pictures)  # before the long work: it may refuse the pictures
        asked = rows.by_image()
        model, layers = self._way(copies, pictures, rows)
        probes: dict[int, tuple[list[Tap], Tensor]] = {}
        kept: list[Kept] = []
        outputs = 0
        compare = copies.structure not in self._met
        for image, own in asked.items():
            taps, scores, outputs = probe(
                model,
                image,
                pictures[image, None],
                rows.targets[own],
                layers=layers,
                activation=self.activation,
                compare=compare and not probes,
            )
            probes[image] = taps, scores
            kept += self._kept(image, taps)
        self._met.add(copies.structure)
        classes = rows.targets.new_zeros(len(pictures), max(map(len, asked.values())))
        for image, own in asked.items():
            classes[image, : len(own)] = rows.targets[own]
        scored = []
        if kept:
            forward = self._forward_for_masks(copies, pictures[:1], outputs)
            scored = self._scored(forward, pictures, classes, kept, floor)
        made = {
            (block.image, block.layer): (one, _layer_maps(block, one, pictures.shape[2:]))
            for block, one in zip(kept, scored, strict=True)
        }
        return self._assembled(pictures, rows, probes, made)

    def _way(self, copies: Copies, pictures: Tensor, rows: Rows) -> tuple[nn.Module, Sequence[str] | None]:
        """Return the copy that the gradient pass runs on, and the layers to name to it.

        Once the layer rule has chosen the layers of a constant model, they are named: nothing else has to be
        looked at. And its folded copy takes fewer steps.
        """
        if not self.constant:
            return copies.plain, self.layers
        size = (pictures.shape[2], pictures.shape[3])
        if size not in copies.ways:
            copies.ways[size] = self._layer_names(copies, pictures, rows)
        names = copies.ways[size]
        if names is None or copies.folded is None:
            return copies.plain, self.layers
        return copies.folded, names

    def _layer_names(self, copies: Copies, pictures: Tensor, rows: Rows) -> tuple[str, ...] | None:
        """Return the chosen layers, if they can be had by their names from the folded copy; else None."""
        image, own = next(iter(rows.by_image().items()))
        asked = image, pictures[image, None], rows.targets[own]
        taps, *_ = probe(copies.plain, *asked, layers=self.layers, activation=self.activation)
        if copies.folded is None:
            copies.folded = folded_copy(copies.plain, self._pairs(copies, pictures[:1]))
        names = tuple(tap.name for tap in taps)
        if not set(names) <= {name for name, _ in copies.folded.named_modules()}:
            return None
        again, *_ = probe(copies.folded, *asked, layers=names, activation=self.activation)
        return names if same_probes(taps, again) else None

    def _pairs(self, copies: Copies, picture: Tensor) -> Pairs:
        """Return which batch norms are to be folded, found out once for a structure.

        None on CUDA: cuDNN's convolutions have no bias of their own, and what PyTorch adds one by there takes
        longer than a batch norm. On an H200, ResNet-50's float16 passes take 2.5 times as long when folded.
        """
        if picture.is_cuda:
            return ()
        if copies.structure not in self._foldable:
            self._foldable[copies.structure] = foldable_pairs(copies.plain, picture)
        return self._foldable[copies.structure]

    def _forward_for_masks(self, copies: Copies, picture: Tensor, outputs: int) -> Forward:
        """Return what scores masked pictures; a copy of a model that may change is used up by it."""
        if self.forward is not None:
            return checked_forward(self.forward, outputs)
        if copies.folded is None:
            fold(copies.plain, self._pairs(copies, picture))
            prepare_for_masks(copies.plain, self.precision)
            return forward_of(copies.plain)
        if copies.masked is None:
            copies.masked = in_precision(copies.folded, self.precision)
        return forward_of(copies.masked)

    def _keeps(self, alpha: Tensor) -> Tensor:
        """Return which maps each class keeps: (R, C) bool, of alpha (R, C)."""
        return alpha > self.mu * alpha.amax(dim=1, keepdim=True)

    def _scored(
        self,
        forward: Forward,
        pictures: Tensor,
        classes: Tensor,
        kept: Sequence[Kept],
        floor: Tensor | None,
    ) -> list[Scored]:
        """Return the scores of every mask of every block; a class's passes are the masks it keeps."""
        scored = self._model_scores(forward, pictures, classes, kept, floor)
        return [replace(one, passes=block.keeps.sum(dim=1)) for block, one in zip(kept, scored, strict=True)]

    def _model_scores(
        self,
        forward: Forward,
        pictures: Tensor,
        classes: Tensor,
        blocks: Sequence[Block],
        floor: Tensor | None,
    ) -> list[Scored]:
        """Return the model's scores of every mask of some blocks."""
        return score_masks(
            forward.call,
            pictures,
            classes,
            blocks,
            activation=self.activation,
            batch_size=self.batch_size,
            floor=floor,
            dtype=forward.dtype,
            memory_format=forward.memory_format,
        )

    def _finished_map(self, fused: Tensor) -> Tensor:
        """Return a fused map (H, W) in [0, 1] after the method's last step."""
        return fused

    def _kept(self, image: int, taps: Sequence[Tap]) -> list[Kept]:
        """Return the maps that become masks: those that a class keeps and that are not constant."""
        told = on_cpu([torch.cat([tap.alpha, _varied(tap.features)[None].float()]) for tap in taps])
        kept = []
        for tap, one in zip(taps, told, strict=True):
            keeps = self._keeps(one[:-1]) & (one[-1] > 0)
            at = keeps.any(dim=0).nonzero()[:, 0]
            if len(at):
                features = tap.features[at.to(tap.features.device)]
                kept.append(Kept(image, tap.name, features, keeps=keeps[:, at]))
        return kept

    def _floor(self, pictures: Tensor) -> Tensor | None:
        channels = pictures.shape[1]
        if self.baseline == "mean":
            return None
        mean, std = pictures.new_tensor(self.mean), pictures.new_tensor(self.std)
        if len(mean) != channels:
            raise ExplainerError(f"mean and std have {len(mean)} values, the images {channels} channels")
        return (-mean / std)[:, None, None]

    def _assembled(
        self,
        pictures: Tensor,
        rows: Rows,
        probes: dict[int, tuple[list[Tap], Tensor]],
        made: dict[tuple[int, str], tuple[Scored, Tensor]],
    ) -> Explanation:
        """Return each row's fused map (docs/sise.md, "Fusion"), and which layers gave nothing."""
        empty = pictures.new_zeros(pictures.shape[2:])
        # The rule looks at shapes alone, so all pictures of a batch share the layers.
        layers = tuple(Layer(tap.name, *tap.features.shape) for tap in next(iter(probes.values()))[0])
        block_maps: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
        masks: dict[str, list[int]] = {layer.name: [] for layer in layers}
        errors: dict[str, list[float]] = {layer.name: [] for layer in layers}
        places = list(made)
        alive = on_cpu([made[place][1].flatten(1).any(dim=1) for place in places]) if made else []
        told = dict(zip(places, (one.tolist() for one in alive), strict=True))
        fused: list[Tensor] = []
        remarks: list[str] = []
        for image, (taps, _) in probes.items():
            for row in range(len(taps[0].alpha)):
                own, own_remarks = [], []
                for tap in taps:
                    count, error, block_map = 0, 0.0, empty
                    if (image, tap.name) in made:
                        scored, maps = made[image, tap.name]
                        count, error = int(scored.passes[row]), float(scored.error[row])
                    if count:
                        block_map = maps[row]
                        own.append(block_map)
                    block_maps[tap.name].append(block_map)
                    masks[tap.name].append(count)
                    errors[tap.name].append(error)
                    if not (count and told[image, tap.name][row]):
                        own_remarks.append(f"{tap.name}: {self._why_empty(tap, row, count)}")
                fused.append(self._finished_map(fuse(own, self.fusion)) if own else empty)
                remarks.append("; ".join(own_remarks))
        status = []
        for defined, reasons in zip(torch.stack(fused).flatten(1).any(dim=1).tolist(), remarks, strict=True):
            if not defined:
                status.append(f"{UNDEFINED}: {reasons}")
            else:
                status.append(f"{PARTIAL}: {reasons}" if reasons else OK)
        return Explanation(
            maps=torch.stack(fused),
            block_maps={name: torch.stack(each) for name, each in block_maps.items()},
            scores=torch.cat([scores for _, scores in probes.values()]),
            masks={name: rows.targets.new_tensor(count) for name, count in masks.items()},
            score_errors={name: pictures.new_tensor(error) for name, error in errors.items()},
            status=tuple(status),
            layers=layers,
            targets=rows.targets,
            images=rows.images,
            method=self.method,
            parameters=self.parameters,
        )

    def _why_empty(self, tap: Tap, row: int, count: int) -> str:
        if count:
            return "its map is constant"
        if bool(self._keeps(tap.alpha[row, None].cpu()).any()):
            return "every kept map is constant"
        return "no map with a positive gradient"


@dataclass(frozen=True, kw_only=True, eq=False)
class AdaSise(Sise):
    """Ada-SISE (Sudhakar et al., ICASSP 2021, arXiv 2102.07799): SISE with an adaptive `mu` per layer.

    The positive gradients of a layer's maps, over their maximum, are split by Otsu's threshold of that
    one-dimensional set, and the maps above it are kept; all of them where they are equal.
    """

    method = "ada-sise"

    mu: float = field(default=0.0, init=False)  # no option of this method

    def _keeps(self, alpha: Tensor) -> Tensor:
        keeps = alpha > 0
        for row, own in zip(keeps, alpha, strict=True):
            positive = own[row]
            if len(positive) and bool(positive.amax() > positive.amin()):
                share = (positive / positive.amax()).double()
                row[row.clone()] = share > otsu_threshold(share[None]).to(share.device)
        return keeps


def on_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of one type on the CPU; the device is waited for once."""
    together = torch.cat([one.flatten() for one in tensors]).cpu()
    parts = torch.split(together, [one.numel() for one in tensors])
    return [part.view(one.shape) for part, one in zip(parts, tensors, strict=True)]


def _varied(features: Tensor) -> Tensor:
    """Return which maps (n, h, w) are not constant: (n,) bool."""
    span = features.amax(dim=(1, 2)) - features.amin(dim=(1, 2))
    return span > FLAT * features.abs().amax(dim=(1, 2))


def _layer_maps(block: Kept, scored: Scored, size: Sequence[int]) -> Tensor:
    """Return V of docs/sise.md, "Scores and layer maps", per class: (R, H, W) float32 in [0, 1]."""
    parts = (
        block.keeps.to(scored.scores.device)
        * scored.scores.double().T[: len(block.keeps)]
        / scored.area.double()
    )
    sums = weighted_masks(block.features, scored.low, scored.span, parts, (size[0], size[1]))
    # No mask exceeds 1, so no V exceeds the sum of its weights. Against that sum it is judged flat or not.
    return minmax(sums, noise=FLAT * parts.sum(dim=1)).float()
