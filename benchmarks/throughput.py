"""Measure the line on this machine's CPU: against the bare work in it, a plain loop, and in memory.

    python -m benchmarks.throughput [--networks …] [--engine torch|openvino] [--pictures N] [--quick]

Each part runs in a process of its own, in turns (A B A B …), and the medians are compared: on a machine that
does other work the ratios hold better than the figures. Random weights, and pictures that are made here.
Prints Markdown.

"bare" is what cannot be left out, on the same cores, and nothing else: reading, hashing, decoding, measuring
and resizing every picture, in one process a core; then the passes of the same engine, with all cores.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bare_line import (
    NETWORKS,
    SIZE,
    line_settings,
    make_pictures,
    network,
    prepare_all,
    save_line_package,
    timed_line,
)

ROOT = Path(__file__).parent.parent
BATCH = 32
TINY = "test_resnet"  # of timm's own tests: a pass takes next to nothing
Part = Callable[[Path, argparse.Namespace], dict[str, Any]]


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def opened_predictor(package: Path, engine: str) -> Any:
    """Load a package for the CPU."""
    from classifiers import Predictor, load_package

    return Predictor(load_package(package), device="cpu", engine=engine, batch_size=BATCH)


def bare(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Prepare all pictures in one process a core, then make as many passes with all cores."""
    import torch

    from operations.inspection.preparation import Preparation

    files = sorted((root / "pictures").iterdir())
    predictor = opened_predictor(root / options.network, options.engine)
    work = partial(prepare_all, Preparation(predictor.package.preprocessing, 2**27, None))
    shares = [list(share) for share in np.array_split(np.array(files, dtype=object), 4 * cores())]
    with get_context("spawn").Pool(cores()) as pool:
        pool.map(work, [files[:1]] * cores(), chunksize=1)  # their imports
        begun = time.perf_counter()
        pool.map(work, shares, chunksize=1)
        decoding = time.perf_counter() - begun
    batch = torch.randn(BATCH, 3, SIZE, SIZE)
    predictor.logits(batch)
    begun = time.perf_counter()
    for _ in range(-(-len(files) // BATCH)):
        predictor.logits(batch)
    passes = (time.perf_counter() - begun) * len(files) / (BATCH * -(-len(files) // BATCH))
    return {"seconds": decoding + passes, "decoding": decoding, "passes": passes}


def line(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Inspect the folder: from the listing to recorded verdicts."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        model = {"device": "cpu", "engine": options.engine, "batch_size": BATCH}
        settings = line_settings(root / "pictures", root / options.network, Path(folder), model=model)
        seconds, _ = timed_line(settings)
    return {"seconds": seconds}


class _Pictures:
    """The data set of the plain loop: a picture as torchvision's usual transforms prepare it."""

    def __init__(self, files: list[Path]) -> None:
        from torchvision import transforms

        self.files = files
        self._transform = transforms.Compose(
            [
                transforms.Resize((SIZE, SIZE)),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, str]:
        from PIL import Image

        with Image.open(self.files[index]) as picture:
            return self._transform(picture.convert("RGB")), self.files[index].name


def loop(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Do what a user would write: a DataLoader, the network as timm gives it, a CSV of probabilities."""
    import torch
    from torch.utils.data import DataLoader

    model = network(options.network)
    files = sorted((root / "pictures").iterdir())
    model(torch.randn(BATCH, 3, SIZE, SIZE))
    begun = time.perf_counter()
    loader: Any = DataLoader(_Pictures(files), batch_size=BATCH, num_workers=cores())  # type: ignore[arg-type]
    with (root / "loop.csv").open("w", newline="") as out, torch.inference_mode():
        rows = csv.writer(out)
        for pictures, names in loader:
            for name, row in zip(names, model(pictures).softmax(dim=1).tolist(), strict=True):
                rows.writerow([name, *row])
    return {"seconds": time.perf_counter() - begun}


def stage(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Time the network stage: eager PyTorch in float32, channels last, and the engine, in turns."""
    import torch

    predictor = opened_predictor(root / options.network, options.engine)
    batch = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    times: dict[str, list[float]] = {"eager": [], "engine": []}
    with torch.inference_mode():
        for turn in range(2 if options.quick else 8):
            for name, work in (("eager", predictor.model), ("engine", predictor.logits)):
                begun = time.perf_counter()
                work(batch)
                if turn:  # the first call is slow
                    times[name].append(time.perf_counter() - begun)
    return {
        "eager": statistics.median(times["eager"]),
        "engine": statistics.median(times["engine"]),
        "name": f"{predictor.engine.name} {predictor.engine.version}",
        "precision": predictor.precision,
        "threads": torch.get_num_threads(),
    }


def memory(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Inspect many small pictures with a tiny network; note how much memory the processes have on the way."""
    few = root / "few"
    few.mkdir()
    make_pictures(few, range(16), width=64, height=48)
    known = [file.read_bytes() for file in sorted(few.iterdir())]
    many = root / f"many{options.pictures}"
    many.mkdir()
    for number in range(options.pictures):  # what follows the end of a JPEG changes its digest alone
        data = known[number % len(known)] + number.to_bytes(4, "big")
        (many / f"P{number:06d}.jpg").write_bytes(data)
    save_line_package(root / "tiny", TINY, size=32)
    held: list[tuple[int, float, float]] = []
    done = 0

    def noted(inspection: Any, summary: Any) -> None:
        nonlocal done
        done += sum(summary.result.verdicts.values())
        if done * 10 // options.pictures > len(held) - 1:
            decoders = [_resident(each._process.pid) for each in inspection.decoders._all]
            held.append((done, _resident(os.getpid()), max(decoders)))

    settings = line_settings(many, root / "tiny", root / "memory", model={"device": "cpu"})
    seconds, _ = timed_line(settings, noted)
    return {"seconds": seconds, "held": held}


def _resident(process: int) -> float:
    """Return the resident memory of a process in MB, without pages that it shares with others."""
    fields = dict(row.split(":", 1) for row in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1000


PARTS: dict[str, Part] = {"bare": bare, "line": line, "loop": loop, "stage": stage, "memory": memory}


def measured(part: str, root: Path, options: argparse.Namespace, name: str, pictures: int) -> dict[str, Any]:
    """Run a part in a process of its own, and return what it found."""
    command = [sys.executable, "-m", "benchmarks.throughput", "--part", part, "--root", str(root)]
    command += ["--networks", name, "--pictures", str(pictures), *(["--quick"] * options.quick)]
    command += ["--engine", options.engine]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{part} {name}: {found}", file=sys.stderr, flush=True)
    return found


def compare(root: Path, options: argparse.Namespace, name: str) -> list[str]:
    """Return the rows of one network."""
    save_line_package(root / name, name)
    runs: dict[str, list[dict[str, Any]]] = {"bare": [], "line": [], "loop": []}
    for _ in range(options.rounds):
        for part, found in runs.items():
            found.append(measured(part, root, options, name, options.pictures))
    rate = {
        part: options.pictures / statistics.median(each["seconds"] for each in found)
        for part, found in runs.items()
    }
    network_stage = measured("stage", root, options, name, options.pictures)
    engine = f"{network_stage['name']} {network_stage['precision']}"
    eager, fast = (BATCH / network_stage[way] for way in ("eager", "engine"))
    rows = [
        ("line ÷ bare", rate["line"], rate["bare"]),
        ("line ÷ DataLoader loop", rate["line"], rate["loop"]),
        (f"passes of {engine} ÷ eager float32", fast, eager),
    ]
    return [f"| {name}: {what} | {own:.1f} | {other:.1f} | {own / other:.2f} |" for what, own, other in rows]


def processor() -> str:
    """Return this machine's processor, and which of the instructions it has that engines look for."""
    facts = [row.split(":", 1) for row in Path("/proc/cpuinfo").read_text().splitlines() if ":" in row]
    named = {key.strip(): value.strip() for key, value in facts}
    flags = named.get("flags", "").split()
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return f"{named.get('model name', platform.machine())} ({', '.join(f for f in wanted if f in flags)})"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--networks", nargs="*", default=list(NETWORKS), metavar="NAME")
    options.add_argument("--engine", default="auto", help="as model.engine")
    options.add_argument("--pictures", type=int, default=1024)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--memory", type=int, nargs="*", default=[10_000, 100_000], metavar="PICTURES")
    options.add_argument("--quick", action="store_true", help="a trial: its figures mean nothing")
    options.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    options.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.part:
        chosen.network = chosen.networks[0]
        print(json.dumps(PARTS[chosen.part](chosen.root, chosen)))
        return
    if chosen.quick:
        chosen.pictures, chosen.rounds, chosen.memory = 64, 1, [500]
    print(f"{processor()}, {cores()} cores, {chosen.pictures} JPEGs of 640 x 480, {chosen.rounds} rounds\n")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if chosen.networks:
            (root / "pictures").mkdir()
            make_pictures(root / "pictures", range(chosen.pictures))
            print("| pictures a second | this | against | ratio |\n| --- | --- | --- | --- |")
        for name in chosen.networks:
            print("\n".join(compare(root, chosen, name)), flush=True)
        for count in chosen.memory:
            with tempfile.TemporaryDirectory() as apart:
                found = measured("memory", Path(apart), chosen, TINY, count)
            print(f"\n{count} pictures, {count / found['seconds']:.0f} a second:\n")
            print("| recorded | MB of the run | MB of its largest decoder |\n| --- | --- | --- |")
            for done, own, decoder in found["held"]:
                print(f"| {done} | {own:.0f} | {decoder:.0f} |", flush=True)


if __name__ == "__main__":
    main()
