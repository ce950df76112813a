"""The model package: a folder with `model.safetensors` and `model.json`; its digest is its version."""

from __future__ import annotations

import hashlib
import os
import reprlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch

from classifiers.errors import PackageError
from classifiers.files import whole_folder
from classifiers.package import manifest
from classifiers.package.network import create_network
from classifiers.package.parity import parity_logits
from classifiers.package.precisions import ReducedPrecision
from classifiers.package.preprocessing import Preprocessing
from classifiers.package.thresholds import Thresholds
from classifiers.package.tiling import Tiling

WEIGHTS_FILE = "model.safetensors"
MANIFEST_FILE = "model.json"
LARGEST_HEADER = 4 * 2**20  # bytes of model.safetensors that list its tensors; some 100 for each
# Formats that can run code when they are read, or that nobody here reads: none may lie beside the weights.
FOREIGN_WEIGHTS = (
    ".pt",
    ".pth",
    ".bin",
    ".pkl",
    ".pickle",
    ".ckpt",
    ".joblib",
    ".npy",
    ".npz",
    ".h5",
    ".onnx",
)


@dataclass(frozen=True)
class ModelPackage:
    """A model package, as read from or written to a disk.

    Attributes:
        path: the folder.
        digest: SHA-256 of the canonical JSON of everything in model.json but the digest itself; it covers the
            weights through their own SHA-256. This is the model's version.
        weights_sha256: SHA-256 of model.safetensors.
        architecture: a timm model name.
        model_args: further arguments of `timm.create_model`.
        classes: class names in the order of the network's outputs.
        good_class: the class that means "no defect"; None in multi-label packages.
        task: "single-label" or "multi-label".
        preprocessing: how pixels become the network's input.
        temperature: what logits are divided by (Guo et al. 2017, "On calibration of modern neural networks").
        thresholds: the thresholds between pass, review and reject with their evidence; None until calibrated.
            They are float32's, but in the package of a `Predictor`: there those of its precision.
        training: how the model was made: data digests, settings, command, metrics.
        parity: logits, already divided by the temperature, for the test pictures of `parity.py`.
        created_at: when the package was written (aware, UTC).
        reduced: what it was calibrated to in other precisions, each with its own thresholds. The field is in
            model.json only where there is one.
        tiling: how pictures are cut into tiles, and their scores put together; None where the network sees a
            picture as a whole. The field is in model.json only where there is one.
    """

    path: Path
    digest: str
    weights_sha256: str
    architecture: str
    model_args: dict[str, Any]
    classes: tuple[str, ...]
    good_class: str | None
    task: str
    preprocessing: Preprocessing
    temperature: float
    thresholds: Thresholds | None
    training: dict[str, Any]
    parity: tuple[tuple[float, ...], ...]
    created_at: datetime
    reduced: tuple[ReducedPrecision, ...] = ()
    tiling: Tiling | None = None

    @property
    def activation(self) -> Literal["softmax", "sigmoid"]:
        """What turns logits into probabilities: "softmax" for single-label, "sigmoid" for multi-label."""
        return "softmax" if self.task == "single-label" else "sigmoid"

    @property
    def good_index(self) -> int | None:
        """The index of the good class, or None where there is none."""
        return None if self.good_class is None else self.classes.index(self.good_class)

    @property
    def calibrated_by_precision(self) -> bool:
        """Whether it decides only in precisions that it was calibrated in; before 0.3 packages did in any."""
        calibration = self.training.get("calibration")
        return isinstance(calibration, dict) and "precisions" in calibration

    def reduced_to(self, engine: str, precision: str) -> ReducedPrecision | None:
        """Return the calibration for a precision other than float32, by this engine; None without one."""
        return next((one for one in self.reduced if (one.engine, one.precision) == (engine, precision)), None)


def load_package(path: str | os.PathLike[str]) -> ModelPackage:
    """Read a model package and check it: schema, digests, no foreign weights, nothing outside the folder.

    Raises:
        PackageError: the message names the file and what is wrong with it.
    """
    folder = Path(path)
    if not folder.is_dir():
        hint = " (a package is the folder, not a weights file)" if folder.is_file() else ""
        raise PackageError(f"{folder}: no model package here{hint}")
    for name in (MANIFEST_FILE, WEIGHTS_FILE):
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise PackageError(f"{folder / name}: must be a regular file inside the package")
    for entry in sorted(folder.rglob("*")):
        if entry.suffix.lower() in FOREIGN_WEIGHTS:
            raise PackageError(f"{entry}: only {WEIGHTS_FILE} is accepted as weights; remove this file")
    package = _from_content(folder, manifest.read(folder / MANIFEST_FILE))
    with (folder / WEIGHTS_FILE).open("rb") as weights:
        actual = hashlib.file_digest(weights, "sha256").hexdigest()
    if actual != package.weights_sha256:
        raise PackageError(
            f"{folder / WEIGHTS_FILE}: SHA-256 is {actual}, {MANIFEST_FILE} says {package.weights_sha256}; "
            "the weights are not the ones that were validated"
        )
    return package


