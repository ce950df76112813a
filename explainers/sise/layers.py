"""Which layers to probe: SISE's rule for the whole family of CNNs (docs/sise.md, "Layers").

SISE probes the input of every pooling or down-sampling step, and the last feature map before the global
pooling. Here the rule is a test on tensors that holds for any architecture: of the outputs of the blocks,
**for each spatial size the deepest one that is not itself a pooling output**, on the path from picture to
logits.

Choice: a head convolution may follow the last stage at the same resolution (EfficientNet, MobileNetV2,
RexNet, GhostNet, the final norm and activation of pre-activation ResNets). Then the deepest layer is that
convolution's output. It is what the global pooling sees, and so the only place of that resolution where
every map has its own weight in the class score; the stage's output before it is a linear bottleneck whose
sign means nothing. Measured with MobileNetV2 and its ImageNet weights on 21 COCO pictures, head convolution
against bottleneck: EBPG 0.38 / 0.30, mIoU 0.25 / 0.19, Bbox 0.36 / 0.31, Drop 79 / 88 %, masks 548 / 242.
The user who wants the cheaper one names the layers. MobileNetV3 and V4 pool *before* their head convolution:
there it has one position and is no layer.

Hybrids (CoAtNet, NextViT, EdgeNeXt, ...) are explained if they convolve at two or more resolutions and hand
feature maps, not tokens, to their head. A last stage of tokens (LeViT, EfficientFormer) is refused: the rule
cannot reach it, and the deepest layer is the one that says *where*. Which families of timm can be explained:
docs/models.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from explainers.errors import ExplainerError
from explainers.isolation import hooked, model_name


@dataclass(frozen=True)
class Candidates:
    """Layers on offer for one picture, in the order of computation, on one graph.

    Attributes:
        logits: (1, K) on the graph.
        features: layer name -> (1, C, h, w), on the graph of `logits` or off it.
        ruled: whether `choose` has to apply the layer rule (False: the user named the layers).
    """

    logits: Tensor
    features: dict[str, Tensor]
    ruled: bool


def candidates(
    model: nn.Module, image: Tensor, layers: Sequence[str] | None, *, compare: bool = True
) -> Candidates:
    """Return the layers on offer of one picture that is run through the model, attached to the graph.

    timm models go through `forward_intermediates` + `forward_head`; other models without named layers, and
    timm models whose intermediates do not serve (see `_through_intermediates`), through the outputs of
    their units (see `_unit_names`); named layers through hooks on those modules.

    Args:
        model: a private evaluation copy (see `isolation.isolated`), without gradients of parameters.
        image: (1, C, H, W) float32.
        layers: module names, or None for the rule.
        compare: run the model the plain way as well and compare the logits, where its layers are reached by
            another way; not needed again for a model of the same structure.

    Returns:
        The candidates, channels first even where the model keeps them last; their order is the order of
        computation, not the order of `layers`.

    Raises:
        ExplainerError: an unknown, repeated or unused layer name, a layer without feature maps, a model
            that gives no (1, K) logits.
    """
    # It requires gradients, so that there is a graph; the second clone is no leaf, so that a model may begin
    # with an in-place operation.
    image = image.clone().requires_grad_().clone()
    if layers is not None:
        _check_names(model, layers)
        return _through_hooks(model, image, layers, ruled=False)
    if (
        hasattr(model, "forward_intermediates")
        and hasattr(model, "forward_head")
        and not _channels_last(model)
    ):
        found = _through_intermediates(model, image, compare)
        if found is not None:
            return found
    return _through_hooks(model, image, _unit_names(model, image), ruled=True)


def gradients(found: Candidates, direction: Tensor, *, retain_graph: bool = False) -> dict[str, Tensor]:
    """Return the gradient of the sum of `logits * direction` at each candidate that the logits depend on.

    Args:
        found: see `candidates`.
        direction: (1, K).
        retain_graph: keep the graph for another direction.
    """
    each = torch.autograd.grad(
        found.logits,
        tuple(found.features.values()),
        direction,
        allow_unused=True,
        retain_graph=retain_graph,
    )
    return {
        name: gradient for name, gradient in zip(found.features, each, strict=True) if gradient is not None
    }


def choose(found: Candidates, path: Collection[str], model: nn.Module) -> list[str]:
    """Return the layers that the layer rule chooses among the candidates.

    Args:
        found: see `candidates`.
        path: the candidates that the logits depend on, see `gradients`.
        model: named in errors.

    Returns:
        The names of the chosen layers, shallow to deep.

    Raises:
        ExplainerError: a named layer off the path to the logits; fewer than two resolutions left.
    """
    on_path = [name for name in found.features if name in path]
    if not found.ruled:
        off = sorted(set(found.features) - set(on_path))
        if off:
            raise ExplainerError(f"{model_name(model)}: the score does not depend on layer {off[0]!r}")
        return on_path
    deepest: dict[tuple[int, int], str] = {}
    for name in on_path:
        size = (found.features[name].shape[2], found.features[name].shape[3])
        # A map of one position has nothing to say about where.
        if size != (1, 1) and not _is_pooled(found.features[name]):
            for same in [known for known in deepest if _one_resolution(known, size)]:
                del deepest[same]
            deepest[size] = name
    if len(deepest) < 2:
        sizes = ", ".join(f"{h}x{w}" for h, w in deepest) or "none"
        raise ExplainerError(
            f"{model_name(model)} offers feature maps at fewer than two resolutions ({sizes}): SISE "
            "needs a CNN that down-samples in steps, and a picture large enough for it; for an unusual "
            "model, name the layers yourself (layers=...)"
        )
    return list(deepest.values())


def _through_intermediates(model: Any, image: Tensor, compare: bool) -> Candidates | None:
    """Return the layers of timm's own list; None where that list does not hold what the rule asks for.

    That is where one of them lies beside the path from picture to logits (NASNet, PNASNet and legacy Xception
    return a ReLU made for the list alone), or is a bare convolution's output ahead of its norm and activation
    (GhostNet's and RepGhost's stem).
    """
    makers: dict[int, _MadeTensor] = {}
    convolved: set[tuple[int, int]] = set()

    def remember(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            # The outermost module comes last. A module that hands a tensor on untouched (Identity, Dropout)
            # has not made it; one that changes it in place (an activation) has: its version tells.
            known = makers.get(id(output))
            handed_on = any(part is output for part in inputs)
            if known is None or not handed_on or known.version != output._version:
                bare = isinstance(module, nn.Conv2d) or (known is not None and not handed_on and known.bare)
                makers[id(output)] = _MadeTensor(name, output, output._version, bare)
            _note_convolution(module, output, convolved)

    with hooked(dict(model.named_modules()), remember):
        final, intermediates = model.forward_intermediates(image)
    logits = checked_logits(model, model.forward_head(final))
    if compare:
        with torch.inference_mode():
            plain = checked_logits(model, model(image))
        if not torch.allclose(logits, plain, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise ExplainerError(
                f"{model_name(model)}: forward_intermediates and forward_head give other logits than the "
                "model itself; name the layers yourself (layers=...)"
            )
    if not _has_maps(final):
        raise ExplainerError(
            f"{model_name(model)} is no CNN: its head is fed {_shape(final)}, not feature maps with "
            "positions; SISE explains convolutional networks"
        )
    _refuse_without_convolutions(model, convolved)
    path = _graph_steps(logits)
    named: dict[str, Tensor] = {}
    for index, feature in enumerate([*intermediates, final]):
        if _has_maps(feature):
            made = makers.get(id(feature))
            if feature.grad_fn not in path or (made is not None and made.bare):
                return None
            position = f"intermediates.{index}"
            name = position if made is None else made.name
            taken = name in named and named[name] is not feature  # one module, called twice
            named[position if taken else name] = feature
    return Candidates(logits, named, ruled=True)


@dataclass(frozen=True)
class _MadeTensor:
    """The module that made a tensor; `output` is kept so that no other tensor takes its id."""

    name: str
    output: Tensor
    version: int
    bare: bool


def _graph_steps(logits: Tensor) -> set[Any]:
    """Return all steps of the graph behind the logits."""
    steps: set[Any] = set()
    ahead: list[Any] = [logits.grad_fn]
    while ahead:
        step = ahead.pop()
        if step is not None and step not in steps:
            steps.add(step)
            ahead += [before for before, _ in step.next_functions]
    return steps


def _through_hooks(model: nn.Module, image: Tensor, names: Sequence[str], *, ruled: bool) -> Candidates:
    kept: dict[str, Tensor] = {}
    shapeless: list[str] = []
    last = _channels_last(model)

    def keep(name: str, module: nn.Module, _inputs: Any, output: Any) -> Tensor | None:
        if not isinstance(output, Tensor) or not _has_maps(output):
            shapeless.append(name)
            return None
        kept.pop(name, None)  # a module used twice counts where it was used last
        if last and not isinstance(module, nn.Conv2d):
            # The model goes on with what is kept here, turned back: so it lies on the path.
            kept[name] = output.permute(0, 3, 1, 2)
            return kept[name].permute(0, 2, 3, 1).clone()
        kept[name] = output
        # What follows gets a copy: an in-place ReLU would otherwise overwrite the map kept here.
        return output.clone()

    modules = dict(model.named_modules())
    with hooked({name: modules[name] for name in names}, keep):
        logits = checked_logits(model, model(image))
    missing = [name for name in names if name not in kept]
    if missing:
        why = (
            "gives no (B, C, h, w) feature maps"
            if missing[0] in shapeless
            else "takes no part in the forward pass"
        )
        raise ExplainerError(f"{model_name(model)}: layer {missing[0]!r} {why}; name another one")
    return Candidates(logits, kept, ruled=ruled)


def _unit_names(model: nn.Module, image: Tensor) -> list[str]:
    """Return the names of the units that a plain model passes its feature maps through.

    A unit is what is reached by descending from the root through containers (`nn.Sequential`, lists,
    modules whose output is not feature maps): the layers of a VGG, the residual blocks of a ResNet. Inside
    a unit, paths may branch; between units there is one tensor, which is what the layer rule speaks of.
    What comes before the first convolution (a module that normalises) is the picture, not a feature map.
    """
    outputs: dict[str, bool] = {}
    convolved: set[tuple[int, int]] = set()
    begun = False

    def note(name: str, module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal begun
        begun = begun or isinstance(module, nn.Conv2d)
        outputs[name] = begun and _has_maps(output)
        if outputs[name]:
            _note_convolution(module, output, convolved)

    with torch.inference_mode(), hooked(dict(model.named_modules()), note):
        model(image)
    _refuse_without_convolutions(model, convolved)

    def descend(name: str, module: nn.Module) -> Iterator[str]:
        children = list(module.named_children())
        if outputs.get(name, False) and not (children and isinstance(module, nn.Sequential)):
            yield name
            return
        for child, part in children:
            yield from descend(f"{name}.{child}" if name else child, part)

    return list(descend("", model))


def _has_maps(output: Any) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4 and output.is_floating_point()


def _one_resolution(one: tuple[int, int], other: tuple[int, int]) -> bool:
    # A convolution without padding trims a map's rim (Inception, legacy Xception): that is no down-sampling.
    return all(max(a, b) < 1.5 * min(a, b) for a, b in zip(one, other, strict=True))


def _channels_last(model: nn.Module) -> bool:
    """Return whether modules hand on (B, h, w, C), as timm marks it (MambaOut, Sequencer, Swin)."""
    return str(getattr(model, "output_fmt", "NCHW")) == "NHWC"


def _is_pooled(feature: Tensor) -> bool:
    made_by = feature.grad_fn.name() if feature.grad_fn is not None else ""
    return "Pool" in made_by or made_by.startswith("MeanBackward")


def _note_convolution(module: nn.Module, output: Tensor, sizes: set[tuple[int, int]]) -> None:
    if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1 and output.ndim == 4:
        sizes.add((output.shape[2], output.shape[3]))


def _refuse_without_convolutions(model: nn.Module, sizes: set[tuple[int, int]]) -> None:
    # A vision transformer or an MLP-Mixer convolves once, to cut the picture into patches.
    if len(sizes) < 2:
        raise ExplainerError(
            f"{model_name(model)} is no CNN that down-samples in steps: it convolves over positions at "
            f"{len(sizes)} resolution(s), and the layer rule needs two or more; for an unusual model, name "
            "the layers yourself (layers=...)"
        )


def _check_names(model: nn.Module, layers: Sequence[str]) -> None:
    known = dict(model.named_modules())
    if isinstance(layers, str) or not layers or len(set(layers)) != len(layers):
        raise ExplainerError(f"layers must be a list of different module names, got {layers!r}")
    unknown = [name for name in layers if name not in known]
    if unknown:
        raise ExplainerError(
            f"{model_name(model)} has no layer {unknown[0]!r}; see dict(model.named_modules()) for the names"
        )


def checked_logits(model: nn.Module, logits: Any) -> Tensor:
    """Return what a model gave, if it is (B, K) logits.

    Raises:
        ExplainerError: it is something else.
    """
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ExplainerError(
            f"{model_name(model)} must return (B, K) logits, it returned {_shape(logits)}; explain a module "
            "that returns the class logits alone"
        )
    return logits


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"
