from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from classifiers.data.dataset import DataError, Dataset, Item
from classifiers.data.pictures import read_pixels
from classifiers.measure.evaluation import evaluate, measure, predict_dataset, share
from classifiers.measure.metrics import auroc, balanced_accuracy, class_recalls, reliability
from classifiers.package.package import ModelPackage
from classifiers.predict import Prediction, Predictor, defect_scores
from classifiers.training.objective import balance_weights, training_loss, validation_metrics


def test_auroc_by_hand() -> None:
    scores, positive = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert auroc(scores, positive) == 0.75  # three of the four pairs are in order
    assert auroc(np.array([0.5, 0.5]), np.array([True, False])) == 0.5
    assert auroc(np.array([0.5, 0.5]), np.array([True, True])) is None


def test_auroc_against_torchmetrics() -> None:
    from torchmetrics.functional.classification import binary_auroc

    rng = np.random.default_rng(0)
    for _ in range(5):
        scores = rng.integers(0, 20, 200) / 20  # many ties
        positive = rng.random(200) < 0.3 + 0.4 * scores
        expected = float(binary_auroc(torch.from_numpy(scores), torch.from_numpy(positive).long()))
        assert auroc(scores, positive) == pytest.approx(expected, abs=1e-6)


def test_balanced_accuracy_by_hand() -> None:
    targets = np.eye(3, dtype=bool)[[0, 0, 0, 1]]
    probabilities = np.array([[0.8, 0.1, 0.1], [0.6, 0.4, 0], [0.1, 0.8, 0.1], [0, 1, 0]])
    assert balanced_accuracy(probabilities, targets, multi_label=False) == pytest.approx((2 / 3 + 1) / 2)
    assert class_recalls(np.eye(3, dtype=bool)[[0, 0, 1, 1]], targets)[:2] == pytest.approx([2 / 3, 1])
    labels = np.array([[1, 0], [1, 1], [0, 0], [0, 0]]) > 0
    found = np.array([[0.9, 0.1], [0.2, 0.5], [0.1, 0.1], [0.1, 0.9]])
    # First: recall 1/2, specificity 1. Second: recall 1, specificity 2/3.
    assert balanced_accuracy(found, labels, multi_label=True) == pytest.approx((0.75 + 5 / 6) / 2)
    assert balanced_accuracy(found, np.ones((4, 2), bool), multi_label=True) is None


def test_balance_weights_by_hand() -> None:
    targets = torch.eye(2)[[0, 0, 0, 0, 1]]
    loss, draw = balance_weights(targets, balance="sampler", power=1.0, multi_label=False)
    assert loss is None
    assert draw is not None
    assert draw.tolist() == [1, 1, 1, 1, 4]
    _, draw = balance_weights(targets, balance="sampler", power=0.5, multi_label=False)
    assert draw is not None
    assert draw.tolist() == [1, 1, 1, 1, 2]
    loss, draw = balance_weights(targets, balance="loss", power=1.0, multi_label=False)
    assert draw is None
    assert loss is not None
    assert loss.tolist() == pytest.approx([0.625, 2.5])  # 4 * 0.625 + 2.5 = 5 pictures
    assert balance_weights(targets, balance="none", power=1.0, multi_label=False) == (None, None)


def test_multi_label_balance_by_hand() -> None:
    targets = torch.tensor([[1, 0], [1, 1], [0, 0], [0, 0], [0, 0], [0, 0]]).float()
    loss, _ = balance_weights(targets, balance="loss", power=1.0, multi_label=True)
    assert loss is not None
    assert loss.tolist() == [2, 5]  # negatives over positives
    _, draw = balance_weights(targets, balance="sampler", power=1.0, multi_label=True)
    assert draw is not None
    assert draw.tolist() == [2, 4, 1, 1, 1, 1]  # 4 / 2, 4 / 1, and the unlabelled are the most


def test_losses_by_hand() -> None:
    logits, targets = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    for multi_label in (False, True):
        loss = training_loss(logits, targets, weight=None, smoothing=0.1, multi_label=multi_label)
        assert float(loss) == pytest.approx(np.log(2))
    sure = training_loss(
        torch.tensor([[100.0, -100.0]]), targets, weight=None, smoothing=0.0, multi_label=True
    )
    assert float(sure) == pytest.approx(0, abs=1e-9)


def labelled(
    *labels: tuple[str, ...], classes: tuple[str, ...], good: str | None, multi: bool = False
) -> Dataset:
    items = tuple(Item(Path(str(i)), str(i), names, str(i), str(i)) for i, names in enumerate(labels))
    return Dataset(items, classes, good, multi)


