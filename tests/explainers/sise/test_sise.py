"""SISE against its naive self; parity, isolation from the caller's model and modes, errors."""

from __future__ import annotations

import copy
import json
import threading

import pytest
import torch
from torch import nn

from explainers import ExplainerError, create_explainer

LAYERS = ["features.1", "features.5", "features.8"]


@pytest.fixture
def images():
    return torch.randn(3, 3, 20, 24)


@pytest.fixture
def targets():
    return torch.tensor([0, 2, 1])


def same(first, second, tolerance=1e-5):
    torch.testing.assert_close(first.maps, second.maps, rtol=0, atol=tolerance)
    torch.testing.assert_close(first.scores, second.scores, rtol=0, atol=tolerance)
    for name, maps in first.block_maps.items():
        torch.testing.assert_close(maps, second.block_maps[name], rtol=0, atol=tolerance)
        assert torch.equal(first.masks[name], second.masks[name])
    assert first.status == second.status


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("mu", [0.0, 0.3])
@pytest.mark.parametrize("baseline", ["mean", "black"])
def test_equals_the_naive_full_size_computation(small, naive, images, targets, activation, mu, baseline):
    model, mean, std = small(), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    floor = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])[:, None, None]
    explainer = create_explainer(
        "sise", model, activation=activation, mu=mu, baseline=baseline, mean=mean, std=std, batch_size=5
    )
    explanation = explainer(images, targets)
    assert list(explanation.block_maps) == LAYERS
    for index, target in enumerate(targets.tolist()):
        fused, block_maps, counts = naive(
            copy.deepcopy(model),
            images[index],
            target,
            LAYERS,
            activation=activation,
            mu=mu,
            floor=floor if baseline == "black" else None,
        )
        assert {name: int(explanation.masks[name][index]) for name in counts} == counts
        for name, block_map in block_maps.items():
            torch.testing.assert_close(
                explanation.block_maps[name][index].double(), block_map, rtol=0, atol=2e-5
            )
        torch.testing.assert_close(explanation.maps[index].double(), fused, rtol=0, atol=2e-5)


def test_shapes_types_and_ranges(small, images, targets):
    explanation = create_explainer("sise", small())(images, targets)
    assert explanation.maps.shape == (3, 20, 24)
    assert explanation.status == ("ok",) * 3
    assert torch.equal(explanation.targets, targets)
    for maps in (explanation.maps, *explanation.block_maps.values()):
        assert maps.dtype == torch.float32
        assert (maps.amin((1, 2)) == 0).all()
        assert (maps.amax((1, 2)) == 1).all()
    assert [(layer.maps, layer.height, layer.width) for layer in explanation.layers] == [
        (6, 20, 24),
        (8, 10, 12),
        (10, 5, 6),
    ]


@pytest.mark.parametrize("batch_size", [1, 4, 32, 500])
def test_the_chunk_size_does_not_matter(small, images, targets, batch_size):
    model = small()
    same(
        create_explainer("sise", model, batch_size=batch_size)(images, targets),
        create_explainer("sise", model)(images, targets),
    )


def test_a_picture_gets_the_same_alone_and_in_company(small, images, targets):
    explainer = create_explainer("sise", small(), batch_size=4)
    together = explainer(images, targets)
    for index in range(3):
        alone = explainer(images[index : index + 1], targets[index : index + 1])
        torch.testing.assert_close(alone.maps[0], together.maps[index], rtol=0, atol=1e-5)
        assert {name: int(kept[0]) for name, kept in alone.masks.items()} == {
            name: int(kept[index]) for name, kept in together.masks.items()
        }


def test_an_empty_picture_does_not_spoil_its_neighbours(paper):
    pictures = torch.tensor([[2.0, 0, 1, 3], [0, 0, 0, 0]]).view(2, 1, 1, 4)
    explainer = create_explainer("sise", paper(), layers=["one", "two"])
    both, alone = explainer(pictures, torch.tensor([1, 1])), explainer(pictures[:1], torch.tensor([1]))
    assert torch.equal(both.maps[0], alone.maps[0])
    assert both.defined == (True, False)
    assert not both.maps[1].any()


