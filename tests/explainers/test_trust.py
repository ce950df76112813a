"""Drop and Increase on a network whose score is known by hand."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import partial
from typing import ClassVar

import pytest
import torch
from torchcam.metrics import ClassificationMetric

from explainers import ExplainerError, drop_increase

X = torch.tensor([2.0, 0.0, 1.0, 3.0]).view(1, 1, 1, 4)


def sigma(z):
    return 1 / (1 + math.exp(-z))


def test_drop_and_increase_by_hand(paper):
    """The network of test_paper.py: Y = sigma(11/8).

    Kept A = (2, 0, 0, 0): A2' = (0, 1, 1, 1); P1' = (1, 0), P2' = (1/2, 1);
    z1 = 1/2 + 3 (3/4) - 1/2 (1/2 + 3/4) = 34/16 = 17/8: higher, an increase.
    Kept A = (0, 0, 0, 3): A2' = (1, 1, 1, 0); P1' = (0, 3/2), P2' = (1, 1/2);
    z1 = 3/4 + 3 (3/4) - 1/2 (3/4 + 3/4) = 9/4: an increase for class 1, so a drop for class 0.
    """
    maps = torch.tensor([[[1.0, 0.2, 0.1, 0.0]], [[0.0, 0.1, 0.2, 1.0]]])
    scores, drop, increase = drop_increase(
        paper(), X.repeat(2, 1, 1, 1), torch.tensor([1, 0]), maps, keep=0.25
    )
    whole, left = sigma(-11 / 8), sigma(-9 / 4)
    torch.testing.assert_close(scores, torch.tensor([sigma(17 / 8), left]))
    torch.testing.assert_close(drop, torch.tensor([0.0, 100 * (whole - left) / whole]))
    assert increase.tolist() == [True, False]


def test_zeros_of_a_map_are_never_kept(paper):
    """keep = 1 with support of one pixel keeps that pixel; an undefined map keeps nothing: z1 = 3 - 1/2."""
    maps = torch.tensor([[[1.0, 0, 0, 0]], [[0.0, 0, 0, 0]]])
    scores, _, _ = drop_increase(paper(), X.repeat(2, 1, 1, 1), torch.tensor([1, 1]), maps, keep=1.0)
    torch.testing.assert_close(scores, torch.tensor([sigma(17 / 8), sigma(5 / 2)]))


def test_everything_kept_changes_nothing(small):
    model, images, targets = small().train(), torch.randn(20, 3, 16, 16), torch.arange(20) % 3
    scores, drop, increase = drop_increase(model, images, targets, torch.ones(20, 16, 16), keep=1.0)
    with torch.no_grad():
        torch.testing.assert_close(scores, model.eval()(images).softmax(1)[torch.arange(20), targets])
    assert not drop.any()
    assert not increase.any()


def test_a_score_of_zero_cannot_drop(paper):
    model = paper()
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([500.0, 0.0]))
    _, drop, increase = drop_increase(model, X, torch.tensor([1]), torch.ones(1, 1, 4))
    assert drop.tolist() == [0.0]
    assert increase.tolist() == [False]


def test_the_model_is_left_alone_and_works_under_inference_mode(small):
    model, images = small().train(), torch.randn(2, 3, 16, 16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        drop_increase(model, images, torch.tensor([0, 1]), torch.rand(2, 16, 16), activation="sigmoid")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("maps", "targets", "options", "message"),
    [
        (torch.ones(1, 8, 8), [0], {}, "maps must be"),
        (torch.full((1, 16, 16), torch.nan), [0], {}, "NaN"),
        (torch.ones(1, 16, 16), [3], {}, "class 3"),
        (torch.ones(2, 16, 16), [0], {}, "maps must be"),
        (torch.ones(1, 16, 16), [0, 1], {}, "targets must be"),
        (torch.ones(1, 16, 16), [0], {"keep": 0.0}, "share"),
        (torch.ones(1, 16, 16), [0], {"activation": "tanh"}, "activation"),
    ],
)
def test_bad_input_is_named(small, maps, targets, options, message):
    with pytest.raises(ExplainerError, match=message):
        drop_increase(small(), torch.zeros(1, 3, 16, 16), torch.tensor(targets), maps, **options)


def test_lists_of_classes_are_refused_as_they_make_other_rows(small):
    with pytest.raises(ExplainerError, match=r"explanation\.targets"):
        drop_increase(small(), torch.zeros(2, 3, 16, 16), [[0, 1], []], torch.ones(2, 16, 16))


class _Fixed:
    """Shows torchcam's metrics maps that it did not make."""

    def __init__(self, model, maps):
        self.model, self.maps = model, maps

    def __call__(self, class_idx, scores):
        return [self.maps]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return nullcontext()


def test_average_drop_and_increase_are_torchcams_where_the_map_is_its_own_mask(small):
    """torchcam multiplies the picture by the map: by a map of zeros and ones that is hard masking."""
    model, images, targets = small().eval(), 3 * torch.randn(12, 3, 16, 16), torch.arange(12) % 3
    maps = (torch.rand(12, 256).argsort(dim=1) < 64).float().view(12, 16, 16)
    peer = ClassificationMetric(_Fixed(model, maps), partial(torch.softmax, dim=-1))
    peer.update(images, targets.tolist())
    _, drop, increase = drop_increase(model, images, targets, maps, keep=0.25)
    assert 0 < int(increase.sum()) < 12
    assert peer.summary()["conf_increase"] == pytest.approx(float(increase.float().mean()))
    assert 100 * peer.summary()["avg_drop"] == pytest.approx(float(drop.mean()), rel=1e-5)


class _Spy(torch.nn.Module):
    """Keeps what it is shown; always sure of class 0."""

    seen: ClassVar[list[torch.Tensor]] = []

    def forward(self, x):
        self.seen.append(x.clone())
        return torch.tensor([[5.0, 0.0]]).expand(len(x), 2)


def test_soft_masking_shows_the_kept_pixels_on_the_pictures_own_mean():
    picture = torch.rand(1, 3, 54, 54, generator=torch.Generator().manual_seed(0)) + 2.0
    values = torch.zeros(1, 54, 54)
    values[:, 10:30, 10:30] = 1.0
    _Spy.seen.clear()
    drop_increase(_Spy(), picture, torch.tensor([0]), values, masking="soft")
    whole, masked = torch.cat(_Spy.seen).split(1)
    torch.testing.assert_close(whole, picture)
    torch.testing.assert_close(masked[..., 20, 20], picture[..., 20, 20])
    torch.testing.assert_close(masked[..., 45, 45], picture.mean(dim=(2, 3)))
    # No sharp edge: half way out the picture shows through by about a half.
    own = picture.mean(dim=(2, 3), keepdim=True)
    through = ((masked - own) / (picture - own))[0, 0, 20, 26:34]
    assert (through.diff() < 0).all()


def test_soft_masking_with_everything_kept_changes_nothing(small):
    model, images, targets = small(), torch.randn(4, 3, 16, 16), torch.arange(4) % 3
    _, drop, _ = drop_increase(model, images, targets, torch.ones(4, 16, 16), keep=1.0, masking="soft")
    assert drop.max() < 1e-3


def test_a_picture_too_small_for_a_soft_edge_and_a_wrong_masking(paper):
    maps = torch.tensor([[[1.0, 0.2, 0.1, 0.0]]])
    scores, _, _ = drop_increase(paper(), X, torch.tensor([1]), maps, masking="soft")
    assert 0 < float(scores) < 1
    with pytest.raises(ExplainerError, match="'hard' or 'soft'"):
        drop_increase(paper(), X, torch.tensor([1]), maps, masking="blurred")
