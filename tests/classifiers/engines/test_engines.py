"""Every engine gives the validated logits, or says why not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from classifiers.engines import choice, openvino_engine
from classifiers.engines.engine import EngineError
from classifiers.engines.openvino_library import load_openvino
from classifiers.errors import PackageError
from classifiers.package.package import ModelPackage
from classifiers.predict import Predictor
from tests.classifiers.engines.networks import other_network

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="the extra openvino is absent")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `auto` see OpenVINO, which the other tests hide from it."""
    monkeypatch.setattr(choice, "openvino_installed", lambda: True)


def batch_of(package: ModelPackage, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, *package.preprocessing.input_size, generator=generator)


@needs_openvino
# Batch norms and squeeze-excitation; layer norms and permutations; weights standardised in each pass.
@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_convnext", "test_nfnet"])
def test_openvino_gives_the_logits_of_torch(package: ModelPackage, architecture: str, tmp_path: Path) -> None:
    other = other_network(package, architecture, tmp_path / "other")
    reference = Predictor(other, device="cpu", engine="torch")
    fast = Predictor(other, device="cpu", engine="openvino", batch_size=4)
    assert (fast.engine.name, fast.precision, fast.refusal) == ("openvino", "float32", None)
    assert (reference.engine.name, reference.engine.version) == ("torch", torch.__version__)
    for count in (0, 1, 4, 7):
        batch = batch_of(other, count)
        expected, found = reference.engine(batch), fast.engine(batch)
        assert found.dtype == torch.float32
        assert found.shape == expected.shape == (count, 3)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            fast.predict(batch).probabilities, reference.predict(batch).probabilities, atol=1e-5
        )
    assert float(np.ptp(reference.engine(batch_of(other, 7)).numpy())) > 0.1  # the comparison means something


@needs_openvino
def test_a_picture_has_the_same_logits_in_any_company(package: ModelPackage) -> None:
    engine = Predictor(package, device="cpu", engine="openvino").engine
    batch = batch_of(package, 5)
    together = engine(batch.to(memory_format=torch.channels_last).requires_grad_())
    assert torch.equal(together, torch.cat([engine(one[None]) for one in batch]))
    before = together.clone()
    engine(batch_of(package, 5) + 1)
    assert torch.equal(together, before)  # a later call writes over nothing that was handed out


@needs_openvino
def test_openvino_follows_torchs_threads(package: ModelPackage) -> None:
    torch.set_num_threads(1)
    engine = Predictor(package, device="cpu", engine="openvino").engine
    assert len(engine._queue) == 1


@needs_openvino
@pytest.mark.usefixtures("installed")
def test_auto_takes_openvino_on_a_cpu(package: ModelPackage) -> None:
    predictor = Predictor(package, device="cpu")
    assert predictor.facts() == {
        "device": "cpu",
        "engine": "openvino",
        "precision": "float32",
        "torch": torch.__version__,
        "openvino": load_openvino().__version__.split("-")[0],
    }
    assert "in float32 by openvino 20" in predictor.sentence()


@needs_openvino
@pytest.mark.usefixtures("installed")
def test_auto_takes_torch_where_openvino_cannot_and_says_why(
    package: ModelPackage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(*_: object) -> None:
        raise RuntimeError("no conversion rule for aten::magic")

    monkeypatch.setattr(openvino_engine, "_converted_model", unknown)
    with pytest.raises(EngineError, match=r"cannot compute test_efficientnet: .*aten::magic"):
        Predictor(package, device="cpu", engine="openvino")
    predictor = Predictor(package, device="cpu")
    assert predictor.engine.name == "torch"
    assert "aten::magic" in (predictor.refusal or "")
    assert "aten::magic" in predictor.facts()["engine_refusal"]
    assert "aten::magic" in predictor.sentence()
    assert "engine torch is used: engine openvino cannot compute" in caplog.text


@needs_openvino
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("where", ["_cache_key", "OpenVinoEngine"])
def test_auto_takes_torch_whatever_openvino_stumbles_over(
    package: ModelPackage, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of resources")

    monkeypatch.setattr(openvino_engine, where, broken)
    predictor = Predictor(package, device="cpu")
    assert predictor.engine.name == "torch"
    assert "RuntimeError: out of resources" in (predictor.refusal or "")


@needs_openvino
def test_an_engine_that_answers_differently_is_refused_with_the_figure(
    package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = openvino_engine.OpenVinoEngine.__call__
    monkeypatch.setattr(
        openvino_engine.OpenVinoEngine, "__call__", lambda self, batch: real(self, batch) + 0.1
    )
    with pytest.raises(EngineError, match=r"engine openvino .* differ from the validated ones by 0\.\d+"):
        Predictor(package, device="cpu", engine="openvino")


@needs_openvino
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_precision_that_the_processor_lacks_is_refused(
    package: ModelPackage, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    class Plain:
        """What OpenVINO says of a processor with AVX2 alone."""

        def get_property(self, device: str, name: str) -> object:
            answers = {"OPTIMIZATION_CAPABILITIES": ["FP32", "INT8"], "FULL_DEVICE_NAME": "Abacus 9"}
            return answers[name]

    monkeypatch.setattr(load_openvino(), "Core", Plain)
    with pytest.raises(EngineError, match=rf"\(Abacus 9\) has no units for {precision}"):
        Predictor(package, device="cpu", engine="openvino", precision=precision)


def test_auto_is_torch_without_openvino(package: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda _: None)
    assert choice.automatic_engine("cpu") == "torch"
    monkeypatch.setattr(choice, "openvino_installed", lambda: True)
    assert [choice.automatic_engine(device) for device in ("cpu", "cuda", "mps")] == [
        "openvino",
        "torch",
        "torch",
    ]
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were absent
    with pytest.raises(EngineError, match=r"not installed here .*kensa\[openvino\]"):
        Predictor(package, device="cpu", engine="openvino")
    with pytest.raises(PackageError, match="engine must be 'auto' or one of"):
        Predictor(package, device="cpu", engine="abacus")


LOADS = """
import sys, pathlib, classifiers, classifiers.predict, classifiers.engines.openvino_engine
assert "openvino" not in sys.modules, "loaded for torch"
from classifiers.engines.openvino_library import load_openvino
try:
    load_openvino()
except classifiers.PackageError:
    pass
sent = [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
assert not sent, sent
assert not (pathlib.Path.home() / "intel").exists(), "left by OpenVINO's telemetry"
"""


def test_openvino_is_loaded_for_itself_alone_and_without_telemetry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", LOADS],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert done.returncode == 0, done.stderr


MakePackage = Callable[..., ModelPackage]


@needs_openvino
def test_another_temperature_is_another_compiled_model(
    package: ModelPackage, make_package: MakePackage, tmp_path: Path
) -> None:
    from dataclasses import replace

    warmer = make_package(tmp_path / "warmer", temperature=4.0)
    batch = batch_of(package, 2)
    expected = Predictor(package, device="cpu", engine="openvino").engine(batch) / 2
    # A package in the making keeps the digest of the one that it is made of.
    in_the_making = replace(package, temperature=4.0, parity=warmer.parity)
    found = Predictor(in_the_making, device="cpu", engine="openvino").engine(batch)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
