"""The baselines against hand-computed maps and naive loops; the face that all of them share."""

from __future__ import annotations

import copy
import json
import sys

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import nn
from torchvision.models import resnet18

from explainers import ExplainerError, create_explainer
from explainers.baselines.extremal import perturbed, pyramid, smooth_masks
from explainers.baselines.rise import grown

# Options that keep the tests fast.
METHODS = {
    "grad-cam": {},
    "grad-cam++": {},
    "layer-cam": {},
    "score-cam": {"batch_size": 4},
    "integrated-gradients": {"steps": 6, "batch_size": 4},
    "fullgrad": {},
    "rise": {"masks": 30, "batch_size": 8},
    "extremal-perturbation": {"iterations": 6, "areas": (0.1, 0.3)},
}
CAMS = ["grad-cam", "grad-cam++", "layer-cam", "score-cam"]
every = pytest.mark.parametrize("name", METHODS)


def make(name, model, **options):
    return create_explainer(name, model, **{**METHODS[name], **options})


def stretched(values):
    return (values - values.min()) / (values.max() - values.min())


@pytest.fixture
def images():
    return torch.randn(3, 3, 20, 24)


@pytest.fixture
def positive(small):
    """A small model whose last maps all speak for every class, so that no positive part is empty."""
    model = small()
    with torch.no_grad():
        model.classifier.weight.abs_()
    return model.eval()


@every
def test_the_face(name, positive, images):
    explanation = make(name, positive)(images, torch.tensor([0, 2, 1]))
    assert explanation.method == name
    assert explanation.status == ("ok",) * 3
    assert explanation.defined == (True,) * 3
    assert explanation.maps.shape == (3, 20, 24)
    assert explanation.maps.dtype == torch.float32
    assert explanation.maps.amin(dim=(1, 2)).tolist() == [0.0] * 3
    assert explanation.maps.amax(dim=(1, 2)).tolist() == [1.0] * 3
    assert explanation.targets.tolist() == [0, 2, 1]
    assert explanation.images.tolist() == [0, 1, 2]
    with torch.no_grad():
        expected = positive(images).softmax(1)[[0, 1, 2], [0, 2, 1]]
    torch.testing.assert_close(explanation.scores, expected)
    layers = [layer.name for layer in explanation.layers]
    assert layers == (["features.8"] if name in CAMS else [])
    assert list(explanation.block_maps) == layers
    for block_map in explanation.block_maps.values():
        assert torch.equal(block_map, explanation.maps)
    counts = {"score-cam": {"features.8": 10}, "rise": {"input": 30}}.get(name, {})
    assert {key: value.tolist() for key, value in explanation.masks.items()} == {
        key: [count] * 3 for key, count in counts.items()
    }


@every
def test_its_parameters_make_it_again(name, positive, images):
    first = make(name, positive, activation="sigmoid")
    again = create_explainer(name, positive, **json.loads(json.dumps(first.parameters)))
    assert again.parameters == first.parameters
    targets = torch.tensor([0, 2, 1])
    assert torch.equal(again(images, targets).maps, first(images, targets).maps)
    torch.testing.assert_close(
        again(images, targets).scores, positive(images).sigmoid()[[0, 1, 2], [0, 2, 1]]
    )


