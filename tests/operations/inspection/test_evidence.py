"""The maps of findings, whatever engine scores the masked pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import classifiers
from classifiers import Predictor, load_package
from configs.schema import ExplainerSettings
from operations.inspection.evidence import explain_each, explainer_for
from sources.surfaces import surface

PACKAGE = Path(classifiers.__file__).parent / "packages" / "synthetic-surface"


@pytest.fixture(scope="module")
def package():
    return load_package(PACKAGE)


def explained(predictor, method="sise-fast"):
    size = predictor.package.preprocessing.input_size[0]
    images, targets = [], []
    for seed, label in ((11, "scratch"), (12, "pit")):
        grey, _ = surface(label, np.random.default_rng(seed), size)
        images.append(predictor.transform(np.repeat(grey[..., None], 3, axis=2)))
        targets.append([predictor.package.classes.index(label)])
    explainer = explainer_for(predictor, ExplainerSettings(method=method))
    return explain_each(explainer, predictor, torch.stack(images), targets)


@pytest.mark.parametrize("method", ["sise-fast", "ada-sise"])
def test_openvino_scores_the_masks_and_the_map_is_that_of_torch(package, method, monkeypatch):
    pytest.importorskip("openvino")
    by_torch = explained(Predictor(package, device="cpu", engine="torch"), method)
    predictor = Predictor(package, device="cpu", engine="openvino")
    scored = []
    compute = predictor.engine

    class Counted:
        name, precision, version = compute.name, compute.precision, compute.version

        def __call__(self, pictures):
            scored.append(len(pictures))
            return compute(pictures)

    monkeypatch.setattr(predictor, "engine", Counted())
    by_openvino = explained(predictor, method)
    for (one, maps), (other, others) in zip(by_openvino, by_torch, strict=True):
        assert one.status == other.status == "ok"
        assert one.parameters == other.parameters
        assert [layer.total for layer in one.layers] == [layer.total for layer in other.layers]
        assert one.masked_score == pytest.approx(other.masked_score, abs=1e-4)
        assert spearmanr(maps.maps.flatten(), others.maps.flatten()).statistic >= 0.999
    masks = sum(layer.kept for outcome, _ in by_openvino for layer in outcome.layers)
    *chunks, judged = scored
    assert len(set(chunks)) == 1
    assert sum(chunks) - chunks[0] < masks <= sum(chunks)
    assert judged == 4, "the two pictures whole, and by their maps' best pixels alone"


def test_drop_is_computed_in_float32_where_the_engine_is_not(package):
    predictor = Predictor(package, device="cpu", engine="torch", precision="bfloat16")

    class Refused:
        name, precision, version = "torch", "bfloat16", "0"

        def __call__(self, pictures):
            raise AssertionError("the torch engine has no part in an explanation")

    predictor.engine = Refused()
    reduced = explained(predictor)
    exact = explained(Predictor(package, device="cpu", engine="torch", precision="float32"))
    for (one, _), (other, _) in zip(reduced, exact, strict=True):
        assert one.parameters["precision"] == "bfloat16"
        assert other.parameters["precision"] == "float32"
        assert one.masked_score == pytest.approx(other.masked_score, abs=1e-2)
