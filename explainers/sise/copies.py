"""The private copies of a model that SISE works with, and what is found out about it once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from explainers.errors import ExplainerError
from explainers.scoring import Precision, prepare_for_masks
from explainers.sise.folding import Pairs, fold
from explainers.sise.probing import Tap

Size = tuple[int, int]
Structure = tuple[tuple[str, type], ...]


@dataclass(frozen=True)
class Forward:
    """What scores masked pictures, and the form in which it takes them.

    Attributes:
        call: from pictures (n, C, H, W) to logits (n, K).
        dtype: of the pictures.
        memory_format: of the pictures.
    """

    call: Callable[[Tensor], Tensor]
    dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.contiguous_format


@dataclass
class Copies:
    """Private copies of one model, for one call at a time.

    Attributes:
        plain: as `isolation.private_copy` makes it.
        structure: its modules' names and types.
        folded: of a constant model, the same function in float32: its batch norms folded into convolutions
            where they can be, its weights channels-last.
        masked: of a constant model, `folded` in the precision of the masked passes.
        ways: of a constant model, picture size -> modules of `folded` that give what the layer rule finds in
            `plain`; None where none do.
    """

    plain: nn.Module
    structure: Structure
    folded: nn.Module | None = None
    masked: nn.Module | None = None
    ways: dict[Size, tuple[str, ...] | None] = field(default_factory=dict)


def folded_copy(model: nn.Module, pairs: Pairs) -> nn.Module:
    """Return a float32 copy for masked passes, with the batch norms of `foldable_pairs` folded."""
    folded = copy.deepcopy(model)
    fold(folded, pairs)
    prepare_for_masks(folded, "float32")
    return folded


def in_precision(model: nn.Module, precision: Precision) -> nn.Module:
    """Return a private float32 model in a precision: itself for float32, else a copy."""
    if precision == "float32":
        return model
    reduced = copy.deepcopy(model)
    prepare_for_masks(reduced, precision)
    return reduced


def forward_of(model: nn.Module) -> Forward:
    """Return how masked pictures are scored by a model that `prepare_for_masks` has seen."""
    dtype = next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)
    return Forward(model, dtype, torch.channels_last)


def checked_forward(call: Callable[[Tensor], Tensor], classes: int) -> Forward:
    """Return how masked pictures are scored by the caller's own function, whose answers are checked.

    Raises:
        ExplainerError: when it is called, if it does not return (n, K) logits of `classes` classes.
    """

    def checked(pictures: Tensor) -> Tensor:
        logits = call(pictures)
        if not isinstance(logits, Tensor) or logits.shape != (len(pictures), classes):
            given = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise ExplainerError(
                f"forward={getattr(call, '__qualname__', type(call).__name__)} must return "
                f"{(len(pictures), classes)} logits, as the model does, it returned {given}"
            )
        return logits.to(pictures.device)

    return Forward(checked)


def same_probes(one: Sequence[Tap], other: Sequence[Tap]) -> bool:
    """Return whether two gradient passes found the same maps and the same gradients, but for rounding."""
    return len(one) == len(other) and all(
        _close(first.features, second.features) and _close(first.alpha, second.alpha)
        for first, second in zip(one, other, strict=True)
    )


def _close(one: Tensor, other: Tensor) -> bool:
    # A hundredth: convolutions in TF32 round by thousandths, and another map would differ by far more.
    return one.shape == other.shape and bool((one - other).abs().amax() <= 1e-2 * one.abs().amax())