@every
def test_several_targets_equal_one_by_one(name, positive, images):
    explainer = make(name, positive, activation="sigmoid")
    together = explainer(images, [[0, 2], [], [1]])
    assert together.images.tolist() == [0, 0, 2]
    assert together.targets.tolist() == [0, 2, 1]
    for row, (image, target) in enumerate([(0, 0), (0, 2), (2, 1)]):
        alone = explainer(images[image : image + 1], torch.tensor([target]))
        torch.testing.assert_close(together.maps[row], alone.maps[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(together.scores[row], alone.scores[0])
    assert not torch.allclose(together.maps[0], together.maps[2])


@every
def test_a_single_logit_needs_the_sigmoid(name, small, images):
    model = small(classes=1).eval()
    with torch.no_grad():
        model.classifier.weight.abs_()
    explanation = make(name, model, activation="sigmoid")(images[:1], torch.tensor([0]))
    assert explanation.status == ("ok",)
    torch.testing.assert_close(explanation.scores, model(images[:1]).sigmoid()[:, 0])
    with pytest.raises(ExplainerError, match="activation='sigmoid'"):
        make(name, model)(images[:1], torch.tensor([0]))


@every
def test_a_flat_model_gives_no_map(name, small, images):
    model = small()
    nn.init.zeros_(model.classifier.weight)
    explanation = make(name, model)(images, torch.tensor([0, 1, 2]))
    assert explanation.status == ("undefined: its map is constant",) * 3
    assert explanation.defined == (False,) * 3
    assert not explanation.maps.any()


class Failing(nn.Module):
    """Passes its input on, until it has been called often enough."""

    def __init__(self):
        super().__init__()
        self.left = None

    def forward(self, x):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("out of memory, say")
        return x


@every
@pytest.mark.parametrize("calls", [None, 1])
def test_the_model_is_left_as_it_was(name, calls, small, images):
    model = small().train()
    model.features.append(Failing())
    model.features[-1].left = calls
    before, random = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    pictures = images.clone()
    if calls is None:
        make(name, model)(images, torch.tensor([0, 1, 2]))
    else:
        with pytest.raises(RuntimeError, match="out of memory"):
            make(name, model)(images, torch.tensor([0, 1, 2]))
    assert torch.equal(images, pictures)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert model.features[-1].left == calls
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@every
def test_what_cannot_be_explained_is_refused(name, small, images):
    explainer = make(name, small())
    with pytest.raises(ExplainerError, match="class 3, but the model has 3"):
        explainer(images, torch.tensor([0, 1, 3]))
    with pytest.raises(ExplainerError, match="image 1 of the batch holds NaN"):
        explainer(torch.stack([images[0], images[1] * torch.nan, images[2]]), torch.tensor([0, 1, 2]))
    with pytest.raises(ExplainerError, match="activation must be"):
        make(name, small(), activation="relu")
    broken = small()
    nn.init.constant_(broken.features[3].weight, torch.inf)
    with pytest.raises(ExplainerError, match=r"NaN or infinity in the logits of image 0"):
        make(name, broken)(images, torch.tensor([0, 1, 2]))


class Touchy(nn.Module):
    """Gives NaN for every picture but the one it knows."""

    def __init__(self, model, known):
        super().__init__()
        self.model = model
        self.register_buffer("known", known)

    def forward(self, x):
        odd = (x[:, :1, :1, :1] != self.known).flatten(1)
        return self.model(x).masked_fill(odd, torch.nan)


@pytest.mark.parametrize("name", ["score-cam", "integrated-gradients", "rise", "extremal-perturbation"])
def test_nan_from_a_perturbed_picture_is_noticed(name, small, images):
    model = Touchy(small(), images[0, :1, :1, :1].clone())
    with pytest.raises(ExplainerError, match="NaN or infinity for a perturbed picture"):
        make(name, model)(images[:1], torch.tensor([0]))


@pytest.mark.parametrize(
    ("name", "option", "said"),
    [
        ("score-cam", {"batch_size": 0}, "batch_size must be a whole number, 1 or more"),
        ("integrated-gradients", {"steps": 1.5}, "steps must be"),
        ("rise", {"masks": 0}, "masks must be"),
        ("rise", {"cells": True}, "cells must be"),
        ("rise", {"p": 1.0}, "p must lie"),
        ("rise", {"p": "soft"}, "p must lie"),
        ("rise", {"seed": -1}, "seed must be a whole number, 0 or more"),
        ("rise", {"precision": "int8"}, "precision must be one of float32"),
        ("extremal-perturbation", {"areas": ()}, "areas must be"),
        ("extremal-perturbation", {"areas": 0.1}, "areas must be"),
        ("extremal-perturbation", {"areas": (0.1, 1.0)}, "areas must be"),
        ("extremal-perturbation", {"iterations": 0}, "iterations must be"),
    ],
)
def test_bad_options_are_named(name, option, said, small):
    with pytest.raises(ExplainerError, match=said):
        make(name, small(), **option)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("grad-cam", "torchcam"),
        ("score-cam", "torchcam"),
        ("integrated-gradients", "captum.attr"),
        ("fullgrad", "pytorch_grad_cam"),
    ],
)
def test_a_missing_package_is_asked_for(name, package, small, images, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExplainerError, match=rf"{name} needs .*pip install 'kensa\[eval\]'"):
        make(name, small())(images, torch.tensor([0, 1, 2]))


