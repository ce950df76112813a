"""What every engine offers: the logits of a network, however they are computed."""

from __future__ import annotations

from typing import Protocol

import torch

from classifiers.errors import PackageError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Engine(Protocol):
    """One way to compute the logits of a package's network.

    An engine is called from one thread at a time.
    """

    @property
    def name(self) -> str:
        """What settings and the record call it: "torch" or "openvino"."""
        ...

    @property
    def precision(self) -> str:
        """In which it computes: "float32", "bfloat16" or "float16"."""
        ...

    @property
    def version(self) -> str:
        """Of the library that computes."""
        ...

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) float32, divided by the temperature, on the batch's device.

        Args:
            batch: normalised input (B, 3, H, W) float32, on the device of the predictor; B may be any number,
                also 0.

        Returns:
            logits; they may be infinite or no number where a reduced precision overflows.
        """
        ...


class EngineError(PackageError):
    """An engine cannot compute this package on this machine; another one may."""
