"""A network small enough for paper, and SISE written down naively, to hold the real one against."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from skimage.filters import threshold_otsu
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


class Paper(nn.Module):
    """Two blocks on a picture of one row and four columns; see test_paper.py for the arithmetic."""

    def __init__(self, second: float = 3.0, head: tuple[float, float, float] = (1.0, 1.0, -0.5)) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(inplace=True))
        self.pool = nn.AvgPool2d((1, 2))
        self.two = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True))
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            first, deep = self.one[0], self.two[0]
            first.weight.copy_(torch.tensor([1.0, -1.0, 0.0]).view(3, 1, 1, 1))
            first.bias.copy_(torch.tensor([0.0, 1.0, 1.0]))
            deep.weight.copy_(
                torch.tensor([[1.0, 0.0, 1.0], [0.0, second, 0.0], [1.0, 1.0, 0.0]]).view(3, 3, 1, 1)
            )
            deep.bias.copy_(torch.tensor([-1.0, 0.0, 0.0]))
            self.head.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], list(head)]))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        deep = self.two(self.pool(self.one(x)))
        return self.head(deep.mean(dim=(2, 3)))


class Small(nn.Module):
    """Three convolutional blocks with random weights, for pictures of about 24 x 24."""

    def __init__(self, classes: int = 3, channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 10, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(10, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


def naive_sise(
    model: nn.Module,
    picture: Tensor,
    target: int,
    layers: list[str],
    *,
    activation: str = "softmax",
    mu: float = 0.0,
    floor: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor], dict[str, int]]:
    """docs/sise.md word by word: one mask at a time, at full size, in float64. Not fast, not clever."""
    model = model.double().eval()
    picture = picture.double()
    floor = torch.zeros(picture.shape[0], 1, 1).double() if floor is None else floor.double()
    psi: Callable[[Tensor], Tensor] = lambda z: z.softmax(1) if activation == "softmax" else z.sigmoid()  # noqa: E731
    modules, kept = dict(model.named_modules()), {}

    def keep(name: str) -> Callable[..., Tensor]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            kept[name] = output
            return output.clone()

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in layers]
    score = psi(model(picture[None].requires_grad_()))[0, target]
    gradients = dict(zip(layers, torch.autograd.grad(score, [kept[name] for name in layers]), strict=True))
    for handle in handles:
        handle.remove()

    size, block_maps, counts = picture.shape[1:], {}, {}
    for name in layers:
        alpha = gradients[name][0].sum((1, 2))
        total, counts[name] = torch.zeros(size).double(), 0
        for k in range(len(alpha)):
            if not alpha[k] > mu * alpha.max():
                continue
            mask = F.interpolate(kept[name].detach()[:, k : k + 1], size=size, mode="bilinear")[0, 0]
            if mask.max() == mask.min():
                continue
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            with torch.no_grad():
                weight = psi(model((picture * mask + floor * (1 - mask))[None]))[0, target]
            total += weight * mask / mask.sum()
            counts[name] += 1
        if counts[name]:
            block_maps[name] = (total - total.min()) / (total.max() - total.min())
    fused = None
    for block_map in block_maps.values():
        if fused is None:
            fused = block_map
        else:
            fused = (fused + block_map) * (block_map > threshold_otsu(block_map.numpy()))
    assert fused is not None
    return (fused - fused.min()) / (fused.max() - fused.min()), block_maps, counts


@pytest.fixture
def paper() -> type[Paper]:
    return Paper


@pytest.fixture
def small() -> type[Small]:
    return Small


@pytest.fixture
def naive() -> Callable[..., tuple[Tensor, dict[str, Tensor], dict[str, int]]]:
    return naive_sise
