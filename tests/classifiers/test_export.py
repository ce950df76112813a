"""Packages exported to ONNX and OpenVINO, and what a runtime elsewhere makes of the files."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from classifiers import export as export_module
from classifiers.errors import PackageError
from classifiers.export import Export, export_package
from classifiers.package.package import ModelPackage
from classifiers.package.preprocessing import Preprocessing
from classifiers.predict import Predictor


def run_onnx(folder: Path, batch: Any) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input": batch})[0]


def run_openvino(folder: Path, batch: Any) -> Any:
    openvino = pytest.importorskip("openvino")
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(folder / "model.xml", "CPU", hint)({"input": batch})["logits"]


RUN = {"onnx": run_onnx, "openvino": run_openvino}


@pytest.fixture(scope="module", params=list(RUN))
def exported(
    request: pytest.FixtureRequest, package: ModelPackage, tmp_path_factory: pytest.TempPathFactory
) -> Export:
    for name in export_module.FORMATS[request.param][1]:
        pytest.importorskip(name)
    return export_package(package, tmp_path_factory.mktemp("export") / "out", request.param)


def description(exported: Export) -> Any:
    return json.loads((exported.folder / "export.json").read_text(encoding="utf-8"))


def test_an_exported_network_gives_the_logits_of_the_package(exported: Export, package: ModelPackage) -> None:
    """The temperature of the package is 2: it must be in the exported logits."""
    run = RUN[description(exported)["format"]]
    for pictures in (1, 7):
        batch = torch.randn(pictures, 3, 32, 32, generator=torch.Generator().manual_seed(pictures))
        expected = Predictor(package, device="cpu", engine="torch").logits(batch).numpy()
        assert np.allclose(run(exported.folder, batch.numpy()), expected, atol=1e-3 * np.ptp(expected))


def test_the_description_is_enough_to_serve_it_elsewhere(exported: Export, package: ModelPackage) -> None:
    """Follow export.json alone, without a line of kensa, from a picture's file to the logits."""
    told = description(exported)
    how = told["preprocessing"]
    assert how["fit"] == "pad"
    for entry in told["parity"]["pictures"]:
        image = Image.open(exported.folder / entry["file"])
        rows, columns = told["input"]["shape"][2:]
        scale = min(columns / image.width, rows / image.height)
        size = round(image.width * scale), round(image.height * scale)
        canvas = Image.new("RGB", (columns, rows), tuple(how["fill"]))
        place = (columns - size[0]) // 2, (rows - size[1]) // 2
        canvas.paste(image.resize(size, Image.Resampling.BILINEAR), place)
        batch = ((np.asarray(canvas) / 255 - how["mean"]) / how["std"]).transpose(2, 0, 1)[None]
        logits = RUN[told["format"]](exported.folder, batch.astype(np.float32))
        assert np.abs(logits[0] - entry["logits"]).max() <= told["parity"]["tolerance"] * np.ptp(
            [one["logits"] for one in told["parity"]["pictures"]]
        )
    assert told["classes"] == ["good", "line", "spot"]
    assert (told["good_class"], told["output"]["activation"]) == ("good", "softmax")
    assert told["thresholds"]["review"] == package.thresholds.review  # type: ignore[union-attr]
    assert told["package"]["digest"] == package.digest
    assert {"kensa", "torch", told["format"]} <= set(told["versions"])


def test_every_exported_file_is_named_with_its_digest(exported: Export) -> None:
    told = description(exported)
    named = {**told["files"], **{one["file"]: one["sha256"] for one in told["parity"]["pictures"]}}
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in exported.folder.iterdir()}
    del found["export.json"]
    assert found == named
    assert exported.files == told["files"]


def test_nothing_of_the_exporting_machine_is_in_the_file(exported: Export) -> None:
    for name in exported.files:
        content = (exported.folder / name).read_bytes()
        assert b"site-packages" not in content
        assert str(Path(__file__).parents[2]).encode() not in content


@pytest.mark.parametrize("to", list(RUN))
def test_logits_that_are_not_the_validated_ones_leave_nothing(
    to: str, package: ModelPackage, tmp_path: Path
) -> None:
    for name in export_module.FORMATS[to][1]:
        pytest.importorskip(name)
    broken = replace(package, parity=tuple(tuple(x + 0.5 for x in row) for row in package.parity))
    with pytest.raises(
        PackageError, match=r"differ from the validated ones by 0\.\d+ of their spread, 0.001"
    ):
        export_package(broken, tmp_path / "out", to)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_takes_only_one_batch_size_is_refused(
    package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(network: torch.nn.Module, example: torch.Tensor, folder: Path) -> Callable[..., Any]:
        (folder / "model.onnx").write_bytes(b"x")

        def logits(batch: Any) -> Any:
            if len(batch) > 1:
                raise RuntimeError("the batch is 1")
            with torch.inference_mode():
                return network(torch.from_numpy(batch)).numpy()

        return logits

    monkeypatch.setitem(export_module.FORMATS, "onnx", (write, ()))
    with pytest.raises(PackageError, match="does not compute 5 pictures: RuntimeError: the batch is 1"):
        export_package(package, tmp_path / "out", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_converter_that_fails_is_named(
    package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object) -> Callable[..., Any]:
        raise NotImplementedError("an operator")

    monkeypatch.setitem(export_module.FORMATS, "onnx", (write, ()))
    with pytest.raises(
        PackageError, match=r"test_efficientnet cannot be converted to onnx: NotImpl.*operator"
    ):
        export_package(package, tmp_path / "out", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_said_at_once(
    package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PackageError, match="'tflite': the formats are onnx, openvino"):
        export_package(package, tmp_path / "out", "tflite")
    with pytest.raises(PackageError, match="exists already"):
        export_package(package, tmp_path, "onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(PackageError, match=r"needs onnxscript: pip install 'kensa\[onnx\]'"):
        export_package(package, tmp_path / "out", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_multi_label_package_says_sigmoid(
    make_package: Callable[..., ModelPackage], tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    made = make_package(
        tmp_path / "model",
        task="multi-label",
        classes=("crack", "line", "spot"),
        preprocessing=Preprocessing((40, 64), fit="stretch"),
    )
    told = description(export_package(made, tmp_path / "out", "openvino"))
    assert (told["output"]["activation"], told["good_class"], told["thresholds"]) == ("sigmoid", None, None)
    assert told["input"]["shape"] == ["batch", 3, 40, 64]
