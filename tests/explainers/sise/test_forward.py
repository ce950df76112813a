"""Masked passes by the caller's own function, and copies that are kept of a constant model."""

from __future__ import annotations

import copy
import threading
import warnings

import numpy as np
import pytest
import timm
import torch
from scipy.stats import spearmanr
from torch import nn

from explainers import ExplainerError, create_explainer, drop_increase

METHODS = ("sise", "ada-sise", "sise-fast")


@pytest.fixture
def images():
    return torch.randn(3, 3, 20, 24)


@pytest.fixture
def targets():
    return torch.tensor([0, 2, 1])


class Seen:
    """A forward function that notes what it is given."""

    def __init__(self, model):
        self.model = copy.deepcopy(model).eval()
        self.given = []

    def __call__(self, pictures):
        self.given.append((tuple(pictures.shape), pictures.dtype, pictures.is_contiguous()))
        return self.model(pictures)


def same(first, second, tolerance=1e-5):
    torch.testing.assert_close(first.maps, second.maps, rtol=0, atol=tolerance)
    torch.testing.assert_close(first.scores, second.scores, rtol=0, atol=tolerance)
    assert {name: kept.tolist() for name, kept in first.masks.items()} == {
        name: kept.tolist() for name, kept in second.masks.items()
    }
    assert first.status == second.status
    assert first.parameters == second.parameters


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_every_masked_pass_goes_through_the_function_in_one_shape(small, images, targets, method, constant):
    model = small()
    seen = Seen(model)
    own = create_explainer(method, model, batch_size=4)(images, targets)
    passed: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: passed.append(len(inputs[0])))
    explainer = create_explainer(method, model, batch_size=4, forward=seen, constant=constant)
    found = explainer(images, targets)
    same(found, own)
    shape, *_ = seen.given[0]
    assert set(seen.given) == {(shape, torch.float32, True)}
    assert shape[0] <= 4
    masks = int(torch.stack(list(found.masks.values())).sum())
    assert masks <= shape[0] * len(seen.given) < masks + 4 * len(found.layers)
    assert set(passed) == {1}, "the model itself sees whole pictures alone, one by one"


def test_rise_masks_through_the_function(small, images, targets):
    model = small()
    seen = Seen(model)
    options = {"masks": 20, "batch_size": 8}
    found = create_explainer("rise", model, forward=seen, **options)(images, targets)
    same(found, create_explainer("rise", model, **options)(images, targets))
    assert seen.given == [((8, 3, 20, 24), torch.float32, True)] * 9


def test_drop_and_increase_through_the_function(small, images, targets):
    model = small()
    seen = Seen(model)
    maps = create_explainer("sise", model)(images, targets).maps
    found = drop_increase(model, images, targets, maps, masking="soft", forward=seen)
    for ours, own in zip(found, drop_increase(model, images, targets, maps, masking="soft"), strict=True):
        torch.testing.assert_close(ours, own, rtol=0, atol=1e-4)
    assert sum(shape[0] for shape, *_ in seen.given) == 6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("wrong", "given"),
    [
        (lambda logits: logits[:, :2], r"\(\d, 2\)"),
        (lambda logits: logits[:1], r"\(1, 3\)"),
        (lambda logits: logits.numpy(), "ndarray"),
    ],
)
def test_a_function_that_returns_something_else_is_named(small, images, targets, method, wrong, given):
    model = small().eval()

    def mistaken(pictures):
        return wrong(model(pictures))

    with pytest.raises(ExplainerError, match=rf"forward=.*mistaken must return \(\d, 3\) logits.*{given}"):
        create_explainer(method, model, batch_size=4, forward=mistaken)(images, targets)


def test_a_function_that_returns_nan_is_an_error_that_names_the_layer(small, images, targets):
    model = small().eval()

    def broken(pictures):
        return model(pictures).fill_(torch.nan)

    with pytest.raises(ExplainerError, match=r"NaN.*masked pictures of layer 'features\.1'"):
        create_explainer("sise", model, forward=broken)(images, targets)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_kept_copies_give_the_same_maps_at_every_call(small, images, targets, method, precision):
    model = small()
    fresh = create_explainer(method, model, precision=precision)
    kept = create_explainer(method, model, precision=precision, constant=True)
    tolerance = 1e-5 if precision == "float32" else 1e-3
    first = kept(images, targets)
    same(first, fresh(images, targets), tolerance)
    again = kept(images, targets)
    torch.testing.assert_close(again.maps, first.maps, rtol=0, atol=0)
    # another size of pictures, and several classes
    wide = torch.randn(2, 3, 32, 16)
    for _ in range(2):
        same(kept(wide, [[0, 2], [1]]), fresh(wide, [[0, 2], [1]]), tolerance)


