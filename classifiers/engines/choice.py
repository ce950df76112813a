"""Which engine computes: the one that the settings name, or the fastest that this machine has."""

from __future__ import annotations

from importlib.util import find_spec

ENGINES = ("torch", "openvino")


def openvino_installed() -> bool:
    """Return whether the extra `openvino` is installed; it is not loaded."""
    return find_spec("openvino") is not None


def automatic_engine(device_type: str) -> str:
    """Return the engine that "auto" tries first on a device of this type, such as "cpu"."""
    return "openvino" if device_type == "cpu" and openvino_installed() else "torch"
