"""Show which families of timm SISE explains, by one small member of every module, with random weights.

    python -m benchmarks.models        writes docs/models.md

tests/explainers/sise/test_families.py runs the same table, and compares the page with its results.
"""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from explainers import ExplainerError, Explanation, create_explainer

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
CLASSES = 3


@dataclass(frozen=True)
class Family:
    """One module of timm, and the member that stands for it.

    Attributes:
        model: name in timm.
        kind: "cnn", "hybrid" (attention, recurrence or state-space layers beside convolutions), or "refused".
        size: side of the picture in pixels: enough for two positions or more at the deepest resolution.
        options: arguments of `timm.create_model`: fewer blocks where a member is large, and the size of the
            picture where it is fixed.
        note: what the page says of other members.
    """

    model: str
    kind: str = "cnn"
    size: int = 64
    options: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def _fixed(model: str, kind: str, size: int = 64, note: str = "", **options: Any) -> Family:
    return Family(model, kind, size, {"img_size": size, **options}, note)


FAMILIES = {
    "beit": _fixed("beit_base_patch16_224", "refused", depth=1),
    "byoanet": _fixed(
        "eca_botnext26ts_256", "hybrid", note="`halonet_h1` convolves in its stem alone: refused"
    ),
    "byobnet": Family("test_byobnet"),
    "cait": _fixed("cait_xxs24_224", "refused", depth=1),
    "coat": _fixed("coat_tiny", "refused"),
    "convit": Family("convit_tiny", "refused", 224),
    "convmixer": Family("convmixer_768_32", "refused"),
    "convnext": Family("test_convnext"),
    "cpubone": Family("cpubone_nano", "hybrid"),
    "crossvit": Family("crossvit_tiny_240", "refused", 240),
    "csatv2": Family("csatv2", "hybrid", 128),
    "cspnet": Family("cs3darknet_focus_s"),
    "cspnext": Family("cspnext_tiny"),
    "davit": Family("davit_tiny", "hybrid"),
    "deepseek_vit": Family("deepseek_vit_412m", "refused", 56, {"depth": 1}),
    "deit": _fixed("deit_tiny_patch16_224", "refused"),
    "densenet": Family("densenet121"),
    "dla": Family("dla46x_c"),
    "dpn": Family("dpn48b"),
    "edgenext": Family("edgenext_xx_small", "hybrid"),
    "efficientformer": Family("efficientformer_l1", "refused", 224),
    "efficientformer_v2": _fixed("efficientformerv2_s0", "hybrid"),
    "efficientnet": Family("test_efficientnet"),
    "efficientvim": Family("efficientvim_m1", "refused"),
    "efficientvit_mit": Family("efficientvit_b0", "hybrid"),
    "efficientvit_msra": _fixed("efficientvit_m0", "hybrid", 128),
    "eva": _fixed("eva02_tiny_patch14_224", "refused", 56),
    "fasternet": Family("fasternet_t0"),
    "fastvit": Family("fastvit_t8"),
    "focalnet": Family("focalnet_tiny_srf"),
    "gcvit": _fixed("gcvit_xxtiny", "hybrid"),
    "gemma4_vit": Family("gemma4_vit_167m", "refused", 96, {"depth": 1}),
    "ghostnet": Family("ghostnet_050"),
    "hardcorenas": Family("hardcorenas_b"),
    "hgnet": Family("hgnetv2_b0"),
    "hiera": Family("hiera_tiny_224", "refused", 224, {"stages": (1, 1, 1, 1)}),
    "hieradet_sam2": Family("sam2_hiera_tiny", "refused"),
    "hrnet": Family("hrnet_w18_small"),
    "iformer": Family("iformer_t", "hybrid"),
    "inception_next": Family("inception_next_atto"),
    "inception_resnet_v2": Family("inception_resnet_v2", size=128),
    "inception_v3": Family("inception_v3", size=128),
    "inception_v4": Family("inception_v4", size=128),
    "lcnetv2": Family("lcnetv2_small"),
    "levit": Family("levit_conv_128s", "hybrid", 224, note="`levit_*` without `conv` keep tokens: refused"),
    "lowformer": Family("lowformer_b0", "hybrid"),
    "mambaout": Family("test_mambaout"),
    "maxxvit": _fixed("test_coatnet", "hybrid"),
    "metaformer": Family("poolformerv2_s12"),
    "mlp_mixer": _fixed("gmlp_ti16_224", "refused"),
    "mobilenetv3": Family("lcnet_035"),
    "mobilenetv5": Family(
        "mobilenetv5_base", "hybrid", note="its last step joins resolutions at a finer one: it comes last"
    ),
    "mobilevit": Family("mobilevit_xxs", "hybrid"),
    "mvitv2": _fixed("mvitv2_tiny", "refused"),
    "naflexvit": Family("naflexvit_base_patch16_gap", "refused", options={"depth": 1}),
    "nasnet": Family("nasnetalarge", options={"num_features": 384, "stem_size": 32}),
    "nest": _fixed("nest_tiny", "hybrid", 112),
    "nextvit": Family("nextvit_small", "hybrid"),
    "nfnet": Family("test_nfnet"),
    "pit": Family("pit_ti_224", "refused", 224),
    "pnasnet": Family("pnasnet5large"),
    "pvt_v2": Family("pvt_v2_b0", "hybrid"),
    "qwen3_vit": Family("qwen3_vit_88m", "refused", options={"depth": 1}),
    "rdnet": Family("rdnet_tiny"),
    "regnet": Family("regnetx_002"),
    "repghost": Family("repghostnet_050"),
    "repvit": Family("repvit_m1"),
    "res2net": Family("res2next50"),
    "resnest": Family("resnest14d"),
    "resnet": Family("test_resnet"),
    "resnetv2": Family("resnetv2_18"),
    "rexnet": Family("rexnet_100"),
    "selecsls": Family("selecsls42"),
    "senet": Family("legacy_seresnet18"),
    "sequencer": _fixed("sequencer2d_s", "hybrid", layers=(1, 1, 1, 1)),
    "shvit": Family("shvit_s1", "hybrid", 128),
    "sknet": Family("skresnet18"),
    "starnet": Family("starnet_s050"),
    "swiftformer": Family("swiftformer_xs", "hybrid"),
    "swin_transformer": _fixed("swin_tiny_patch4_window7_224", "refused", depths=(1, 1, 1, 1)),
    "swin_transformer_v2": _fixed("swinv2_tiny_window8_256", "refused", depths=(1, 1, 1, 1)),
    "swin_transformer_v2_cr": _fixed("swinv2_cr_tiny_224", "refused", depths=(1, 1, 1, 1)),
    "tiny_vit": Family("tiny_vit_5m_224", "hybrid"),
    "tnt": _fixed("tnt_s_patch16_224", "refused", depth=1),
    "tresnet": Family("tresnet_m"),
    "twins": _fixed("twins_svt_small", "refused", depths=(1, 1, 1, 1)),
    "vgg": Family("vgg11", options={"mlp_ratio": 0.02}),
    "visformer": _fixed("visformer_tiny", "hybrid"),
    "vision_transformer": Family("test_vit", "refused", 160),
    "vision_transformer_hybrid": _fixed("vit_tiny_r_s16_p8_224", "refused"),
    "vision_transformer_relpos": Family("test_vit_relpos", "refused", 160),
    "vision_transformer_sam": _fixed("samvit_base_patch16_224", "refused", depth=1),
    "vitamin": _fixed("vitamin_small_224", "refused"),
    "volo": _fixed("volo_d1_224", "refused"),
    "vovnet": Family("ese_vovnet19b_slim_dw"),
    "xception": Family("legacy_xception"),
    "xception_aligned": Family("xception41p"),
    "xcit": Family("xcit_nano_12_p16_224", "refused", options={"depth": 1}),
}


