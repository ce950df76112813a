from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from classifiers.data.dataset import Dataset
from classifiers.data.pictures import read_pixels
from classifiers.data.reading import load_dataset
from classifiers.errors import PackageError
from classifiers.measure.calibrate import (
    MARGIN,
    CalibrationError,
    calibrate,
    check_cost,
    check_enough,
    choose_thresholds,
    count_flips,
    fit_temperature,
    loss,
)
from classifiers.measure.evaluation import evaluate, predict_dataset
from classifiers.measure.reference import read_reference
from classifiers.package import parity
from classifiers.package.package import ModelPackage, load_package
from classifiers.package.thresholds import Thresholds
from classifiers.predict import Predictor, decide
from sources.picture_statistics import picture_statistics

WriteCsv = Callable[..., Path]


def choose(
    bad: list[float], good: list[float], escape: float = 0.05, overkill: float | None = 0.05
) -> Thresholds:
    scores = np.array(bad + good, dtype=np.float32)
    defective = np.array([True] * len(bad) + [False] * len(good))
    order = np.random.default_rng(0).permutation(len(scores))
    return choose_thresholds(
        scores[order], defective[order], target_escape_rate=escape, target_overkill=overkill
    )


def test_zero_misses_of_59() -> None:
    bad = [0.6 + 0.005 * index for index in range(59)]
    good = [0.01 * index for index in range(59)]  # up to 0.58
    zones = choose(bad, good)
    assert zones.n_missed == 0
    assert zones.escape_rate == 0
    assert zones.escape_bound == pytest.approx(1 - 0.05 ** (1 / 59))
    assert 0.58 < zones.review < 0.6
    assert zones.reject == zones.review  # well separated: no review zone is needed
    assert zones.overkill_rate == zones.reject_overkill_rate == 0
    assert zones.reject_recall == 1
    assert (zones.n_defective, zones.n_good) == (59, 59)


def test_one_miss_is_allowed_from_93() -> None:
    bad = [0.02, 0.4] + [0.9] * 91
    zones = choose(bad, [0.1] * 60 + [0.5] * 10 + [0.95])
    assert zones.n_missed == 1  # 0.02 escapes, the next smallest decides
    assert zones.review == pytest.approx(0.4, rel=2e-4)
    assert zones.review < 0.4
    assert zones.escape_bound <= 0.05
    assert zones.n_flagged_good == 11
    assert zones.overkill_rate == pytest.approx(11 / 71)
    # 71 good pictures allow no automatic reject (93 would be needed for one), so the highest decides.
    assert 0.95 < zones.reject < 0.951
    assert zones.n_rejected_good == 0
    assert zones.reject_recall == 0
    assert choose([0.02, *bad[2:]], [0.1] * 60).n_missed == 0  # 92 allow none


def test_ties_never_escape_together() -> None:
    zones = choose([0.3] * 93, [0.1] * 59)
    assert zones.n_missed == 0
    assert zones.review < 0.3


def test_the_reject_threshold_mirrors_the_review_threshold() -> None:
    bad = [0.2] + [0.99] * 60
    good = [0.05] * 91 + [0.6, 0.97]
    zones = choose(bad, good)
    assert zones.review == pytest.approx(0.2, rel=2e-4)
    assert zones.reject == pytest.approx(0.6, rel=1e-3)  # one of 93 good pictures may be above
    assert zones.n_rejected_good == 1
    assert zones.reject_overkill_bound <= 0.05
    assert zones.reject_recall == pytest.approx(60 / 61)


def test_groups_are_counted() -> None:
    scores = np.array([0.9] * 60 + [0.1] * 60)
    defective = scores > 0.5
    groups = [f"tile{index // 6}" for index in range(120)]
    zones = choose_thresholds(
        scores, defective, target_escape_rate=0.3, target_overkill=0.3, groups=groups, dataset_digest="abc"
    )
    assert (zones.n_defective_groups, zones.n_good_groups, zones.dataset_digest) == (10, 10, "abc")
    # All scores of a side are the same: nothing says that the six of a tile are more than one.
    assert (zones.n_defective_effective, zones.n_good_effective) == (10, 10)
    assert zones.escape_bound == pytest.approx(1 - 0.05 ** (1 / 10))
    with pytest.raises(
        CalibrationError, match=r"60 defective pictures, which count as 10\.0 independent ones.*"
    ):
        choose_thresholds(scores, defective, target_escape_rate=0.05, target_overkill=0.3, groups=groups)


