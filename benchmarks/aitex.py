"""Train on strips with tiny defects, tiled and squeezed; compare the two on other fabrics.

    python benchmarks/aitex.py WORK_FOLDER [FOLD ...]     (pictures and weights are found through KENSA_DATA)

The strips are those of AITEX whose weave tells nothing of the label (`texture_like_good`). Each fold keeps
fabrics apart: none that is tested was trained or validated on. What is trained already is not trained again.
The results are written to WORK_FOLDER/aitex.json and printed.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from classifiers import Predictor
from classifiers.data.dataset import Dataset
from classifiers.data.reading import load_dataset
from classifiers.measure.evaluation import evaluate
from classifiers.training.settings import TilingSettings, TrainSettings
from classifiers.training.train import train
from classifiers.training.trainer import TrainProgress

DATA = Path(os.environ.get("KENSA_DATA", "../shared/data")).resolve()
STRIPS = DATA / "aitex"
TILE = 128
# Fabrics of the test and of the validation side; all others are trained on.
FOLDS = {
    "a": (("fabric_04", "fabric_06"), ("fabric_03",)),
    "b": (("fabric_02", "fabric_03"), ("fabric_04",)),
    "c": (("fabric_00", "fabric_01"), ("fabric_06",)),
}
SETTINGS = TrainSettings(
    architecture="mobilenetv2_100",
    model_args={"pad_type": "same"},
    pretrained=str(DATA / "imagenet_weights" / "mobilenetv2_100_imagenet.safetensors"),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    batch_size=16,
    learning_rate=1e-3,
    select_by="auroc",
    threads=2,
    ema_decay=0.9,
)


def strips(work: Path) -> Dataset:
    """Return the strips whose weave does not tell the label, with their masks."""
    file = work / "labels.csv"
    with (STRIPS / "labels.csv").open(newline="") as source, file.open("w", newline="") as target:
        rows = [row for row in csv.DictReader(source) if row["texture_like_good"] == "1"]
        writer = csv.writer(target)
        writer.writerow(("image", "label", "group", "mask"))
        for row in rows:
            mask = str(STRIPS / row["mask"]) if row["mask"] else ""
            label = "good" if row["label"] == "good" else "defect"
            writer.writerow((str(STRIPS / row["file"]), label, row["group"], mask))
    return load_dataset(file, group_column="group", good_class="good")


def side(dataset: Dataset, fabrics: Sequence[str], *, inside: bool = True) -> Dataset:
    """Return the strips of some fabrics, or of all others."""
    return replace(dataset, items=tuple(item for item in dataset.items if (item.group in fabrics) == inside))


def said(now: TrainProgress) -> None:
    """Print what a training has to say."""
    if now.text or now.metrics:
        print("  ", now.text or f"epoch {now.epoch}: {now.metrics}", flush=True)


def main() -> None:
    """Train three folds both ways and print the areas."""
    work = Path(sys.argv[1])
    work.mkdir(parents=True, exist_ok=True)
    whole = strips(work)
    tiled = replace(
        SETTINGS,
        input_size=(TILE, TILE),
        epochs=6,
        tiling=TilingSettings(scale=1.0, good_tiles=8),
    )
    # The input is what `kensa train` proposes for strips. Eight epochs show more pixels than six of tiles do,
    # and batches of four give as many steps to an epoch as there are to be had without starving batch norms.
    squeezed = replace(SETTINGS, input_size=(128, 1568), epochs=8, batch_size=4)
    results: dict[str, dict[str, object]] = {}
    folds = sys.argv[2:] or list(FOLDS)
    for name in folds:
        tested, validated = FOLDS[name]
        test, validation = side(whole, tested), side(whole, validated)
        training = side(whole, (*tested, *validated), inside=False)
        for kind, settings in (("tiled", tiled), ("squeezed", squeezed)):
            print(
                f"fold {name}, {kind}: {training.counts()} / {validation.counts()} / {test.counts()}",
                flush=True,
            )
            begun = time.perf_counter()
            package = train(training, validation, settings, work / f"{kind}-{name}", progress=said)
            trained = time.perf_counter()
            found = evaluate(Predictor(package, device="cpu"), test)
            results[f"{name} {kind}"] = {
                "auroc": found["auroc"],
                "validation_auroc": package.training["metrics"]["auroc"],
                "highest": package.tiling.highest if package.tiling else None,
                "test": test.counts(),
                "training_seconds": round(trained - begun, 1),
                "test_seconds": round(time.perf_counter() - trained, 1),
            }
            print("  ", results[f"{name} {kind}"], flush=True)
            (work / "aitex.json").write_text(json.dumps(results, indent=2) + "\n")
    for kind in ("tiled", "squeezed"):
        areas = [float(str(results[f"{name} {kind}"]["auroc"])) for name in folds]
        print(
            f"{kind}: AUROC {', '.join(f'{area:.3f}' for area in areas)}, mean {sum(areas) / len(areas):.3f}"
        )


if __name__ == "__main__":
    main()
