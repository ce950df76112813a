"""Every phase of SISE on a network small enough to work out on paper.

Picture x = (2, 0, 1, 3), one row. sigma is the logistic function.

Block one (1x1 convolution, ReLU):  A1 = relu(x)     = (2, 0, 1, 3)
                                    A2 = relu(1 - x) = (0, 1, 0, 0)
                                    A3 = relu(1)     = (1, 1, 1, 1)      a constant map
Average pooling by two:             P1 = (1, 2), P2 = (1/2, 0), P3 = (1, 1)
Block two (1x1 convolution, ReLU):  C1 = relu(P1 + P3 - 1) = (1, 2)
                                    C2 = relu(3 P2)        = (3/2, 0)
                                    C3 = relu(P1 + P2)     = (3/2, 2)
Head on the means:                  z = (0, mean C1 + mean C2 - 1/2 mean C3)
Class 1: Psi = softmax(z)[1] = sigma(z1);  z1 = 3/2 + 3/4 - 7/8 = 11/8.

Gradients, but for the positive factor Psi (1 - Psi), summed over positions:
  C1: 1; C2: 1; C3: -1/2                      -> C1 and C2 are kept.
  A1: through C1 1, through C3 -1/2           ->  1/2
  A2: through C2 only where 3 P2 > 0, the first pair: 3/2; through C3 -1/2  ->  1
  A3: through C1                              ->  1, kept by its gradient, dropped because constant.

Scoring. Layer one is as wide as the picture:
  A1 -> m = (2/3, 0, 1/3, 1), area 2; x m = (4/3, 0, 1/3, 3):
        A2' = (0, 1, 2/3, 0); P1' = (2/3, 5/3), P2' = (1/2, 1/3);
        z1 = 7/6 + 3 (5/12) - 1/2 (7/6 + 5/12) = 28/24 + 30/24 - 19/24 = 39/24 = 13/8
  A2 -> m = (0, 1, 0, 0), area 1; x m = 0: P1' = 0, P2' = 1; z1 = 0 + 3 - 1/2 = 5/2
  With p = sigma(13/8) / 2 and q = sigma(5/2) / 1:
  V_one = (2p/3, q, p/3, p) -> min p/3, max q -> (u, 1, 0, 2u), u = (p/3) / (q - p/3) = 0.1774
Layer two, half as wide; bilinear with half-pixel centres turns (a, b) into (a, 3a/4 + b/4, a/4 + 3b/4, b):
  C1 -> (1, 5/4, 7/4, 2) -> m = (0, 1/4, 3/4, 1), area 2; x m = (0, 0, 3/4, 3):
        A2' = (1, 1, 1/4, 0); P1' = (0, 15/8), P2' = (1, 1/8);
        z1 = 15/16 + 3 (9/16) - 1/2 (15/16 + 9/16) = 15/16 + 27/16 - 12/16 = 30/16 = 15/8
  C2 -> (3/2, 9/8, 3/8, 0) -> m = (1, 3/4, 1/4, 0), area 2; x m = (2, 0, 1/4, 0):
        A2' = (0, 1, 3/4, 1); P1' = (1, 1/8), P2' = (1/2, 7/8);
        z1 = 9/16 + 3 (11/16) - 1/2 (9/16 + 11/16) = 9/16 + 33/16 - 10/16 = 32/16 = 2
  With r = sigma(15/8) / 2 < s = sigma(2) / 2:
  V_two = (s, r/4 + 3s/4, 3r/4 + s/4, r) -> (1, 3/4, 1/4, 0)

Fusion. Otsu on (0, 1/4, 3/4, 1), which lie in bins 0, 64, 192, 255 of 256: the best split is in the
middle, and the first bin that makes it is 64, centre 64.5/256 = 0.25195. B = (1, 1, 0, 0).
  E = (V_one + V_two) B = (1 + u, 7/4, 0, 0) -> ((1 + u) / (7/4), 1, 0, 0)
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from explainers import create_explainer
from explainers.isolation import isolated
from explainers.maps import fuse, minmax, otsu_threshold, relevance_mask
from explainers.scoring import Block, score_direction, score_masks, weighted_masks
from explainers.sise.layers import candidates, choose, gradients

X = torch.tensor([2.0, 0.0, 1.0, 3.0]).view(1, 1, 1, 4)
ONE = torch.tensor([1])
LAYERS = ["one", "two"]


def sigma(z: float) -> float:
    return 1 / (1 + math.exp(-z))


P, Q, R, S = sigma(13 / 8) / 2, sigma(5 / 2), sigma(15 / 8) / 2, sigma(2) / 2
U = (P / 3) / (Q - P / 3)
V_ONE, V_TWO = [U, 1, 0, 2 * U], [1, 0.75, 0.25, 0]
FUSED = [(1 + U) / 1.75, 1, 0, 0]


def near(found: Tensor, expected: list[float] | list[list[float]]) -> None:
    torch.testing.assert_close(
        found.squeeze(), torch.tensor(expected, dtype=found.dtype), rtol=0, atol=1e-6, check_dtype=False
    )


def test_phase_1_feature_maps_and_gradients(paper):
    model = paper()
    with isolated(model, X) as private, torch.enable_grad():
        found = candidates(private, X, ["two", "one"])  # the order given is irrelevant
        slopes = gradients(found, score_direction(found.logits, 1, "softmax"))
        assert choose(found, slopes, private) == ["one", "two"]
    near(found.logits.detach(), [0, 11 / 8])
    near(found.features["one"].detach(), [[2, 0, 1, 3], [0, 1, 0, 0], [1, 1, 1, 1]])
    near(found.features["two"].detach(), [[1, 2], [1.5, 0], [1.5, 2]])
    near(slopes["one"].sum((2, 3)), [0.5, 1, 1])
    near(slopes["two"].sum((2, 3)), [1, 1, -0.5])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7])
def test_phase_2_masks_scores_and_layer_maps(paper, batch_size):
    blocks = [
        Block(0, "one", torch.tensor([[[2.0, 0, 1, 3]], [[0.0, 1, 0, 0]]])),
        Block(0, "two", torch.tensor([[[1.0, 2]], [[1.5, 0]]])),
    ]
    scored = score_masks(
        paper().eval(),
        X,
        ONE[None],
        blocks,
        activation="softmax",
        batch_size=batch_size,
        floor=torch.zeros(1, 1, 1),
    )
    near(scored[0].scores, [sigma(13 / 8), sigma(5 / 2)])
    near(scored[1].scores, [sigma(15 / 8), sigma(2)])
    near(torch.stack([one.area for one in scored]), [[2, 1], [2, 2]])
    near(torch.stack([one.low for one in scored]), [[0, 0], [1, 0]])
    near(torch.stack([one.span for one in scored]), [[3, 1], [1, 1.5]])
    sums = [
        weighted_masks(
            block.features, one.low, one.span, (one.scores / one.area[:, None]).double().T, (1, 4)
        )[0]
        for block, one in zip(blocks, scored, strict=True)
    ]
    near(sums[0] - sums[0].min(), [P / 3, Q - P / 3, 0, 2 * P / 3])
    near(sums[1] - sums[1].min(), [S - R, 0.75 * (S - R), 0.25 * (S - R), 0])
    near(minmax(torch.stack(sums)), [V_ONE, V_TWO])


def test_phase_3_otsu_and_fusion():
    v_one, v_two = torch.tensor([V_ONE]), torch.tensor([V_TWO])
    near(otsu_threshold(v_two), 64.5 / 256)
    near(relevance_mask(v_two, 64.5 / 256, "otsu"), [1, 1, 0, 0])
    near(fuse([v_one, v_two]), FUSED)


def test_phase_3_soft_fusion():
    """Half of the pixels exceed t, so t stays; B = sigma(100 (V - t))."""
    gates = [sigma(100 * (v - 64.5 / 256)) for v in V_TWO]
    fused = [(one + two) * gate for one, two, gate in zip(V_ONE, V_TWO, gates, strict=True)]
    low, high = min(fused), max(fused)
    near(
        fuse([torch.tensor([V_ONE]), torch.tensor([V_TWO])], "soft"),
        [(value - low) / (high - low) for value in fused],
    )


def test_soft_fusion_raises_the_threshold_of_a_small_region():
    """Fewer than 10 % of the pixels exceed t = 0.4: it becomes 0.6, and 0.55 no longer passes."""
    block_map = torch.zeros(1, 40)
    block_map[0, :3] = torch.tensor([1.0, 0.55, 0.65])
    near(
        relevance_mask(block_map, 0.4, "soft")[0, :4],
        [sigma(40), sigma(100 * (0.55 - 0.6)), sigma(100 * (0.65 - 0.6)), sigma(-60)],
    )


def test_the_whole(paper):
    explanation = create_explainer("sise", paper(), layers=LAYERS)(X, ONE)
    near(explanation.scores, sigma(11 / 8))
    near(explanation.block_maps["one"], V_ONE)
    near(explanation.block_maps["two"], V_TWO)
    near(explanation.maps, FUSED)
    assert {name: kept.tolist() for name, kept in explanation.masks.items()} == {"one": [2], "two": [2]}
    assert explanation.status == ("ok",)
    assert explanation.defined == (True,)
    assert [(layer.name, layer.maps, layer.height, layer.width) for layer in explanation.layers] == [
        ("one", 3, 1, 4),
        ("two", 3, 1, 2),
    ]


def test_mu_keeps_what_exceeds_its_share_of_the_largest_gradient(paper):
    """Layer one: 1/2, 1, 1 against mu: at 0.5 A1 is not *above* half, so A2 (and constant A3) stay."""
    explanation = create_explainer("sise", paper(), layers=LAYERS, mu=0.5)(X, ONE)
    assert explanation.masks["one"].tolist() == [1]
    near(explanation.block_maps["one"], [0, 1, 0, 0])
    assert create_explainer("sise", paper(), layers=LAYERS, mu=0.49)(X, ONE).masks["one"].tolist() == [2]


def test_sigmoid_scores_a_logit_by_itself(paper):
    """With z0 = 0, softmax over (z0, z1) and sigmoid of z1 are the same score."""
    soft = create_explainer("sise", paper(), layers=LAYERS)(X, ONE)
    own = create_explainer("sise", paper(), layers=LAYERS, activation="sigmoid")(X, ONE)
    torch.testing.assert_close(own.maps, soft.maps, rtol=0, atol=1e-6)
    torch.testing.assert_close(own.scores, soft.scores)


def test_a_constant_layer_map_changes_nothing(paper):
    """With C2 = relu(2 P2) both masks of layer two give z1 = 21/16, and V_two = r (m1 + m2) = r everywhere.

    B = 1 then, and the fused map is V_one. z1 of layer one: A1: 28/24 + 20/24 - 19/24 = 29/24, A2: 2 - 1/2.
    """
    p, q = sigma(29 / 24) / 2, sigma(3 / 2)
    u = (p / 3) / (q - p / 3)
    explanation = create_explainer("sise", paper(second=2.0), layers=LAYERS)(X, ONE)
    near(explanation.block_maps["two"], [0, 0, 0, 0])
    near(explanation.maps, [u, 1, 0, 2 * u])
    assert explanation.masks["two"].tolist() == [2]
    assert explanation.status == ("partial: two: its map is constant",)


def test_a_layer_without_positive_gradients_is_skipped(paper):
    """Head (-1, -1, 1) on C: only C3 is kept; head (-1, -1, -1): C has nothing, nor has A.

    Head (-1, 0, 0) with C1 = relu(3 - P1 ...) turns the sign between the blocks: C has nothing, A1 has.
    """
    model = paper(head=(-1.0, 0.0, 0.0))
    with torch.no_grad():
        model.two[0].weight[0] = torch.tensor([-1.0, 0.0, 0.0]).view(3, 1, 1)
        model.two[0].bias[0] = 3.0
    explanation = create_explainer("sise", model, layers=LAYERS)(X, ONE)
    assert explanation.status == ("partial: two: no map with a positive gradient",)
    assert explanation.defined == (True,)
    assert explanation.masks["one"].tolist() == [1]
    assert explanation.masks["two"].tolist() == [0]
    near(explanation.maps, [2 / 3, 0, 1 / 3, 1])  # V of the one mask, min-maxed: the mask itself
    assert not explanation.block_maps["two"].any()


def test_no_layer_with_anything_is_undefined(paper):
    explanation = create_explainer("sise", paper(head=(-1.0, -1.0, -1.0)), layers=LAYERS)(X, ONE)
    why = "no map with a positive gradient"
    assert explanation.status == (f"undefined: one: {why}; two: {why}",)
    assert explanation.defined == (False,)
    assert not explanation.maps.any()


def test_only_constant_maps_is_undefined(paper):
    explanation = create_explainer("sise", paper(), layers=LAYERS)(torch.zeros_like(X), ONE)
    assert explanation.status[0].startswith("undefined: one: every kept map is constant")


@pytest.mark.parametrize("gap", [30.0, 200.0, 5000.0])
def test_a_saturated_softmax_still_tells_maps_apart(paper, gap):
    """Psi is 1 in float32 and its gradient 0 or garbage; the signs per map are exact all the same."""
    model = paper()
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([0.0, gap]))
    explanation = create_explainer("sise", model, layers=LAYERS)(X, ONE)
    assert explanation.scores.tolist() == [1.0]
    assert {name: kept.tolist() for name, kept in explanation.masks.items()} == {"one": [2], "two": [2]}
    # All scores are 1: V_one = (1/3, 1, 1/6, 1/2) and V_two is constant.
    near(explanation.maps, [0.2, 1, 0, 0.4])
    assert explanation.status == ("partial: two: its map is constant",)


def test_a_softmax_with_one_class_has_no_gradient(paper):
    model = paper()
    model.head = torch.nn.Linear(3, 1)
    with pytest.raises(ValueError, match="sigmoid"):
        create_explainer("sise", model, layers=LAYERS)(X, torch.tensor([0]))
    assert create_explainer("sise", model, layers=LAYERS, activation="sigmoid")(
        X, torch.tensor([0])
    ).maps.shape == (
        1,
        1,
        4,
    )
