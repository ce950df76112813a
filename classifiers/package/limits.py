"""Bounds on building a network from a description that nobody has vetted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from classifiers.errors import PackageError

# Making timm's networks takes 2 to 19 operations for each tensor of their state, and makes each element once.
_OPERATIONS, _ELEMENTS = 40, 4
_SPARE_OPERATIONS, _SPARE_ELEMENTS = 1_000, 2**24


class BoundedBuilding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Ends the building of a network that outgrows its weights, before it has used the memory.

    In the `with` block, on this thread, an operation raises PackageError where more elements are asked for,
    or more operations were done, than it takes to make a network with these weights.

    Args:
        weights: the tensors that the network is to hold.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._elements = _ELEMENTS * sum(tensor.numel() for tensor in weights.values()) + _SPARE_ELEMENTS
        self._operations = _OPERATIONS * len(weights) + _SPARE_OPERATIONS

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do an operation, or refuse it."""
        made = _elements_made(args)
        wanted = max(made, _elements_spread(args))
        self._operations -= 1
        if self._operations < 0 or wanted > self._elements:
            raise PackageError("a network of this description is larger than the weights of the package")
        self._elements -= made
        return func(*args, **(kwargs or {}))


def _elements_made(args: Sequence[Any]) -> int:
    """Return how many elements an operation makes from numbers alone: empty, zeros, linspace, arange."""
    first = args[0] if args else None
    if isinstance(first, list):
        return math.prod(side for side in first if isinstance(side, int))
    if isinstance(first, int | float):
        return int(max(arg for arg in args if isinstance(arg, int | float)))
    return 0


def _elements_spread(args: Sequence[Any]) -> int:
    """Return how many elements tensors of different shapes have when they are spread over each other."""
    shapes = {tuple(arg.shape) for arg in args if isinstance(arg, torch.Tensor)}
    if len(shapes) < 2:
        return 0
    try:
        return math.prod(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]
    except RuntimeError:
        return 0  # no operation element by element
