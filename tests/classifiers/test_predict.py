from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classifiers.engines import choice
from classifiers.errors import PackageError
from classifiers.package import manifest
from classifiers.package.network import fold_temperature
from classifiers.package.package import ModelPackage, build_model, load_package
from classifiers.package.parity import check_parity, parity_pictures
from classifiers.package.precisions import ReducedPrecision
from classifiers.package.preprocessing import Preprocessing
from classifiers.package.thresholds import Thresholds
from classifiers.predict import Predictor, automatic_precisions, decide, defect_scores

MakePackage = Callable[..., ModelPackage]


@pytest.fixture(scope="module")
def predictor(package: ModelPackage) -> Predictor:
    return Predictor(package, device="cpu", batch_size=4)


@pytest.fixture(scope="module")
def batch(predictor: Predictor) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.stack([predictor.transform(rng.integers(0, 256, (40, 30, 3), np.uint8)) for _ in range(10)])


def test_what_is_used_is_what_was_saved(
    predictor: Predictor, package: ModelPackage, batch: torch.Tensor
) -> None:
    raw = build_model(package)
    with torch.inference_mode():
        expected = torch.softmax(raw(batch) / 2.0, dim=1).numpy()
    prediction = predictor.predict(batch)
    np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(prediction.defect_scores, 1 - expected[:, 0], atol=1e-6)
    assert prediction.probabilities.dtype == prediction.defect_scores.dtype == np.float32
    assert np.ptp(expected) > 0.1  # the comparison means something


def test_the_models_logits_are_already_divided(
    predictor: Predictor, package: ModelPackage, batch: torch.Tensor
) -> None:
    with torch.inference_mode():
        ours, raw = predictor.model(batch), build_model(package)(batch)
    torch.testing.assert_close(ours, raw / 2.0, atol=1e-5, rtol=1e-5)
    assert not predictor.model.training
    assert type(predictor.model) is type(build_model(package))


@pytest.mark.parametrize("batch_size", [1, 3, 10, 100])
def test_chunks_do_not_matter(
    package: ModelPackage, predictor: Predictor, batch: torch.Tensor, batch_size: int
) -> None:
    other = Predictor(package, device="cpu", batch_size=batch_size).predict(batch)
    np.testing.assert_allclose(other.probabilities, predictor.predict(batch).probabilities, atol=1e-6)


def test_an_empty_batch(predictor: Predictor) -> None:
    prediction = predictor.predict(torch.empty(0, 3, 32, 32))
    assert prediction.probabilities.shape == (0, 3)
    assert prediction.defect_scores.shape == (0,)


def test_unfit_input_is_refused(predictor: Predictor) -> None:
    for shape in ((3, 32, 32), (1, 1, 32, 32), (1, 3, 32, 31)):
        with pytest.raises(PackageError, match=r"input must be \(B, 3, 32, 32\)"):
            predictor.predict(torch.zeros(shape))
    with pytest.raises(PackageError, match="not finite"):
        predictor.predict(torch.full((1, 3, 32, 32), float("nan")))


def test_bfloat16_is_close_to_the_reference(
    package: ModelPackage, predictor: Predictor, batch: torch.Tensor
) -> None:
    fast = Predictor(package, device="cpu", precision="bfloat16")
    assert fast.precision == "bfloat16"
    assert next(fast.model.parameters()).dtype == torch.float32
    difference = np.abs(fast.predict(batch).probabilities - predictor.predict(batch).probabilities)
    assert 0 < difference.max() < 0.05