# On the row 2 0 1 0, the paper network's second block gives the maps 1 .5 / 1.5 1.5 / 1.5 1, and with the
# head 1 1 -1.5, averaged over two positions, the gradients .5 .5 -.75 at each position.
@pytest.mark.parametrize(
    ("name", "left", "right"),
    [
        ("grad-cam", 0.125, 0.25),  # .5 * 1 + .5 * 1.5 - .75 * 1.5 and .5 * .5 + .5 * 1.5 - .75 * 1
        ("layer-cam", 1.25, 1.0),  # the same without the third
        # alpha = 1 / (2 + .5 * 1.5) and 1 / (2 + .5 * 3), twice .5 times that: weights 4 / 11 and 2 / 7
        ("grad-cam++", 4 / 11 + 3 / 7, 2 / 11 + 3 / 7),
    ],
)
def test_cams_on_paper(name, left, right, paper):
    row = torch.tensor([[[[2.0, 0.0, 1.0, 0.0]]]])
    explainer = create_explainer(name, paper(head=(1.0, 1.0, -1.5)), layer="two")
    explanation = explainer(row, torch.tensor([1]))
    grown_up = torch.tensor([left, 0.75 * left + 0.25 * right, 0.25 * left + 0.75 * right, right])
    torch.testing.assert_close(explanation.maps[0, 0], stretched(grown_up), rtol=0, atol=1e-6)
    (layer,) = explanation.layers
    assert (layer.name, layer.maps, layer.height, layer.width) == ("two", 3, 1, 2)


