"""Do the main job on real pictures: train, calibrate, inspect and report on magnetic tiles, then measure.

    python benchmarks/magnetic_tile.py WORK_FOLDER        (pictures and weights are found through KENSA_DATA)

Every step is a command of kensa, and the figures are read from the record that it leaves. Training and
calibration are not repeated when they are done. The results are written to WORK_FOLDER/results.json and
printed.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from classifiers import Predictor, load_package
from classifiers.data.dataset import Dataset
from classifiers.data.reading import load_dataset
from classifiers.measure.evaluation import measure, predict_dataset
from classifiers.measure.metrics import auroc, balanced_accuracy
from classifiers.predict import Prediction
from db.artifacts import ArtifactStore
from db.engine import open_database
from db.queries.finding_records import run_findings
from db.queries.runs import latest_run
from db.verification.walk import verify
from explainers.drawing import resize_map, top_mask
from operations.inspection.map_files import decode_map

DATA = Path(os.environ.get("KENSA_DATA", "../shared/data")).resolve()
TILES = DATA / "magnetic_tile"
KENSA = Path(sys.executable).with_name("kensa")
TRAIN = [
    *(
        "--good-class",
        "MT_Free",
        "--group-column",
        "group_loose",
        "--fractions",
        "0.58",
        "0.07",
        "0.2",
        "0.15",
    ),
    *("--arch", "mobilenetv2_100", "--model-arg", "pad_type=same", "--input-size", "320", "--epochs", "24"),
    *("--pretrained", str(DATA / "imagenet_weights" / "mobilenetv2_100_imagenet.safetensors")),
    *("--lr", "1e-3", "--precision", "bfloat16", "--set", "mean=[0.5,0.5,0.5]", "--set", "std=[0.5,0.5,0.5]"),
    *("--set", "fit=stretch", "--set", "balance_power=0.7", "--set", "threads=2", "--set", "drop_rate=0.3"),
    # Breaks and frays sit at the tile's edge: a crop would cut the defect off and keep its label.
    *("--set", "augmentation.rotation=4.0", "--set", "augmentation.crop_scale=1.0"),
    *("--set", "augmentation.crop_ratio=1.0", "--set", "augmentation.brightness=0.4"),
    *("--set", "augmentation.contrast=0.4"),
]
TARGETS = ["--target-escape-rate", "0.1", "--target-overkill", "0.05"]


def timed(
    seconds: dict[str, float], name: str, command: Sequence[str], allowed: Sequence[int] = (0,)
) -> None:
    """Run a command of kensa and keep its time; leave with a message where it ends with another code."""
    started = time.perf_counter()
    done = subprocess.run([str(KENSA), *command])
    # A step that an earlier call has done is quick now: the time of that call counts.
    seconds.setdefault(name, round(time.perf_counter() - started, 1))
    if done.returncode not in allowed:
        sys.exit(f"{name} ended with {done.returncode}")


def write_inbox(inbox: Path, test: Path) -> dict[str, Path]:
    """Write the held-out pictures as a line would, with a manifest; return name -> pixel mask."""
    masks = {}
    inbox.mkdir(parents=True)
    with test.open(newline="") as file, (inbox / "manifest.csv").open("w", newline="") as manifest:
        writer = csv.writer(manifest)
        writer.writerow(("file", "part", "lot", "station"))
        for row in csv.DictReader(file):
            image = (test.parent / row["image"]).resolve()
            exposure, _, number = image.stem.partition("_num_")
            # The tile is the lot: its pictures differ by exposure. The name does not tell the label.
            name = f"tile{int(row['group']):03d}/{exposure}_{number}.jpg"
            (inbox / name).parent.mkdir(exist_ok=True)
            shutil.copy(image, inbox / name)
            writer.writerow((name, f"{exposure}-{number}", f"tile{int(row['group']):03d}", exposure))
            masks[name] = TILES / "masks" / image.parent.name / f"{image.stem}.png"
    return masks


def localisation(maps: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Return EBPG and mIoU (docs/sise.md) of maps against masks, and the masks' mean share of the picture.

    That share is the EBPG of a map of equal values.
    """
    energy, iou, area = [], [], []
    for values, mask in maps:
        full = resize_map(values, *mask.shape)
        energy.append(float(full[mask].sum() / full.sum()))
        top = top_mask(full)
        iou.append(float((top & mask).sum() / (top | mask).sum()))
        area.append(float(mask.mean()))
    return {
        "pictures": len(maps),
        "ebpg": float(np.mean(energy)),
        "miou": float(np.mean(iou)),
        "mask_area": float(np.mean(area)),
    }


