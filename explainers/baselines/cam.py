"""Class activation maps of one layer, computed by torchcam: Grad-CAM, Grad-CAM++, LayerCAM, Score-CAM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from explainers.baselines.base import Attribution, Baseline, eval_package, finite_logits
from explainers.errors import ExplainerError
from explainers.explanation import Layer
from explainers.isolation import Rows, model_name
from explainers.maps import FLAT, upsample
from explainers.scoring import Activation
from explainers.sise.layers import candidates, choose, gradients


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cam(Baseline):
    """Base of the class activation maps: one map per row, at one layer, of the logit as in the papers.

    Rows are computed one by one, so that what a picture gets does not depend on what else is in the batch.

    Attributes:
        layer: name of a module that gives (B, C, h, w) feature maps; None for the deepest layer of SISE's
            layer rule, which is what the global pooling sees.
    """

    _extractor: ClassVar[str]

    layer: str | None = None
    activation: Activation = "softmax"

    def _reparameterised(self) -> bool:
        return self.layer is None

    def _extractor_options(self) -> dict[str, Any]:
        """Return more keyword arguments for torchcam's extractor."""
        return {}

    def _attribute(self, model: nn.Module, pictures: Tensor, rows: Rows) -> Attribution:
        with eval_package(self.method):
            from torchcam import methods
        place = self._place(model, pictures[:1])
        raw = []
        with (
            finite_logits(place.model),
            getattr(methods, self._extractor)(
                place.model, place.module, reshape_transform=place.channels_first, **self._extractor_options()
            ) as extractor,
        ):
            # Runs after torchcam's own hooks: what follows gets a copy, because an in-place operation
            # behind the layer would otherwise overwrite the maps that torchcam holds.
            place.model.get_submodule(place.module).register_forward_hook(lambda *args: args[2].clone())
            for image, target in rows:
                raw.append(self._cam(extractor, place.model, pictures[image : image + 1], target))
        size = (pictures.shape[2], pictures.shape[3])
        return Attribution(upsample(torch.cat(raw), size), (place.layer,), self._mask_counts(place.layer))

    def _cam(self, extractor: Any, model: nn.Module, picture: Tensor, target: int) -> Tensor:
        """Return torchcam's map of one picture (1, C, H, W), at the layer's own resolution: (1, h, w)."""
        with torch.enable_grad():
            # The clone is no leaf, so a model may begin with an in-place operation.
            logits = model(picture.clone().requires_grad_().clone())
            cams: list[Tensor] = extractor([target], logits, normalized=False)
        return cams[0].detach()

    def _mask_counts(self, layer: Layer) -> dict[str, int]:
        """Return the number of masked pictures behind every row, by layer."""
        return {}

    def _place(self, model: nn.Module, picture: Tensor) -> _Place:
        """Return the layer, found by the layer rule or by its name, and a module that gives its maps."""
        named = None if self.layer is None else [self.layer]
        try:
            with torch.enable_grad():
                found = candidates(model, picture, named)
                path = gradients(found, torch.ones_like(found.logits))
            name = choose(found, path, model)[-1]
        except ExplainerError as error:
            if named is not None:
                raise
            raise ExplainerError(f"{self.method} has no layer: {error} (here: layer='name')") from error
        features = found.features[name].detach()[0]
        layer = Layer(name, *features.shape)
        if name in dict(model.named_modules()):
            made = _module_output(model, name, picture)
            if _is_same_tensor(made, features):
                return _Place(model, name, layer, None)
            if _is_same_tensor(_channels_first(made), features):
                return _Place(model, name, layer, _channels_first)
        # No single module gives this tensor (a function made it). If it is what the head is fed, a module
        # that hands it on can stand between body and head.
        if hasattr(model, "forward_features") and hasattr(model, "forward_head"):
            between = _Between(model)
            if _is_same_tensor(_module_output(between, "seen", picture), features):
                return _Place(between, "seen", layer, None)
        raise ExplainerError(
            f"{model_name(model)}: the deepest feature maps ({name}) are no module's output; name the "
            "layer (layer=...), see dict(model.named_modules())"
        )