def test_grad_cam_plus_plus_weighs_maps_by_alpha():
    """Two maps with the same gradients 1/4: the one with much activation gets the smaller weight."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.maps = nn.Conv2d(1, 2, 1, bias=False)
            self.head = nn.Linear(2, 2, bias=False)
            with torch.no_grad():
                self.maps.weight.copy_(torch.tensor([1.0, 0.0]).view(2, 1, 1, 1))
                self.head.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))

        def forward(self, x):
            maps = self.maps(x) + torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 4]]).view(1, 2, 1, 4)
            return self.head(self.seen(maps).mean(dim=(2, 3)))

    model = Two()
    model.seen = nn.Identity()
    row = torch.tensor([[[[40.0, 0.0, 0.0, 0.0]]]])
    # Sums of activations 40 and 4: alpha 1 / (2 + 10) and 1 / (2 + 1), so 40 / 12 against 4 / 3.
    explanation = create_explainer("grad-cam++", model, layer="seen")(row, torch.tensor([1]))
    torch.testing.assert_close(explanation.maps[0, 0], torch.tensor([1.0, 0.0, 0.0, 0.4]))


def test_score_cam_equals_a_loop_over_the_maps(positive, images):
    explanation = make("score-cam", positive)(images[:1], torch.tensor([2]))
    with torch.no_grad():
        maps = positive.features(images[:1])
        gains = []
        for one in maps[0]:
            if one.max() > one.min():  # a dead map masks everything
                one = (one - one.min()) / (one.max() - one.min())
            mask = F.interpolate(one[None, None], size=(20, 24), mode="bilinear")
            gains.append((positive(images[:1] * mask) - positive(images[:1]))[0, 2])
        weights = torch.stack(gains).softmax(0)
        cam = (weights[:, None, None] * maps[0]).sum(0).relu()
        expected = stretched(F.interpolate(cam[None, None], size=(20, 24), mode="bilinear")[0, 0])
    torch.testing.assert_close(explanation.maps[0], expected, rtol=0, atol=1e-5)


def test_an_in_place_operation_behind_the_layer_changes_nothing(positive, images):
    """features.4 is a batch norm, and the ReLU behind it works in place."""
    explanation = create_explainer("grad-cam", positive, layer="features.4")(images[:1], torch.tensor([1]))
    maps = positive.features[:5](images[:1]).detach().requires_grad_()
    logit = positive.classifier(positive.pool(positive.features[5:](maps.clone())).flatten(1))[0, 1]
    (gradients,) = torch.autograd.grad(logit, maps)
    cam = (gradients.mean(dim=(2, 3), keepdim=True) * maps).sum(1).relu().detach()
    expected = stretched(F.interpolate(cam[None], size=(20, 24), mode="bilinear")[0, 0])
    torch.testing.assert_close(explanation.maps[0], expected, rtol=0, atol=1e-5)


def test_the_layer_of_a_resnet_is_its_last_stage():
    explanation = create_explainer("grad-cam", resnet18(num_classes=4))(
        torch.randn(1, 3, 64, 64), torch.tensor([1])
    )
    (layer,) = explanation.layers
    assert (layer.name, layer.maps, layer.height, layer.width) == ("layer4.1", 512, 2, 2)


class Functional(nn.Module):
    """A timm-like model whose deepest feature maps come from a function, and so from no module."""

    def __init__(self, stray=False):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.two = nn.Conv2d(4, 5, 3, stride=2, padding=1)
        self.head = nn.Linear(5, 2)
        self.stray = stray

    def forward_intermediates(self, x):
        first = self.one(x)
        last = F.relu(self.two(first))
        return (F.avg_pool2d(last, last.shape[2:]) if self.stray else last), [first, last]

    def forward_features(self, x):
        return self.forward_intermediates(x)[0]

    def forward_head(self, x):
        return self.head(x.mean(dim=(2, 3)))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


@pytest.mark.parametrize("name", CAMS)
def test_deepest_maps_without_a_module_are_reached(name, images):
    model = Functional()
    nn.init.ones_(model.head.weight)
    explanation = make(name, model)(images, torch.tensor([0, 1, 0]))
    assert [layer.name for layer in explanation.layers] == ["intermediates.2"]
    assert explanation.status == ("ok",) * 3
    if name == "grad-cam":
        cam = model.forward_features(images).sum(dim=1, keepdim=True).detach()
        expected = F.interpolate(cam, size=(20, 24), mode="bilinear")[:, 0]
        torch.testing.assert_close(explanation.maps[1], stretched(expected[1]), rtol=0, atol=1e-5)


def test_deepest_maps_that_are_not_the_heads_must_be_named(images):
    with pytest.raises(ExplainerError, match=r"\(intermediates\.1\) are no module's output; name the layer"):
        make("grad-cam", Functional(stray=True))(images, torch.tensor([0, 1, 0]))


def test_a_layer_must_exist_and_be_one_of_several(images, small):
    with pytest.raises(ExplainerError, match=r"no layer 'features\.99'"):
        make("grad-cam", small(), layer="features.99")(images, torch.tensor([0, 1, 0]))
    flat = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ExplainerError, match=r"grad-cam has no layer.*here: layer='name'"):
        make("grad-cam", flat)(images, torch.tensor([0, 1, 0]))
    assert make("grad-cam", flat, layer="1")(images, torch.tensor([0, 1, 0])).layers[0].name == "1"


def test_integrated_gradients_of_a_linear_model_are_its_terms(images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 24, 2))
    explanation = make("integrated-gradients", model)(images, torch.tensor([1, 0, 1]))
    terms = model[1].weight[[1, 0, 1]].reshape(3, 3, 20, 24) * images
    for row, expected in enumerate(terms.sum(dim=1).abs().detach()):
        torch.testing.assert_close(explanation.maps[row], stretched(expected), rtol=0, atol=1e-5)


def test_integrated_gradients_are_complete():
    """One pixel, so that the map's only other value is a pixel without influence: the path's sum is seen."""
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[2.0, 0.0], [1.0, 1.0]]))
    row = torch.tensor([[[[3.0, -1.0]]]])
    explanation = make("integrated-gradients", model)(row, torch.tensor([1]))
    assert explanation.maps.tolist() == [[[1.0, 0.0]]]


def test_fullgrad_equals_a_naive_computation():
    """Without down-sampling, so that nothing is resized: input and bias maps, each stretched, added up."""
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 5, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 2),
    ).eval()
    norm = model[3]
    for values in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(values)
    picture = torch.randn(1, 2, 9, 9, requires_grad=True)
    first = model[0](picture)
    normed = model[3](model[2](first.relu()))
    last = model[5](normed.relu())
    logit = model[6:](last)[0, 1]
    gradients = torch.autograd.grad(logit, [picture, first, normed, last])
    constant = norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt()
    factors = [picture[0], *(b[:, None, None] for b in (model[0].bias, constant, model[5].bias))]
    total = torch.zeros(9, 9)
    for factor, gradient in zip(factors, gradients, strict=True):
        for channel in (factor * gradient[0]).abs().detach():
            low, high = channel.min(), channel.max()
            total += (channel - low) / (high - low + 1e-7)
    explanation = make("fullgrad", model)(picture.detach(), torch.tensor([1]))
    torch.testing.assert_close(explanation.maps[0], stretched(total), rtol=0, atol=1e-4)


def test_fullgrad_counts_the_biases_of_norms_with_an_activation_inside(positive, images):
    inside = copy.deepcopy(positive)
    nn.init.normal_(positive.features[4].bias)
    joined = BatchNormAct2d(8)
    joined.load_state_dict(positive.features[4].state_dict())
    inside.features[4], inside.features[5] = joined, nn.Identity()
    targets = torch.tensor([0, 1, 2])
    expected, found = (make("fullgrad", model)(images, targets).maps for model in (positive, inside))
    torch.testing.assert_close(found, expected)
    nn.init.zeros_(positive.features[4].bias)
    assert not torch.allclose(make("fullgrad", positive)(images, targets).maps, expected, atol=1e-3)


class Ordered(nn.Module):
    """Three convolutions with as many maps each, registered in one order and run in another."""

    def __init__(self, first, second, third, registered, head):
        super().__init__()
        for name in registered:
            setattr(self, name, {"a": first, "b": second, "c": third}[name])
        self.unused = nn.Conv2d(3, 3, 1)
        self.head = head

    def forward(self, x):
        return self.head(self.c(self.b(self.a(x)).relu()).relu().mean(dim=(2, 3)))


def test_fullgrad_does_not_mistake_layers_that_run_in_another_order(images):
    parts = [nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)]
    head, targets = nn.Linear(3, 2), torch.tensor([0, 1, 0])
    expected, found = (
        make("fullgrad", Ordered(*parts, order, head))(images, targets).maps for order in ("abc", "cab")
    )
    assert torch.equal(found, expected)


def test_fullgrad_refuses_a_model_without_biases(images):
    model = nn.Sequential(nn.Conv2d(3, 2, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ExplainerError, match="no convolution or batch norm with a bias"):
        make("fullgrad", model)(images, torch.tensor([0, 1, 0]))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_rise_equals_a_loop_over_the_masks(activation, positive, images):
    explainer = create_explainer(
        "rise", positive, masks=13, cells=5, p=0.3, seed=4, batch_size=4, activation=activation
    )
    explanation = explainer(images, [[0, 2], [], [1]])
    # 20 x 24 in 5 x 5 cells: cells of 4 x 5, grown to 6 x 6 cells of which a shift below one is cut off.
    grids, shifts = explainer._drawn((20, 24))
    assert set(grids.unique().tolist()) == {0.0, 1.0}
    assert shifts.amin() >= 0
    assert (shifts.amax(dim=0) < torch.tensor([4, 5])).all()
    sums = torch.zeros(3, 20, 24)
    for grid, (down, right) in zip(grids, shifts.tolist(), strict=True):
        large = F.interpolate(grid[None, None], size=(24, 30), mode="bilinear")[0, 0]
        mask = large[down : down + 20, right : right + 24]
        with torch.no_grad():
            logits = positive(images * mask)
        spread = logits.softmax(1) if activation == "softmax" else logits.sigmoid()
        for row, (image, target) in enumerate([(0, 0), (0, 2), (2, 1)]):
            sums[row] += spread[image, target] * mask / (0.3 * 13)
    for row, expected in enumerate(sums):
        torch.testing.assert_close(explanation.maps[row], stretched(expected), rtol=0, atol=1e-4)


def test_rise_finds_the_one_pixel_that_counts():
    class Pixel(nn.Module):
        def forward(self, x):
            return torch.stack([torch.zeros(len(x)), 9 * x[:, 0, 3, 17] - 4], dim=1)

    images = torch.ones(1, 1, 24, 24)
    explanation = create_explainer("rise", Pixel(), masks=800, batch_size=100)(images, torch.tensor([1]))
    row, column = divmod(int(explanation.maps[0].argmax()), 24)
    assert abs(row - 3) <= 2
    assert abs(column - 17) <= 2


def test_rise_draws_from_its_seed_alone(positive, images):
    targets = torch.tensor([0, 1, 2])
    first = make("rise", positive)(images, targets).maps
    torch.manual_seed(99)
    assert torch.equal(make("rise", positive)(images, targets).maps, first)
    torch.testing.assert_close(make("rise", positive, batch_size=30)(images, targets).maps, first)
    assert not torch.allclose(make("rise", positive, seed=1)(images, targets).maps, first, atol=0.05)
    half = make("rise", positive, precision="bfloat16")(images, targets)
    assert half.parameters["precision"] == "bfloat16"
    assert not torch.equal(half.maps, first)
    torch.testing.assert_close(half.maps, first, rtol=0, atol=0.1)


def test_masks_of_rise_on_paper():
    # Two cells of four pixels on a row of eight, grown to three cells: 12 pixels, of which 8 are kept.
    grids = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    line = F.interpolate(torch.tensor([[[1.0, 0.0]]]), size=12, mode="linear")[0, 0]
    found = grown(grids, torch.tensor([[0, 3]]), (2, 8))
    torch.testing.assert_close(found[0], line[3:11].expand(2, 8))
    assert grown(torch.ones(1, 7, 7), torch.tensor([[2, 3]]), (20, 24)).amin() == pytest.approx(1.0)


def test_the_smooth_masks_of_extremal_perturbations_on_paper():
    seeds = torch.zeros(1, 13, 13)
    seeds[0, 6, 6] = 1.0
    (mask,) = smooth_masks(seeds, (13, 13))

    def smooth_maximum(value):  # of `value` and the 120 zeros around it
        weight = torch.tensor(value / 0.05).exp()
        return float(value * weight / (weight + 120))

    assert mask[6, 6] == pytest.approx(smooth_maximum(1.0), abs=1e-5)
    assert mask[6, 7] == pytest.approx(smooth_maximum(1.0), abs=1e-5)  # one cell away: still the top
    assert mask[6, 8] == pytest.approx(smooth_maximum(torch.e**-0.25), abs=1e-5)
    assert mask[9, 6] == pytest.approx(smooth_maximum(torch.e**-1.0), abs=1e-4)
    assert mask[0, 0] == 0.0
    assert smooth_masks(torch.ones(1, 4, 4), (30, 20)).shape == (1, 30, 20)


def test_a_perturbed_picture_is_sharp_inside_the_mask_and_blurred_outside():
    picture = torch.randn(3, 40, 40)
    levels = pyramid(picture)
    assert levels.shape == (8, 3, 40, 40)
    assert torch.equal(levels[-1], picture)
    assert (levels.std(dim=(1, 2, 3)).diff() > 0).all()
    mask = torch.zeros(1, 40, 40)
    mask[0, :, :20] = 1.0
    (seen,) = perturbed(levels[None], mask)
    torch.testing.assert_close(seen[:, :, :20], picture[:, :, :20])
    torch.testing.assert_close(seen[:, :, 20:], levels[0, :, :, 20:])
    between = perturbed(levels[None], torch.full((1, 40, 40), 2.5 / 7))
    torch.testing.assert_close(between[0], (levels[2] + levels[3]) / 2)


class Brightness(nn.Module):
    """Scores how much of the picture is bright: a convolution that passes what exceeds a threshold."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        nn.init.ones_(self.conv.weight)
        nn.init.constant_(self.conv.bias, -1.0)

    def forward(self, x):
        bright = 200 * self.conv(x).relu().mean(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(bright), bright], dim=1)


