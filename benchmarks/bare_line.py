"""What benchmarks of the line share: pictures, packages of random weights, a run without Prefect and report.

Decoding processes of a benchmark import this module: what needs torch is imported by the function.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from operations.inspection.preparation import FloatInput, Pixels, Preparation, prepare

if TYPE_CHECKING:
    from torch import nn

    from classifiers import ModelPackage
    from classifiers.package.tiling import Tiling
    from configs.schema import Settings
    from operations.inspection.run import BatchSummary, Inspection

NETWORKS = ("resnet50", "mobilenetv3_large_100")
CLASSES = 10
SIZE = 224


def network(name: str, device: str = "cpu") -> nn.Module:
    """Return a network in eval mode with random weights, the same ones each time."""
    import timm
    import torch

    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=CLASSES).eval()
    with torch.no_grad():  # norms whose initial value is zero would switch blocks off
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return model.requires_grad_(False).to(device)


def make_pictures(folder: Path, numbers: Iterable[int], width: int = 640, height: int = 480) -> None:
    """Write JPEGs grainy as a camera's: 640 x 480 pixels, some 100 KB each."""
    rows, columns = np.mgrid[0:height, 0:width]
    for number in numbers:
        chance = np.random.default_rng(int(number))
        light = 120 + 40 * np.sin(rows / chance.uniform(20, 90) + columns / chance.uniform(20, 90))
        pixels = (
            light[..., None]
            + chance.normal(0, 9, (height, width, 1))
            + chance.normal(0, 3, (height, width, 3))
        )
        picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        picture.save(folder / f"P{number:06d}.jpg", quality=90)


def prepared(how: Preparation, file: Path) -> FloatInput | Pixels:
    """Do what a run does with a picture's bytes: read, hash, decode, measure, resize, normalise."""
    data = file.read_bytes()
    sha256(data).hexdigest()
    return prepare(data, how)[1]


def prepare_all(how: Preparation, files: Iterable[Path]) -> None:
    """Prepare pictures, and keep nothing."""
    for file in files:
        prepared(how, file)


def save_line_package(
    folder: Path, name: str, review: float = 1.0, size: int = SIZE, tiling: Tiling | None = None
) -> ModelPackage:
    """Save and return a package of random weights with a review threshold; that of 1 flags nothing."""
    from classifiers.package.package import save_package
    from classifiers.package.preprocessing import Preprocessing
    from classifiers.package.thresholds import Thresholds

    return save_package(
        folder,
        network(name),
        architecture=name,
        model_args={},
        classes=tuple(f"c{index}" for index in range(CLASSES)),
        good_class="c0",
        task="single-label",
        preprocessing=Preprocessing((size, size), fit="stretch"),
        tiling=tiling,
        thresholds=Thresholds(
            review=review,
            reject=1.0,
            target_escape_rate=0.05,
            escape_rate=0.0,
            escape_bound=0.05,
            n_missed=0,
            overkill_rate=0.0,
            overkill_bound=0.05,
            n_flagged_good=0,
            target_overkill=0.05,
            reject_overkill_rate=0.0,
            reject_overkill_bound=0.05,
            n_rejected_good=0,
            reject_recall=0.5,
            n_defective=100,
            n_good=100,
            n_defective_groups=100,
            n_good_groups=100,
            confidence=0.95,
            dataset_digest="0" * 64,
        ),
    )


def line_settings(pictures: Path, package: Path, folder: Path, **sections: dict[str, Any]) -> Settings:
    """Return the settings of a run over a folder of pictures, that keeps its record in another folder."""
    from configs.schema import Settings

    folder.mkdir(exist_ok=True)
    settings: dict[str, Any] = {
        "source": {"uri": str(pictures)},
        "model": {"package": str(package), **sections.pop("model", {})},
        "database": {"url": f"sqlite:///{folder / 'kensa.db'}"},
        "artifacts": {"uri": str(folder / "artifacts")},
        "report": {"enabled": False},
        **sections,
    }
    return Settings.model_validate(settings)


def timed_line(
    settings: Settings, recorded: Callable[[Inspection, BatchSummary], None] = lambda *_: None
) -> tuple[float, int]:
    """Inspect as the flow does, without Prefect and report; return seconds and findings.

    Not in the seconds: what is opened before the first picture, and a run's end.
    """
    from operations.inspection import run
    from operations.inspection.line import inspect_line

    findings = 0

    def counted(summary: BatchSummary) -> None:
        nonlocal findings
        findings += len(summary.result.findings)
        recorded(inspection, summary)

    with run.open_inspection(settings, "manual") as inspection:
        begun = time.perf_counter()
        inspect_line(inspection, counted)
        seconds = time.perf_counter() - begun
        run.finish(inspection)
    return seconds, findings
