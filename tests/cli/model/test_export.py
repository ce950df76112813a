"""Exporting a model package through the command line."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SYNTHETIC = Path(__file__).parents[3] / "classifiers" / "packages" / "synthetic-surface"
Kensa = Callable[..., subprocess.CompletedProcess[str]]


def test_export_says_what_was_written_and_refuses_to_overwrite(
    kensa: Kensa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.chdir(tmp_path)
    done = kensa("export", SYNTHETIC, "--to", "openvino", "--out", "served")
    told = json.loads((tmp_path / "served" / "export.json").read_text(encoding="utf-8"))
    assert f"served: model.bin, model.xml of model package {told['package']['digest'][:12]}" in done.stdout
    assert "the logits differ from the validated ones by at most" in done.stdout
    again = kensa("export", SYNTHETIC, "--to", "openvino", "--out", "served", check=2)
    assert "served: exists already; nothing is overwritten" in again.stderr
    assert (
        "the formats are onnx, openvino"
        in kensa("export", SYNTHETIC, "--to", "tflite", "--out", "other", check=2).stderr
    )
