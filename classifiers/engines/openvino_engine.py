"""OpenVINO on the CPU: the same network, traced once and compiled for this processor."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch

from classifiers.engines.compiled_models import discard_compiled, keep_compiled, load_compiled
from classifiers.engines.engine import EngineError
from classifiers.engines.openvino_library import load_openvino

if TYPE_CHECKING:
    from classifiers.package.package import ModelPackage

_log = logging.getLogger("kensa")

# What OpenVINO calls a precision: as a setting, and among a processor's capabilities.
_PRECISIONS = {"float32": ("f32", "FP32"), "bfloat16": ("bf16", "BF16"), "float16": ("f16", "FP16")}


class OpenVinoEngine:
    """Computes with OpenVINO: each picture on its own, as many at a time as the processor's threads allow.

    One picture a request, on one stream a core, was faster on two cores than any batch (docs/results.md), and
    makes the logits of a picture independent of those that happen to be beside it.

    Args:
        compiled: from `Core.compile_model` or `Core.import_model`; its input is (1, 3, H, W).
        precision: in which it computes.
        version: of OpenVINO.
        classes: outputs of the network.
    """

    name = "openvino"

    def __init__(self, compiled: Any, precision: str, version: str, classes: int) -> None:
        self.precision = precision
        self.version = version
        self._classes = classes
        self._queue = load_openvino().AsyncInferQueue(compiled)
        self._logits = np.empty((0, classes), np.float32)
        self._queue.set_callback(self._keep)

    def _keep(self, request: Any, row: int) -> None:
        self._logits[row] = request.get_output_tensor(0).data[0]

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) float32 on the CPU."""
        pictures = batch.detach().contiguous().numpy()
        self._logits = np.empty((len(pictures), self._classes), np.float32)
        for row in range(len(pictures)):
            self._queue.start_async({0: pictures[row : row + 1]}, row, share_inputs=True)
        self._queue.wait_all()
        return torch.from_numpy(self._logits)


def open_openvino_engine(
    model: torch.nn.Module,
    package: ModelPackage,
    precision: str,
    check: Callable[[OpenVinoEngine], None],
) -> OpenVinoEngine:
    """Return a package's network compiled by OpenVINO for this processor.

    Args:
        model: the package's network in eval mode, float32, on the CPU, its logits divided by the temperature.
        package: what it is made of.
        precision: "float32", "bfloat16" or "float16".
        check: raises EngineError where an engine's logits are not the validated ones. A compiled model that
            an earlier start kept and that fails is discarded, and compiled once more.

    Raises:
        EngineError: OpenVINO is not installed or does not work, this processor does not compute in the
            precision, OpenVINO cannot convert or compute the network, or `check` refused it.
    """
    library = load_openvino()
    try:
        return _opened_engine(library, model, package, precision, check)
    except EngineError:
        raise
    except Exception as error:  # whatever OpenVINO stumbles over: torch may do
        told = " ".join(str(error).split())[:300]
        raise EngineError(
            f"engine openvino cannot compute {package.architecture}: {type(error).__name__}: {told}"
        ) from error


def _opened_engine(
    library: Any,
    model: torch.nn.Module,
    package: ModelPackage,
    precision: str,
    check: Callable[[OpenVinoEngine], None],
) -> OpenVinoEngine:
    core = library.Core()
    wanted, capability = _PRECISIONS[precision]
    if capability not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        processor = core.get_property("CPU", "FULL_DEVICE_NAME")
        raise EngineError(
            f"engine openvino: this CPU ({processor}) has no units for {precision}; set model.precision to "
            "float32, or model.engine to torch"
        )
    options = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        # OpenVINO would take bfloat16 by itself where the processor has it.
        "INFERENCE_PRECISION_HINT": wanted,
        # Whoever limits torch (OMP_NUM_THREADS) means the processor, not the library.
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }

    def checked(compiled: Any) -> OpenVinoEngine:
        engine = OpenVinoEngine(compiled, precision, _release(library), len(package.classes))
        check(engine)
        return engine

    key = _cache_key(core, package, options)
    kept = load_compiled(key)  # by an earlier start: tracing takes seconds
    if kept is not None:
        try:
            return checked(core.import_model(kept, "CPU", options))
        except (EngineError, RuntimeError) as error:
            _log.warning("the compiled model that was kept is not used, and is made anew: %s", error)
            discard_compiled(key)
    compiled = core.compile_model(_converted_model(model, package), "CPU", options)
    engine = checked(compiled)
    try:
        exported = compiled.export_model().getvalue()
    except RuntimeError as error:
        _log.warning("the compiled model is not kept, which costs seconds at each start: %s", error)
    else:
        keep_compiled(key, exported)
    return engine


def _cache_key(core: Any, package: ModelPackage, options: dict[str, Any]) -> str:
    """Return what a compiled model is kept under: a digest of all that it is made from and for."""
    parts = {
        "package": package.digest,
        "temperature": package.temperature,  # which a package in the making has not in its digest yet
        "input": package.preprocessing.input_size,
        "options": options,
        "libraries": [load_openvino().__version__, torch.__version__, timm.__version__],
        "processor": [
            core.get_property("CPU", "FULL_DEVICE_NAME"),
            core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
            torch.backends.cpu.get_cpu_capability(),
        ],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _converted_model(model: torch.nn.Module, package: ModelPackage) -> Any:
    """Return OpenVINO's form of a network for one picture at a time."""
    shape = (1, 3, *package.preprocessing.input_size)
    converted = converted_network(model, torch.zeros(shape))
    converted.reshape(shape)
    return converted


def converted_network(model: torch.nn.Module, example: torch.Tensor) -> Any:
    """Return OpenVINO's form of a network, traced with an example batch (B, 3, H, W)."""
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # that tracing is deprecated, and what it says of constants
        # Not traced a second time to compare: the package's parity check does that.
        traced = TorchScriptPythonDecoder(model, example_input=example, trace_kwargs={"check_trace": False})
        return load_openvino().convert_model(traced)


def _release(library: Any) -> str:
    """Return the release alone: "2026.4.1" of "2026.4.1-22982-e213a147257-releases/2026/4"."""
    return str(library.__version__).split("-")[0]
