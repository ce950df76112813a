"""Start a training from existing weights; none of them is left out silently."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch

from classifiers.errors import ClassifierError
from classifiers.package.network import create_network
from classifiers.package.preprocessing import is_colour
from classifiers.training.settings import SettingError, TrainSettings

Colour = tuple[float, float, float]


def check_start(settings: TrainSettings) -> None:
    """Refuse an architecture that timm does not have, and weights that are not there, before data is read.

    Raises:
        SettingError: naming the setting.
    """
    name, weights = settings.architecture, settings.pretrained
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"did you mean {close[0]}?" if close else "timm.list_models() has them all"
        raise SettingError("architecture", f"{name}: not a model of timm {timm.__version__}; {hint}")
    if weights in (None, "hub"):
        return
    file = Path(str(weights))
    if not file.is_file():
        raise SettingError("pretrained", f"{file}: no such file; expected a .safetensors file, or hub")
    if file.suffix != ".safetensors":
        raise SettingError("pretrained", f"{file}: expected a .safetensors file; pickles are not read")
    try:
        with safetensors.safe_open(file, "pt"):  # reads the header alone
            pass
    except (OSError, safetensors.SafetensorError) as error:
        raise SettingError("pretrained", f"{file}: cannot be read as safetensors: {error}") from None


def starting_network(settings: TrainSettings, n_classes: int) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Return the network to train and, as JSON content, where its weights come from."""
    extra: dict[str, Any] = {"drop_rate": settings.drop_rate}
    if settings.drop_path_rate is not None:
        extra["drop_path_rate"] = settings.drop_path_rate
    model = create_network(settings.architecture, settings.model_args, n_classes, **extra)
    if settings.pretrained is None:
        return model, {"weights": "random"}
    if settings.pretrained == "hub":
        model = timm.create_model(
            settings.architecture, pretrained=True, num_classes=n_classes, **{**settings.model_args, **extra}
        )
        config = getattr(model, "pretrained_cfg", {})
        return model, {"weights": "hub", "hub_id": config.get("hf_hub_id"), "tag": config.get("tag")}
    return model, {"weights": "file", **load_pretrained(model, Path(settings.pretrained))}


def load_pretrained(model: torch.nn.Module, file: Path) -> dict[str, Any]:
    """Load a .safetensors file into a timm network, in place; a head of another size is dropped.

    Returns:
        JSON content: file (its name), sha256, head_dropped (names of the head's tensors that were left out).

    Raises:
        ClassifierError: the file is not safetensors, or a tensor outside the head is missing, unexpected or
            of another shape.
    """
    if file.suffix != ".safetensors":
        raise ClassifierError(f"{file}: pretrained weights must be a .safetensors file; pickles are not read")
    try:
        data = file.read_bytes()
        state = safetensors.torch.load(data)
    except (OSError, safetensors.SafetensorError) as error:
        raise ClassifierError(f"{file}: cannot be read as safetensors: {error}") from error
    own = model.state_dict()
    head = _head_prefixes(model)
    dropped = [
        name
        for name, tensor in sorted(state.items())
        if name.startswith(head) and (name not in own or own[name].shape != tensor.shape)
    ]
    state = {name: tensor for name, tensor in state.items() if name not in dropped}
    problems = [
        f"{name} has shape {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in state.keys() & own.keys()
        if state[name].shape != own[name].shape
    ]
    problems += [f"{name} is unexpected" for name in state.keys() - own.keys()]
    # Batch norms with a fixed momentum do not use their batch counters; many conversions leave them out.
    problems += [
        f"{name} is missing"
        for name in own.keys() - state.keys()
        if not name.startswith(head) and not name.endswith("num_batches_tracked")
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ClassifierError(f"{file}: not weights of this architecture and model_args: {shown}{more}")
    model.load_state_dict(state, strict=False)
    return {"file": file.name, "sha256": hashlib.sha256(data).hexdigest(), "head_dropped": dropped}


def _head_prefixes(model: torch.nn.Module) -> tuple[str, ...]:
    """Return what the names of the head's tensors begin with, by timm's own record."""
    config = getattr(model, "pretrained_cfg", {})
    names = config.get("classifier") or ()
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


def has_folded_batch_norms(model: torch.nn.Module) -> bool:
    """Whether a conversion folded the batch norms' statistics into the weights of most of the network.

    Such a norm has means of 0 and one variance for all channels; the weights before it account for what its
    statistics were. Usual training would normalise by those of each batch once more, and at once destroy what
    was learnt.
    """
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    folded = [
        norm
        for norm in norms
        if norm.running_mean is not None
        and norm.running_var is not None
        and not bool(norm.running_mean.any())
        and bool((norm.running_var == norm.running_var.flatten()[0]).all())
    ]
    return len(folded) > len(norms) / 2


@torch.no_grad()
def unfold_batch_norms(model: torch.nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Give folded batch norms the statistics of their inputs; what the network computes stays the same.

    Let m and v be mean and variance of a norm's input over all batches, s = weight / sqrt(old variance + eps)
    its old scale and b its old bias. Then weight' = s * sqrt(v + eps) and bias' = b + s * (m - old mean): the
    output is the same in eval mode, and nearly the same in training mode, where batch statistics are close to
    m and v.

    Args:
        model: changed in place; it stays in its mode.
        batches: normalised input (B, 3, H, W); some hundred pictures are enough.
    """
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    sums: dict[torch.nn.Module, list[torch.Tensor]] = {}

    def measure(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        values = inputs[0].double()
        count = torch.tensor(values.numel() / values.shape[1], dtype=torch.float64)
        now = [values.sum(dim=(0, 2, 3)), values.square().sum(dim=(0, 2, 3)), count]
        sums[module] = [a + b for a, b in zip(sums[module], now, strict=True)] if module in sums else now

    was_training = model.training
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    try:
        model.eval()
        for batch in batches:
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    for norm in norms:
        if norm not in sums or norm.running_mean is None or norm.running_var is None:
            continue
        total, squares, count = sums[norm]
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        old_mean, old_variance = norm.running_mean.double(), norm.running_var.double()
        scale = norm.weight.double() / (old_variance + norm.eps).sqrt()
        norm.bias.copy_(norm.bias.double() + scale * (mean - old_mean))
        norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def stated_colour(weights: Path) -> tuple[Colour, Colour] | None:
    """Return mean and std of the input that the `config.json` beside a weights file states for it.

    It states them under `pretrained_cfg`, as timm writes it, or under the file's name where several files
    share it.

    Returns:
        Mean and standard deviation for each channel (0..1); None without such a file or statement.

    Raises:
        ClassifierError: the file cannot be read, or what it states is not three numbers each.
    """
    file = weights.with_name("config.json")
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ClassifierError(f"{file}: cannot be read as JSON: {error}; repair it or remove it") from error
    if not isinstance(content, dict):
        return None
    stated = content.get(weights.name) or content.get("pretrained_cfg")
    if not isinstance(stated, dict) or not {"mean", "std"} <= stated.keys():
        return None
    colours = []
    for name in ("mean", "std"):
        value = stated[name]
        if not isinstance(value, list) or not is_colour(tuple(value)) or (name == "std" and min(value) <= 0):
            raise ClassifierError(f"{file}: {name} must be three numbers, std positive, got {value!r:.100}")
        colours.append((float(value[0]), float(value[1]), float(value[2])))
    return colours[0], colours[1]
