"""What must hold on a CUDA device. Without the other tests' fixtures, so that a bare machine can run it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from classifiers import Predictor, load_package
from explainers import create_explainer
from sources.surfaces import surface

pytestmark = [
    pytest.mark.cuda,
    # torch's own remark when the thread of the backward pass is the first to need the device.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: nothing of CUDA is tested"),
]

PACKAGE = Path(__file__).parents[1] / "classifiers" / "packages" / "synthetic-surface"
DEFECTS = ("scratch", "pit", "inclusion", "patch", "scratch", "pit")


@pytest.fixture(scope="module")
def predictor():
    """The reference: float32 on the CPU."""
    return Predictor(load_package(PACKAGE), device="cpu", precision="float32")


@pytest.fixture(scope="module")
def flagged(predictor):
    """Six defective pictures (6, 3, 160, 160), and their classes."""
    chance = np.random.default_rng(5)
    pictures = [surface(label, chance)[0] for label in DEFECTS]
    images = torch.stack([predictor.transform(np.repeat(grey[..., None], 3, axis=2)) for grey in pictures])
    return images, torch.tensor([predictor.package.classes.index(label) for label in DEFECTS])


def rank_correlations(first, second):
    """Spearman's, picture by picture, over all pixels."""
    pairs = zip(first.flatten(1).cpu(), second.flatten(1).cpu(), strict=True)
    return [float(spearmanr(one, other).statistic) for one, other in pairs]


def test_auto_is_float16_on_the_gpu():
    automatic = Predictor(load_package(PACKAGE))
    assert (automatic.device.type, automatic.precision) == ("cuda", "float16")
    assert next(automatic.model.parameters()).dtype == torch.float32  # the explainers' reference


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-5), ("float16", 5e-3), ("bfloat16", 5e-2)]
)
def test_probabilities_are_those_of_the_cpu(predictor, flagged, precision, tolerance):
    images, _ = flagged
    expected = predictor.predict(images)
    found = Predictor(load_package(PACKAGE), device="cuda", precision=precision, batch_size=4).predict(images)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=0, atol=tolerance)
    assert found.probabilities.dtype == np.float32


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("float16", 3e-2)])
def test_a_recorded_pass_gives_what_the_first_one_gave(precision, tolerance):
    engine = Predictor(load_package(PACKAGE), device="cuda", precision=precision).engine
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(size, 3, 160, 160, generator=generator).cuda() for size in (8, 1, 5, 8, 3, 9, 6)]
    eager = (
        [engine(batch) for batch in batches[:3]] + [engine(-batches[3])] + [engine(b) for b in batches[4:]]
    )
    kept = [logits.clone() for logits in eager]
    for _ in range(2):  # sizes that come again are recorded, as far as there is room
        recorded = [engine(-batch if place == 3 else batch) for place, batch in enumerate(batches)]
        for first, again in zip(eager, recorded, strict=True):
            torch.testing.assert_close(again, first, rtol=tolerance, atol=tolerance)
    for logits, copy in zip(eager, kept, strict=True):
        assert torch.equal(logits, copy)  # a later pass writes over nothing that was handed out
    assert engine(batches[0][:0]).shape == (0, 5)


@pytest.mark.parametrize("method", ["sise", "sise-fast"])
def test_maps_are_those_of_the_cpu(predictor, flagged, method):
    images, targets = flagged
    expected = create_explainer(method, predictor.model)(images, targets)
    on_gpu = Predictor(load_package(PACKAGE), device="cuda", precision="float32")
    found = create_explainer(method, on_gpu.model, batch_size=256)(images.cuda(), targets.cuda())
    assert found.maps.is_cuda
    assert found.status == expected.status
    torch.testing.assert_close(found.scores.cpu(), expected.scores, rtol=0, atol=1e-4)
    for one, other in [(expected.maps, found.maps)] + [
        (block_map, found.block_maps[name]) for name, block_map in expected.block_maps.items()
    ]:
        correlations = rank_correlations(one, other)
        assert np.median(correlations) >= 0.999
        assert min(correlations) >= 0.99


@pytest.mark.parametrize("method", ["sise", "sise-fast"])
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_reduced_precision_ranks_pixels_as_float32_does(flagged, method, precision):
    images, targets = flagged[0].cuda(), flagged[1].cuda()
    on_gpu = Predictor(load_package(PACKAGE), device="cuda", precision=precision)
    exact = create_explainer(method, on_gpu.model, batch_size=256)(images, targets)
    short = create_explainer(method, on_gpu.model, batch_size=256, precision=precision)(images, targets)
    assert short.status == ("ok",) * len(images)
    found = rank_correlations(exact.maps, short.maps)
    assert np.median(found) >= 0.999
    assert min(found) >= 0.99