def test_overflow_falls_back_to_float32(
    package: ModelPackage, predictor: Predictor, batch: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = Predictor(package, device="cpu", precision="bfloat16")

    class Overflowing:
        name, precision, version = "torch", "bfloat16", "0"

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((len(images), 3), float("inf"))

    monkeypatch.setattr(fast, "engine", Overflowing())
    np.testing.assert_allclose(
        fast.predict(batch).probabilities, predictor.predict(batch).probabilities, atol=1e-6
    )


def test_automatic_choices_and_refusals(package: ModelPackage) -> None:
    automatic = Predictor(package)
    expected = ("cuda", "float16") if torch.cuda.is_available() else ("cpu", "float32")
    assert (automatic.device.type, automatic.precision) == expected
    with pytest.raises(PackageError, match="precision"):
        Predictor(package, device="cpu", precision="int8")
    with pytest.raises(PackageError, match="device"):
        Predictor(package, device="abacus")
    with pytest.raises(PackageError, match="batch_size"):
        Predictor(package, device="cpu", batch_size=0)


@pytest.fixture(scope="session")
def earned(
    make_package: MakePackage, zones: Thresholds, tmp_path_factory: pytest.TempPathFactory
) -> ModelPackage:
    """A package that was calibrated in float32 and, by torch on this CPU, in bfloat16."""
    content = {"temperature": 2.0, "thresholds": zones}
    record = {"calibration": {"precision": "float32", "precisions": ["float32", "bfloat16"]}}
    folder = tmp_path_factory.mktemp("earned")
    plain = Predictor(
        make_package(folder / "plain", **content), device="cpu", engine="torch", precision="bfloat16"
    )
    pictures = torch.stack([plain.transform(picture) for picture in parity_pictures()])
    bfloat16 = ReducedPrecision(
        precision="bfloat16",
        engine="torch",
        device="cpu",
        thresholds=replace(zones, review=0.5),
        parity=tuple(map(tuple, plain.logits(pictures).tolist())),
        flips=3,
        score_shift=0.01,
        logit_shift=0.1,
    )
    return make_package(folder / "model", **content, training=record, reduced=[bfloat16])


@pytest.mark.parametrize(
    ("device", "engine", "units", "tried"),
    [
        ("cuda", "torch", False, ("bfloat16", "float32")),
        ("cpu", "torch", False, ("float32",)),
        ("cpu", "torch", True, ("bfloat16", "float32")),
        ("cpu", "openvino", True, ("float32",)),
        ("mps", "torch", True, ("float32",)),
    ],
)
def test_auto_takes_the_fastest_precision_that_was_calibrated(
    earned: ModelPackage,
    package: ModelPackage,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    engine: str,
    units: bool,
    tried: tuple[str, ...],
) -> None:
    monkeypatch.setattr(choice, "bfloat16_units", lambda: units)
    where = torch.device(device)
    assert automatic_precisions(earned, where, engine) == tried
    half = replace(earned.reduced[0], precision="float16", engine="torch")
    both = automatic_precisions(replace(earned, reduced=(*earned.reduced, half)), where, engine)
    assert both == (("float16", *tried) if device == "cuda" else tried)
    assert automatic_precisions(replace(earned, reduced=()), where, engine) == ("float32",)
    # Calibrated before kensa asked in which precision: as it was then.
    assert automatic_precisions(package, where, engine) == (
        ("float16",) if device == "cuda" else ("float32",)
    )


@pytest.mark.parametrize(
    ("capability", "units"), [("avx512_bf16", True), ("amx_bf16", True), ("avx2", False)]
)
def test_units_are_what_torch_says(monkeypatch: pytest.MonkeyPatch, capability: str, units: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True}, raising=False)
    assert choice.bfloat16_units() is units
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not choice.bfloat16_units()


def test_a_precision_brings_its_thresholds(earned: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "bfloat16_units", lambda: True)
    automatic = Predictor(earned, device="cpu", engine="torch")
    assert automatic.precision == "bfloat16"
    exact = Predictor(earned, device="cpu", engine="torch", precision="float32")
    between = probabilities(0.6, 0.3, 0.1)  # its score, 0.4, lies between 0.25 and 0.5
    assert decide(exact.package, between).verdict == "review"
    assert decide(automatic.package, between).verdict == "pass"
    assert automatic.package.digest == exact.package.digest == earned.digest


