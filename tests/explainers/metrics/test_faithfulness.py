"""Insertion and deletion: by hand, and against torchcam and quantus."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import quantus
import torch
from torch import nn
from torchcam.metrics import DeletionInsertionMetric
from torchvision.transforms.v2.functional import gaussian_blur

from explainers import ExplainerError
from explainers.metrics.faithfulness import insertion_deletion

X = torch.tensor([2.0, 0.0, 1.0, 3.0]).view(1, 1, 1, 4)
MAP = torch.tensor([[[1.0, 0.2, 0.1, 0.5]]])  # order of the pixels: 1st, 4th, 2nd, 3rd


class Tenths(nn.Module):
    """One logit whose sigmoid is (1 + sum of the pixels) / 10."""

    def forward(self, x):
        return torch.logit((1 + x.flatten(1).sum(dim=1, keepdim=True)) / 10)


def judged(maps=MAP, images=X, **options):
    targets = torch.zeros(len(images), dtype=torch.int64)
    return insertion_deletion(Tenths(), images, targets, maps, activation="sigmoid", **options)


@pytest.mark.parametrize(
    ("steps", "area"),
    [
        (4, (0.7 / 2 + 0.5 + 0.2 + 0.2 + 0.1 / 2) / 4),  # pixels taken away: 2, 3, 0, 1
        (9, (0.7 / 2 + 0.5 + 0.2 + 0.2 + 0.1 / 2) / 4),  # no more steps than pixels
        (3, 0.25 * 0.6 + 0.5 * 0.35 + 0.25 * 0.15),  # 0, 1, 3 and 4 pixels: 0.7, 0.5, 0.2, 0.1
        (1, 0.4),
    ],
)
def test_deletion_by_hand(steps, area):
    _, deletion = judged(steps=steps)
    torch.testing.assert_close(deletion, torch.tensor([area]))


def test_insertion_by_hand():
    """The kernel is cut to 7 pixels, the most that mirroring allows on 4."""
    row = np.pad(X.flatten().numpy().astype(float), 3, mode="reflect")
    kernel = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 5.0**2))
    blurred = np.array([row[i : i + 7] @ kernel / kernel.sum() for i in range(4)])
    shown, scores = blurred.copy(), [(1 + blurred.sum()) / 10]
    for pixel in (0, 3, 1, 2):
        shown[pixel] = float(X[0, 0, 0, pixel])
        scores.append((1 + shown.sum()) / 10)
    assert scores[-1] == pytest.approx(0.7)
    insertion, _ = judged(steps=4)
    assert float(insertion) == pytest.approx(np.trapezoid(scores, dx=0.25), rel=1e-5)


def test_tied_pixels_follow_in_reading_order():
    """Pixels taken away: 3, then 2, 0 and 1."""
    _, deletion = judged(torch.tensor([[[0.0, 0.0, 0.0, 0.4]]]), steps=4)
    torch.testing.assert_close(deletion, torch.tensor([(0.7 / 2 + 0.4 + 0.2 + 0.2 + 0.1 / 2) / 4]))


def test_a_map_of_nothing_gets_the_worst():
    insertion, deletion = judged(torch.cat([torch.zeros(1, 1, 4), MAP]), X.repeat(2, 1, 1, 1), steps=4)
    assert insertion[0] == 0
    assert deletion[0] == 1
    torch.testing.assert_close(deletion[1], torch.tensor(0.325))


def test_batches_and_company_do_not_matter(small):
    model, images, maps = small(), torch.randn(3, 3, 12, 10), torch.rand(3, 12, 10)
    targets = torch.tensor([2, 0, 1])
    together = insertion_deletion(model, images, targets, maps, steps=6, batch_size=16)
    for row in range(3):
        one = slice(row, row + 1)
        alone = insertion_deletion(model, images[one], targets[one], maps[one], steps=6, batch_size=5)
        torch.testing.assert_close(torch.cat(alone), torch.stack(together)[:, row])
    reduced = insertion_deletion(model, images, targets, maps, steps=6, precision="bfloat16")
    torch.testing.assert_close(reduced, together, atol=0.01, rtol=0)
    assert not torch.equal(reduced[0], together[0])


def test_the_model_is_left_alone_and_works_under_inference_mode(small):
    model, images, maps = small().train(), torch.randn(2, 3, 16, 16), torch.rand(2, 16, 16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept, state = (images.clone(), maps.clone()), torch.get_rng_state()
    with torch.inference_mode():
        insertion_deletion(model, images, torch.tensor([0, 1]), maps, steps=2, precision="bfloat16")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(images, kept[0])
    assert torch.equal(maps, kept[1])
    assert torch.equal(state, torch.get_rng_state())


class Fixed:
    """Shows torchcam's metrics maps that it did not make."""

    def __init__(self, model, maps):
        self.model, self.maps = model, maps

    def __call__(self, class_idx, scores):
        return [self.maps]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return nullcontext()