def build(family: Family) -> tuple[nn.Module, Tensor]:
    """Return the member, in training mode, and a picture (1, 3, size, size), the same at every call."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's own, about meshgrid and about renamed models
        model = timm.create_model(family.model, num_classes=CLASSES, **family.options)
    # Some initial values (gates, residual scales, biases and heads of 0) make blocks constant: change them.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bn" in name or parameter.ndim == 1 or not bool(parameter.any()):
                parameter.add_(0.02 * torch.randn_like(parameter))
    return model, torch.randn(1, 3, family.size, family.size)


def explain(model: nn.Module, image: Tensor, target: Tensor) -> Explanation | ExplainerError:
    """Return an explanation, or the refusal.

    With this mu, little more than the strongest map of each layer is kept: every step of SISE runs at little
    cost.
    """
    try:
        return create_explainer("sise", model, mu=0.95, batch_size=4)(image, target)
    except ExplainerError as error:
        return error


def row(module: str, outcome: Explanation | ExplainerError) -> str:
    """Return one line of the page's table."""
    family = FAMILIES[module]
    note = f"; {family.note}" if family.note else ""
    if isinstance(outcome, ExplainerError):
        why = str(outcome).split(") ", 1)[1].split(";")[0].split(", and the layer rule")[0]
        return f"| {module} | `{family.model}` | {family.size} | – | – | refused: {why}{note} |"
    layers = ", ".join(f"`{one.name}` {one.height}×{one.width}" for one in outcome.layers)
    maps = sum(one.maps for one in outcome.layers)
    status = "ok (hybrid)" if family.kind == "hybrid" else "ok"
    return f"| {module} | `{family.model}` | {family.size} | {layers} | {maps} | {status}{note} |"


def page(rows: list[str]) -> str:
    """Return the whole page."""
    counts = {kind: sum(f.kind == kind for f in FAMILIES.values()) for kind in ("cnn", "hybrid", "refused")}
    return f"""# Which models SISE explains

Made by `python -m benchmarks.models`: one small member of every module of timm, random weights, no layer
named. `tests/explainers/sise/test_families.py` runs the same table and holds this page to it.

Of {len(FAMILIES)} modules, {counts["cnn"]} are CNNs and explained; {counts["hybrid"]} are hybrids that keep
feature maps up to their head, and explained; {counts["refused"]} are refused, by name and with the reason.
The layer rule is in [`sise/layers.py`](../explainers/sise/layers.py). *Input* is the side of the square
picture in pixels (a larger one has larger maps, and may have a deeper layer more); layers stand in the order
of fusion, shallow to deep; *maps* is the number of feature maps in all of them. The status is the
representative's: other members of a module may differ, and say so when called. Some representatives have
fewer blocks or maps than timm's default (the table `FAMILIES` says which).

Models that are not from timm need no names either where they are built like VGG, ResNet, MobileNet, DenseNet,
SqueezeNet or Inception; for others, name the layers: `create_explainer("sise", model, layers=[...])`.

| module | representative | input | layers | maps | status |
| --- | --- | ---: | --- | ---: | --- |
{chr(10).join(rows)}
"""


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for module, family in FAMILIES.items():
        model, image = build(family)
        rows.append(row(module, explain(model, image, torch.tensor([0]))))
        print(rows[-1], flush=True)
    PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
