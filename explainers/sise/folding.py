"""Folding batch norms into the convolutions before them: the same function in evaluation mode, less work."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from explainers.isolation import hooked

Pairs = tuple[tuple[str, str], ...]


def foldable_pairs(model: nn.Module, image: Tensor) -> Pairs:
    """Return the batch norms that can be folded: each fed by one plain convolution, both called once.

    The picture is run through the model, to see which tensor goes where, and then through a folded copy. The
    pairs are returned only if the logits agree: hooks cannot see that a convolution's output is used
    elsewhere as well, or is changed in place on its way.

    Args:
        model: in evaluation mode, float32, without gradients.
        image: (1, C, H, W) float32.

    Returns:
        (name of the convolution, name of the batch norm) each; empty where folding would change the logits.
    """
    if not any(_is_batch_norm(module) for module in model.modules()):
        return ()
    convolutions: dict[int, tuple[str, Tensor]] = {}  # the tensor is kept so that its id stays its own
    calls: dict[str, int] = {}
    seen: list[tuple[str, str]] = []

    def note(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        calls[name] = calls.get(name, 0) + 1
        if _is_plain_convolution(module):
            convolutions[id(output)] = (name, output)
        elif id(inputs[0]) in convolutions:
            seen.append((convolutions[id(inputs[0])][0], name))

    modules = {
        name: module
        for name, module in model.named_modules()
        if _is_plain_convolution(module) or _is_batch_norm(module)
    }
    with hooked(modules, note), torch.inference_mode():
        plain = model(image)
    fed = [convolution for convolution, _ in seen]
    pairs = tuple(
        (convolution, norm)
        for convolution, norm in seen
        if calls[convolution] == calls[norm] == 1 and fed.count(convolution) == 1
    )
    folded = copy.deepcopy(model)
    fold(folded, pairs)
    with torch.inference_mode():
        same = torch.allclose(folded(image), plain, rtol=1e-3, atol=1e-4)
    return pairs if same else ()


def fold(model: nn.Module, pairs: Pairs) -> None:
    """Fold batch norms into convolutions, in place; what a norm does beside (timm's activation) stays.

    Args:
        model: in evaluation mode, float32; a structure that `foldable_pairs` has seen.
        pairs: what it returned.
    """
    modules = dict(model.named_modules())
    for convolution, norm in pairs:
        conv, bn = modules[convolution], modules[norm]
        assert isinstance(conv, nn.Conv2d)  # noqa: S101  what foldable_pairs chose, as are the statistics below
        assert isinstance(bn, nn.BatchNorm2d)  # noqa: S101
        assert bn.running_mean is not None  # noqa: S101
        assert bn.running_var is not None  # noqa: S101
        weight, bias = nn.utils.fusion.fuse_conv_bn_weights(
            conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
        )
        conv.weight, conv.bias = weight.requires_grad_(False), bias.requires_grad_(False)
        # timm's subclass drops and activates as well: its further children, in this order.
        rest = nn.Sequential(*bn.children()) if len(list(bn.children())) else nn.Identity()
        parent, _, attribute = norm.rpartition(".")
        setattr(modules[parent], attribute, rest)


def _is_plain_convolution(module: nn.Module) -> bool:
    # Not its subclasses at large: some standardise their weight in each forward pass.
    from timm.layers.conv2d_same import Conv2dSame

    return type(module) in (nn.Conv2d, Conv2dSame)


def _is_batch_norm(module: nn.Module) -> bool:
    from timm.layers.norm_act import BatchNormAct2d

    return (
        isinstance(module, nn.BatchNorm2d)
        and type(module) in (nn.BatchNorm2d, BatchNormAct2d)
        and module.running_mean is not None
        and module.running_var is not None
    )
