"""Does the map depend on what the model has learned? Cascading randomisation (Adebayo et al. 2018)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from explainers.errors import ExplainerError
from explainers.isolation import isolated, model_name
from explainers.metrics.localisation import checked_maps


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Spearman's rank correlation of two maps over their pixels; tied pixels have their mean rank.

    Args:
        a: (N, H, W) float in [0, 1].
        b: (N, H, W) float in [0, 1].

    Returns:
        (N,) float32 in [-1, 1] on the device of `a`; NaN where either map is constant.

    Raises:
        ExplainerError: different shapes, or maps that `checked_maps` refuses.
    """
    first, second = checked_maps(a, "a"), checked_maps(b, "b")
    if first.shape != second.shape:
        raise ExplainerError(
            f"maps must have one shape to be compared, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    ranks = [torch.from_numpy(rankdata(one.flatten(1).cpu().numpy(), axis=1)) for one in (first, second)]
    x, y = (one.double() - one.double().mean(dim=1, keepdim=True) for one in ranks)
    # Ranks are whole or half numbers, so the deviations of a constant map are 0 exactly: 0 / 0 is NaN.
    together = (x * y).sum(dim=1) / (x.square().sum(dim=1) * y.square().sum(dim=1)).sqrt()
    return together.clamp(-1.0, 1.0).float().to(first.device)


@dataclass(frozen=True)
class Stage:
    """The maps of a model of which part is random, compared with those of the trained model.

    Attributes:
        modules: names of the modules made random at this stage, beside those of the stages before.
        similarity: (N,) of each map to the trained model's, by default the rank correlation (NaN where a
            map is constant, such as an undefined one: that is no likeness either).
        difference: (N,) float32 in [0, 1], mean absolute difference of each map from the trained model's.
    """

    modules: tuple[str, ...]
    similarity: Tensor
    difference: Tensor


def cascading_randomisation(
    model: nn.Module,
    explain: Callable[[nn.Module], Tensor],
    *,
    seed: int = 0,
    similarity: Callable[[Tensor, Tensor], Tensor] = rank_correlation,
    stages: int | None = None,
) -> tuple[Stage, ...]:
    """Make the model random from the logits down, and return after each stage how much its maps have changed.

    A map that stays the same does not show what the model has learned. Modules that own parameters become
    random in the reverse order of their definition. A module with `reset_parameters` is initialised by it;
    a normalisation then forgets its running statistics too. The parameters of any other module are drawn from
    a normal distribution with their own mean and standard deviation; a single number has no deviation and
    stays. A module's random weights depend on `seed` alone, not on `stages` and not on the device. The
    caller's model and torch's random state do not change.

    Args:
        model: any module that `create_explainer` takes.
        explain: makes the maps (N, H, W) in [0, 1] of the model it is given, the same pictures and classes at
            each call: `lambda m: create_explainer("sise", m)(images, targets).maps`.
        seed: of the random weights.
        similarity: (trained maps, random maps) -> (N,).
        stages: at most so many: the module of the logits, then the others in runs of about equal number; 1
            makes the whole model random at once. None: one stage for each module.

    Returns:
        The stages, from the logits down; at the last one all of the model is random.

    Raises:
        ExplainerError: a model without parameters, `stages` below 1, or maps that are no such tensor.
    """
    if stages is not None and stages < 1:
        raise ExplainerError(f"stages must be at least 1, got {stages}")
    with isolated(model, torch.empty(0)) as private:
        modules = dict(private.named_modules())
        names = [name for name in reversed(modules) if any(True for _ in modules[name].parameters(False))]
        if not names:
            raise ExplainerError(f"{model_name(model)} has no parameters to make random")
        fresh = _random_twin(private, names, seed)
        trained = _checked_explanation(explain, private, None)
        done = []
        for group in _module_groups(names, stages):
            for name in group:
                _copy_state(fresh[name], modules[name])
            maps = _checked_explanation(explain, private, trained)
            difference = (maps - trained).abs().mean(dim=(1, 2))
            done.append(Stage(tuple(group), similarity(trained, maps), difference))
        return tuple(done)


def _module_groups(names: Sequence[str], stages: int | None) -> list[Sequence[str]]:
    if stages is None or stages >= len(names):
        return [[name] for name in names]
    if stages == 1:
        return [names]
    rest, runs = names[1:], stages - 1
    cuts = [round(number * len(rest) / runs) for number in range(runs + 1)]
    return [names[:1], *(rest[start:stop] for start, stop in pairwise(cuts))]


def _random_twin(model: nn.Module, names: Sequence[str], seed: int) -> dict[str, nn.Module]:
    """Return the modules of a copy of a model, all random, on the CPU: `isolated` restores its generator."""
    modules = dict(copy.deepcopy(model).cpu().named_modules())
    torch.default_generator.manual_seed(seed)
    for name in names:
        module = modules[name]
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
            continue
        for parameter in module.parameters(recurse=False):
            spread, mean = torch.std_mean(parameter, correction=0)
            parameter.normal_().mul_(spread).add_(mean)
    return modules


def _copy_state(source: nn.Module, target: nn.Module) -> None:
    for name, parameter in target.named_parameters(recurse=False):
        parameter.copy_(source.get_parameter(name))
    for name, buffer in target.named_buffers(recurse=False):
        buffer.copy_(source.get_buffer(name))


def _checked_explanation(
    explain: Callable[[nn.Module], Tensor], model: nn.Module, trained: Tensor | None
) -> Tensor:
    with torch.enable_grad():  # as the caller's own code expects it
        made = explain(model)
    maps = checked_maps(made, "the maps that `explain` made")
    if trained is not None and maps.shape != trained.shape:
        raise ExplainerError(
            f"explain must make the same maps at each call: it made {tuple(trained.shape)}, then "
            f"{tuple(maps.shape)}"
        )
    return maps
