"""The whole loop on made surfaces: train, calibrate, inspect, decide, export, and train the next model."""

import csv
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from classifiers import load_package
from classifiers.data.pictures import Augmentation
from classifiers.data.reading import load_dataset
from classifiers.training.settings import TrainSettings
from cli.model.train_settings import changed_settings
from configs.loading import ConfigError
from db.dispositions.decide import dispose
from db.engine import open_database
from tests.people import quality_engineer

Kensa = Callable[..., subprocess.CompletedProcess[str]]
ENGINEER = "a-long-password"


def decide(line: Any, findings: list[dict[str, Any]]) -> None:
    """Confirm every second finding and overrule the others."""
    with open_database(line.database_url) as database:
        eve = quality_engineer(database, ENGINEER)
        for number, finding in enumerate(findings):
            decision = ("confirm", "overrule")[number % 2]
            dispose(database, finding["reference"], decision=decision, reason="seen", signer=eve)


def rows_of(file: Path) -> dict[str, tuple[str, str]]:
    """Return digest -> (label, group) of a side of a split."""
    dataset = load_dataset(file, group_column="group")
    return {item.sha256: (item.labels[0], item.group) for item in dataset.items}


def test_from_reviewed_findings_to_the_next_model(
    kensa: Kensa,
    make_line: Callable[..., Any],
    inspect_all: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    kensa("synth", "surfaces", "--count", 80, "--size", 48, "--seed", 3)
    kensa(
        *("train", "surfaces/labels.csv", "--out", "first", "--good-class", "good", "--group-column", "part"),
        *("--arch", "test_resnet", "--input-size", 48, "--epochs", 2, "--batch-size", 16),
        *("--set", "augmentation.rotation=2", "--set", "warmup_epochs=1"),
    )
    loose = ("--target-escape-rate", 0.5, "--target-overkill", 0.5)
    kensa("calibrate", "first", "first.splits/calibration.csv", "--out", "first-1", *loose)

    line = make_line(model={"package": str(tmp_path / "first-1")}, explainer={"method": "grad-cam"})
    inspect_all(line.config)
    findings = line.json("findings")
    assert findings, "the model flags something"
    decide(line, findings)
    exported = line.kensa("dataset", "export", "reviewed")
    assert "grouped by part: the models were trained with groups by part" in exported.stdout
    with Path("reviewed/labels.csv").open() as file:
        reviewed = list(csv.DictReader(file))
    assert all(row["group"] == row["part"] != row["lot"] for row in reviewed)
    (event,) = line.json("audit", "log", "--action", "dataset.exported")
    assert event["payload"]["group"] == "part"

    command = f"train --from {tmp_path}/first-1 --add reviewed --out MODEL"
    assert f"next: kensa {command}\n" in exported.stdout
    done = kensa(*shlex.split(command.replace("MODEL", "second")), "--epochs", 1)
    assert "added to the data of" in done.stdout
    assert "next: kensa calibrate second second.splits/calibration.csv" in done.stdout

    first, second = load_package(tmp_path / "first"), load_package(tmp_path / "second")
    assert (second.architecture, second.classes) == (first.architecture, first.classes)
    assert second.preprocessing == first.preprocessing
    assert second.thresholds is None
    told = second.training
    assert told["origin"]["sha256"] == first.weights_sha256
    assert told["origin"]["head_dropped"] == []
    assert told["follows"]["package_digest"] == load_package(tmp_path / "first-1").digest
    assert (told["settings"]["augmentation"]["rotation"], told["settings"]["epochs"]) == (2, 1)
    assert told["split"]["grouped_by"] == "part"
    sides = ("training", "validation", "calibration", "test")
    before, after = (
        {side: rows_of(Path(f"{model}.splits/{side}.csv")) for side in sides} for model in ("first", "second")
    )
    assert after["calibration"] == before["calibration"]
    assert after["test"] == before["test"]
    for side in sides[:2]:
        assert before[side].items() <= after[side].items()
    added = {digest for side in sides[:2] for digest in after[side].keys() - before[side].keys()}
    assert len(added) == len(reviewed) > 0

    # The loop closes: the next model is calibrated on the same pictures, and knows its own training data.
    kensa("calibrate", "second", "second.splits/calibration.csv", "--out", "second-1", *loose)
    refused = kensa("calibrate", "second", "second.splits/training.csv", "--out", "x", *loose, check=2)
    assert "the model's own training data" in refused.stderr
    third = ("train", "--from", "second-1", "--out", "third", "--epochs", 1)
    same = kensa(*third, "--add", "reviewed", check=2)
    assert (
        f"adds nothing to train on: {len(reviewed)} pictures are in the original data already" in same.stderr
    )

    assert "--from and --add go together" in kensa(*third, check=2).stderr
    changed = kensa(*third, "--add", "reviewed", "--arch", "resnet18", check=2)
    assert "--arch: with --from the model decides this" in changed.stderr
    unknown = kensa(*third, "--add", "reviewed", "--set", "fit=stretch", check=2)
    assert "--set fit: not a setting that can change" in unknown.stderr
    wrong = kensa(*third, "--add", "reviewed", "--set", "patience=abc", check=2)
    assert "--set patience: Input should be a valid integer" in wrong.stderr
    assert "no labelled pictures" in kensa("train", "--out", "x", check=2).stderr
    assert not Path("third").exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("patience=abc", "--set patience: Input should be a valid integer"),
        ("workers=-1", "--set workers must be at least 0, got -1"),
        ("weight_decay=abc", "--set weight_decay: Input should be a valid number"),
        ("freeze_batch_norm=5", "--set freeze_batch_norm: Input should be a valid boolean"),
        ("augmentation.rotation=abc", "--set augmentation.rotation: Input should be a valid number"),
        ("augmentation.rotatoin=1", "rotatoin: unknown; did you mean augmentation.rotation?"),
        ("balance=loss", "--set balance: has an option of its own, --balance"),
        ("input_size=64", "--set input_size: not a setting that can change"),
        ("warmup_epochs=3", r"--set warmup_epochs must be less than epochs (3), got 3"),
    ],
)
def test_a_wrong_setting_is_named_by_its_option(entry: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        changed_settings(TrainSettings(), [entry], {"epochs": 3}, ["epochs", "balance"])


def test_what_is_not_typed_stays_as_the_earlier_model_had_it() -> None:
    earlier = TrainSettings(
        architecture="test_resnet",
        model_args={"stem_width": 8},
        input_size=(48, 64),
        mean=(0.1, 0.2, 0.3),
        warmup_epochs=4,
        patience=5,
        augmentation=Augmentation(rotation=2.0, erase=0.5),
    )
    assert changed_settings(earlier, [], {}, ["epochs"]) == earlier
    with pytest.raises(ConfigError, match=r"--lr must be positive, got -1\.0"):
        changed_settings(earlier, [], {"learning_rate": -1.0}, ["learning_rate"])
    changed = changed_settings(
        earlier, ["augmentation.rotation=1", "patience=null"], {"epochs": 3}, ["epochs"]
    )
    assert changed == replace(
        earlier,
        epochs=3,
        warmup_epochs=None,
        patience=None,
        augmentation=Augmentation(rotation=1.0, erase=0.5),
    )


def test_too_few_pictures_alone_are_refused_with_a_remedy(kensa: Kensa, tmp_path: Path) -> None:
    kensa("synth", tmp_path / "few", "--count", 5, "--size", 48, "--seed", 3)
    alone = ("train", tmp_path / "few/labels.csv", "--out", tmp_path / "m", "--group-column", "lot")
    refused = kensa(*alone, check=2)
    assert "5 groups" in refused.stderr
    assert "kensa train --from MODEL --add THESE" in " ".join(refused.stderr.split())