@dataclass(frozen=True)
class _Place:
    """The output that torchcam takes: of `module` of `model`, turned by `channels_first` if that is set."""

    model: nn.Module
    module: str
    layer: Layer
    channels_first: Callable[[Tensor], Tensor] | None


def _channels_first(maps: Tensor) -> Tensor:
    return maps.movedim(-1, 1)


def _module_output(model: nn.Module, name: str, picture: Tensor) -> Tensor:
    """Return a module's output, copied before anything behind it changes it in place."""
    kept: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda *args: kept.append(args[2].clone()))
    model(picture)
    handle.remove()
    return kept[-1]


def _is_same_tensor(made: Tensor, features: Tensor) -> bool:
    return made.shape[1:] == features.shape and torch.allclose(made[0], features, rtol=1e-4, atol=1e-5)


class _Between(nn.Module):
    """A timm model with a module to hook between its body and its head."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.seen = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model.forward_head(self.seen(self.model.forward_features(x)))
        return logits


class GradCam(_Cam):
    """Grad-CAM (Selvaraju et al., ICCV 2017): maps weighted by their mean gradient, positive part."""

    method = "grad-cam"
    _extractor = "GradCAM"


class GradCamPlusPlus(_Cam):
    """Grad-CAM++ (Chattopadhyay et al., WACV 2018): gradients weighted position by position."""

    method = "grad-cam++"
    _extractor = "GradCAM"

    def _cam(self, extractor: Any, model: nn.Module, picture: Tensor, target: int) -> Tensor:
        super()._cam(extractor, model, picture, target)
        # Not torchcam's GradCAMpp: up to 0.5.0 it divides a copy (`alpha[mask].div_`), and so leaves the
        # denominator of alpha out. Its maps and gradients serve.
        maps, gradients = extractor.hook_a[0], extractor.hook_g[0]
        # alpha = g^2 / (2 g^2 + g^3 sum A), with g^2 cancelled; a g of 0 or less has no weight anyway.
        denominator = 2 + gradients * maps.sum(dim=(2, 3), keepdim=True)
        alpha = torch.where(denominator == 0, 0.0, 1 / denominator)
        weights = (alpha * gradients.relu()).sum(dim=(2, 3), keepdim=True)
        cam: Tensor = (weights * maps).sum(dim=1).relu()
        return cam


class LayerCam(_Cam):
    """LayerCAM (Jiang et al., TIP 2021): every position of a map weighted by its own positive gradient."""

    method = "layer-cam"
    _extractor = "LayerCAM"


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreCam(_Cam):
    """Score-CAM (Wang et al., CVPR-W 2020): maps weighted by the softmax over what each adds to the logit.

    Every feature map masks the picture once per row; masked-out pixels are 0 in normalised space.

    Attributes:
        batch_size: masked pictures per forward pass.
    """

    method = "score-cam"
    _extractor = "ScoreCAM"

    batch_size: int = 16

    def _extractor_options(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size}

    def _cam(self, extractor: Any, model: nn.Module, picture: Tensor, target: int) -> Tensor:
        seen: list[Tensor] = []
        handle = model.register_forward_hook(lambda *args: seen.append(args[2][:, target].detach()))
        cam = super()._cam(extractor, model, picture, target)
        handle.remove()
        logits = torch.cat(seen)
        # Where no mask changes the logit, the softmax gives every map the same weight, and the mean of
        # all feature maps would pass for an explanation.
        flat = logits.amax() - logits.amin() <= FLAT * logits.abs().amax()
        return torch.where(flat, torch.zeros_like(cam), cam)

    def _mask_counts(self, layer: Layer) -> dict[str, int]:
        return {layer.name: layer.maps}
