"""Targets of pictures and of parts; packages whose pictures are tiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from classifiers.data.dataset import Dataset, defective_mask
from classifiers.data.reading import load_dataset
from classifiers.measure.calibrate import CalibrationError, calibrate, check_enough, fit_temperature
from classifiers.measure.evaluation import evaluate
from classifiers.measure.logits import dataset_logits
from classifiers.measure.units import calibrated_per, of_parts
from classifiers.package.package import ModelPackage
from classifiers.package.tiling import Tiling
from classifiers.predict import Predictor
from tests.classifiers.training.strips import write_strips

MakePackage = Callable[..., ModelPackage]
TARGETS = {"target_escape_rate": 0.2, "target_overkill": 0.2, "device": "cpu", "precisions": ()}


def test_a_part_is_judged_by_its_highest_score_and_defective_by_one_picture() -> None:
    scores = np.array([0.1, 0.9, 0.3, 0.2, 0.4], dtype=np.float32)
    parts = of_parts(scores, np.array([False, False, True, False, False]), ["b", "a", "b", "c", "c"])
    assert parts.groups == ["a", "b", "c"]
    assert parts.scores.tolist() == scores[[1, 2, 4]].tolist()
    assert parts.defective.tolist() == [False, True, False]


def test_too_few_parts_are_refused_as_parts() -> None:
    with pytest.raises(CalibrationError, match=r"^20 defective parts cannot show .*--per picture"):
        check_enough(20, 200, 0.05, 0.05, per="part")


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    file = write_strips(tmp_path_factory.mktemp("units") / "data", 40, 40, seed=5)
    return load_dataset(file, group_column="part", good_class="good")


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory, make_package: MakePackage) -> ModelPackage:
    return make_package(
        tmp_path_factory.mktemp("tiled") / "model",
        classes=("good", "line", "scratch"),
        tiling=Tiling(2.0, 4, highest=3),
    )


def test_thresholds_of_parts_keep_their_targets_for_parts(
    tiled: ModelPackage, strips: Dataset, tmp_path: Path
) -> None:
    # Every part of the data has two pictures; of one defective part a picture is good.
    items = [replace(item, labels=("good",)) if item.name == "040.png" else item for item in strips.items]
    mixed = replace(strips, items=tuple(items))
    found = calibrate(tiled, mixed, tmp_path / "parts", per="part", **TARGETS)
    zones = found.thresholds
    assert zones is not None
    assert (zones.n_defective, zones.n_good) == (20, 20)
    assert (zones.n_defective_effective, zones.n_good_effective) == (20, 20)
    assert calibrated_per(found) == found.training["calibration"]["per"] == "part"
    measured = evaluate(Predictor(found, device="cpu"), mixed)
    assert measured["parts"]["n"] == 40
    assert measured["parts"]["escape"]["count"] == zones.n_missed
    assert measured["parts"]["escape"]["upper_bound"] == pytest.approx(zones.escape_bound)
    assert measured["parts"]["overkill"]["count"] == zones.n_flagged_good
    assert measured["overkill"]["total"] == 41  # pictures are counted too
    # As before where nobody asks for parts.
    plain = calibrate(tiled, mixed, tmp_path / "pictures", **TARGETS)
    assert plain.thresholds is not None
    assert plain.thresholds.n_defective == 39
    assert "per" not in plain.training["calibration"]
    assert calibrated_per(plain) == "picture"
    assert "parts" not in evaluate(Predictor(plain, device="cpu"), mixed)


@pytest.mark.parametrize("precisions", [(), ("bfloat16",)])
def test_a_tiled_package_is_calibrated_by_the_scores_of_pictures(
    tiled: ModelPackage, strips: Dataset, tmp_path: Path, precisions: tuple[str, ...]
) -> None:
    seen: list[tuple[int, int]] = []
    found = calibrate(
        tiled,
        strips,
        tmp_path / "calibrated",
        **{**TARGETS, "engine": "torch", "precisions": precisions},
        progress=lambda done, total: seen.append((done, total)),
    )
    assert found.tiling == tiled.tiling
    # 24 x 240 input pixels: one row of (240 - 4) / 28 tiles, rounded up.
    assert found.training["calibration"]["tile_counts"] == {"9": 80}
    assert seen[-1] == (80 * (1 + len(precisions)),) * 2
    zones = found.thresholds
    assert zones is not None
    assert (zones.n_defective, zones.n_good) == (40, 40)
    predictor = Predictor(found, device="cpu", engine="torch", precision="float32")
    measured = evaluate(predictor, strips)
    assert measured["escape"]["count"] == zones.n_missed
    assert measured["overkill"]["count"] == zones.n_flagged_good
    # The temperature is fitted to the tiles that decide.
    raw = dataset_logits(Predictor(tiled, device="cpu", engine="torch"), strips)
    assert raw.counts == (9,) * 80
    rows = raw.rows.reshape(80, 9, 3)
    firsts = 1 - rows.softmax(dim=2)[:, :, 0]
    deciding = rows[torch.arange(80), firsts.argmax(dim=1)]
    targets = torch.zeros(80, 3)
    bad = torch.from_numpy(defective_mask(strips, "good"))
    targets[~bad, 0], targets[bad, 2] = 1, 1
    assert found.temperature == pytest.approx(fit_temperature(deciding, targets, multi_label=False), rel=1e-3)
    # A picture's score is the mean of its three highest, and what is decided hangs on it.
    logits = dataset_logits(predictor, strips)
    scores = 1 - (rows / found.temperature).softmax(dim=2)[:, :, 0]
    expected = scores.sort(dim=1).values[:, -3:].mean(dim=1).numpy()
    assert logits.prediction().defect_scores == pytest.approx(expected, abs=1e-4)
    decisions = logits.decisions()
    assert [decision.score for decision in decisions] == pytest.approx(expected, abs=1e-4)
    assert sum(decision.verdict == "pass" for decision in decisions) == measured["verdicts"]["pass"]
    if precisions:
        (reduced,) = found.reduced
        assert reduced.thresholds.n_defective == 40
        assert 0 < reduced.score_shift < 0.1