def test_the_same_as_torchcam_ties_included(small):
    model, images, targets = small().eval(), 3 * torch.randn(6, 3, 16, 16), torch.arange(6) % 3
    maps = (torch.rand(6, 16, 16) - 0.5).clamp_min(0)  # half of it a plateau at 0
    ours = insertion_deletion(model, images, targets, maps, steps=16)
    blur = partial(gaussian_blur, kernel_size=[11, 11], sigma=[5.0, 5.0])
    for name, baseline, mine in (("deletion_auc", None, ours[1]), ("insertion_auc", blur, ours[0])):
        peer = DeletionInsertionMetric(
            Fixed(model, maps), partial(torch.softmax, dim=-1), steps=16, baseline=baseline
        )
        peer.update(images, targets.tolist())
        assert peer.summary()[name] == pytest.approx(float(mine.mean()), rel=1e-5)


def test_the_same_curve_as_quantus(small):
    """quantus leaves out the whole picture's score, and sums channels' pixels alone: so one channel."""
    model, images, maps = small(channels=1).eval(), 3 * torch.randn(4, 1, 16, 16), torch.rand(4, 16, 16)
    targets = torch.tensor([0, 1, 2, 0])
    peer = quantus.PixelFlipping(
        features_in_step=32, normalise=False, abs=False, perturb_baseline=0.0, disable_warnings=True
    )
    later = peer(
        model=model,
        x_batch=images.numpy(),
        y_batch=targets.numpy(),
        a_batch=maps[:, None].numpy(),
        channel_first=True,
        softmax=True,
    )
    with torch.no_grad():
        whole = model(images).softmax(dim=1)[torch.arange(4), targets]
    curve = np.concatenate([whole[:, None].numpy(), np.stack(later)], axis=1)
    _, deletion = insertion_deletion(model, images, targets, maps, steps=8)
    np.testing.assert_allclose(deletion.numpy(), np.trapezoid(curve, dx=1 / 8, axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("maps", "targets", "options", "message"),
    [
        (torch.ones(1, 8, 8), [0], {}, "maps must be"),
        (torch.full((1, 16, 16), torch.nan), [0], {}, "NaN"),
        (-torch.ones(1, 16, 16), [0], {}, "no attribution"),
        (torch.ones(1, 16, 16), [3], {}, "class 3"),
        (torch.ones(1, 16, 16), [0, 1], {}, "targets must be"),
        (torch.ones(1, 16, 16), [0], {"activation": "tanh"}, "activation"),
        (torch.ones(1, 16, 16), [0], {"precision": "int8"}, "precision"),
        (torch.ones(1, 16, 16), [0], {"steps": 0}, "steps"),
        (torch.ones(1, 16, 16), [0], {"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_input_is_named(small, maps, targets, options, message):
    with pytest.raises(ExplainerError, match=message):
        insertion_deletion(small(), torch.zeros(1, 3, 16, 16), torch.tensor(targets), maps, **options)


def test_a_broken_model_is_named(small):
    model = small()
    with torch.no_grad():
        model.classifier.bias[0] = torch.nan
    with pytest.raises(ExplainerError, match=r"NaN or infinity in torch\.float32"):
        insertion_deletion(model, torch.zeros(1, 3, 16, 16), torch.tensor([0]), torch.ones(1, 16, 16))
