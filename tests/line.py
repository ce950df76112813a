"""A small line to inspect: synthetic pictures, an untrained model package with thresholds, settings.

Loaded for every test, so torch comes in only where a fixture needs it.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest
import yaml

from classifiers.package.thresholds import Thresholds
from cli.main import main
from configs.loading import load_settings
from sources.decoding import decode
from sources.surfaces import SURFACE_CLASSES
from sources.synthetic import write_inspection_folder

if TYPE_CHECKING:
    from classifiers import ModelPackage
    from operations.inspection.run import Inspection, RunResult

KENSA = Path(sys.executable).with_name("kensa")
PICTURES = 24


def _make_thresholds(review: float, reject: float) -> Thresholds:
    return Thresholds(
        review=review,
        reject=reject,
        target_escape_rate=0.05,
        escape_rate=0.0,
        escape_bound=0.0487,
        n_missed=0,
        overkill_rate=0.1,
        overkill_bound=0.17,
        n_flagged_good=6,
        target_overkill=0.05,
        reject_overkill_rate=0.0,
        reject_overkill_bound=0.0487,
        n_rejected_good=0,
        reject_recall=0.9,
        n_defective=60,
        n_good=60,
        n_defective_groups=6,
        n_good_groups=6,
        confidence=0.95,
        dataset_digest="0" * 64,
    )


@pytest.fixture(scope="session")
def make_thresholds() -> Callable[[float, float], Thresholds]:
    """Thresholds with made-up evidence."""
    return _make_thresholds


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two lots with a manifest; read only."""
    return write_inspection_folder(
        tmp_path_factory.mktemp("line") / "line", count=PICTURES, seed=7, size=96, defect_share=0.4, lots=2
    )


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A package with random weights, its thresholds laid so that all three verdicts occur on `pictures`."""
    import timm
    import torch

    from classifiers import Predictor, Preprocessing, save_package

    torch.manual_seed(3)
    network = timm.create_model("test_resnet", num_classes=len(SURFACE_CLASSES)).eval()
    with torch.no_grad():
        network.get_classifier().weight.mul_(200)
    root = tmp_path_factory.mktemp("packages")
    content = {
        "architecture": "test_resnet",
        "model_args": {},
        "classes": SURFACE_CLASSES,
        "good_class": "good",
        "task": "single-label",
        "preprocessing": Preprocessing(input_size=(64, 64)),
    }
    raw = save_package(root / "raw", network, **content)
    predictor = Predictor(raw)
    tensors = [
        predictor.transform(decode(p.read_bytes()).pixels) for p in sorted(pictures.rglob("images/*/*.png"))
    ]
    scores = predictor.predict(torch.stack(tensors)).defect_scores
    review, reject = (float(np.quantile(scores, q)) for q in (0.5, 0.75))
    assert scores.min() < review < reject < scores.max(), "the untrained network tells the pictures apart"
    return save_package(root / "line", network, **content, thresholds=_make_thresholds(review, reject)).path


def resaved(package: "ModelPackage", folder: Path, **changes: Any) -> Path:
    """Save an untrained package again, with other content beside its network and thresholds."""
    from classifiers import save_package
    from classifiers.package.package import build_model

    return save_package(
        folder,
        build_model(package),
        architecture=package.architecture,
        model_args=package.model_args,
        classes=package.classes,
        good_class=package.good_class,
        task=package.task,
        preprocessing=package.preprocessing,
        thresholds=package.thresholds,
        **changes,
    ).path


@pytest.fixture(scope="session")
def package_in_two(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Path:
    """The same, calibrated by torch in bfloat16 as well, where it passes what scores lowest alone."""
    import torch

    from classifiers import Predictor, load_package
    from classifiers.package.parity import parity_pictures
    from classifiers.package.precisions import ReducedPrecision

    plain = load_package(package)
    reduced = Predictor(plain, device="cpu", engine="torch", precision="bfloat16")
    logits = reduced.logits(torch.stack([reduced.transform(picture) for picture in parity_pictures()]))
    assert plain.thresholds is not None
    bfloat16 = ReducedPrecision(
        precision="bfloat16",
        engine="torch",
        device="cpu",
        thresholds=_make_thresholds(plain.thresholds.review / 8, plain.thresholds.reject),
        parity=tuple(map(tuple, logits.tolist())),
        flips=7,
        score_shift=0.0125,
        logit_shift=0.5,
    )
    return resaved(
        plain,
        tmp_path_factory.mktemp("packages") / "line",
        reduced=[bfloat16],
        training={
            "calibration": {"precision": "float32", "precisions": ["float32", "bfloat16"], "engine": "torch"}
        },
    )


def _kensa_here(*arguments: object, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, which has imported torch already, and expect an exit code."""
    command = ["kensa", *map(str, arguments)]
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch.dict(os.environ, COLUMNS="160"),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    done = subprocess.CompletedProcess(command, code, stdout.getvalue(), stderr.getvalue())
    assert check is None or code == check, done.stdout + done.stderr
    return done


