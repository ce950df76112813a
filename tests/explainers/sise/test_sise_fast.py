"""sise-fast: its parts against plain computations, its budget, and SISE where everything is scored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from explainers import ExplainerError, create_explainer
from explainers.maps import upsample
from explainers.scoring import mask_statistics
from explainers.sise.score_prediction import predict_scores, spread


@pytest.mark.parametrize(
    ("small_size", "size"),
    [((7, 7), (224, 224)), ((5, 6), (15, 18)), ((12, 10), (12, 20)), ((6, 5), (20, 24)), ((1, 4), (3, 4))],
)
def test_statistics_without_full_size_masks_are_those_of_full_size_masks(small_size, size):
    features = torch.randn(9, *small_size).relu() + torch.rand(9, *small_size)
    low, span, area = mask_statistics(features, size)
    full = upsample(features, size)
    torch.testing.assert_close(low, full.amin((1, 2)))
    torch.testing.assert_close(span, full.amax((1, 2)) - full.amin((1, 2)))
    masks = (full - low[:, None, None]) / span[:, None, None]
    torch.testing.assert_close(area, masks.sum((1, 2)), rtol=1e-4, atol=1e-4)


def test_spread_takes_one_of_each_group():
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    points = (centres[:, None] + 0.1 * torch.randn(4, 25, 2)).flatten(0, 1)[torch.randperm(100)]
    chosen = spread(points, 4)
    assert chosen.tolist() == sorted(chosen.tolist())
    assert (points[chosen] / 10).round().unique(dim=0).shape == (4, 2)
    assert torch.equal(spread(points, 4), chosen)


def test_spread_of_fewer_points_than_groups_or_of_equal_points():
    assert spread(torch.randn(3, 2), 5).tolist() == [0, 1, 2]
    assert len(spread(torch.ones(9, 2), 3)) == 1
    assert len(spread(torch.randn(9, 2), 1)) == 1


def test_predicted_scores_are_those_of_a_gaussian_process():
    """One length scale, one noise, against scikit-learn, in the logits of the scores."""
    from explainers.sise import score_prediction

    points, at = torch.rand(40, 3), torch.tensor([0, 7, 11, 25, 39])
    scores = torch.rand(5, 1)
    known = points[at].double()
    apart = torch.pdist(known)
    reach = float(torch.cat([apart, apart]).median())
    tried = torch.tensor([0.5 * reach, reach], dtype=torch.float64)
    noise = torch.tensor([1e-1, 1e-2], dtype=torch.float64)
    residuals, weights, means = (
        each[1]
        for each in score_prediction._regress(torch.cdist(known, known), scores.double(), tried, noise)
    )
    to_known = torch.cdist(points.double(), known, compute_mode="donot_use_mm_for_euclid_dist")
    predicted = score_prediction._matern(to_known / reach) @ weights + means
    mean_free = GaussianProcessRegressor(Matern(reach, "fixed", nu=1.5), alpha=1e-2, optimizer=None)
    kernel = mean_free.kernel(known.numpy()) + 1e-2 * np.eye(5)
    mean = np.linalg.solve(kernel, scores.double().numpy()).sum() / np.linalg.inv(kernel).sum()
    mean_free.fit(known.numpy(), scores[:, 0].double().numpy() - mean)
    expected = mean_free.predict(points.double().numpy()) + mean
    np.testing.assert_allclose(predicted[:, 0].numpy(), expected, atol=1e-9)
    # the closed form of the leave-one-out error against leaving one out (the mean is kept)
    left_out = []
    for index in range(5):
        rest = [other for other in range(5) if other != index]
        mean_free.fit(known[rest].numpy(), scores[rest, 0].double().numpy() - mean)
        left_out.append(
            float(scores[index, 0]) - float(mean_free.predict(known[index, None].numpy())[0]) - mean
        )
    np.testing.assert_allclose(residuals[:, 0].numpy(), left_out, atol=1e-9)


def test_prediction_follows_a_smooth_score_and_keeps_what_was_measured():
    points = torch.rand(200, 2)
    truth = torch.stack([torch.sigmoid(3 * points[:, 0] - 1), 0.5 + 0.4 * torch.sin(3 * points[:, 1])], dim=1)
    at = spread(points, 20)
    predicted, error = predict_scores(points, at, truth[at])
    assert torch.equal(predicted[at], truth[at])
    rest = torch.ones(200, dtype=torch.bool)
    rest[at] = False
    actual = (predicted - truth)[rest].square().mean(dim=0).sqrt()
    assert (actual < 0.03).all()
    assert (actual < 1.5 * error).all(), "leaving one out must not promise more than there is"
    assert not predict_scores(points, torch.arange(200), truth)[1].any()


def test_scores_near_zero_are_told_apart_by_orders_of_magnitude():
    """Most scores of a softmax over many classes are tiny; a few large ones must not bleed into them."""
    points = torch.linspace(0, 1, 100)[:, None]
    truth = torch.sigmoid(12 * points - 8)
    at = torch.arange(0, 100, 9)
    predicted, _ = predict_scores(points, at, truth[at])
    assert spearmanr(predicted[:, 0], truth[:, 0]).statistic > 0.999
    assert predicted[points < 0.1].max() < 0.002


@pytest.mark.parametrize("scores", [torch.full((3, 1), 0.25), torch.tensor([[0.0], [1.0], [1.0]])])
def test_prediction_from_equal_or_saturated_scores_is_finite(scores):
    points = torch.rand(30, 4)
    at = torch.tensor([1, 5, 9])
    predicted, error = predict_scores(points, at, scores)
    assert torch.isfinite(predicted).all()
    assert torch.isfinite(error).all()
    assert predicted.min() >= 0
    assert predicted.max() <= 1
    alike, none = predict_scores(torch.ones(4, 2), torch.tensor([0]), torch.tensor([[0.3]]))
    torch.testing.assert_close(alike, torch.full((4, 1), 0.3))
    assert none.isnan().all(), "one scored mask says nothing about the error"


def test_where_every_mask_is_scored_and_nothing_is_added_it_is_sise(small):
    images, targets = torch.randn(3, 3, 20, 24), torch.tensor([0, 2, 1])
    model = small()
    whole = create_explainer("sise", model)(images, targets)
    fast = create_explainer("sise-fast", model, share=1.0, contrast=1.0)(images, targets)
    assert {n: c.tolist() for n, c in fast.masks.items()} == {n: c.tolist() for n, c in whole.masks.items()}
    torch.testing.assert_close(fast.maps, whole.maps, rtol=0, atol=1e-4)
    assert not torch.stack(list(fast.score_errors.values())).any()


def test_the_contrast_is_a_power_of_the_fused_map(paper):
    """Layer one of the paper network alone: V = (u, 1, 0, 2u), see test_paper.py."""
    picture = torch.tensor([2.0, 0.0, 1.0, 3.0]).view(1, 1, 1, 4)
    sise = create_explainer("sise", paper(), layers=["one"])(picture, torch.tensor([1]))
    fast = create_explainer("sise-fast", paper(), layers=["one"], share=1.0, contrast=3.0)(
        picture, torch.tensor([1])
    )
    torch.testing.assert_close(fast.block_maps["one"], sise.block_maps["one"], rtol=0, atol=1e-6)
    torch.testing.assert_close(fast.maps, sise.maps**3, rtol=0, atol=1e-6)


def test_the_share_is_what_is_spent_and_it_is_on_the_result(small):
    images, targets = torch.randn(2, 3, 20, 24), torch.tensor([0, 1])
    model = small()
    explain_whole = create_explainer("sise", model, batch_size=1)
    explain_fast = create_explainer("sise-fast", model, batch_size=1, share=0.3)
    explain_whole(images, targets)  # the first call also looks for batch norms to fold
    explain_fast(images, targets)
    passed: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: passed.append(len(inputs[0])))
    whole = explain_whole(images, targets)
    full_passes = len(passed)
    passed.clear()
    fast = explain_fast(images, targets)
    spent = torch.stack(list(fast.masks.values())).sum(dim=0)
    kept = torch.stack(list(whole.masks.values())).sum(dim=0)
    assert full_passes == int(kept.sum()) + 4  # per picture: one to find the units, one for the gradient
    assert len(passed) == int(spent.sum()) + 4
    assert len(passed) < full_passes
    assert (spent <= (0.3 * kept).ceil() + 1).all()
    assert fast.method == "sise-fast"
    for name, count in fast.masks.items():
        predicted = count < whole.masks[name]
        assert torch.equal(fast.score_errors[name].isnan(), predicted & (count == 1))
        assert (fast.score_errors[name][predicted & (count > 1)] > 0).all()
        assert not fast.score_errors[name][~predicted].any()
    assert not any(error.any() for error in whole.score_errors.values())
    assert fast.parameters["share"] == 0.3


@pytest.mark.parametrize(
    "options",
    [{"share": 0.0}, {"share": 1.5}, {"contrast": 0.0}, {"contrast": float("inf")}],
)
def test_bad_settings_are_named(small, options):
    with pytest.raises(ExplainerError, match=next(iter(options))):
        create_explainer("sise-fast", small(), **options)
