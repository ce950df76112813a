"""Maps from gradients of the logit: Integrated Gradients (captum) and FullGrad (pytorch-grad-cam)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from explainers.baselines.base import Attribution, Baseline, eval_package
from explainers.errors import ExplainerError
from explainers.isolation import Rows, hooked, model_name
from explainers.scoring import Activation


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegratedGradients(Baseline):
    """Integrated Gradients (Sundararajan et al., ICML 2017) of the logit, from the mean colour.

    The path runs from 0 in normalised space to the picture. The map is the absolute value of the sum
    over the channels.

    Attributes:
        steps: points of the path (Gauss-Legendre quadrature).
        batch_size: points per forward and backward pass.
    """

    method = "integrated-gradients"

    activation: Activation = "softmax"
    steps: int = 50
    batch_size: int = 16

    def _attribute(self, model: nn.Module, pictures: Tensor, rows: Rows) -> Attribution:
        with eval_package(self.method):
            from captum.attr import IntegratedGradients as Path
        # The clone is no leaf, so a model may begin with an in-place operation.
        path = Path(lambda points: model(points.clone()))
        raw = []
        with torch.enable_grad():
            for image, target in rows:
                shares = path.attribute(
                    pictures[image : image + 1].clone(),
                    target=target,
                    n_steps=self.steps,
                    internal_batch_size=self.batch_size,
                )
                raw.append(shares.detach().sum(dim=1).abs())
        return Attribution(torch.cat(raw))


@dataclass(frozen=True, kw_only=True, eq=False)
class FullGrad(Baseline):
    """FullGrad (Srinivas and Fleuret, NeurIPS 2019) of the logit: input and bias gradients of all layers.

    The arithmetic, and the min-max of every channel before the sum, are pytorch-grad-cam's. The choice of
    layers is ours. pytorch-grad-cam takes exactly `nn.Conv2d` and `nn.BatchNorm2d`, in the order in which
    they were registered. So it misses subclasses (all batch norms of many timm models), and where layers run
    in another order it takes one layer's gradient for another's. Here every convolution and batch norm with
    a bias counts, in the order in which they run. Biases of other normalisations do not count.
    """

    method = "fullgrad"

    activation: Activation = "softmax"

    def _attribute(self, model: nn.Module, pictures: Tensor, rows: Rows) -> Attribution:
        with eval_package(self.method):
            from pytorch_grad_cam import FullGrad as Full
            from pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
            from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
        before = model(pictures[:1])
        _split_norms_from_activations(model)
        biased = _biased_layers(model, pictures[:1])
        if not torch.allclose(model(pictures[:1]), before, rtol=1e-3, atol=1e-4):
            raise ExplainerError(f"{model_name(model)} cannot be taken apart for fullgrad: its logits change")
        full = Full(model, [])
        full.activations_and_grads.release()
        full.activations_and_grads = ActivationsAndGradients(model, list(dict.fromkeys(biased)), None)
        full.bias_data = [full.get_bias_data(layer).cpu().numpy() for layer in biased]
        raw = []
        with torch.enable_grad():
            for image, target in rows:
                found = full(pictures[image : image + 1].clone(), [ClassifierOutputTarget(target)])
                raw.append(torch.from_numpy(found))
        full.activations_and_grads.release()
        return Attribution(torch.cat(raw).to(pictures.device))


def _split_norms_from_activations(model: nn.Module) -> None:
    """Rebuild a private copy so that the bias is the last thing that each module adds.

    timm's `BatchNormAct2d` is a batch norm with its activation inside: it becomes both in a row. No
    operation stays in place, because the picture itself needs a gradient.
    """
    from timm.layers.norm_act import BatchNormAct2d

    for module in list(model.modules()):
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]  # torch types every attribute as tensor
        for name, child in list(module.named_children()):
            if isinstance(child, BatchNormAct2d) and child.running_mean is not None:
                norm = nn.BatchNorm2d(child.num_features, eps=child.eps, affine=child.affine)
                norm.load_state_dict(child.state_dict(), strict=False)  # the activation may have its own
                norm = norm.to(child.running_mean.device).eval().requires_grad_(False)
                setattr(module, name, nn.Sequential(norm, child.drop, child.act))


def _biased_layers(model: nn.Module, picture: Tensor) -> list[nn.Module]:
    """Return the convolutions and batch norms with a bias that the logits depend on, as they run."""
    ran: list[tuple[nn.Module, Tensor]] = []

    def note(_name: str, module: nn.Module, _inputs: object, output: Tensor) -> None:
        if output.requires_grad:
            ran.append((module, output))

    biased = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
        and module.bias is not None
        # A batch norm over the batch's own statistics adds no constant.
        and getattr(module, "running_mean", module.bias) is not None
    }
    with hooked(biased, note), torch.enable_grad():
        logit = model(picture.clone().requires_grad_()).sum()
    if not ran:
        raise ExplainerError(f"{model_name(model)} has no convolution or batch norm with a bias: no fullgrad")
    gradients = torch.autograd.grad(logit, [output for _, output in ran], allow_unused=True)
    return [module for (module, _), gradient in zip(ran, gradients, strict=True) if gradient is not None]