def test_views_of_a_part_count_by_how_alike_they_are() -> None:
    """Of 30 parts with 8 views, either all views are missed or none: no more is known than of 30 pictures."""
    bad = np.repeat([0.2] + [0.9] * 29, 8)
    good = np.random.default_rng(0).uniform(0, 0.1, 240)
    scores, defective = np.concatenate([bad, good]), np.repeat([True, False], 240)
    parts = [f"part{index // 8}" for index in range(480)]
    zones = choose_thresholds(scores, defective, target_escape_rate=0.12, target_overkill=0.12, groups=parts)
    assert zones.n_defective_effective == pytest.approx(30)
    assert zones.n_missed == 0, "one part missed of 30 shows no more than 15 %"
    alone = choose_thresholds(scores, defective, target_escape_rate=0.12, target_overkill=0.12)
    assert alone.n_missed == 8
    assert zones.n_good_effective is not None
    assert zones.n_good_effective > 150, "views that differ as other parts do are nearly independent"


@pytest.mark.parametrize(
    ("n_defective", "n_good", "escape", "message"),
    [
        (0, 500, 0.05, "no defective picture in the calibration data; at least 59"),
        (500, 0, 0.05, "no good picture in the calibration data; at least 59.*--target-overkill none"),
        (
            58,
            500,
            0.05,
            r"58 defective pictures cannot show a target escape rate of 0.05.*0\.0503.*At least 59",
        ),
        (200, 500, 0.01, "At least 299 defective"),
        (
            500,
            20,
            0.05,
            "20 good pictures cannot show a target overkill of 0.05.*At least 59 good.*overkill none",
        ),
        (500, 500, 0.0, "must lie between 0 and 1, got 0"),
        (500, 500, 1.0, "must lie between 0 and 1"),
    ],
)
def test_refusals_say_what_would_be_needed(
    n_defective: int, n_good: int, escape: float, message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        check_enough(n_defective, n_good, escape, 0.05)
    with pytest.raises(CalibrationError, match=message):
        choose([0.9] * n_defective, [0.1] * n_good, escape)


def test_without_a_target_for_overkill_nothing_is_claimed_about_it() -> None:
    bad = [0.6 + 0.005 * index for index in range(59)]
    blind = choose(bad, [], overkill=None)
    assert blind.review == choose(bad, [0.1] * 59).review  # the escape rate is bounded as before
    assert blind.escape_bound == pytest.approx(1 - 0.05 ** (1 / 59))
    assert (blind.target_overkill, blind.overkill_rate, blind.overkill_bound) == (None, None, None)
    assert (blind.reject_overkill_rate, blind.reject_overkill_bound, blind.n_good) == (None, None, 0)
    assert (blind.reject, blind.reject_recall) == (1, 0)  # a person looks at each
    few = choose(bad, [0.1] * 6 + [0.7], overkill=None)
    assert few.overkill_rate == pytest.approx(1 / 7)
    assert few.overkill_bound == pytest.approx(0.52, abs=0.01)
    assert (few.target_overkill, few.reject, few.n_rejected_good) == (None, 1, 0)
    sure = choose([*bad[1:], 1.0], [0.1] * 6 + [1.0], overkill=None)
    assert (sure.n_flagged_good, sure.n_rejected_good, sure.reject_recall) == (1, 0, 0)
    assert not sure.rejects(1.0)
    assert choose(bad, [0.1] * 59).rejects(1.0)
    with pytest.raises(CalibrationError, match="no defective picture"):
        check_enough(0, 500, 0.05, None)


def test_a_saturated_good_picture_is_no_reject_threshold() -> None:
    with pytest.raises(CalibrationError, match="look at their labels"):
        choose([0.9] * 60, [0.1] * 58 + [1.0])


@pytest.mark.parametrize("n", [59, 93, 150])
def test_the_bound_holds_although_chosen_from_the_same_pictures(n: int) -> None:
    """Scores uniform on [0, 1]: the true escape rate is the threshold, in bounds in 95 % of worlds."""
    rng = np.random.default_rng(n)
    good = [0.0] * 59
    kept = [choose(list(rng.random(n)), good).review <= 0.05 for _ in range(1000)]
    assert np.mean(kept) >= 0.93  # 0.95 or more, less three standard errors of 0.007


def drawn_targets(logits: torch.Tensor, temperature: float, *, multi_label: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if multi_label:
        return (torch.rand(logits.shape, generator=generator) < (logits / temperature).sigmoid()).float()
    chosen = torch.multinomial((logits / temperature).softmax(dim=1), 1, generator=generator)
    return torch.nn.functional.one_hot(chosen[:, 0], logits.shape[1]).float()


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(true: float, multi_label: bool) -> None:
    logits = 4 * torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    targets = drawn_targets(logits, true, multi_label=multi_label)
    found = fit_temperature(logits, targets, multi_label=multi_label)
    assert found == pytest.approx(true, rel=0.08)
    at = [loss(logits, targets, found * factor, multi_label=multi_label) for factor in (0.97, 1, 1.03)]
    assert at[1] == min(at)


def test_a_faultless_model_keeps_a_finite_temperature() -> None:
    logits = torch.tensor([[5.0, -5.0], [-5.0, 5.0]]).repeat(50, 1)
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(50, 1)
    assert 0.2 < fit_temperature(logits, targets, multi_label=False) < 2
    assert (
        fit_temperature(1e6 * logits, 1 - targets, multi_label=False) == 20
    )  # hopeless: the end of the range


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory, write_csv: WriteCsv) -> Dataset:
    file = write_csv(tmp_path_factory.mktemp("calibration"), {"good": 90, "line": 56, "spot": 34}, seed=1)
    return load_dataset(file, group_column="lot", good_class="good")


def test_calibrate_end_to_end(package: ModelPackage, calibration: Dataset, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = calibrate(
        package,
        calibration,
        tmp_path / "calibrated",
        device="cpu",
        command="kensa calibrate",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (180, 180)
    assert result.digest != package.digest
    assert result.weights_sha256 == package.weights_sha256
    zones = result.thresholds
    assert zones is not None
    assert (zones.n_defective, zones.n_good, zones.n_good_groups) == (90, 90, 45)
    assert zones.escape_bound <= 0.05
    assert zones.reject_overkill_bound <= 0.05
    assert zones.dataset_digest == calibration.digest
    record = result.training["calibration"]
    assert record["package_digest"] == package.digest
    assert record["loss_after"] <= record["loss_before"] + 1e-3
    reference = read_reference(result.training)
    assert reference is not None
    assert reference.good_score is not None
    assert (reference.brightness.n, reference.good_score.n, reference.defective_score.n) == (180, 90, 90)
    every = [picture_statistics(read_pixels(item)) for item in calibration.items]
    assert reference.sharpness.mean == pytest.approx(np.mean([each.sharpness for each in every]))
    assert reference.good_score.mean < reference.defective_score.mean
    # The predictor of the new package sees the very rates the evidence states.
    measured = evaluate(Predictor(result, device="cpu"), calibration)
    assert measured["escape"]["count"] == zones.n_missed
    assert measured["overkill"]["count"] == zones.n_flagged_good
    assert measured["automatic_reject_overkill"]["count"] == zones.n_rejected_good
    # Calibrating a calibrated package replaces, and does not pile up.
    again = calibrate(result, calibration, tmp_path / "again", device="cpu")
    assert again.temperature == pytest.approx(result.temperature, rel=1e-3)
    assert again.thresholds is not None
    assert again.thresholds.review == pytest.approx(zones.review, abs=1e-4)


@pytest.fixture(scope="module")
def in_two(
    package: ModelPackage, calibration: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> ModelPackage:
    """A package that was calibrated in float32 and bfloat16, in torch, which emulates it here."""
    return calibrate(
        package,
        calibration,
        tmp_path_factory.mktemp("two") / "calibrated",
        device="cpu",
        engine="torch",
        precisions=["float32", "bfloat16"],
    )


def test_each_precision_decides_by_thresholds_of_its_own(in_two: ModelPackage, calibration: Dataset) -> None:
    (bfloat16,) = in_two.reduced
    float32 = in_two.thresholds
    assert float32 is not None
    assert (bfloat16.precision, bfloat16.engine, bfloat16.device) == ("bfloat16", "torch", "cpu")
    assert bfloat16.thresholds.review != float32.review
    assert bfloat16.thresholds.escape_bound <= 0.05
    assert 0 < bfloat16.score_shift < 0.2
    assert bfloat16.logit_shift > 0
    assert in_two.training["calibration"]["precisions"] == ["float32", "bfloat16"]
    assert in_two.training["calibration"]["refused"] == {}
    verdicts = []
    for precision, own in (("float32", float32), ("bfloat16", bfloat16.thresholds)):
        predictor = Predictor(in_two, device="cpu", engine="torch", precision=precision)
        assert predictor.package.thresholds == own
        assert (predictor.package.digest, predictor.package.temperature) == (
            in_two.digest,
            in_two.temperature,
        )
        measured = evaluate(predictor, calibration)
        assert measured["escape"]["count"] == own.n_missed
        assert measured["overkill"]["count"] == own.n_flagged_good
        assert measured["automatic_reject_overkill"]["count"] == own.n_rejected_good
        scores = predict_dataset(predictor, calibration)
        verdicts.append([decide(predictor.package, row).verdict for row in scores.probabilities])
    assert bfloat16.flips == sum(one != other for one, other in zip(*verdicts, strict=True))
    assert load_package(in_two.path) == in_two


def test_calibrating_again_forgets_what_was_calibrated(
    in_two: ModelPackage, calibration: Dataset, tmp_path: Path
) -> None:
    again = calibrate(in_two, calibration, tmp_path / "again", device="cpu", engine="torch", precisions=[])
    assert again.reduced == ()
    assert "reduced" not in json.loads((again.path / "model.json").read_text())
    both = calibrate(
        in_two, calibration, tmp_path / "b", device="cpu", engine="torch", precisions=["bfloat16"]
    )
    assert [one.precision for one in both.reduced] == ["bfloat16"]


def test_a_precision_that_moves_the_logits_too_far_is_left_out(
    package: ModelPackage, calibration: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parity.TOLERANCE, "bfloat16", 1e-6)
    seen: list[tuple[int, int]] = []
    result = calibrate(
        package,
        calibration,
        tmp_path / "out",
        device="cpu",
        engine="torch",
        precisions=["bfloat16", "float16"],
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [one.precision for one in result.reduced] == ["float16"]
    assert seen[-1] == (540, 540)
    record = result.training["calibration"]
    assert record["precisions"] == ["float32", "float16"]
    assert re.search(r"bfloat16 differ .* by 0\.\d+ of their spread", record["refused"]["bfloat16"])
    with pytest.raises(CalibrationError, match="'int8' is no precision: choose of float32, bfloat16"):
        calibrate(package, calibration, tmp_path / "none", device="cpu", precisions=["int8"])


def test_flips_are_counted_by_hand() -> None:
    zones = choose([0.6 + 0.005 * index for index in range(59)], [0.01 * index for index in range(59)])
    float32, other = replace(zones, review=0.3, reject=0.7), replace(zones, review=0.4, reject=0.8)
    scores = np.array([0.2, 0.35, 0.5, 0.75, 0.9], np.float32)
    assert count_flips(float32, scores, float32, scores) == 0
    assert count_flips(float32, scores, other, scores) == 2  # 0.35 passes now, 0.75 is for review
    assert count_flips(float32, scores, other, scores + np.float32(0.1)) == 0
    assert count_flips(float32, scores, float32, scores[::-1]) == 4


def test_a_precision_may_not_flag_more_good_pictures_than_the_bound_of_float32() -> None:
    bad = [0.6 + 0.005 * index for index in range(59)]
    few, more, many = (choose(bad, [0.1] * (100 - n) + [0.65] * n) for n in (2, 5, 8))
    assert few.overkill_bound == pytest.approx(0.0616, abs=1e-4)
    check_cost(more, few)
    with pytest.raises(CalibrationError, match=r"8 of 100 good pictures, float32 2 of them, .* 6\.2%"):
        check_cost(many, few)
    blind = choose(bad, [], overkill=None)
    check_cost(blind, blind)


def test_engines_agree_in_float32_more_closely_than_the_margin(
    package: ModelPackage, calibration: Dataset, tmp_path: Path
) -> None:
    """So thresholds that one engine's scores gave hold for the other's."""
    pytest.importorskip("openvino")
    made = {
        name: calibrate(package, calibration, tmp_path / name, device="cpu", engine=name, precisions=[])
        for name in ("torch", "openvino")
    }
    for name, other in (("torch", "openvino"), ("openvino", "torch")):
        assert made[name].training["calibration"]["engine"] == name
        zones = made[name].thresholds
        assert zones is not None
        measured = evaluate(Predictor(made[name], device="cpu", engine=other), calibration)
        assert measured["escape"]["count"] == zones.n_missed
        assert measured["overkill"]["count"] == zones.n_flagged_good
        assert measured["automatic_reject_overkill"]["count"] == zones.n_rejected_good
    scores = [
        predict_dataset(Predictor(package, device="cpu", engine=name), calibration).defect_scores
        for name in made
    ]
    np.testing.assert_allclose(*scores, rtol=MARGIN / 2, atol=0)


def test_calibrate_multi_label(
    make_package: Callable[..., ModelPackage], tmp_path: Path, write_csv: WriteCsv
) -> None:
    package = make_package(tmp_path / "m", task="multi-label", classes=("crack", "line", "spot"))
    file = write_csv(tmp_path / "d", {"": 60, "line": 30, "line;spot": 30})
    result = calibrate(package, load_dataset(file, multi_label=True), tmp_path / "out", device="cpu")
    assert result.thresholds is not None
    assert (result.thresholds.n_defective, result.thresholds.n_good) == (60, 60)


def test_data_in_which_every_picture_has_something(
    make_package: Callable[..., ModelPackage], tmp_path: Path, write_csv: WriteCsv
) -> None:
    package = make_package(tmp_path / "m", task="multi-label", classes=("crack", "line", "spot"))
    data = load_dataset(write_csv(tmp_path / "d", {"line": 30, "line;spot": 30}), multi_label=True)
    with pytest.raises(CalibrationError, match="--target-overkill none"):
        calibrate(package, data, tmp_path / "out", device="cpu")
    result = calibrate(package, data, tmp_path / "out", target_overkill=None, device="cpu")
    assert result.thresholds is not None
    assert (result.thresholds.n_good, result.thresholds.overkill_rate) == (0, None)
    reference = read_reference(result.training)
    assert reference is not None
    assert (reference.good_score, reference.defective_score.n) == (None, 60)
    measured = evaluate(Predictor(result, device="cpu"), data)
    assert (measured["auroc"], measured["overkill"]["share"]) == (None, None)


def test_what_cannot_be_calibrated(package: ModelPackage, calibration: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(CalibrationError, match="has no good class"):
        calibrate(replace(package, good_class=None), calibration, out)
    trained = replace(package, training={"data_digests": {"training": calibration.digest}})
    with pytest.raises(CalibrationError, match="own training data"):
        calibrate(trained, calibration, out)
    # Labels that lie elsewhere name the same pictures otherwise, as the splits of `kensa train` do.
    elsewhere = (replace(item, name=f"../{item.name}") for item in calibration.items)
    with pytest.raises(CalibrationError, match="own training data"):
        calibrate(trained, replace(calibration, items=tuple(elsewhere)), out)
    goods = replace(calibration, items=tuple(i for i in calibration.items if i.labels == ("good",)))
    with pytest.raises(CalibrationError, match="no defective picture"):
        calibrate(package, goods, out)
    with pytest.raises(PackageError, match="never overwritten"):
        calibrate(package, calibration, package.path, device="cpu")
    assert not out.exists()