def test_kept_copies_are_made_once_and_the_model_is_left_alone(small, images, targets, monkeypatch):
    model = small().train()
    explainer = create_explainer("sise-fast", model, constant=True)
    first = explainer(images, targets)
    copied = []
    deepcopy = copy.deepcopy
    monkeypatch.setattr(copy, "deepcopy", lambda *args: copied.append(type(args[0])) or deepcopy(*args))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    same(explainer(images, targets), first, 0)
    assert not copied
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_after_an_error_the_next_call_begins_anew(small, images, targets):
    explainer = create_explainer("sise", small(), constant=True)
    expected = explainer(images, targets)
    with pytest.raises(ExplainerError, match="class 9"):
        explainer(images, torch.tensor([0, 1, 9]))
    same(explainer(images, targets), expected, 0)


def test_threads_that_share_kept_copies_do_not_meet(small, targets):
    explainer = create_explainer("sise", small(), constant=True)
    pictures = [torch.randn(3, 3, 20, 24) for _ in range(4)]
    expected = [explainer(each, targets).maps for each in pictures]
    found: list[list[torch.Tensor]] = [[] for _ in pictures]

    def work(at: int) -> None:
        for _ in range(5):
            found[at].append(explainer(pictures[at], targets).maps)

    workers = [threading.Thread(target=work, args=(at,)) for at in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for maps, one in zip(found, expected, strict=True):
        assert len(maps) == 5
        for each in maps:
            torch.testing.assert_close(each, one, rtol=0, atol=1e-5)


def test_where_the_layers_are_no_modules_outputs_the_whole_way_is_taken_each_time():
    """A network whose feature maps are made by functions: they have no name by which to reach them."""

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
            self.head = nn.Linear(8, 3)

        def forward_intermediates(self, x):
            first = self.one(x) * 1.5
            last = self.two(nn.functional.max_pool2d(first.relu(), 2)) + 0.1
            return last, [first, last]

        def forward_head(self, x):
            return self.head(x.mean(dim=(2, 3)))

        def forward(self, x):
            return self.forward_head(self.forward_intermediates(x)[0])

    model, images = Functional(), torch.randn(2, 3, 16, 16)
    kept = create_explainer("sise", model, constant=True)
    fresh = create_explainer("sise", model)(images, torch.tensor([0, 1]))
    assert any(layer.name.startswith("intermediates.") for layer in fresh.layers)
    for _ in range(2):
        same(kept(images, torch.tensor([0, 1])), fresh)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet10t", "efficientnet_b0", "ghostnet_100"])
def test_kept_copies_of_timm_networks_find_the_same_layers_and_maps(name):
    model = timm.create_model(name, num_classes=5).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.05 * torch.randn_like(parameter))
    images = torch.randn(1, 3, 96, 96)
    fresh = create_explainer("sise-fast", model, share=0.03)(images, torch.tensor([1]))
    explainer = create_explainer("sise-fast", model, share=0.03, constant=True)
    for _ in range(2):
        kept = explainer(images, torch.tensor([1]))
        assert kept.layers == fresh.layers
        assert spearmanr(kept.maps.flatten(), fresh.maps.flatten()).statistic >= 0.999


def test_openvino_makes_the_same_map():
    openvino = pytest.importorskip("openvino")
    model = timm.create_model("mobilenetv3_small_050", num_classes=5).eval()
    example = torch.zeros(1, 3, 96, 96)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, which torch calls deprecated
        converted = openvino.convert_model(model, example_input=example, input=[-1, 3, 96, 96])
    compiled = openvino.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def forward(pictures):
        return torch.from_numpy(np.array(compiled(pictures.numpy())[0]))

    images, targets = torch.randn(2, 3, 96, 96), torch.tensor([1, 3])
    for method in ("sise", "sise-fast"):
        options = {"mu": 0.5} if method == "sise" else {}
        own = create_explainer(method, model, **options)(images, targets)
        found = create_explainer(method, model, forward=forward, constant=True, **options)(images, targets)
        for ours, theirs in zip(found.maps, own.maps, strict=True):
            assert spearmanr(ours.flatten(), theirs.flatten()).statistic >= 0.999