def test_validation_metrics_by_hand() -> None:
    data = labelled(("good",), ("good",), ("line",), classes=("good", "line", "spot"), good="good")
    logits = torch.tensor([[2.0, 0, 0], [0, 1.0, 0], [0, 3.0, 0]])
    metrics = validation_metrics(logits, data)
    assert metrics["balanced_accuracy"] == 0.75
    assert metrics["auroc"] == 1.0
    expected = -torch.log_softmax(logits, 1)[[0, 1, 2], [0, 0, 1]].mean()
    assert metrics["loss"] == pytest.approx(float(expected))
    assert validation_metrics(logits, replace(data, good_class=None))["auroc"] is None


def test_measure_by_hand(package: ModelPackage) -> None:
    """Thresholds are 0.25 and 0.75."""
    data = labelled(
        ("good",), ("good",), ("line",), ("line",), ("spot",), classes=package.classes, good="good"
    )
    probabilities = np.array(
        [[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.8, 0.2, 0.0], [0.1, 0.9, 0.0], [0.5, 0.0, 0.5]], np.float32
    )
    result = measure(package, data, Prediction(probabilities, defect_scores(package, probabilities)))
    assert result["n"] == 5
    assert result["balanced_accuracy"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert result["confusion"] == [[2, 0, 0], [1, 1, 0], [1, 0, 0]]  # a draw goes to the first class
    assert {name: entry["share"] for name, entry in result["recall"].items()} == {
        "good": 1,
        "line": 0.5,
        "spot": 0,
    }
    assert {name: entry["count"] for name, entry in result["precision"].items()} == {
        "good": 2,
        "line": 1,
        "spot": 0,
    }
    assert [entry["total"] for entry in result["precision"].values()] == [4, 1, 0]
    assert result["auroc"] == pytest.approx(5 / 6)
    assert (result["escape"]["count"], result["escape"]["total"]) == (1, 3)
    assert result["escape"]["upper_bound"] == pytest.approx(0.86465, abs=1e-5)
    assert (result["overkill"]["count"], result["overkill"]["total"]) == (1, 2)
    assert result["automatic_reject_overkill"]["count"] == 0
    assert result["automatic_reject_recall"]["count"] == 1
    assert result["verdicts"] == {"pass": 2, "review": 2, "reject": 1}
    assert result["dataset_digest"] == data.digest
    without = measure(replace(package, thresholds=None), data, Prediction(probabilities, probabilities[:, 1]))
    assert "escape" not in without
    assert "auroc" in without


def test_data_that_lacks_a_class_is_measured_in_the_models_order(package: ModelPackage) -> None:
    data = labelled(("spot",), ("good",), classes=("good", "spot"), good="good")
    probabilities = np.array([[0, 0, 1], [1, 0, 0]], np.float32)
    result = measure(package, data, Prediction(probabilities, defect_scores(package, probabilities)))
    assert result["balanced_accuracy"] == 1
    assert result["confusion"] == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert result["recall"]["line"]["share"] is None


def test_reliability_by_hand() -> None:
    scores, positive = np.array([0.0, 0.2, 0.3, 0.9, 1.0]), np.array([False, False, True, True, True])
    counts, positives, means, error = reliability(scores, positive, bins=4)
    assert counts.tolist() == [2, 1, 0, 2]
    assert positives.tolist() == [0, 1, 0, 2]
    assert means[[0, 1, 3]].tolist() == pytest.approx([0.1, 0.3, 0.95])
    assert np.isnan(means[2])
    assert error == pytest.approx((2 * 0.1 + 0.7 + 2 * 0.05) / 5)
    assert reliability(np.array([]), np.array([], dtype=bool))[3] is None


def test_shares_of_nothing_are_none() -> None:
    none = np.zeros(2, dtype=bool)
    assert share(none, none, np.zeros(2), np.array(["a", "b"], dtype=object)) == {
        "share": None,
        "count": 0,
        "total": 0,
        "interval": None,
        "upper_bound": None,
    }


def test_evaluate_predicts_in_the_data_sets_order(package: ModelPackage, dataset: Dataset) -> None:
    predictor = Predictor(package, device="cpu", batch_size=5)
    seen: list[tuple[int, int]] = []
    prediction = predict_dataset(predictor, dataset, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (5, 84)
    assert seen[-1] == (84, 84)
    one = predictor.predict(predictor.transform(read_pixels(dataset.items[60]))[None])
    np.testing.assert_allclose(prediction.probabilities[60], one.probabilities[0], atol=1e-6)
    assert evaluate(predictor, dataset) == measure(package, dataset, prediction)


def test_data_of_another_kind_is_refused(
    package: ModelPackage, make_package: Callable[..., ModelPackage]
) -> None:
    strange = labelled(("rust",), classes=("rust",), good=None)
    prediction = Prediction(np.zeros((1, 3), np.float32), np.zeros(1, np.float32))
    with pytest.raises(DataError, match="rust"):
        measure(package, strange, prediction)
    several = labelled(("line",), classes=("line",), good=None, multi=True)
    with pytest.raises(DataError, match="multi-label"):
        measure(package, several, prediction)
