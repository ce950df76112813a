"""The layer rule: the paper's layers for the paper's networks, and one small member of many families."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from explainers import ExplainerError, create_explainer
from explainers.isolation import isolated
from explainers.layers import candidates, choose
from explainers.scoring import score_direction


def probe(model, image, layers=None):
    with isolated(model, image, reparameterise=layers is None) as private, torch.enable_grad():
        plain = private(image)
        found = candidates(private, image.clone().requires_grad_().clone(), layers)
        torch.testing.assert_close(found.logits, plain, rtol=1e-4, atol=1e-5)
        direction = score_direction(found.logits, 0, "softmax")
        gradients = torch.autograd.grad(found.logits, found.features, direction, allow_unused=True)
        return choose(found, gradients, private)


def shapes(probed):
    return [(layer.name, *layer.features.shape[:2]) for layer in probed]


VGG16 = [
    ("features.3", 64, 224),
    ("features.8", 128, 112),
    ("features.15", 256, 56),
    ("features.22", 512, 28),
    ("features.29", 512, 14),
]


def test_vgg16_has_five_layers_and_1472_maps():
    for model in (
        torchvision.models.vgg16(weights=None, num_classes=4, init_weights=False),
        timm.create_model("vgg16", num_classes=4),
    ):
        probed = probe(model, torch.randn(1, 3, 224, 224))
        assert shapes(probed) == VGG16
        assert sum(layer.features.shape[0] for layer in probed) == 1472


@pytest.mark.parametrize(
    ("model", "channels", "names"),
    [
        ("timm:resnet18", [64, 64, 128, 256, 512], ["act1", "layer1", "layer2", "layer3", "layer4"]),
        ("timm:resnet50", [64, 256, 512, 1024, 2048], ["act1", "layer1", "layer2", "layer3", "layer4"]),
        ("resnet18", [64, 64, 128, 256, 512], ["relu", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]),
        ("resnet50", [64, 256, 512, 1024, 2048], ["relu", "layer1.2", "layer2.3", "layer3.5", "layer4.2"]),
    ],
)
def test_resnets_are_probed_at_the_stem_and_the_end_of_each_stage(model, channels, names):
    made = (
        timm.create_model(model[5:], num_classes=4)
        if model.startswith("timm:")
        else getattr(torchvision.models, model)(weights=None, num_classes=4)
    )
    probed = probe(made, torch.randn(1, 3, 224, 224))
    assert [layer.name for layer in probed] == names
    assert [layer.features.shape[0] for layer in probed] == channels
    assert [layer.features.shape[1] for layer in probed] == [112, 56, 28, 14, 7]
    assert sum(channels) == {"resnet18": 1024, "resnet50": 3904}[model.removeprefix("timm:")]


FAMILIES = {
    # the name, and where the deepest resolution is taken: after a head convolution where there is one
    "resnet10t": "layer4",
    "resnetv2_18": "norm",
    "vgg11": "features.19",
    "mobilenetv2_050": "bn2",
    "mobilenetv3_small_050": "blocks.5",
    "mobilenetv4_conv_small_050": "blocks.4",
    "efficientnet_lite0": "bn2",
    "efficientnet_b0": "bn2",
    "densenet121": "features.norm5",
    "regnetx_002": "final_conv",
    "convnext_atto": "norm_pre",
    "test_resnet": "layer4",
    "test_byobnet": "final_conv",
    "test_convnext": "norm_pre",
    "test_efficientnet": "bn2",
    "test_nfnet": "final_act",
    "ghostnet_050": "blocks.9",
    "mobileone_s0": "final_conv",
    "repvgg_a0": "final_conv",
    "dla46x_c": "level5",
    "hrnet_w18_small": "final_layer",
    "rexnetr_100": "features.16",
    "starnet_s1": "norm",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_timm_families(name):
    """mu near 1 keeps the strongest map of each layer: every step runs, at little cost."""
    model = timm.create_model(name, num_classes=3)
    # Weights at their initial values make some blocks (zero-initialised residuals) constant; stir them.
    with torch.no_grad():
        for name_of, parameter in model.named_parameters():
            if "norm" in name_of or "bn" in name_of or parameter.ndim == 1:
                parameter.add_(0.02 * torch.randn_like(parameter))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    image = torch.randn(1, 3, 96, 96)
    with torch.no_grad():  # the likeliest class: random weights give others a probability of exactly 0
        likely, target = model.eval()(image).softmax(dim=1).max(dim=1)
    explanation = create_explainer("sise", model, mu=0.95, batch_size=4)(image, target)
    sizes = [layer.height for layer in explanation.layers]
    assert len(sizes) >= 2
    assert sizes == sorted(set(sizes), reverse=True)
    assert explanation.layers[-1].name == FAMILIES[name]
    assert explanation.defined == (True,)
    torch.testing.assert_close(explanation.scores, likely, rtol=1e-3, atol=1e-5)
    assert torch.isfinite(explanation.maps).all()
    assert 0 <= explanation.maps.min() < explanation.maps.max() <= 1
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    for layer in explanation.layers:
        assert layer.name.startswith("intermediates.") or layer.name in dict(model.named_modules())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("test_vit", "is no CNN"),
        ("swin_tiny_patch4_window7_224", "is no CNN"),
        ("mixer_s32_224", "is no CNN"),
        ("levit_128s", "is no CNN"),
        ("convmixer_768_32", "1 resolution"),
    ],
)
def test_what_sise_cannot_explain_is_refused_by_name(name, why):
    model = timm.create_model(name, num_classes=3)
    size = 64 if name.startswith("convmixer") else model.default_cfg["input_size"][-1]
    with pytest.raises(ExplainerError, match=why) as error:
        create_explainer("sise", model)(torch.randn(1, 3, size, size), torch.tensor([0]))
    assert name in str(error.value)


def test_torchvision_transformers_are_refused():
    for model in (
        torchvision.models.VisionTransformer(64, 32, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16),
        torchvision.models.SwinTransformer([4, 4], 16, [1, 1, 1, 1], [1, 1, 2, 2], [4, 4]),
    ):
        with pytest.raises(ExplainerError, match=f"{type(model).__name__} is no CNN"):
            create_explainer("sise", model)(torch.randn(1, 3, 64, 64), torch.tensor([0]))


def test_a_picture_too_small_for_a_second_resolution_is_refused():
    with pytest.raises(ExplainerError, match="picture large enough"):
        create_explainer("sise", timm.create_model("test_resnet", num_classes=2))(
            torch.randn(1, 3, 4, 4), torch.tensor([0])
        )


def test_other_torchvision_cnns_need_no_names():
    for name, deepest in {"squeezenet1_1": "classifier.2", "mobilenet_v2": "features.18.2"}.items():
        model = getattr(torchvision.models, name)(weights=None, num_classes=3)
        probed = probe(model, torch.randn(1, 3, 96, 96))
        assert len(probed) >= 4
        assert probed[-1].name == deepest


def test_a_wrapped_model_is_looked_into():
    wrapped = nn.Sequential(nn.Identity(), torchvision.models.resnet18(weights=None, num_classes=3))
    assert [layer.name for layer in probe(wrapped, torch.randn(1, 3, 64, 64))] == [
        "1.relu",
        "1.layer1.1",
        "1.layer2.1",
        "1.layer3.1",
        "1.layer4.1",
    ]


def test_functional_pooling_is_recognised():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = (nn.Conv2d(c, 4, 3, padding=1) for c in (3, 4, 4))
            self.shrink = Shrink()
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            x = self.shrink(self.first(x).relu())
            x = self.third(self.shrink(self.second(x).relu()))
            return self.head(self.shrink(x).mean((2, 3)))

    class Shrink(nn.Module):
        def forward(self, x):
            return nn.functional.max_pool2d(x, 2)

    assert shapes(probe(Functional(), torch.randn(1, 3, 16, 16))) == [
        ("first", 4, 16),
        ("second", 4, 8),
        ("third", 4, 4),
    ]


def test_named_layers_keep_their_values_before_an_in_place_relu(small):
    model, image = small().eval(), torch.randn(1, 3, 16, 16)
    (normed,) = probe(model, image, ["features.4"])
    with torch.no_grad():
        torch.testing.assert_close(normed.features, model.features[:5](image)[0])
    assert (normed.features < 0).any()


def test_named_layers_of_a_timm_model():
    model = timm.create_model("test_resnet", num_classes=3)
    explanation = create_explainer("sise", model, layers=["layer4", "layer2.0.bn2"], mu=0.9)(
        torch.randn(1, 3, 64, 64), torch.tensor([0])
    )
    assert list(explanation.block_maps) == ["layer2.0.bn2", "layer4"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["nowhere"], "no layer 'nowhere'"),
        ([], "list of different module names"),
        (["features.1", "features.1"], "list of different module names"),
        ("features.1", "list of different module names"),
        (["classifier"], "'classifier' gives no"),
        (["unused"], "'unused' takes no part"),
        (["aside"], "does not depend on layer 'aside'"),
    ],
)
def test_bad_layer_names_are_named(small, layers, message):
    class Odd(small):
        def __init__(self):
            super().__init__()
            self.unused, self.aside = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 1, 1)

        def forward(self, x):
            self.aside(x)
            return super().forward(x)

    with pytest.raises(ExplainerError, match=message):
        create_explainer("sise", Odd(), layers=layers)(torch.randn(1, 3, 16, 16), torch.tensor([0]))


def test_a_timm_model_whose_two_ways_disagree_is_refused():
    model = timm.create_model("test_resnet", num_classes=3)
    plain = type(model).forward
    model.forward = lambda x: plain(model, x) + 1
    with pytest.raises(ExplainerError, match="other logits than the model"):
        create_explainer("sise", model)(torch.randn(1, 3, 64, 64), torch.tensor([0]))
