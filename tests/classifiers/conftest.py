"""Tiny pictures and packages: 32 x 32 pixels, timm's own test network."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classifiers.data.dataset import Dataset
from classifiers.data.pictures import Augmentation
from classifiers.data.reading import load_dataset
from classifiers.package.network import create_network
from classifiers.package.package import ModelPackage, save_package
from classifiers.package.preprocessing import Preprocessing
from classifiers.package.thresholds import Thresholds
from classifiers.training.settings import TrainSettings

ARCHITECTURE = "test_efficientnet"
PREPROCESSING = Preprocessing((32, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear", "pad")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # For networks this small a second thread only waits for the first.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def picture(label: str, rng: np.random.Generator, size: int = 32) -> np.ndarray:
    """Noise, with a dark line for "line" and a bright square for "spot"."""
    pixels = rng.normal(128, 6, (size, size))
    place = int(rng.integers(6, size - 10))
    if "line" in label:
        pixels[place : place + 3, :] -= 90
    if "spot" in label:
        pixels[place : place + 6, place : place + 6] += 90
    return np.repeat(np.clip(pixels, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


WriteCsv = Callable[..., Path]


@pytest.fixture(scope="session")
def write_csv() -> WriteCsv:
    """Return a function that writes pictures and labels.csv: (folder, {label: count}, pictures per group)."""

    def write(folder: Path, counts: dict[str, int], per_group: int = 2, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        (folder / "images").mkdir(parents=True)
        rows = []
        for label, count in counts.items():
            for index in range(count):
                name = f"images/{label.replace(';', '+') or 'none'}{index:03d}.png"
                Image.fromarray(picture(label, rng)).save(folder / name)
                rows.append({"image": name, "label": label, "lot": f"{label}-{index // per_group}"})
        file = folder / "labels.csv"
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ["image", "label", "lot"])
            writer.writeheader()
            writer.writerows(rows)
        return file

    return write


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, write_csv: WriteCsv) -> Dataset:
    file = write_csv(tmp_path_factory.mktemp("data"), {"good": 48, "line": 24, "spot": 12})
    return load_dataset(file, group_column="lot", good_class="good")


@pytest.fixture(scope="session")
def settings() -> TrainSettings:
    return TrainSettings(
        architecture=ARCHITECTURE,
        input_size=(32, 32),
        epochs=3,
        warmup_epochs=1,
        batch_size=16,
        learning_rate=3e-3,
        ema_decay=0.9,
        device="cpu",
        threads=1,
        augmentation=Augmentation(rotation=3),
    )


ZONES = Thresholds(
    review=0.25,
    reject=0.75,
    target_escape_rate=0.05,
    escape_rate=0.0,
    escape_bound=0.0495,
    n_missed=0,
    overkill_rate=0.1,
    overkill_bound=0.2,
    n_flagged_good=6,
    target_overkill=0.05,
    reject_overkill_rate=0.0,
    reject_overkill_bound=0.0495,
    n_rejected_good=0,
    reject_recall=0.5,
    n_defective=59,
    n_good=59,
    n_defective_groups=10,
    n_good_groups=10,
    confidence=0.95,
    dataset_digest="d",
)


@pytest.fixture(scope="session")
def zones() -> Thresholds:
    return ZONES


MakePackage = Callable[..., ModelPackage]


@pytest.fixture(scope="session")
def make_package() -> MakePackage:
    """Return a function that saves a package with random weights: (folder, **arguments of save_package)."""

    def make(folder: Path, **changes: object) -> ModelPackage:
        torch.manual_seed(3)
        multi_label = changes.get("task") == "multi-label"
        arguments: dict[str, object] = {
            "architecture": ARCHITECTURE,
            "model_args": {},
            "classes": ("good", "line", "spot"),
            "good_class": None if multi_label else "good",
            "task": "single-label",
            "preprocessing": PREPROCESSING,
            **changes,
        }
        network = create_network(ARCHITECTURE, {}, 3)
        with torch.no_grad():
            # A random head gives logits close to zero, which would hide differences.
            network.get_classifier().weight.mul_(300)
        return save_package(folder, network, **arguments)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory, make_package: MakePackage) -> ModelPackage:
    return make_package(tmp_path_factory.mktemp("package") / "model", temperature=2.0, thresholds=ZONES)


@pytest.fixture(scope="session")
def multi_label_package(package: ModelPackage) -> ModelPackage:
    """The same package read as multi-label; only what decisions need is changed."""
    return replace(package, task="multi-label", good_class=None, classes=("crack", "line", "spot"))