def intervals(held_out: Dataset, good: int | None, prediction: Prediction) -> dict[str, list[float]]:
    """Return 95 % bootstrap intervals, drawn by tile: pictures of one tile are not independent."""
    labels = np.array([held_out.classes.index(item.labels[0]) for item in held_out.items])
    targets = np.eye(len(held_out.classes), dtype=bool)[labels]
    groups = np.array([item.group for item in held_out.items])
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    rng = np.random.default_rng(0)
    accuracies, areas = [], []
    for _ in range(2000):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        accuracies.append(balanced_accuracy(prediction.probabilities[rows], targets[rows], multi_label=False))
        areas.append(auroc(prediction.defect_scores[rows], labels[rows] != good))
    return {
        name: [float(q) for q in np.quantile(values, (0.025, 0.975))]
        for name, values in (("balanced_accuracy", accuracies), ("auroc", areas))
    }


def main() -> None:
    work = Path(sys.argv[1]).resolve()
    work.mkdir(parents=True, exist_ok=True)
    model, calibrated, test = work / "model", work / "calibrated", work / "model.splits" / "test.csv"
    earlier = work / "results.json"
    seconds: dict[str, float] = json.loads(earlier.read_text())["seconds"] if earlier.exists() else {}
    if not (model / "model.json").exists():
        timed(seconds, "train", ["train", str(TILES / "labels.csv"), "--out", str(model), *TRAIN])
    if not calibrated.exists():
        side = str(test.with_name("calibration.csv"))
        timed(seconds, "calibrate", ["calibrate", str(model), side, "--out", str(calibrated), *TARGETS])
    inbox = work / "inbox"
    shutil.rmtree(inbox, ignore_errors=True)
    masks = write_inbox(inbox, test)
    settings = {
        "name": "magnetic-tile",
        "source": {"uri": str(inbox), "manifest": "manifest.csv"},
        "model": {"package": str(calibrated)},
        "database": {"url": f"sqlite:///{work / 'kensa.db'}"},
        "artifacts": {"uri": str(work / "artifacts")},
        "report": {"folder": str(work / "reports"), "title": "Magnetic tiles, held-out part"},
    }
    config = work / "line.yaml"
    config.write_text(yaml.safe_dump(settings))
    timed(seconds, "run", ["run", "-c", str(config)])
    timed(seconds, "report", ["report", "run", "-c", str(config)])
    timed(seconds, "audit verify", ["audit", "verify", "-c", str(config)])

    package = load_package(calibrated)
    held_out = load_dataset(test, group_column="group", good_class="MT_Free")
    prediction = predict_dataset(Predictor(package), held_out)
    measured = measure(package, held_out, prediction)
    store = ArtifactStore(settings["artifacts"]["uri"])  # type: ignore[index]
    all_maps, per_class = [], {}
    with open_database(settings["database"]["url"]) as database:  # type: ignore[index]
        with database.session() as session:
            run = latest_run(session)
            assert run is not None
            findings = run_findings(session, run.id)
        assert verify(database, artifacts=store).ok
    drops, increases = [], 0
    for finding in findings:
        explanation = finding.explanation
        if explanation is None or explanation.map_digest is None:
            continue
        mask = np.asarray(Image.open(masks[finding.uri]).convert("L")) > 127
        if mask.any():
            pair = decode_map(store.get(explanation.map_digest)), mask
            all_maps.append(pair)
            per_class.setdefault(masks[finding.uri].parent.name, []).append(pair)
            drops.append(explanation.drop)
            increases += bool(explanation.increase)
    results = {
        "seconds": seconds,
        "counts": run.counts.as_dict(),
        "test": measured,
        "intervals_by_tile": intervals(held_out, package.good_index, prediction),
        "sise": localisation(all_maps),
        "sise_per_class": {name: localisation(maps) for name, maps in sorted(per_class.items())},
        "drop_percent": float(np.mean(drops)),
        "increase_percent": 100 * increases / len(drops),
    }
    (work / "results.json").write_text(json.dumps(results, indent=2))
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