def test_a_precision_that_was_not_calibrated_is_refused(
    earned: ModelPackage,
    make_package: MakePackage,
    zones: Thresholds,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(PackageError, match="kensa calibrate --engine torch --precision float16"):
        Predictor(earned, device="cpu", engine="torch", precision="float16")
    # Where the first engine was not calibrated, another one may have been.
    assert Predictor(earned, device="cpu", precision="bfloat16").engine.name == "torch"
    caplog.clear()
    record = {"calibration": {"precision": "float32"}}  # as 0.2 wrote it
    old = make_package(tmp_path / "old", thresholds=zones, training=record)
    Predictor(old, device="cpu", engine="torch", precision="float32")
    assert not caplog.records
    assert Predictor(old, device="cpu", engine="torch", precision="bfloat16").package.thresholds == zones
    (warning,) = caplog.messages
    assert "from scores in float32, and it is to decide in bfloat16" in warning


def test_a_reduced_precision_is_compared_with_its_own_logits(
    earned: ModelPackage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another rounding than at the calibration is refused where float32's tolerance would not notice it."""
    monkeypatch.setattr(choice, "bfloat16_units", lambda: True)
    bfloat16 = earned.reduced[0]
    spread = max(1.0, float(np.ptp(bfloat16.parity)))
    moved = tuple(tuple(logit + 0.03 * spread for logit in row) for row in bfloat16.parity)
    check_parity(bfloat16.parity, moved, "bfloat16")
    other = replace(earned, reduced=(replace(bfloat16, parity=moved),))
    with pytest.raises(PackageError, match=r"0\.02 is allowed.*kensa calibrate"):
        Predictor(other, device="cpu", engine="torch", precision="bfloat16")
    automatic = Predictor(other, device="cpu", engine="torch")
    assert (automatic.precision, automatic.package.thresholds) == ("float32", earned.thresholds)
    assert "precision bfloat16 is not used" in caplog.text


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_parity_refuses_a_network_that_answers_differently(
    package: ModelPackage, tmp_path: Path, engine: str
) -> None:
    shutil.copytree(package.path, tmp_path / "copy")
    file = tmp_path / "copy" / "model.json"
    content = json.loads(file.read_text())
    content["parity"][0][1] += 0.05
    content["digest"] = manifest.digest(content)
    file.write_text(json.dumps(content))
    with pytest.raises(PackageError, match=r"parity: .* is allowed"):
        Predictor(load_package(tmp_path / "copy"), device="cpu", engine=engine)


def test_parity_notices_another_resize(package: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    def crude(self: Preprocessing, pixels: np.ndarray, *rest: object) -> np.ndarray:
        height, width = self.input_size
        return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST))

    monkeypatch.setattr(Preprocessing, "resize", crude)
    with pytest.raises(PackageError, match="parity"):
        Predictor(package, device="cpu")


def test_parity_tolerance_by_hand() -> None:
    stored = [[0.0, 10.0]]
    check_parity(stored, [[0.0, 10.009]], "float32")
    with pytest.raises(PackageError, match="parity"):
        check_parity(stored, [[0.0, 10.011]], "float32")
    check_parity(stored, [[0.0, 10.19]], "float16")
    with pytest.raises(PackageError, match="parity"):
        check_parity(stored, [[0.0, float("nan")]], "bfloat16")
    check_parity(stored, [[0.0, 10.19]], "bfloat16", own=True)
    with pytest.raises(PackageError, match="run `kensa calibrate` here"):
        check_parity(stored, [[0.0, 10.21]], "bfloat16", own=True)


def test_parity_pictures_never_change() -> None:
    import hashlib

    one, two = parity_pictures()
    assert (one.shape, two.shape) == ((97, 131, 3), (150, 110, 3))
    digest = hashlib.sha256(one.tobytes() + two.tobytes()).hexdigest()
    assert digest == "0c7382f92f470029c1847517752e2baebafcaadea391b8b1bdb6c6ef6b48bf17"


def test_a_temperature_needs_one_last_layer() -> None:
    fold_temperature(torch.nn.Identity(), 1.0)
    with pytest.raises(PackageError, match="fold a temperature"):
        fold_temperature(torch.nn.Identity(), 2.0)


def probabilities(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize(
    ("values", "verdict", "flagged"),
    [
        ((0.9, 0.04, 0.06), "pass", ()),
        ((0.7501, 0.0, 0.2499), "pass", ()),
        ((0.75, 0.0, 0.25), "review", ("spot",)),  # a score at the threshold is flagged
        ((0.5, 0.3, 0.2), "review", ("line",)),
        ((0.25, 0.25, 0.5), "reject", ("spot",)),
        ((0.0, 1.0, 0.0), "reject", ("line",)),
    ],
)
def test_single_label_zones(
    package: ModelPackage, values: tuple[float, ...], verdict: str, flagged: tuple[str, ...]
) -> None:
    decision = decide(package, probabilities(*values))
    assert decision.verdict == verdict
    assert decision.score == pytest.approx(1 - values[0], abs=1e-6)
    assert tuple(name for name, _, _ in decision.flagged) == flagged
    for name, index, score in decision.flagged:
        assert package.classes[index] == name
        assert score == pytest.approx(values[index])


@pytest.mark.parametrize(
    ("values", "verdict", "flagged"),
    [
        ((0.2, 0.1, 0.24), "pass", ()),
        ((0.25, 0.1, 0.3), "review", ("crack", "spot")),
        ((0.8, 0.1, 0.75), "reject", ("crack", "spot")),
        ((0.9, 0.9, 0.9), "reject", ("crack", "line", "spot")),
    ],
)
def test_multi_label_zones(
    multi_label_package: ModelPackage, values: tuple[float, ...], verdict: str, flagged: tuple[str, ...]
) -> None:
    decision = decide(multi_label_package, probabilities(*values))
    assert decision.verdict == verdict
    assert decision.score == pytest.approx(max(values))
    assert tuple(name for name, _, _ in decision.flagged) == flagged


def test_without_a_target_for_overkill_a_person_decides(package: ModelPackage) -> None:
    assert package.thresholds is not None
    untargeted = replace(package, thresholds=replace(package.thresholds, target_overkill=None, reject=1.0))
    sure = probabilities(0.0, 1.0, 0.0)  # float32 often says 1 of a sure model
    assert decide(package, sure).verdict == "reject"
    assert decide(untargeted, sure).verdict == "review"
    passing = probabilities(0.8, 0.1, 0.1)
    assert decide(untargeted, passing).verdict == decide(package, passing).verdict == "pass"


def test_scores_keep_precision_where_good_is_certain(package: ModelPackage) -> None:
    scores = defect_scores(package, probabilities(1.0, 2e-9, 1e-9))
    assert float(scores) == pytest.approx(3e-9)
    assert float(defect_scores(package, probabilities(0.0, 0.7, 0.4))) == 1.0  # rounding never exceeds 1


def test_no_decision_without_calibration_or_sense(package: ModelPackage) -> None:
    with pytest.raises(PackageError, match="kensa calibrate"):
        decide(replace(package, thresholds=None), probabilities(1, 0, 0))
    with pytest.raises(PackageError, match="3 finite numbers"):
        decide(package, probabilities(float("nan"), 0, 0))
    with pytest.raises(PackageError, match="3 finite numbers"):
        decide(package, probabilities(0.5, 0.5))
    with pytest.raises(PackageError, match="good_class"):
        defect_scores(replace(package, good_class=None), probabilities(1, 0, 0))


def test_sigmoid_for_multi_label(make_package: MakePackage, tmp_path: Path) -> None:
    made = make_package(tmp_path / "multi", task="multi-label", classes=("crack", "line", "spot"))
    predictor = Predictor(made, device="cpu")
    batch = torch.stack([predictor.transform(picture) for picture in parity_pictures()])
    expected = 1 / (1 + np.exp(-np.array(made.parity)))
    prediction = predictor.predict(batch)
    np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(prediction.defect_scores, expected.max(axis=1), atol=1e-5)
