"""Which engine computes: the one that the settings name, or the fastest that this machine has."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

import torch

ENGINES = ("torch", "openvino")


def openvino_installed() -> bool:
    """Return whether the extra `openvino` is installed; it is not loaded."""
    return find_spec("openvino") is not None


def automatic_engine(device_type: str) -> str:
    """Return the engine that "auto" tries first on a device of this type, such as "cpu"."""
    return "openvino" if device_type == "cpu" and openvino_installed() else "torch"


def fast_precisions(device_type: str) -> tuple[str, ...]:
    """Return the precisions that a device of this type has units for, the fastest first; float32 is one.

    float16 has three more bits of mantissa than bfloat16. Where it overflows, which is rare,
    `Predictor.logits` falls back to float32.
    """
    if device_type == "cuda":
        return ("float16", "bfloat16", "float32")
    if device_type == "cpu" and bfloat16_units():
        return ("bfloat16", "float32")
    return ("float32",)


def bfloat16_units() -> bool:
    """Return whether this CPU multiplies bfloat16; without, torch does it in many more steps than float32.

    torch before 2.12 does not say which units there are: then False.
    """
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) is True for name in ("avx512_bf16", "amx_bf16", "bf16"))
