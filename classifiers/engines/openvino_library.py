"""OpenVINO, loaded in one place: later than anything else, and without its telemetry."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

from classifiers.engines.engine import EngineError


def load_openvino() -> ModuleType:
    """Return the library.

    Raises:
        EngineError: the extra `openvino` is not installed.
    """
    # Importing OpenVINO sends an event to its makers, unless this package is absent. kensa sends nothing to
    # anybody, so it is made absent: OpenVINO then uses a stub of its own.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: cannot be imported
    try:
        return import_module("openvino")
    except ImportError as error:
        raise EngineError(
            f"engine openvino is not installed here ({error}): install the extra (`pip install "
            "'kensa[openvino]'`), or set model.engine to torch"
        ) from error
