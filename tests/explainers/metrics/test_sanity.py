"""Rank correlation by hand and against scipy; cascading randomisation, weight by weight."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from explainers import ExplainerError, create_explainer
from explainers.metrics.sanity import cascading_randomisation, rank_correlation

SMALL = ["classifier", "features.7", "features.4", "features.3", "features.0"]


def test_rank_correlation_by_hand():
    """Ranks 1.5, 1.5, 3, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5)."""
    a = torch.tensor([[[0.0, 0.0, 0.5, 1.0]]])
    b = torch.tensor([[[0.1, 0.2, 0.3, 0.4]]])
    torch.testing.assert_close(rank_correlation(a, b), torch.tensor([4.5 / (4.5 * 5) ** 0.5]))
    torch.testing.assert_close(rank_correlation(b, 1 - b), torch.tensor([-1.0]))
    torch.testing.assert_close(rank_correlation(b, b**3), torch.tensor([1.0]))
    assert rank_correlation(a, torch.full_like(a, 0.3)).isnan().all()


def test_rank_correlation_is_scipys_row_by_row_with_plateaus():
    a, b = ((torch.rand(7, 8, 9) - 0.4).clamp_min(0).mul(20).round() / 20 for _ in range(2))
    b = (a + b) / 2
    want = [spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    torch.testing.assert_close(rank_correlation(a, b), torch.tensor(want, dtype=torch.float32))


def test_maps_that_cannot_be_compared_are_named():
    with pytest.raises(ExplainerError, match="one shape"):
        rank_correlation(torch.rand(1, 2, 3), torch.rand(1, 3, 2))
    with pytest.raises(ExplainerError, match="b holds NaN"):
        rank_correlation(torch.rand(1, 2, 2), torch.full((1, 2, 2), torch.nan))


class Snapshots:
    """An `explain` that keeps the weights it is shown and answers with a map of the first ones."""

    def __init__(self):
        self.seen = []

    def __call__(self, model):
        assert not model.training
        self.seen.append({name: value.clone() for name, value in model.state_dict().items()})
        torch.rand(3)  # an explainer may draw: the weights of later stages must not depend on it
        return model.features[0].weight.sigmoid().flatten(1)[:2, None, :]

    def changed(self, stage):
        """Names of the modules that differ from the trained model at a stage, 1 the first."""
        first, now = self.seen[0], self.seen[stage]
        return {name.rpartition(".")[0] for name in first if not torch.equal(first[name], now[name])}


@pytest.fixture
def trained(small):
    """Weights and running statistics that no fresh module has."""
    model = small()
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.normal_().abs_().add_(1.0)
    return model


def test_modules_become_random_from_the_logits_down_and_stay_so(trained):
    explain = Snapshots()
    stages = cascading_randomisation(trained, explain)
    assert [stage.modules for stage in stages] == [(name,) for name in SMALL]
    assert len(explain.seen) == 6
    for number in range(1, 6):
        assert explain.changed(number) == set(SMALL[:number])
    # The map here is made of the first module's weights: it lives until the last stage, and no longer.
    for stage in stages[:-1]:
        torch.testing.assert_close(stage.similarity, torch.ones(2))
        assert not stage.difference.any()
    assert (stages[-1].similarity.abs() < 0.9).all()
    wanted = explain.seen[0]["features.0.weight"].sigmoid() - explain.seen[5]["features.0.weight"].sigmoid()
    torch.testing.assert_close(stages[-1].difference, wanted.abs().flatten(1).mean(dim=1)[:2])


def test_a_batch_norm_forgets_its_statistics(trained):
    explain = Snapshots()
    cascading_randomisation(trained, explain)
    assert not torch.equal(explain.seen[0]["features.4.running_mean"], torch.zeros(8))
    assert torch.equal(explain.seen[3]["features.4.running_mean"], torch.zeros(8))
    assert torch.equal(explain.seen[3]["features.4.running_var"], torch.ones(8))


def test_random_weights_depend_on_the_seed_alone(trained):
    runs = []
    for seed, stages, state in ((5, None, 1), (5, 1, 2), (6, 1, 1)):
        torch.manual_seed(state)
        runs.append(Snapshots())
        cascading_randomisation(trained, runs[-1], seed=seed, stages=stages)
    one, two, other = (run.seen[-1] for run in runs)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


@pytest.mark.parametrize(
    ("stages", "sizes"), [(1, [5]), (2, [1, 4]), (3, [1, 2, 2]), (4, [1, 1, 2, 1]), (9, [1] * 5)]
)
def test_stages_are_the_logits_then_runs_of_about_equal_number(trained, stages, sizes):
    made = cascading_randomisation(trained, Snapshots(), stages=stages)
    assert [len(stage.modules) for stage in made] == sizes
    assert [name for stage in made for name in stage.modules] == SMALL


def test_neither_the_model_nor_the_random_state_is_touched(trained):
    trained.train()
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    state = torch.get_rng_state()
    with torch.inference_mode():
        cascading_randomisation(trained, Snapshots())
    assert trained.training
    assert all(parameter.requires_grad for parameter in trained.parameters())
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_parameters_without_an_initialiser_keep_their_mean_and_spread():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(3 + 0.5 * torch.randn(1, 20_000))
            self.single = nn.Parameter(torch.tensor(2.0))

    seen = []

    def explain(model):
        assert model.single == 2  # a single number has no spread
        seen.append(model.scale.detach().clone())
        return model.scale[:, None, :4].clamp(0, 1)

    cascading_randomisation(Scale(), explain, seed=7)  # not the seed that drew the trained ones
    before, after = seen
    assert not torch.equal(before, after)
    assert abs(rank_correlation(before[None].abs(), after[None].abs())) < 0.05
    assert float(after.mean()) == pytest.approx(3, abs=0.03)
    assert float(after.std()) == pytest.approx(0.5, abs=0.02)


def test_an_explanation_blind_to_the_model_is_caught(trained):
    blind = torch.rand(2, 4, 4)
    stages = cascading_randomisation(trained, lambda model: blind)
    assert all((stage.similarity == 1).all() and not stage.difference.any() for stage in stages)


def test_another_similarity_and_gradients_inside_explain(trained):
    def saliency(model):
        x = torch.ones(2, 3, 8, 8, requires_grad=True)
        (slope,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
        return (slope.abs().sum(dim=1) / 1e9).clamp(0, 1)

    stages = cascading_randomisation(trained, saliency, similarity=lambda a, b: (a * b).sum(dim=(1, 2)))
    assert all(stage.similarity.shape == (2,) for stage in stages)


def test_sise_changes_with_the_model(small):
    model, images, targets = small(), torch.rand(2, 3, 16, 16), torch.tensor([0, 1])
    stages = cascading_randomisation(
        model, lambda m: create_explainer("sise", m)(images, targets).maps, stages=2
    )
    for stage in stages:
        assert stage.similarity.shape == (2,)
        assert (stage.difference > 0).all()


def test_bad_input_is_named(trained):
    with pytest.raises(ExplainerError, match="stages"):
        cascading_randomisation(trained, Snapshots(), stages=0)
    with pytest.raises(ExplainerError, match="ReLU has no parameters"):
        cascading_randomisation(nn.ReLU(), lambda model: torch.rand(1, 2, 2))
    with pytest.raises(ExplainerError, match="maps that `explain` made must be"):
        cascading_randomisation(trained, lambda model: torch.rand(2, 2))
    sizes = iter((2, 3))
    with pytest.raises(ExplainerError, match=r"made \(1, 2, 2\), then \(1, 3, 3\)"):
        cascading_randomisation(trained, lambda model: torch.rand(1, *[next(sizes)] * 2))
