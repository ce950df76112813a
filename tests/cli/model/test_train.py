"""Training and calibration through the command line, and the demo."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pypdf import PdfReader

from classifiers import load_package

KENSA = Path(sys.executable).with_name("kensa")
Kensa = Callable[..., subprocess.CompletedProcess[str]]


def test_train_then_calibrate_refuses_what_the_pictures_cannot_support(
    kensa: Kensa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kensa("synth", "surfaces", "--count", 80, "--size", 48, "--seed", 3)
    train = [
        *("train", "surfaces/labels.csv", "--out", "model", "--good-class", "good", "--group-column", "lot"),
        *("--arch", "test_resnet", "--input-size", 48, "--epochs", 1, "--batch-size", 16),
        *("--fractions", 0.4, 0.2, 0.2, 0.2, "--set", "warmup_epochs=0", "--set", "augmentation.rotation=2"),
    ]
    done = kensa(*train)
    assert "epoch   1" in done.stderr
    package = load_package(tmp_path / "model")
    assert package.thresholds is None
    assert package.training["command"].startswith("kensa train surfaces/labels.csv")
    assert package.training["settings"]["augmentation"]["rotation"] == 2
    groups = {}
    for side in ("training", "validation", "calibration", "test"):
        with (tmp_path / "model.splits" / f"{side}.csv").open() as file:
            groups[side] = {row["group"] for row in csv.DictReader(file)}
    assert len(set.union(*groups.values())) == sum(map(len, groups.values())) == 20

    # 59 is the smallest number of defective pictures that can support 5 % at all.
    calibrate = ["calibrate", "model", "model.splits/calibration.csv", "--out"]
    assert "59" in kensa(*calibrate, "strict", check=2).stderr
    assert not (tmp_path / "strict").exists()
    targets = ["--target-escape-rate", 0.5, "--target-overkill", 0.5]
    done = kensa(*calibrate, "loose", *targets, "--test", "model.splits/test.csv")
    assert "pass below" in done.stdout
    assert "{" not in done.stdout
    measured = json.loads((tmp_path / "loose.test.json").read_text())
    table = {row.rstrip().split("  ")[0]: row for row in done.stdout.splitlines()}
    escape = measured["escape"]
    low, high = escape["interval"]
    told = f"{escape['count']} of {escape['total']}  {low:.1%} to {high:.1%}".split()
    assert table["escape rate: defective pictures that pass"].split()[-len(told) :] == told
    assert all(f"{measured['recall'][name]['share']:.1%}" in table[name] for name in ("good", "scratch"))
    assert "balanced accuracy" in table
    assert done.stdout.rstrip().endswith("loose.test.json")
    assert load_package(tmp_path / "loose").thresholds is not None
    done = kensa(*calibrate, "blind", "--target-escape-rate", 0.5, "--target-overkill", "none")
    assert "reject: nothing without a person, since overkill has no target" in done.stdout
    blind = load_package(tmp_path / "blind").thresholds
    assert blind is not None
    assert (blind.target_overkill, blind.reject) == (None, 1)
    assert "neither a share" in kensa(*calibrate, "x", "--target-overkill", "nine", check=2).stderr
    assert "rotatoin" in kensa(*train, "--set", "augmentation.rotatoin=1", check=2).stderr


@pytest.mark.slow
def test_the_demo_runs_twice_and_shows_what_it_found(
    tmp_path: Path, prefect_environment: dict[str, str]
) -> None:
    def outside(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [KENSA, *arguments],
            cwd=tmp_path,
            env=prefect_environment,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    first = outside("demo")
    assert "120 listed = " in first.stdout
    assert "2 unreadable" in first.stdout
    assert "13 of 13 defective parts flagged" in first.stdout
    assert first.stdout.count("kensa ") >= 3
    report = PdfReader(tmp_path / "demo" / "reports" / "R000001-1.pdf")
    findings = len(list((tmp_path / "demo" / "reports").iterdir()))
    assert findings == 1
    text = report.pages[0].extract_text()
    assert "Surface inspection" in text
    assert "120" in text
    second = outside("demo")
    assert "run R000002 done" in second.stdout
    assert "(118 carried over)" in second.stdout or "(120 carried over)" in second.stdout
    outside("audit", "verify", "-c", "demo")