def test_extremal_perturbation_finds_the_square_that_alone_drives_the_score():
    pictures = 0.3 * torch.randn(2, 1, 32, 32)
    pictures[0, 0, 4:11, 18:25] += 3.0
    pictures[1, 0, 20:27, 5:12] += 3.0
    explainer = create_explainer("extremal-perturbation", Brightness(), areas=(0.03, 0.06), iterations=150)
    maps = explainer(pictures, torch.tensor([1, 1])).maps
    near = torch.zeros(2, 32, 32, dtype=torch.bool)
    near[0, 1:14, 15:28] = near[1, 17:30, 2:15] = True  # with a rim of three pixels: masks have soft edges
    for attribution, picture, square in zip(maps, pictures, near, strict=True):
        assert picture[0].flatten()[attribution.argmax()] > 1.5
        assert square[attribution > 0.5].all()
        assert attribution[square].sum() / attribution.sum() > 0.95
    assert torch.equal(explainer(pictures, torch.tensor([1, 1])).maps, maps)


def test_masks_of_extremal_perturbations_keep_to_their_area(positive):
    picture = torch.randn(1, 3, 32, 32)
    for area in (0.1, 0.3):
        explainer = create_explainer("extremal-perturbation", positive, areas=[area], iterations=250)
        found = explainer(picture, torch.tensor([1])).maps[0]
        assert float(found.mean()) == pytest.approx(area, abs=0.03)
