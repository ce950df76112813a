"""`kensa train --tile` and `kensa calibrate --per`: from strips with tiny defects to thresholds of parts."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from classifiers import load_package
from tests.classifiers.training.strips import write_strips

Kensa = Callable[..., subprocess.CompletedProcess[str]]
TARGETS = ("--target-escape-rate", 0.9, "--target-overkill", 0.9)


def test_tiles_from_training_to_thresholds_of_parts(
    kensa: Kensa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_strips(tmp_path / "strips", 24, 24)
    train = [
        *("train", "strips/labels.csv", "--out", "model", "--good-class", "good", "--group-column", "part"),
        *("--arch", "test_resnet", "--input-size", 32, "--epochs", 1, "--batch-size", 16),
        *("--fractions", 0.4, 0.2, 0.2, 0.2, "--tile", 1, "--set", "tiling.good_tiles=2"),
    ]
    assert "--tile must be a number" in kensa(*train, "--tile", 0, check=2).stderr
    error = kensa(*train, "--set", "tiling.overlap=20", check=2).stderr
    assert "--set tiling.overlap must be at most half" in error
    assert "has an option of its own, --tile" in kensa(*train, "--set", "tiling.scale=2", check=2).stderr
    assert "--tile SCALE" in kensa(*train[:-4], "--set", "tiling.overlap=2", check=2).stderr
    done = kensa(*train)
    assert "tiles of 32x32 (height x width) at scale 1: a defect of 5 pixels becomes 5" in done.stdout
    assert "tiles of 32 x 32 at scale 1:" in done.stderr
    package = load_package(tmp_path / "model")
    assert package.tiling is not None
    assert (package.tiling.scale, package.tiling.overlap) == (1, 4)
    assert package.training["settings"]["select_by"] == "auroc"

    # The split says that its groups are parts.
    calibrate = ["calibrate", "model", "model.splits/calibration.csv", *TARGETS, "--out"]
    done = kensa(*calibrate, "parts", "--test", "model.splits/test.csv")
    assert " parts), 95 % bound" in done.stdout
    assert "parts, each by the highest score of its pictures:" in done.stdout
    assert "pictures by their number of tiles: " in done.stdout
    parts = load_package(tmp_path / "parts")
    assert parts.training["calibration"]["per"] == "part"
    assert parts.tiling == package.tiling
    done = kensa(*calibrate, "pictures", "--per", "picture")
    assert " parts" not in done.stdout
    pictures, thresholds = load_package(tmp_path / "pictures").thresholds, parts.thresholds
    assert pictures is not None
    assert thresholds is not None
    assert pictures.n_defective == 2 * thresholds.n_defective
    assert "expected auto, picture or part" in kensa(*calibrate, "x", "--per", "lot", check=2).stderr


def test_a_column_called_part_says_that_its_groups_are_parts(
    kensa: Kensa, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_strips(tmp_path / "strips", 12, 12)
    calibrate = ["calibrate", package, "strips/labels.csv", *TARGETS, "--out"]
    kensa(*calibrate, "parts", "--group-column", "part")
    assert load_package(tmp_path / "parts").training["calibration"]["per"] == "part"
    file.write_text(file.read_text().replace(",part,", ",group,", 1))
    kensa(*calibrate, "groups")
    assert "per" not in load_package(tmp_path / "groups").training["calibration"]
    kensa(*calibrate, "told", "--per", "part")
    assert load_package(tmp_path / "told").training["calibration"]["per"] == "part"
    for label in ("good", "scratch"):
        (tmp_path / "folder" / label).mkdir(parents=True)
        (tmp_path / "strips" / ("000.png" if label == "good" else "012.png")).rename(
            tmp_path / "folder" / label / "one.png"
        )
    error = kensa("calibrate", package, "folder", "--out", "x", "--per", "part", check=2).stderr
    assert "the data does not say which pictures are of one part" in error
