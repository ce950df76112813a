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

from classifiers.errors import PackageError
from classifiers.package import manifest
from classifiers.package.network import fold_temperature
from classifiers.package.package import ModelPackage, build_model, load_package
from classifiers.package.parity import check_parity, parity_pictures
from classifiers.package.preprocessing import Preprocessing
from classifiers.predict import Predictor, decide, defect_scores

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


def test_parity_refuses_a_network_that_answers_differently(package: ModelPackage, tmp_path: Path) -> None:
    shutil.copytree(package.path, tmp_path / "copy")
    file = tmp_path / "copy" / "model.json"
    content = json.loads(file.read_text())
    content["parity"][0][1] += 0.05
    content["digest"] = manifest.digest(content)
    file.write_text(json.dumps(content))
    with pytest.raises(PackageError, match="parity"):
        Predictor(load_package(tmp_path / "copy"), device="cpu")


def test_parity_notices_another_resize(package: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    def crude(self: Preprocessing, pixels: np.ndarray) -> np.ndarray:
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