def save_package(
    path: str | os.PathLike[str],
    model: torch.nn.Module,
    *,
    architecture: str,
    model_args: Mapping[str, Any],
    classes: tuple[str, ...],
    good_class: str | None,
    task: str,
    preprocessing: Preprocessing,
    temperature: float = 1.0,
    thresholds: Thresholds | None = None,
    reduced: Sequence[ReducedPrecision] = (),
    tiling: Tiling | None = None,
    training: Mapping[str, Any] | None = None,
    created_at: datetime | None = None,
) -> ModelPackage:
    """Write a model package, all of it or nothing, and read it back.

    Args:
        path: the folder to make. It must not exist: a package is never overwritten.
        model: the network whose weights are stored; its logits are raw (not divided by the temperature). It
            is left as it was found.
        architecture: a timm model name, from which `build_model` makes the network.
        model_args: further arguments of `timm.create_model`.
        classes: class names in the order of the outputs.
        good_class: the class that means "no defect", or None.
        task: "single-label" or "multi-label".
        preprocessing: how pixels become the network's input.
        temperature: what logits are to be divided by.
        thresholds: with their evidence; None when not calibrated.
        reduced: what was calibrated in other precisions than float32.
        tiling: how pictures are tiled; None where the network sees them as a whole.
        training: JSON content: data digests, settings, command, metrics.
        created_at: an aware time; now when None.

    Raises:
        PackageError: the folder exists, or the content breaks the schema.
    """
    folder = new_folder(path)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    # The parity logits are those of a network made from the stored description, as `build_model` makes it
    # (float32, on the CPU): a description that does not fit the weights is noticed here.
    twin = create_network(architecture, model_args, len(classes))
    try:
        twin.load_state_dict(state)
    except RuntimeError as error:
        raise PackageError(
            f"{architecture} with {dict(model_args)} does not take these weights: {error}"
        ) from error
    weights = safetensors.torch.save(state)
    content: dict[str, Any] = {
        "schema": manifest.SCHEMA,
        "architecture": architecture,
        "model_args": dict(model_args),
        "classes": list(classes),
        "good_class": good_class,
        "task": task,
        "preprocessing": preprocessing.record(),
        "temperature": float(temperature),
        "thresholds": None if thresholds is None else asdict(thresholds),
        "training": dict(training or {}),
        "parity": parity_logits(twin.eval(), preprocessing, temperature=temperature),
        "created_at": (created_at or datetime.now(UTC)).astimezone(UTC).isoformat(),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    if reduced:
        content["reduced"] = [asdict(one) for one in reduced]
    if tiling is not None:
        content["tiling"] = asdict(tiling)
    text = manifest.render(content)
    _from_content(folder, manifest.parse(text, name=str(folder / MANIFEST_FILE)))

    _write_files(folder, text.encode(), weights)
    return load_package(folder)


def restore_package(path: str | os.PathLike[str], manifest_file: bytes, weights: bytes) -> ModelPackage:
    """Write a model package from the bytes of its two files, all of it or nothing, and read it back.

    Args:
        path: the folder to make; it must not exist.
        manifest_file: the bytes of model.json.
        weights: the bytes of model.safetensors.

    Raises:
        PackageError: the folder exists, or `load_package` refuses the files.
    """
    folder = new_folder(path)
    _write_files(folder, manifest_file, weights)
    try:
        return load_package(folder)
    except PackageError:
        shutil.rmtree(folder)
        raise


def new_folder(path: str | os.PathLike[str]) -> Path:
    """Return the path of a package to make; PackageError where something is there already."""
    folder = Path(path)
    if folder.exists() or folder.is_symlink():
        raise PackageError(
            f"{folder}: exists already; a model package is never overwritten, choose another folder"
        )
    return folder


def _write_files(folder: Path, manifest_file: bytes, weights: bytes) -> None:
    with whole_folder(folder) as unfinished:
        (unfinished / WEIGHTS_FILE).write_bytes(weights)
        (unfinished / MANIFEST_FILE).write_bytes(manifest_file)


def build_model(package: ModelPackage) -> torch.nn.Module:
    """Return the package's network with its stored weights: float32, on the CPU, raw logits, eval mode.

    Raises:
        PackageError: the weights changed since the package was loaded, or do not fit the architecture.
    """
    file = package.path / WEIGHTS_FILE
    # Read once: the file could change between its check and its use.
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != package.weights_sha256:
        raise PackageError(f"{file}: changed since the package was loaded")
    if int.from_bytes(data[:8], "little") > LARGEST_HEADER:
        raise PackageError(f"{file}: its header is to have more than {LARGEST_HEADER} bytes")
    try:
        # Checks that the tensors which the header lists fill the file to the byte.
        state = safetensors.torch.load(data)
    except (RuntimeError, ValueError, KeyError, OverflowError, safetensors.SafetensorError) as error:
        raise PackageError(f"{file}: its header does not fit its content: {error}") from error
    try:
        network = create_network(
            package.architecture, package.model_args, len(package.classes), weights=state
        )
    except PackageError as error:
        raise PackageError(f"{package.path / MANIFEST_FILE}: {error}") from error
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise PackageError(f"{file}: does not fit {package.architecture}: {error}") from error
    return network.float().eval()


def _from_content(folder: Path, content: dict[str, Any]) -> ModelPackage:
    """Return the package that parsed JSON describes; the type and range of every field are checked."""
    file = folder / MANIFEST_FILE
    # model.json has a field for each one of the dataclass but the folder; later ones may be absent.
    expected_fields = {"schema", *(field.name for field in fields(ModelPackage))} - {"path"}
    if wrong := expected_fields ^ (set(content) | {"reduced", "tiling"}):
        raise PackageError(f"{file}: fields missing or unknown: {', '.join(sorted(wrong))}")

    def check(good: bool, key: str, expected: str) -> None:
        if not good:
            raise PackageError(f"{file}: {key} must be {expected}, got {reprlib.repr(content[key])}")

    for key in ("architecture", "weights_sha256", "created_at"):
        check(isinstance(content[key], str) and content[key] != "", key, "text")
    for key in ("model_args", "preprocessing", "training", *({"tiling"} & set(content))):
        check(isinstance(content[key], dict), key, "an object")
    thresholds, temperature = content["thresholds"], content["temperature"]
    check(thresholds is None or isinstance(thresholds, dict), "thresholds", "an object or null")
    check(_is_number(temperature), "temperature", "a number")
    check(temperature > 0, "temperature", "positive")
    tasks = ("single-label", "multi-label")
    task, classes, good_class = content["task"], content["classes"], content["good_class"]
    check(task in tasks, "task", f"one of {tasks}")
    check(
        isinstance(classes, list) and classes != [] and all(isinstance(name, str) for name in classes),
        "classes",
        "a list of texts",
    )
    check(len(set(classes)) == len(classes) and all(classes), "classes", "distinct, non-empty names")
    check(task == "multi-label" or len(classes) >= 2, "classes", "at least two for a single-label model")
    check(
        good_class is None or (task == "single-label" and good_class in classes),
        "good_class",
        "one of the classes of a single-label model, or null",
    )
    parity = content["parity"]
    rows = f"a list of rows of {len(classes)} numbers"
    check(_is_table(parity, len(classes)), "parity", rows)
    entries = content.get("reduced", [])
    if "reduced" in content:
        check(isinstance(entries, list) and entries != [], "reduced", "a list of objects")
        check(thresholds is not None, "reduced", "absent where there are no thresholds")
        for entry in entries:
            check(isinstance(entry, dict), "reduced", "a list of objects")
            check(isinstance(entry.get("thresholds"), dict), "reduced", "objects with thresholds")
            check(_is_table(entry.get("parity"), len(classes)), "reduced", f"objects with parity, {rows}")
    try:
        created_at = datetime.fromisoformat(content["created_at"])
        aware = created_at.tzinfo is not None
        created_at = created_at.astimezone(UTC)
    except (ValueError, OverflowError):
        aware = False
    check(aware, "created_at", "an ISO 8601 time with a time zone")
    try:
        preprocessing = Preprocessing(**_tuples(content["preprocessing"]))
        zones = None if thresholds is None else Thresholds(**thresholds)
        reduced = tuple(_reduced_precision(entry) for entry in entries)
        tiling = Tiling(**content["tiling"]) if "tiling" in content else None
        if tiling is not None:
            tiling.check(preprocessing.input_size)
    except (TypeError, ValueError) as error:
        raise PackageError(f"{file}: {error}") from error
    pairs = [(one.engine, one.precision) for one in reduced]
    check(len(set(pairs)) == len(pairs), "reduced", "one entry for an engine and precision")
    return ModelPackage(
        path=folder,
        digest=content["digest"],
        weights_sha256=content["weights_sha256"],
        architecture=content["architecture"],
        model_args=content["model_args"],
        classes=tuple(classes),
        good_class=good_class,
        task=task,
        preprocessing=preprocessing,
        temperature=float(temperature),
        thresholds=zones,
        training=content["training"],
        parity=_table(parity),
        created_at=created_at,
        reduced=reduced,
        tiling=tiling,
    )


def _reduced_precision(entry: dict[str, Any]) -> ReducedPrecision:
    values = {**entry, "thresholds": Thresholds(**entry["thresholds"]), "parity": _table(entry["parity"])}
    return ReducedPrecision(**values)


def _table(rows: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(number) for number in row) for row in rows)


def _is_table(value: object, columns: int) -> bool:
    """Return whether a value is a list, not empty, of lists of so many numbers."""
    return (
        isinstance(value, list)
        and value != []
        and all(isinstance(row, list) and len(row) == columns and all(map(_is_number, row)) for row in value)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Return values with each list as a tuple: the dataclass has tuples, JSON has none."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
