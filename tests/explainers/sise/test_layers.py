"""The layer rule: the paper's layers for the paper's networks; all of timm is in test_families.py."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from explainers import ExplainerError, create_explainer
from explainers.isolation import isolated
from explainers.scoring import score_direction
from explainers.sise.layers import candidates, choose, gradients


def probe(model, image, layers=None):
    with isolated(model, image, reparameterise=layers is None) as private, torch.enable_grad():
        plain = private(image)
        found = candidates(private, image, layers)
        torch.testing.assert_close(found.logits, plain, rtol=1e-4, atol=1e-5)
        path = gradients(found, score_direction(found.logits, 0, "softmax"))
        return {name: found.features[name].detach()[0] for name in choose(found, path, private)}


def shapes(probed):
    return [(name, *features.shape[:2]) for name, features in probed.items()]


VGG16 = [
    ("features.3", 64, 224),
    ("features.8", 128, 112),
    ("features.15", 256, 56),
    ("features.22", 512, 28),
    ("features.29", 512, 14),
]


def quick_vgg16():
    """torchvision's VGG-16; its 138 million weights are not drawn one by one as its constructor would."""
    with torch.device("meta"):
        model = torchvision.models.vgg16(weights=None, num_classes=4, init_weights=False)
    model = model.to_empty(device="cpu").requires_grad_(False)
    for parameter in model.parameters():
        parameter.fill_(0.01)
    for parameter in model.features.parameters():
        parameter.normal_(0, 0.05)
    return model.requires_grad_(True)


def test_vgg16_has_five_layers_and_1472_maps():
    for model in (
        quick_vgg16(),
        timm.create_model("vgg16", num_classes=4, mlp_ratio=0.02),
    ):
        probed = probe(model, torch.randn(1, 3, 224, 224))
        assert shapes(probed) == VGG16
        assert sum(len(features) for features in probed.values()) == 1472


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
    assert list(probed) == names
    assert [tuple(features.shape[:2]) for features in probed.values()] == [
        *zip(channels, [112, 56, 28, 14, 7], strict=True)
    ]
    assert sum(channels) == {"resnet18": 1024, "resnet50": 3904}[model.removeprefix("timm:")]


@pytest.mark.parametrize(
    ("name", "deepest"),
    {
        "mobilenetv2_050": "bn2",
        "efficientnet_lite0": "bn2",
        "efficientnet_b0": "bn2",
        # These pool before their head convolution.
        "mobilenetv3_small_050": "blocks.5",
        "mobilenetv4_conv_small_050": "blocks.4",
        "resnet10t": "layer4",
        # What hands the stage's output on untouched (Identity) has not made it.
        "convnext_atto": "stages.3",
        "repvgg_a0": "stages.3",
    }.items(),
)
def test_the_deepest_layer_is_what_the_global_pooling_sees(name, deepest):
    assert list(probe(timm.create_model(name, num_classes=3), torch.randn(1, 3, 96, 96)))[-1] == deepest


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("mixer_s32_224", r"its head is fed \(1, 49, 512\)"),
        ("levit_128s", r"its head is fed \(1, 16, 384\)"),
        ("halonet_h1", r"over positions at 1 resolution\(s\)"),
    ],
)
def test_what_sise_cannot_explain_is_refused_by_name(name, why):
    model = timm.create_model(name, num_classes=3)
    size = model.default_cfg["input_size"][-1]
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


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        (
            "squeezenet1_0",
            96,
            [
                ("features.1", 96, 45),
                ("features.5", 256, 22),
                ("features.10", 512, 11),
                ("classifier.2", 3, 5),
            ],
        ),
        (
            "mobilenet_v2",
            64,
            [
                ("features.1", 16, 32),
                ("features.3", 24, 16),
                ("features.6", 32, 8),
                ("features.13", 96, 4),
                ("features.18.2", 1280, 2),
            ],
        ),
        (
            "mobilenet_v3_small",
            64,
            [
                ("features.0.2", 16, 32),
                ("features.1", 16, 16),
                ("features.3", 24, 8),
                ("features.8", 48, 4),
                ("features.12.2", 576, 2),
            ],
        ),
        (
            "densenet121",
            64,
            [
                ("features.relu0", 64, 32),
                ("features.transition1.conv", 128, 16),
                ("features.transition2.conv", 256, 8),
                ("features.transition3.conv", 512, 4),
                ("features.norm5", 1024, 2),
            ],
        ),
        (
            "googlenet",
            64,
            [
                ("conv1", 64, 32),
                ("conv3", 192, 16),
                ("inception3b", 480, 8),
                ("inception4e", 832, 4),
                ("inception5b", 1024, 2),
            ],
        ),
        (
            "inception_v3",
            128,
            [
                ("Conv2d_2b_3x3", 64, 61),
                ("Conv2d_4a_3x3", 192, 28),
                ("Mixed_5d", 288, 13),
                ("Mixed_6e", 768, 6),
                ("Mixed_7c", 2048, 2),
            ],
        ),
    ],
)
def test_other_torchvision_cnns_need_no_names(name, size, expected):
    # Initialising the two Inceptions as published takes seconds; their auxiliary heads are off in evaluation.
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = getattr(torchvision.models, name)(weights=None, num_classes=3, **options)
    assert shapes(probe(model, torch.randn(1, 3, size, size))) == expected


