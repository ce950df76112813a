"""A model package as a file of another runtime (ONNX, OpenVINO), for those who serve it elsewhere."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from classifiers.engines.openvino_engine import converted_network
from classifiers.engines.openvino_library import load_openvino
from classifiers.errors import PackageError
from classifiers.files import whole_folder
from classifiers.package.network import fold_temperature
from classifiers.package.package import ModelPackage, build_model
from classifiers.package.parity import TOLERANCE, parity_difference, parity_pictures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Runtime = Callable[[NDArray[np.float32]], NDArray[np.float32]]

SCHEMA = 1
DESCRIPTION_FILE = "export.json"
INPUT, OUTPUT = "input", "logits"  # names of the tensors in the exported file


@dataclass(frozen=True)
class Export:
    """A model package that was exported.

    Attributes:
        folder: where its files are.
        files: name and SHA-256 of each file of the exported network.
        difference: the largest difference of its logits from the stored ones, as a share of their range.
    """

    folder: Path
    files: dict[str, str]
    difference: float


def export_package(package: ModelPackage, folder: Path, to: str) -> Export:
    """Write a package's network for another runtime, with what is needed to use it; all of it or nothing.

    The folder holds the network (float32, any number of pictures a batch, logits already divided by the
    temperature), `export.json`, and the parity pictures as PNG files with the logits that they must give.

    Args:
        package: from `load_package`.
        folder: what to make; nothing may be there.
        to: a name in `FORMATS`.

    Raises:
        PackageError: the format is unknown, the folder exists, a package of the extra is missing, the network
            cannot be converted, or its logits, computed by its own runtime, are not the validated ones.
    """
    if to not in FORMATS:
        raise PackageError(f"cannot export to {to!r}: the formats are {', '.join(FORMATS)}")
    if folder.exists() or folder.is_symlink():
        raise PackageError(f"{folder}: exists already; nothing is overwritten, choose another folder")
    write, packages = FORMATS[to]
    if missing := [name for name in packages if find_spec(name) is None]:
        raise PackageError(f"exporting to {to} needs {', '.join(missing)}: pip install 'kensa[{to}]'")
    network = build_model(package)
    fold_temperature(network, package.temperature)
    with whole_folder(folder) as unfinished:
        example = torch.zeros(2, 3, *package.preprocessing.input_size)
        try:
            runtime = write(network, example, unfinished)
        except Exception as error:
            raise PackageError(
                f"{package.path}: {package.architecture} cannot be converted to {to}: "
                f"{type(error).__name__}: {str(error)[:300]}"
            ) from error
        difference = _parity(package, runtime, to)
        files = {file.name: _sha256(file) for file in sorted(unfinished.iterdir())}
        pictures = _write_parity_pictures(package, unfinished)
        description = {
            "schema": SCHEMA,
            "format": to,
            "files": files,
            "input": {
                "name": INPUT,
                "shape": ["batch", 3, *package.preprocessing.input_size],
                "type": "float32",
                "colour": "RGB",
            },
            "output": {
                "name": OUTPUT,
                "shape": ["batch", len(package.classes)],
                "type": "float32",
                "activation": package.activation,
                "temperature": "already divided by",
            },
            "task": package.task,
            "classes": list(package.classes),
            "good_class": package.good_class,
            "preprocessing": {**package.preprocessing.record(), "fill": package.preprocessing.fill},
            "thresholds": None if package.thresholds is None else asdict(package.thresholds),
            "parity": {
                "pictures": pictures,
                "tolerance": TOLERANCE["float32"],
                "largest_difference": difference,
            },
            "package": {
                "digest": package.digest,
                "architecture": package.architecture,
                "created_at": package.created_at.isoformat(),
            },
            "versions": {name: version(name) for name in ("kensa", "torch", "timm", *packages)},
        }
        text = json.dumps(description, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        (unfinished / DESCRIPTION_FILE).write_text(text, encoding="utf-8")
    return Export(folder, files, difference)


def _parity(package: ModelPackage, runtime: Runtime, to: str) -> float:
    """Return how far the exported network's logits are from the stored ones; raise where it is too far.

    Asked are batches of one picture and of five: the network was traced with another number.
    """
    pictures = np.stack([package.preprocessing.network_input(pixels) for pixels in parity_pictures()])
    largest = 0.0
    for chosen in ([0], [1], [0, 1, 1, 0, 1]):
        try:
            logits = runtime(pictures[chosen])
        except Exception as error:
            raise PackageError(
                f"{package.path}: exported to {to}, the network does not compute {len(chosen)} pictures: "
                f"{type(error).__name__}: {str(error)[:300]}"
            ) from error
        stored = [package.parity[index] for index in chosen]
        largest = max(largest, parity_difference(stored, logits.tolist()))
    if not largest <= TOLERANCE["float32"]:
        raise PackageError(
            f"{package.path}: in {to}, the logits differ from the validated ones by {largest:.3g} of their "
            f"spread, {TOLERANCE['float32']:g} is allowed; nothing was written. The converter does not "
            f"compute {package.architecture} as it was validated: try another version, or another format"
        )
    return largest


def _write_parity_pictures(package: ModelPackage, folder: Path) -> list[dict[str, Any]]:
    """Write the parity pictures; return the name, digest and logits of each."""
    entries = []
    for number, (pixels, logits) in enumerate(zip(parity_pictures(), package.parity, strict=True), 1):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        file = folder / f"parity-{number}.png"
        file.write_bytes(stream.getvalue())
        entries.append({"file": file.name, "sha256": _sha256(file), "logits": list(logits)})
    return entries


def _write_onnx(network: torch.nn.Module, example: torch.Tensor, folder: Path) -> Runtime:
    import onnx
    import onnxruntime

    file = folder / "model.onnx"
    torch.onnx.export(
        network,
        (example,),
        file,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    # The exporter notes for each node where its line of Python lies on this machine.
    model = onnx.load(file)
    for node in model.graph.node:
        del node.metadata_props[:]
    onnx.save(model, file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def logits(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(session.run([OUTPUT], {INPUT: batch})[0])

    return logits


def _write_openvino(network: torch.nn.Module, example: torch.Tensor, folder: Path) -> Runtime:
    library = load_openvino()
    model = converted_network(network, example)
    model.reshape((-1, *example.shape[1:]))
    for port, name in ((model.inputs[0], INPUT), (model.outputs[0], OUTPUT)):
        port.get_tensor().set_names({name})
    file = folder / "model.xml"  # and model.bin beside it
    library.save_model(model, file, compress_to_fp16=False)
    # OpenVINO would take bfloat16 by itself where the processor has it.
    compiled = library.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def logits(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(compiled({INPUT: batch})[OUTPUT])

    return logits


# Of each format: what writes it, and the packages of its extra, which has the format's name.
FORMATS: dict[str, tuple[Callable[[torch.nn.Module, torch.Tensor, Path], Runtime], tuple[str, ...]]] = {
    "onnx": (_write_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "openvino": (_write_openvino, ("openvino",)),
}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
