"""Models to evaluate: a model package, or an architecture with a local file of weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torchvision
from torch import Tensor, device, nn

from classifiers import Predictor, Preprocessing, load_package
from classifiers.package.manifest import canonical
from classifiers.package.network import create_network
from classifiers.predict import resolve_device
from explainers.errors import ExplainerError
from explainers.evaluation.samples import read_csv
from explainers.scoring import Activation

_TORCHVISION = "torchvision:"


@dataclass(frozen=True)
class EvaluatedModel:
    """A classifier with all that is needed to judge explanations of it.

    Attributes:
        name: for people.
        network: float32, eval mode, on `device`; returns (B, K) logits.
        preprocessing: how pixels become its input.
        activation: "softmax" or "sigmoid".
        indices: class name -> the outputs that mean it; of several, a sample's most probable is explained.
        digest: SHA-256 of the weights and of all the above.
        device: where the network is.
    """

    name: str
    network: nn.Module = field(repr=False)
    preprocessing: Preprocessing
    activation: Activation
    indices: dict[str, tuple[int, ...]]
    digest: str
    device: device


def package_model(folder: Path, device: str = "auto") -> EvaluatedModel:
    """Load a model package written by `kensa train`.

    Args:
        folder: the package.
        device: "auto" or a torch device.

    Raises:
        PackageError: a package or device that cannot be used.
    """
    package = load_package(folder)
    predictor = Predictor(package, device=device, engine="torch", precision="float32")
    return EvaluatedModel(
        name=f"{package.path.name} ({package.architecture})",
        network=predictor.model,
        preprocessing=package.preprocessing,
        activation=package.activation,
        indices={name: (index,) for index, name in enumerate(package.classes)},
        digest=package.digest,
        device=predictor.device,
    )


def weights_model(
    architecture: str,
    weights: Path,
    *,
    outputs: int,
    indices: Mapping[str, Sequence[int]],
    preprocessing: Preprocessing,
    activation: Activation = "softmax",
    model_args: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> EvaluatedModel:
    """Build a network and load its weights from a local .safetensors file.

    Args:
        architecture: a name of timm, or "torchvision:NAME" of torchvision's classifiers.
        weights: the file; nothing is ever fetched.
        outputs: number of the network's outputs K.
        indices: class name -> outputs that mean it, each below K.
        preprocessing: how pixels become input.
        activation: "softmax", or "sigmoid" for a multi-label network.
        model_args: further arguments of the architecture.
        device: "auto" or a torch device.

    Raises:
        ExplainerError: an unknown architecture, weights that cannot be read or do not fit, an index outside.
        PackageError: a timm architecture or device that cannot be used.
    """
    for name, numbers in indices.items():
        if not numbers or not all(0 <= number < outputs for number in numbers):
            raise ExplainerError(f"class {name!r} is mapped to {list(numbers)}; there are {outputs} outputs")
    if weights.suffix != ".safetensors":
        raise ExplainerError(f"{weights}: weights are read from .safetensors files alone; convert them first")
    try:
        data = weights.read_bytes()
        state = safetensors.torch.load(data)
    except (OSError, safetensors.SafetensorError) as error:
        raise ExplainerError(f"{weights}: cannot be read as safetensors: {error}") from error
    network = _build_network(architecture, dict(model_args or {}), outputs)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ExplainerError(f"{weights}: does not fit {architecture}: {error}") from error
    where = resolve_device(device)
    chosen = {name: tuple(numbers) for name, numbers in indices.items()}
    content = {
        "weights": hashlib.sha256(data).hexdigest(),
        "architecture": architecture,
        "model_args": dict(model_args or {}),
        "outputs": outputs,
        "indices": {name: list(numbers) for name, numbers in chosen.items()},
        "preprocessing": preprocessing.record(),
        "activation": activation,
    }
    return EvaluatedModel(
        name=f"{weights.stem} ({architecture})",
        network=network.float().eval().to(where),
        preprocessing=preprocessing,
        activation=activation,
        indices=chosen,
        digest=hashlib.sha256(canonical(content)).hexdigest(),
        device=where,
    )


def read_mapping(path: Path, index_column: str, class_column: str) -> dict[str, tuple[int, ...]]:
    """Read from a CSV, with one row for each output, which outputs mean which class.

    Args:
        path: the CSV; rows whose class is empty are passed over.
        index_column: whole numbers, 0 for the first output.
        class_column: class names.

    Raises:
        ExplainerError: naming file and line.
    """
    found: dict[str, list[int]] = {}
    for line, row in read_csv(path, (index_column, class_column)):
        if not re.fullmatch("[0-9]+", row[index_column]):
            raise ExplainerError(f"{line}: {index_column} must be a whole number, got {row[index_column]!r}")
        if row[class_column]:
            found.setdefault(row[class_column], []).append(int(row[index_column]))
    if not found:
        raise ExplainerError(f"{path}: maps no output to a class")
    return {name: tuple(numbers) for name, numbers in found.items()}


def explained_index(model: EvaluatedModel, logits: Tensor, label: str) -> tuple[int, bool]:
    """Return the output to explain for a class.

    Args:
        model: the model.
        logits: (K,) of the picture.
        label: the class.

    Returns:
        The most probable output among those that mean the class; whether it is the most probable of all.
    """
    numbers = model.indices[label]
    best = max(numbers, key=lambda number: float(logits[number]))
    return best, int(logits.argmax()) in numbers


def _build_network(architecture: str, model_args: dict[str, Any], outputs: int) -> nn.Module:
    if not architecture.startswith(_TORCHVISION):
        return create_network(architecture, model_args, outputs)
    name = architecture.removeprefix(_TORCHVISION)
    known = torchvision.models.list_models(module=torchvision.models)  # classifiers alone
    if name not in known:
        raise ExplainerError(f"{name!r} is not a classifier of torchvision; there is: {', '.join(known)}")
    if reserved := {"weights", "weights_backbone", "num_classes"} & set(model_args):
        raise ExplainerError(f"model_args may not hold {', '.join(sorted(reserved))}")
    # GoogLeNet and Inception warn, and take half a minute, unless told not to draw weights we replace.
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    try:
        network = torchvision.models.get_model(
            name, weights=None, num_classes=outputs, **{**extra, **model_args}
        )
    except (TypeError, ValueError) as error:
        raise ExplainerError(f"torchvision cannot build {name} with {model_args}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ExplainerError(f"torchvision's {name} is not a module")
    return network