def test_a_model_that_returns_more_than_logits_is_refused(small):
    class Auxiliary(small):
        def forward(self, x):
            return super().forward(x), x.mean()

    for layers in (None, ["features.1"]):
        with pytest.raises(
            ExplainerError, match=r"Auxiliary must return \(B, K\) logits, it returned a tuple"
        ):
            create_explainer("sise", Auxiliary(), layers=layers)(torch.randn(1, 3, 16, 16), torch.tensor([0]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # The list has the first convolution, ahead of its norm and activation.
        (
            "ghostnet_050",
            [
                ("blocks.0.0", 8, 32),
                ("blocks.2.0", 12, 16),
                ("blocks.4.0", 20, 8),
                ("blocks.6.4", 56, 4),
                ("blocks.9.0", 480, 2),
            ],
        ),
        # The list has activations that lie beside the path, and the first two convolutions have no padding.
        (
            "legacy_xception",
            [
                ("act2", 64, 29),
                ("block1", 128, 15),
                ("block2", 256, 8),
                ("block11", 728, 4),
                ("act4", 2048, 2),
            ],
        ),
        # The list has permuted copies, beside the path too: the model keeps its channels last.
        (
            "test_mambaout",
            [("stages.0", 16, 16), ("stages.1", 32, 8), ("stages.2", 48, 4), ("stages.3", 64, 2)],
        ),
    ],
)
def test_where_the_list_of_timm_does_not_serve_the_units_do(name, expected):
    assert shapes(probe(timm.create_model(name, num_classes=3), torch.randn(1, 3, 64, 64))) == expected


def test_channels_kept_last_are_put_first():
    model, image = timm.create_model("test_mambaout", num_classes=3).eval(), torch.randn(1, 3, 64, 64)
    kept = []
    with torch.no_grad():
        handle = model.stages[1].register_forward_hook(lambda *call: kept.append(call[2]))
        model(image)
        handle.remove()
    _, (name, features), *_ = probe(model, image).items()
    assert (name, features.shape) == ("stages.1", (32, 8, 8))
    torch.testing.assert_close(features, kept[0][0].permute(2, 0, 1))


def test_a_rim_trimmed_by_a_convolution_is_no_new_resolution():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),  # 20 -> 18
        nn.Conv2d(4, 5, 3),  # -> 16
        nn.MaxPool2d(2),  # -> 8
        nn.Conv2d(5, 6, 3),  # -> 6, less than half as much again below 8
        nn.Conv2d(6, 7, 3, stride=2),  # -> 2
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(7, 2),
    )
    assert shapes(probe(model, torch.randn(1, 3, 20, 20))) == [("1", 5, 16), ("3", 6, 6), ("4", 7, 2)]


def test_a_wrapped_model_is_looked_into():
    wrapped = nn.Sequential(nn.Identity(), torchvision.models.resnet18(weights=None, num_classes=3))
    assert list(probe(wrapped, torch.randn(1, 3, 64, 64))) == [
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
    (normed,) = probe(model, image, ["features.4"]).values()
    with torch.no_grad():
        torch.testing.assert_close(normed, model.features[:5](image)[0])
    assert (normed < 0).any()


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
