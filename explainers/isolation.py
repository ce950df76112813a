"""Running a model without leaving a trace on it, whatever the caller's torch modes are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from explainers.errors import ExplainerError
from explainers.explanation import Targets


@contextmanager
def isolated(model: nn.Module, images: Tensor, *, reparameterise: bool = False) -> Iterator[nn.Module]:
    """Yield a private float32 evaluation copy of a model, under torch's default modes.

    The copy is made at every call, because weights may have changed since the last one.

    Args:
        model: see `private_copy`.
        images: tensor whose device counts when the model has no parameters.
        reparameterise: see `private_copy`.

    Yields:
        The copy, on the model's own device.

    Raises:
        ExplainerError: the model cannot be copied.
    """
    with default_modes(model_device(model, images)):
        yield private_copy(model, reparameterise=reparameterise)


@contextmanager
def default_modes(device: torch.device) -> Iterator[None]:
    """Run a block under torch's default modes, without gradients; random state is restored at its end."""
    cuda = [device] if device.type == "cuda" else []
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
        torch.random.fork_rng(devices=cuda),
    ):
        yield


def private_copy(model: nn.Module, *, reparameterise: bool = False) -> nn.Module:
    """Return a private float32 evaluation copy of a model; to be called under `default_modes`.

    A copy is used, not set-and-restore: so mode, gradients, `requires_grad`, hooks, buffers and dtype of the
    caller's model cannot be left changed, not by an exception and not by another thread. Parameters made
    under inference mode become ordinary ones in the copy.

    Args:
        model: any eager module; one wrapped by `torch.compile` is unwrapped.
        reparameterise: fold RepVGG / MobileOne branches of timm models (same function, fewer operations).

    Raises:
        ExplainerError: the model cannot be copied.
    """
    try:
        private = copy.deepcopy(getattr(model, "_orig_mod", model))
    except (RuntimeError, TypeError) as error:
        raise ExplainerError(
            f"{model_name(model)} cannot be copied ({error}); explain an eager, uncompiled module"
        ) from error
    if not isinstance(private, nn.Module):
        raise ExplainerError(f"{type(model).__name__} is not a torch module")
    # One memory format, whatever the caller's: the last digits of a convolution depend on it.
    private = private.float().to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
    if reparameterise and type(private).__module__.startswith("timm."):
        from timm.utils.model import reparameterize_model

        private = reparameterize_model(private, inplace=True).requires_grad_(False)
    return private


@contextmanager
def hooked(
    modules: Mapping[str, nn.Module], call: Callable[[str, nn.Module, Any, Any], Tensor | None]
) -> Iterator[None]:
    """Call `call(name, module, inputs, output)` after each of `modules` during the block.

    What it returns takes the place of the output, unless it is None.
    """
    handles = [
        module.register_forward_hook(lambda part, inputs, output, name=name: call(name, part, inputs, output))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def model_name(model: nn.Module) -> str:
    """Return a model's name for people: timm's architecture name where it has one, else its class."""
    for source in ("pretrained_cfg", "default_cfg"):
        settings = getattr(model, source, None)
        architecture = settings.get("architecture") if isinstance(settings, dict) else None
        if architecture:
            return f"{architecture} ({type(model).__name__})"
    return type(model).__name__


def model_device(model: nn.Module, images: Tensor) -> torch.device:
    """Return the device of the model's first parameter or buffer; of the pictures when it has neither."""
    return next(chain(model.parameters(), model.buffers()), images).device


def private_images(images: Tensor, device: torch.device) -> Tensor:
    """Return a copy of pictures (B, C, H, W), float32 on `device`, off the caller's graph.

    Raises:
        ExplainerError: not a 4-D floating point tensor, no picture or pixel in it, or NaN or infinity in it.
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ExplainerError(
            f"images must be a (B, C, H, W) float tensor, got {tuple(images.shape)} {images.dtype}"
        )
    if images.numel() == 0:
        raise ExplainerError(f"images has no pixels: shape {tuple(images.shape)}")
    private = images.detach().to(device, torch.float32, copy=True, memory_format=torch.contiguous_format)
    finite = torch.isfinite(private).flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise ExplainerError(f"image {int(finite.int().argmin())} of the batch holds NaN or infinity")
    return private


@dataclass(frozen=True)
class Rows:
    """The rows of an explanation: one for each picture and class that is asked for.

    Attributes:
        images: (F,) int64, index of the picture in the batch, never descending.
        targets: (F,) int64, class index, 0 or more.
    """

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the picture and the class of each row."""
        return iter(zip(self.images.tolist(), self.targets.tolist(), strict=True))

    def by_image(self) -> dict[int, list[int]]:
        """Return the numbers of each picture's rows; pictures without any are left out."""
        found: dict[int, list[int]] = {}
        for row, (image, _) in enumerate(self):
            found.setdefault(image, []).append(row)
        return found


def private_rows(targets: Targets, count: int, device: torch.device) -> Rows:
    """Return the rows that the caller asks for, on `device`.

    Args:
        targets: (B,) whole-number tensor, one class per picture; or per picture a list of classes.
        count: number of pictures B.
        device: of the rows.

    Raises:
        ExplainerError: not one entry per picture, nothing at all to explain, an entry that is no whole
            number, a class twice for one picture, or a negative index.
    """
    if not isinstance(targets, Tensor):
        targets = list(targets)
        if len(targets) != count:
            raise ExplainerError(
                f"targets must be {count} lists of class indices, one per image, got {len(targets)}"
            )
        pairs: list[tuple[int, int]] = []
        for image, classes in enumerate(targets):
            if isinstance(classes, str) or not isinstance(classes, Sequence):
                raise ExplainerError(
                    f"targets must be a tensor of class indices or a list of lists of them; image {image} "
                    f"has {classes!r}"
                )
            if not all(isinstance(one, int) and not isinstance(one, bool) for one in classes):
                raise ExplainerError(f"targets of image {image} must be whole numbers, got {classes!r}")
            if len(set(classes)) != len(classes):
                raise ExplainerError(f"targets of image {image} name a class twice: {list(classes)}")
            pairs += [(image, one) for one in classes]
        if not pairs:
            raise ExplainerError("targets name no class of any image: there is nothing to explain")
        images, private = torch.tensor(pairs, dtype=torch.int64, device=device).T.contiguous()
    else:
        whole = not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)
        if targets.ndim != 1 or len(targets) != count or not whole:
            raise ExplainerError(
                f"targets must be ({count},) class indices, one per image, got {tuple(targets.shape)} "
                f"{targets.dtype}"
            )
        private = targets.detach().to(device, torch.int64, copy=True)
        images = torch.arange(count, device=device)
    if bool((private < 0).any()):
        raise ExplainerError(f"targets holds a negative class index: {int(private.min())}")
    return Rows(images, private)