@pytest.mark.parametrize("form", ["channels_last", "float64", "float16", "strided", "grad"])
def test_the_form_of_the_pictures_does_not_matter(small, targets, form):
    images = torch.randn(3, 3, 20, 24).half().float()
    explainer = create_explainer("sise", small())
    given = {
        "channels_last": lambda: images.contiguous(memory_format=torch.channels_last),
        "float64": images.double,
        "float16": images.half,
        "strided": lambda: images.flip(3).contiguous().flip(3),
        "grad": lambda: images.clone().requires_grad_(),
    }[form]()
    before = given.detach().clone()
    same(explainer(given, targets.int()), explainer(images, targets))
    assert torch.equal(given, before)


@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_the_memory_format_of_the_model_does_not_matter(small, images, targets, precision):
    model = small()
    expected = create_explainer("sise", model, precision=precision)(images, targets)
    given = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert not given.features[3].weight.is_contiguous()
    same(create_explainer("sise", given, precision=precision)(images, targets), expected)
    assert given.features[3].weight.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_hardly_changes_the_map_of_random_weights(small, images, targets):
    model = small()
    exact = create_explainer("sise", model)(images, targets).maps.flatten()
    short = create_explainer("sise", model, precision="bfloat16")(images, targets).maps.flatten()
    assert torch.corrcoef(torch.stack([exact, short]))[0, 1] > 0.99


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("broken", [False, True])
def test_the_model_is_left_as_it_was(small, images, targets, mode, broken):
    model = small().train(mode == "train")
    fired = []
    model.features[3].register_forward_hook(lambda *_: fired.append(1))
    model.features[0].weight.requires_grad_(False)
    model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    tensors = {name: id(value) for name, value in model.named_parameters()}
    if broken:
        with pytest.raises(ExplainerError):
            create_explainer("sise", model)(images, torch.tensor([0, 1, 99]))
    else:
        create_explainer("sise", model, precision="bfloat16")(images, targets)
    assert all(module.training == (mode == "train") for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert {name: id(value) for name, value in model.named_parameters()} == tensors
    assert not model.features[0].weight.requires_grad
    assert model.features[3].weight.requires_grad
    assert torch.equal(model.classifier.weight.grad, torch.ones_like(model.classifier.weight))
    assert [len(module._forward_hooks) for module in model.features] == [0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert torch.equal(torch.get_rng_state(), random)


def test_a_model_in_training_mode_is_explained_in_evaluation_mode(small, images, targets):
    model = small()
    same(
        create_explainer("sise", model.train())(images, targets),
        create_explainer("sise", copy.deepcopy(model).eval())(images, targets),
    )


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu")])
def test_the_callers_torch_mode_does_not_matter(small, images, targets, context):
    model = small()
    expected = create_explainer("sise", model)(images, targets)
    with context():
        enabled = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        found = create_explainer("sise", model)(images.clone(), targets.clone())
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == enabled
    same(found, expected, tolerance=0)
    assert not found.maps.is_inference()
    found.maps.mul_(1)  # an ordinary tensor, to do with as one likes


def test_a_model_made_under_inference_mode(small, images, targets):
    with torch.inference_mode():
        model = small()
    assert create_explainer("sise", model)(images, targets).defined == (True,) * 3


def test_frozen_and_half_precision_models(small, images, targets):
    model = small().bfloat16().requires_grad_(False)
    same(
        create_explainer("sise", model)(images, targets),
        create_explainer("sise", copy.deepcopy(model).float())(images, targets),
        tolerance=0,
    )


def test_a_compiled_model_is_explained_through_its_eager_self(small, images, targets):
    model = small()
    wrapped = nn.Module()
    wrapped._orig_mod = model  # what torch.compile returns, without the seconds it takes to import
    same(
        create_explainer("sise", wrapped)(images, targets),
        create_explainer("sise", model)(images, targets),
        0,
    )


def test_a_model_that_cannot_be_copied_is_refused(small, images, targets):
    model = small()
    model.lock = threading.Lock()
    with pytest.raises(ExplainerError, match="Small cannot be copied"):
        create_explainer("sise", model)(images, targets)


def test_changed_weights_are_noticed(small, images, targets):
    model = small()
    explainer = create_explainer("sise", model)
    first = explainer(images, targets)
    with torch.no_grad():
        model.features[0].weight.mul_(-1)
    assert not torch.equal(explainer(images, targets).maps, first.maps)


def test_threads_may_share_an_explainer(small, images, targets):
    explainer = create_explainer("sise", small())
    expected = explainer(images, targets).maps
    found = [None] * 3
    workers = [
        threading.Thread(target=lambda at=at: found.__setitem__(at, explainer(images, targets).maps))
        for at in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for maps in found:
        torch.testing.assert_close(maps, expected, rtol=0, atol=1e-5)


def test_the_parameters_make_the_same_explainer_again(small, images, targets):
    model = small()
    first = create_explainer(
        "sise",
        model,
        layers=LAYERS[1:],
        mu=0.1,
        batch_size=3,
        baseline="black",
        mean=[0.5] * 3,
        std=(1, 2, 3),
    )(images, targets)
    again = create_explainer(first.method, model, **json.loads(json.dumps(first.parameters)))(images, targets)
    same(again, first, tolerance=0)
    assert again.parameters == first.parameters


def test_nan_in_the_weights_names_the_layer(small, images, targets):
    model = small()
    with torch.no_grad():
        model.features[3].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ExplainerError, match=r"NaN.*features\.3.*image 0"):
        create_explainer("sise", model)(images, targets)


def test_overflow_in_half_precision_names_the_layer(small, images, targets):
    model = small()
    with torch.no_grad():
        model.features[7].weight.mul_(1e7)
        model.classifier.weight.mul_(1e-7)
    assert create_explainer("sise", model)(images, targets).defined == (True,) * 3
    with pytest.raises(ExplainerError, match=r"masked pictures of layer 'features\.1'.*float32"):
        create_explainer("sise", model, precision="float16")(images, targets)


def test_infinite_logits_are_an_error_even_where_their_sigmoid_is_a_number(small, images, targets):
    model = small()
    with torch.no_grad():
        model.classifier.bias.fill_(torch.inf)
    with pytest.raises(ExplainerError, match="logits"):
        create_explainer("sise", model, activation="sigmoid")(images, targets)


@pytest.mark.parametrize(
    ("pictures", "classes", "message"),
    [
        (torch.zeros(3, 8, 8), [0], "B, C, H, W"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), [0], "float"),
        (torch.zeros(0, 3, 8, 8), [], "no pixels"),
        (torch.full((2, 3, 8, 8), torch.nan), [0, 0], "image 0 .* NaN"),
        (torch.zeros(2, 3, 8, 8), [0], "one per image"),
        (torch.zeros(1, 3, 8, 8), [0.0], "class indices"),
        (torch.zeros(1, 3, 8, 8), [True], "class indices"),
        (torch.zeros(1, 3, 8, 8), [-1], "negative"),
        (torch.zeros(1, 3, 8, 8), [3], "class 3, but the model has 3"),
    ],
)
def test_bad_input_is_named(small, pictures, classes, message):
    with pytest.raises(ExplainerError, match=message):
        create_explainer("sise", small())(pictures, torch.tensor(classes))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mu": 1.0}, "mu"),
        ({"mu": -0.1}, "mu"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"activation": "relu"}, "activation"),
        ({"fusion": "hard"}, "fusion"),
        ({"precision": "int8"}, "precision"),
        ({"baseline": "blur"}, "baseline"),
        ({"baseline": "black"}, "mean and std"),
        ({"baseline": "black", "mean": (0, 0, 0), "std": (1, 0, 1)}, "std > 0"),
        ({"smooth": True}, "no option 'smooth'.*fusion"),
    ],
)
def test_bad_settings_are_named(small, options, message):
    with pytest.raises(ExplainerError, match=message):
        create_explainer("sise", small(), **options)


def test_mean_and_std_must_fit_the_channels(small, images, targets):
    explainer = create_explainer("sise", small(), baseline="black", mean=(0.5,), std=(0.5,))
    with pytest.raises(ExplainerError, match="1 values, the images 3 channels"):
        explainer(images, targets)


def test_a_model_must_return_logits():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(ExplainerError, match=r"Sequential must return \(B, K\) logits"):
        create_explainer("sise", nn.Sequential(nn.Conv2d(3, 2, 3), Pair()), layers=["0"])(
            torch.zeros(1, 3, 8, 8), torch.tensor([0])
        )


@pytest.mark.parametrize("method", ["sise", "rise"])
def test_a_model_with_weights_of_five_dimensions(method, small, images, targets):
    """Their memory format cannot be channels-last, which the masked passes run in."""

    class Deep(small):
        def __init__(self):
            super().__init__()
            self.mix = nn.Conv3d(1, 1, 1)

        def forward(self, x):
            return super().forward(self.mix(x[:, None])[:, 0])

    explainer = create_explainer(method, Deep(), **({"masks": 8} if method == "rise" else {}))
    assert explainer(images, targets).defined == (True,) * 3