@pytest.fixture(scope="session")
def kensa() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in this process: `kensa(*arguments, check=exit code or None)`."""
    return _kensa_here


@dataclass(frozen=True)
class Line:
    """A settings file in a folder of its own, and the command line on it."""

    folder: Path
    config: Path
    environment: dict[str, str]

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.folder / 'kensa.db'}"

    def kensa(
        self, *arguments: str, check: int | None = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `kensa ARGUMENTS -c CONFIG` and expect an exit code; Prefect gets a process of its own."""
        command = [*arguments, "-c", str(self.config)]
        if arguments[0] not in ("run", "serve"):
            return _kensa_here(*command, check=check)
        done = subprocess.run(
            [KENSA, *command],
            capture_output=True,
            text=True,
            env={**self.environment, **environment},
            timeout=240,
        )
        assert check is None or done.returncode == check, done.stdout + done.stderr
        return done

    def json(self, *arguments: str) -> list[dict]:
        return [json.loads(line) for line in self.kensa(*arguments, "--format", "json").stdout.splitlines()]


@pytest.fixture
def make_line(
    tmp_path: Path, pictures: Path, package: Path, prefect_environment: dict[str, str]
) -> Callable[..., Line]:
    """Write settings over `pictures` (or another source) into a folder of their own."""

    def make(name: str = "a", **sections: dict) -> Line:
        folder = tmp_path / name
        folder.mkdir()
        settings: dict = {
            "name": "test-line",
            "source": {"uri": str(pictures), "manifest": "manifest.csv"},
            # Commands that run a flow have a process of their own, where `auto` would take OpenVINO.
            "model": {"package": str(package), "engine": "torch"},
            "run": {"batch_size": 5, "decoders": 1},
            "database": {"url": f"sqlite:///{folder / 'kensa.db'}"},
            "artifacts": {"uri": str(folder / "artifacts")},
            "report": {"folder": str(folder / "reports"), "max_findings": 3},
        }
        for section, values in sections.items():
            settings[section] = {**settings.get(section, {}), **values}
        config = folder / "line.yaml"
        config.write_text(yaml.safe_dump(settings))
        return Line(folder, config, prefect_environment)

    return make


@pytest.fixture(scope="session")
def _made() -> dict[str, Path]:
    """What `once` has made, by name."""
    return {}


@pytest.fixture
def once(
    _made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Line, Callable[[], object]], Line]:
    """Make a line's record once a session under a name; every later line of that name gets a copy.

    `once(name, line, make)` gives the line. The settings file stays each line's own.
    """

    def fill(name: str, line: Line, make: Callable[[], object]) -> Line:
        if name in _made:
            shutil.copytree(_made[name], line.folder, dirs_exist_ok=True)
        else:
            make()
            kept = tmp_path_factory.mktemp("made") / "line"
            shutil.copytree(line.folder, kept, ignore=shutil.ignore_patterns(line.config.name))
            _made[name] = kept
        return line

    return fill


@pytest.fixture
def inspected(make_line, inspect_all, once) -> Line:
    """A finished run over `pictures`, made without Prefect."""
    line = make_line()
    return once("inspected", line, lambda: inspect_all(line.config))


@pytest.fixture(scope="session")
def inspect_all() -> "Callable[..., tuple[Inspection, RunResult | None]]":
    """The steps of a run in order, as the flow does them, without Prefect."""
    return _inspect_all


def _inspect_all(config: Path, overrides: list[str] | None = None, *, stop_after: int | None = None):
    """Do what the flow does, without Prefect; `stop_after` leaves the run unfinished, as a kill would."""
    from operations.inspection import run

    with run.open_inspection(load_settings(config, overrides or []), "manual") as inspection:
        for number, listed in enumerate(inspection.batches(), start=1):
            batch = run.classify(inspection, run.decode(inspection, number, listed))
            if batch.flagged:
                batch = run.explain(inspection, batch)
            run.record(inspection, batch)
            if number == stop_after:
                return inspection, None
        return inspection, run.finish(inspection)


@pytest.fixture(scope="session")
def prefect_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a command that runs a flow: a Prefect home of the tests' own, and no server."""
    home = tmp_path_factory.mktemp("prefect")
    return {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | {
        "PREFECT_HOME": str(home)
    }
