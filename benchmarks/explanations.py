"""Judge explainers on real pictures: classifiers from `kensa train`, tables from `kensa evaluate`.

    python benchmarks/explanations.py WORK_FOLDER [NAME ...]

Pictures and weights are found through KENSA_DATA. Without names, all evaluations are made, in the order
below. What is done is not done again: models are kept in WORK_FOLDER, and evaluations go on from their
results.jsonl. Each writes table.md, table.json, table.csv and maps.png into WORK_FOLDER/evaluation/NAME, from
which docs/results.md is made.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from classifiers import load_package
from classifiers.data.reading import load_dataset
from classifiers.package.package import build_model
from explainers import create_explainer
from explainers.metrics.sanity import cascading_randomisation
from sources.decoding import decode

DATA = Path(os.environ.get("KENSA_DATA", "../shared/data")).resolve()
KENSA = Path(sys.executable).with_name("kensa")

NEU_SPLIT = ["--group-pattern", r"(.*)[0-9]\.jpg", "--fractions", "0.6", "0.08", "0.08", "0.24"]
COMMON = ["--precision", "bfloat16", "--set", "threads=2", "--set", "augmentation.rotation=4.0"]
MODELS = {
    # Half the width of ResNet-50, so that two cores can train and explain it.
    "neu-resnet50": [
        *(str(DATA / "neu_steel" / "labels.csv"), *NEU_SPLIT, *COMMON, "--balance", "none"),
        *("--arch", "resnet50", "--model-arg", "channels=[32,64,128,256]", "--model-arg", "stem_width=32"),
        *("--input-size", "128", "--epochs", "14"),
    ],
    "neu-vgg": [
        *(str(DATA / "neu_steel" / "labels.csv"), *NEU_SPLIT, *COMMON, "--balance", "none"),
        *("--arch", "vgg11_bn", "--model-arg", "mlp_ratio=0.125", "--input-size", "96", "--epochs", "10"),
    ],
}
# SISE beside its variants: does sise-fast keep what it claims, and what does its last step add?
FAMILY: list[Any] = [
    "sise",
    "ada-sise",
    "sise-fast",
    {"method": "sise-fast", "label": "prediction alone", "options": {"contrast": 1.0}},
]
EVERY: list[Any] = [
    "grad-cam",
    "grad-cam++",
    "layer-cam",
    "score-cam",
    "integrated-gradients",
    "fullgrad",
    # Fewer than the papers' 4000 masks and 800 iterations: even so, these two take most of the time.
    {"method": "rise", "options": {"masks": 1000}},
    {"method": "extremal-perturbation", "options": {"iterations": 80}},
    *FAMILY[:3],
]
FAST_METRICS = ["ebpg", "miou", "bbox", "drop", "increase", "pointing_game", "rank_correlation"]


def neu(work: Path, model: str, limit: int) -> dict[str, Any]:
    """Return the settings of data and model for NEU's steel defects, by a model from `kensa train`."""
    return {
        "data": {
            "kind": "folder",
            "path": str(DATA / "neu_steel" / "labels.csv"),
            "classes": ["inclusion", "patches", "scratches"],
            "subset": str(work / f"{model}.splits" / "test.csv"),
            "limit": limit,
        },
        "model": {"package": str(work / model)},
    }


def coco(architecture: str, weights: str, moments: list[list[float]], **more: Any) -> dict[str, Any]:
    """Return the settings of data and model for natural pictures of COCO, with an ImageNet network."""
    return {
        "data": {
            "kind": "folder",
            "path": str(DATA / "coco_natural" / "labels.csv"),
            "label_column": "category",
            "limit": 240,  # of which the model knows about a quarter
        },
        "model": {
            "architecture": architecture,
            "weights": str(DATA / "imagenet_weights" / weights),
            "mapping": str(DATA / "coco_natural" / "imagenet_to_coco.csv"),
            "outputs": 1000,
            "mean": moments[0],
            "std": moments[1],
            **more,
        },
    }


def evaluations(work: Path) -> dict[str, dict[str, Any]]:
    """Return name -> settings of every evaluation, in the order in which they are made."""
    halves = [[0.5] * 3, [0.5] * 3]
    imagenet = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]
    mobilenet = coco(
        "mobilenetv2_100", "mobilenetv2_100_imagenet.safetensors", halves, model_args={"pad_type": "same"}
    )
    squeezenet = coco("torchvision:squeezenet1_0", "squeezenet1_0_imagenet.safetensors", imagenet)
    family = {"explainers": FAMILY, "metrics": FAST_METRICS}
    every = {"explainers": EVERY, "metrics": [*FAST_METRICS, "insertion", "deletion"]}
    chosen = {
        "neu-resnet50-family": {**neu(work, "neu-resnet50", 45), **family},
        "neu-vgg-family": {**neu(work, "neu-vgg", 36), **family},
        "coco-mobilenetv2-family": {**mobilenet, **family},
        "coco-squeezenet-family": {**squeezenet, **family},
        "neu-resnet50": {**neu(work, "neu-resnet50", 15), **every},
        "neu-vgg": {**neu(work, "neu-vgg", 12), **every},
    }
    common = {"only_correct": True, "precision": "bfloat16", "tolerance": 15, "insertion_steps": 16}
    return {
        name: {"name": name, "output": str(work / "evaluation" / name), **common, **settings}
        for name, settings in chosen.items()
    }


def sanity(work: Path) -> None:
    """Write how maps change as weights are randomised, layer after layer (Adebayo et al. 2018)."""
    package = load_package(work / "neu-resnet50")
    model = build_model(package)
    shown = load_dataset(work / "neu-resnet50.splits" / "test.csv").items[40::70]
    transform = package.preprocessing.transform
    images = torch.stack([transform(decode(item.path.read_bytes()).pixels) for item in shown])
    targets = torch.tensor([package.classes.index(item.labels[0]) for item in shown])
    found = {}
    for method in ("sise", "sise-fast", "grad-cam", "integrated-gradients"):
        options = {"precision": "bfloat16"} if method.startswith("sise") else {}

        def explain(
            changed: torch.nn.Module, method: str = method, options: dict[str, Any] = options
        ) -> torch.Tensor:
            return create_explainer(method, changed, **options)(images, targets).maps

        stages = cascading_randomisation(model, explain, stages=5)
        found[method] = [
            {
                "last": stage.modules[-1],
                "modules": len(stage.modules),
                "correlation": stage.similarity.nanmean().item(),
            }
            for stage in stages
        ]
        print(method, found[method], flush=True)
    (work / "evaluation" / "sanity.json").write_text(json.dumps(found, indent=2))


def kensa(*command: str) -> None:
    """Run a command of kensa; leave with a message where it fails."""
    done = subprocess.run([str(KENSA), *command])
    if done.returncode:
        sys.exit(f"kensa {' '.join(command[:2])} ended with {done.returncode}")


def main() -> None:
    work = Path(sys.argv[1]).resolve()
    (work / "evaluation").mkdir(parents=True, exist_ok=True)
    everything = evaluations(work)
    for name in sys.argv[2:] or [*everything, "sanity"]:
        if name == "sanity":
            sanity(work)
            continue
        settings = everything[name]
        package = settings["model"].get("package")
        if package is not None and not (Path(package) / "model.json").exists():
            kensa("train", "--out", package, *MODELS[Path(package).name])
        config = work / "evaluation" / f"{name}.yaml"
        config.write_text(yaml.safe_dump(settings, sort_keys=False))
        kensa("evaluate", "--config", str(config))


if __name__ == "__main__":
    main()
