"""Several classes of one picture in one call, multi-label and single-logit models; Ada-SISE."""

from __future__ import annotations

import pytest
import torch
from skimage.filters import threshold_otsu
from torch import nn

from explainers import ExplainerError, create_explainer
from explainers.sise.sise import AdaSise


def counted(model: nn.Module) -> list[int]:
    """Pictures that pass through a model from now on, forward pass by forward pass (copies count as well)."""
    passed: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: passed.append(len(inputs[0])))
    return passed


@pytest.mark.parametrize("method", ["sise", "ada-sise", "sise-fast"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_several_targets_are_what_one_by_one_gives(small, method, activation):
    images = torch.randn(3, 3, 20, 24)
    explainer = create_explainer(method, small(), activation=activation, batch_size=4)
    together = explainer(images, [[0, 2, 1], [], [1]])
    assert together.images.tolist() == [0, 0, 0, 2]
    assert together.targets.tolist() == [0, 2, 1, 1]
    assert together.maps.shape == (4, 20, 24)
    for row, (image, target) in enumerate([(0, 0), (0, 2), (0, 1), (2, 1)]):
        alone = explainer(images[image, None], torch.tensor([target]))
        torch.testing.assert_close(together.scores[row], alone.scores[0])
        assert together.status[row] == alone.status[0]
        if method == "sise-fast":  # which masks are scored for a class depends on the other classes as well
            continue
        torch.testing.assert_close(together.maps[row], alone.maps[0], rtol=0, atol=1e-5)
        for name, count in alone.masks.items():
            assert int(together.masks[name][row]) == int(count[0])
            torch.testing.assert_close(
                together.block_maps[name][row], alone.block_maps[name][0], rtol=0, atol=1e-5
            )


def test_targets_share_the_forward_pass_and_the_masks_they_both_keep(paper):
    """Class 1 of the paper network keeps A2, A1, C1, C2; its opposite keeps what has a negative gradient: C3.

    Two classes that keep the same maps cost no more masked passes than one.
    """
    picture = torch.tensor([2.0, 0.0, 1.0, 3.0]).view(1, 1, 1, 4)
    model = paper()
    model.head = nn.Linear(3, 3)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[0.0, 0, 0], [1, 1, -0.5], [2, 2, -1]]))
        model.head.bias.zero_()
    explainer = create_explainer("sise", model, layers=["one", "two"], activation="sigmoid", batch_size=1)
    passed = counted(model)
    both = explainer(picture, [[1, 2]])
    # one gradient pass; A1, A2, C1, C2 masked once for both classes
    assert passed == [1] * 5
    assert {name: count.tolist() for name, count in both.masks.items()} == {"one": [2, 2], "two": [2, 2]}
    passed.clear()
    explainer(picture, [[1]])
    explainer(picture, [[2]])
    assert passed == [1] * 10


def test_a_single_logit_is_the_class_zero(small):
    """Sigmoid of one logit z is the softmax over (z, 0): the same maps for the same class."""
    images = torch.randn(2, 3, 20, 24)
    one = small(classes=1)
    two = small(classes=2)
    two.load_state_dict(
        {**one.state_dict(), "classifier.weight": torch.zeros(2, 10), "classifier.bias": torch.zeros(2)}
    )
    with torch.no_grad():
        two.classifier.weight[0] = one.classifier.weight[0]
        two.classifier.bias[0] = one.classifier.bias[0]
    single = create_explainer("sise", one, activation="sigmoid")(images, torch.tensor([0, 0]))
    pair = create_explainer("sise", two)(images, torch.tensor([0, 0]))
    torch.testing.assert_close(single.scores, pair.scores)
    torch.testing.assert_close(single.maps, pair.maps, rtol=0, atol=1e-5)
    with pytest.raises(ExplainerError, match="class 1, but the model has 1"):
        create_explainer("sise", one, activation="sigmoid")(images, torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([[0]], "must be 2 lists"),
        ([[0], 1], "image 1 has 1"),
        ([[0], [1.0]], "image 1 must be whole numbers"),
        ([[0], [True]], "image 1 must be whole numbers"),
        ([[0], [1, 1]], "image 1 name a class twice"),
        ([[], []], "nothing to explain"),
        ([[0], [-1]], "negative"),
        ([[0], [0, 7]], "class 7, but the model has 3"),
    ],
)
def test_bad_lists_of_targets_are_named(small, targets, message):
    with pytest.raises(ExplainerError, match=message):
        create_explainer("sise", small())(torch.randn(2, 3, 20, 24), targets)


def test_ada_sise_keeps_what_otsu_keeps_of_the_positive_gradients():
    torch.manual_seed(3)
    alpha = torch.randn(5, 200) * torch.tensor([[1.0], [1e-6], [30.0], [1.0], [1.0]])
    alpha[3] = -alpha[3].abs()  # nothing positive: nothing kept
    alpha[4] = torch.where(alpha[4] > 0, 0.25, -1.0)  # all positive ones alike: all kept
    kept = AdaSise(nn.Conv2d(3, 1, 1))._keeps(alpha)
    for row in (0, 1, 2):
        positive = alpha[row][alpha[row] > 0]
        share = (positive / positive.max()).double().numpy()
        assert kept[row].sum() == (share > threshold_otsu(share)).sum()
        assert alpha[row][kept[row]].min() > positive[torch.from_numpy(share <= threshold_otsu(share))].max()
    assert not kept[3].any()
    assert torch.equal(kept[4], alpha[4] > 0)


def test_ada_sise_on_paper(paper):
    """Layer one: gradients 1/2 (A1), 1 (A2), 1 (A3, constant): Otsu keeps the ones. Layer two: all alike."""
    picture = torch.tensor([2.0, 0.0, 1.0, 3.0]).view(1, 1, 1, 4)
    explanation = create_explainer("ada-sise", paper(), layers=["one", "two"])(picture, torch.tensor([1]))
    assert {name: count.tolist() for name, count in explanation.masks.items()} == {"one": [1], "two": [2]}
    torch.testing.assert_close(explanation.block_maps["one"].squeeze(), torch.tensor([0.0, 1, 0, 0]))
    assert explanation.method == "ada-sise"
    assert "mu" not in explanation.parameters
