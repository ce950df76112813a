"""Folding batch norms: the same logits, and no folding where they would not be the same."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn

from explainers.sise.folding import fold, foldable_pairs


def stirred(model):
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    module.weight.uniform_(0.5, 2)
                    module.bias.normal_(0, 0.2)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("made", "norms"),
    [
        (lambda: timm.create_model("resnet10t", num_classes=3), 14),
        (lambda: timm.create_model("mobilenetv3_small_050", num_classes=3), 34),
        (lambda: timm.create_model("mobilenetv2_050", num_classes=3, pad_type="same"), 52),
        (lambda: torchvision.models.resnet18(weights=None, num_classes=3), 20),
    ],
)
def test_every_batch_norm_of_these_is_folded_and_the_logits_stay(made, norms):
    model, image = stirred(made()), torch.randn(2, 3, 64, 64)
    pairs = foldable_pairs(model, image[:1])
    assert len(pairs) == norms == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    folded = copy.deepcopy(model)
    fold(folded, pairs)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        plain = model(image)
        torch.testing.assert_close(folded(image), plain, rtol=0, atol=1e-4 * float(plain.abs().max()))


class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.conv, self.norm, self.kind = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), kind
        if kind == "plain":
            self.norm = nn.BatchNorm2d(4, affine=False)
        if kind == "no statistics":
            self.norm = nn.BatchNorm2d(4, track_running_stats=False)
        if kind == "standardised":
            self.conv = timm.layers.StdConv2d(3, 4, 3)

    def forward(self, x):
        made = self.conv(x)
        if self.kind == "in place":
            made = made.relu_()
        found = self.norm(made)
        if self.kind == "used twice":
            found = found + made
        if self.kind == "norm called twice":
            found = found + self.norm(made + 1)
        if self.kind == "called twice":
            found = found + self.conv(x + 1)
        return found.mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("kind", "pairs"),
    [
        ("plain", (("conv", "norm"),)),
        ("in place", ()),
        ("used twice", ()),
        ("norm called twice", ()),
        ("called twice", ()),
        ("no statistics", ()),
        ("standardised", ()),
    ],
)
def test_what_cannot_be_folded_is_left(kind, pairs):
    model = Net(kind)
    if kind != "no statistics":
        stirred(model)
    model.eval().requires_grad_(False)
    assert foldable_pairs(model, torch.randn(1, 3, 8, 8)) == pairs
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
