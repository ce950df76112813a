"""The layer rule over timm: one small member of every module is explained, or refused with a reason."""

from __future__ import annotations

import pytest
import timm
import torch

from benchmarks.models import FAMILIES, PAGE, build, explain, page, row
from explainers import ExplainerError, Explanation, create_explainer
from explainers.isolation import isolated
from explainers.sise.layers import candidates

# The head of MobileNetV5 is fed a map that joins several resolutions at one of the finer ones.
JOINS_AT_A_FINER_ONE = {"mobilenetv5"}
# What the fast run sees: CNNs of many ways of building, two hybrids, and refusals of four kinds. The other
# modules are marked slow, so that CI, which runs both halves, sees every module once.
FAST = {
    *("byobnet", "convnext", "cspnet", "densenet", "dla", "efficientnet", "fasternet", "ghostnet", "hgnet"),
    *("hrnet", "inception_next", "lcnetv2", "mambaout", "metaformer", "mobilenetv3", "nfnet", "regnet"),
    *("repghost", "resnet", "starnet", "vgg", "vovnet"),
    *("edgenext", "maxxvit"),
    *("convmixer", "mlp_mixer", "swin_transformer", "vision_transformer"),
}


def test_every_module_of_timm_has_a_representative():
    modules = set(timm.list_modules())
    missing, gone = sorted(modules - set(FAMILIES)), sorted(set(FAMILIES) - modules)
    assert not missing, (
        f"timm has modules without a representative: give {missing} a line in FAMILIES (benchmarks/models.py)"
    )
    assert not gone, f"timm has these modules no more: take {gone} out of FAMILIES (benchmarks/models.py)"
    assert set(FAMILIES) >= FAST
    for module, family in FAMILIES.items():
        assert family.model in timm.list_models(module=module), f"{family.model} is not of module {module}"
        assert family.kind in ("cnn", "hybrid", "refused")


def committed_rows():
    return [
        line
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and "`" in line
    ]


def test_the_page_is_what_the_generator_makes():
    """Each row is held against its family's sweep below, the rest of the page here."""
    rows = committed_rows()
    assert [line.split(" | ")[0] for line in rows] == [f"| {module}" for module in FAMILIES]
    assert page(rows) == PAGE.read_text(encoding="utf-8")


def state(model):
    """All there is to change about a model, and the random state."""
    return {
        "modules": [(id(part), part.training) for part in model.modules()],
        "hooks": [
            {
                id(hook)
                for hooks in (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks)
                for hook in hooks.values()
            }
            for part in model.modules()
        ],
        "needs": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [None if one.grad is None else one.grad.clone() for one in model.parameters()],
        "values": [value.clone() for value in (*model.parameters(), *model.buffers())],
        "random": torch.get_rng_state(),
    }


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def last_to_run(model, private, image):
    """Name of the module that runs last in the private copy, but for those fused for it (RepViT's head)."""
    ran = []
    parts = dict(model.named_modules())
    handles = [
        part.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, part in private.named_modules()
        if name in parts and type(part) is type(parts[name]) and not list(part.children())
    ]
    private(image)
    for handle in handles:
        handle.remove()
    return ran[-1]


@pytest.mark.parametrize(
    "module", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_family(module):
    family = FAMILIES[module]
    model, image = build(family)
    with torch.no_grad():
        logits = model.eval()(image)
    # The likeliest class: random weights give others a probability of exactly 0.
    likely, target = logits.softmax(dim=1).max(dim=1)
    # A state that evaluation mode, a backward pass or a removal of hooks would change.
    model.train()
    next(model.children()).eval()
    first, second, *_ = model.parameters()
    first.grad = torch.ones_like(first)
    second.requires_grad_(False)
    model.register_forward_hook(lambda *_: None)
    before = state(model)

    outcome = explain(model, image, target)
    assert same(state(model), before)
    assert row(module, outcome) in committed_rows(), "run python -m benchmarks.models"
    if family.kind == "refused":
        assert isinstance(outcome, ExplainerError)
        assert str(outcome).startswith(f"{family.model} ({type(model).__name__}) is no CNN")
        return
    assert isinstance(outcome, Explanation), outcome
    heights = [layer.height for layer in outcome.layers]
    stepwise = heights[:-1] if module in JOINS_AT_A_FINER_ONE else heights
    assert len(stepwise) >= 2
    assert len(set(heights)) == len(heights)
    assert stepwise == sorted(stepwise, reverse=True)
    names = dict(model.named_modules())
    assert all(layer.name in names or layer.name.startswith("intermediates.") for layer in outcome.layers)
    assert outcome.defined == (True,)
    torch.testing.assert_close(outcome.scores, likely, rtol=1e-3, atol=1e-5)
    for maps in (outcome.maps, *outcome.block_maps.values()):
        assert torch.isfinite(maps).all()
        assert maps.min() >= 0
        assert maps.max() <= 1
    assert outcome.maps.min() < outcome.maps.max()

    with isolated(model, image, reparameterise=True) as private:
        last = model.get_submodule(last_to_run(model, private, image))
        with torch.enable_grad():
            found = candidates(private, image, None)
    torch.testing.assert_close(found.logits.detach(), logits, rtol=1e-4, atol=1e-5)

    def fail(_module, inputs, _output):
        if len(inputs[0]) > 1:  # masked pictures, after the gradient pass
            raise RuntimeError("the line stopped")

    last.register_forward_hook(fail)
    before = state(model)
    with pytest.raises(RuntimeError, match="the line stopped"):
        create_explainer("sise", model, mu=0.95, batch_size=4)(image, target)
    assert same(state(model), before)
