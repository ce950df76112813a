"""Measure what tiles cost on this machine's CPU: each beside a small picture of its size, and in memory.

    python -m benchmarks.tiles [--networks …] [--engine torch|openvino] [--rounds N] [--quick]

Cost: as many tiles, of one large picture, as there are small pictures of a tile's size, in turns (A B A B …);
the medians are compared. "line" is a run from the listing to recorded verdicts, each in a process of its own;
"passes" is what the model's thread does alone: small pictures come decoded and normalised from other
processes, tiles are cut and normalised here.

Memory: a run over one picture of 12,000 x 8,000 pixels with some 3,500 tiles; how much more the main process
takes at its peak than before, and what the largest decoding process takes. Only Linux tells.

Random weights, and pictures that are made here. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.bare_line import NETWORKS, SIZE, line_settings, save_line_package, timed_line
from benchmarks.throughput import BATCH, cores, opened_predictor, processor
from classifiers.package.tiling import Tiling

ROOT = Path(__file__).parent.parent
LARGE = (8_000, 12_000)  # height, width
OVERLAP = SIZE // 4
Part = Callable[[Path, argparse.Namespace], dict[str, Any]]


def grainy(height: int, width: int) -> np.ndarray:
    """Return a picture (height, width, 3) grainy as a camera's; a large one repeats itself."""
    chance = np.random.default_rng(0)
    block = np.clip(chance.normal(120, 12, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
    times = -(-height // SIZE), -(-width // SIZE), 1
    return np.tile(block, times)[:height, :width]


def make_pictures(root: Path, side: int) -> None:
    """Write a folder with one picture of side x side tiles, and one with as many small pictures."""
    for name in ("tiles", "small"):
        (root / name).mkdir()
    large = grainy(side * SIZE, side * SIZE)
    Image.fromarray(large).save(root / "tiles" / "large.jpg", quality=90)
    for number in range(side * side):
        # No two are equal, else the second of them would be carried over.
        tile = np.roll(large[:SIZE, :SIZE], number, axis=1)
        Image.fromarray(tile).save(root / "small" / f"P{number:06d}.jpg", quality=90)


def make_large_pictures(root: Path) -> None:
    """Write folders with one picture each: a large one in colour, the same in grey, and a small one."""
    for name, shape, mode in (("RGB", LARGE, "RGB"), ("L", LARGE, "L"), ("one", (SIZE, SIZE), "RGB")):
        (root / name).mkdir()
        Image.fromarray(grainy(*shape)).convert(mode).save(root / name / "picture.jpg", quality=90)


def save_packages(root: Path, network: str) -> None:
    """Save the same network for whole pictures, for tiles side by side, and for tiles that overlap."""
    save_line_package(root / "package-small", network)
    save_line_package(root / "package-tiles", network, tiling=Tiling())
    save_line_package(root / "package-memory", network, tiling=Tiling(overlap=OVERLAP))


def run_settings(root: Path, pictures: Path, package: str, folder: str, engine: str) -> Any:
    """Return the settings of a run."""
    model = {"device": "cpu", "engine": engine, "batch_size": BATCH}
    return line_settings(pictures, root / f"package-{package}", Path(folder), model=model)


def line(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Inspect the small pictures, or the large one in tiles."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        settings = run_settings(root, root / options.of, options.of, folder, options.engine)
        seconds, _ = timed_line(settings)
    return {"seconds": seconds}


def passes(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Score the small pictures and the tiles, in turns."""
    import torch

    from classifiers.tiles import scored_tiles, tiled_picture

    predictor = opened_predictor(root / "package-tiles", options.engine)
    large = tiled_picture(predictor.package, grainy(options.side * SIZE, options.side * SIZE))
    small = torch.stack([predictor.transform(grainy(SIZE, SIZE))] * options.side**2)
    work = {"small": lambda: predictor.predict(small), "tiles": lambda: scored_tiles(predictor, [large])}
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(options.rounds + 1):
        for name, score in work.items():
            begun = time.perf_counter()
            score()
            if turn:  # the first call is slow
                times[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(each) for name, each in times.items()}
    return {**medians, "computed": predictor.sentence()}


def memory(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Inspect a small picture, then a large one, and note how much memory the processes had at most."""
    found: dict[str, Any] = {}
    decoders: list[float] = []

    def noted(inspection: Any, _: Any) -> None:
        decoders.extend(_status(each._process.pid, "VmHWM") for each in inspection.decoders._all)

    with tempfile.TemporaryDirectory(dir=root) as folder:
        timed_line(run_settings(root, root / "one", "memory", folder, options.engine))
    for mode in ("RGB", "L"):
        before = _status("self", "VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        decoders.clear()
        with tempfile.TemporaryDirectory(dir=root) as folder:
            settings = run_settings(root, root / mode, "memory", folder, options.engine)
            seconds, _ = timed_line(settings, noted)
        found[mode] = {
            "before": before,
            "more": _status("self", "VmHWM") - before,
            "decoder": max(decoders),
            "seconds": seconds,
        }
    return found


def _status(process: int | str, name: str) -> float:
    """Return a figure of a process in MB."""
    fields = dict(row.split(":", 1) for row in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(fields[name].split()[0]) / 1000


PARTS: dict[str, Part] = {"line": line, "passes": passes, "memory": memory}


def measured(part: str, root: Path, options: argparse.Namespace, of: str = "tiles") -> dict[str, Any]:
    """Run a part in a process of its own, and return what it found."""
    command = [sys.executable, "-m", "benchmarks.tiles", "--part", part, "--root", str(root), "--of", of]
    command += ["--engine", options.engine, "--rounds", str(options.rounds), "--side", str(options.side)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{part} {of}: {found}", file=sys.stderr, flush=True)
    return found


def compare(root: Path, options: argparse.Namespace, network: str) -> list[str]:
    """Return the rows of one network."""
    runs: dict[str, list[float]] = {"tiles": [], "small": []}
    for _ in range(options.rounds):
        for of, seconds in runs.items():
            seconds.append(measured("line", root, options, of)["seconds"])
    whole = {of: statistics.median(seconds) for of, seconds in runs.items()}
    alone = measured("passes", root, options)
    rows = [("line", whole["tiles"], whole["small"]), ("passes", alone["tiles"], alone["small"])]
    each = 1000 / options.side**2
    return [
        f"| {network}: {what} | {tiles * each:.1f} | {small * each:.1f} | {tiles / small:.2f} |"
        for what, tiles, small in rows
    ]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--networks", nargs="*", default=list(NETWORKS[1:]), metavar="NAME")
    options.add_argument("--engine", default="auto", help="as model.engine")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument(
        "--side", type=int, default=16, help="tiles along a side of the picture that is timed"
    )
    options.add_argument("--quick", action="store_true", help="a trial: its figures mean nothing")
    options.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    options.add_argument("--of", default="tiles", help=argparse.SUPPRESS)
    options.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.part:
        print(json.dumps(PARTS[chosen.part](chosen.root, chosen)))
        return
    if chosen.quick:
        chosen.side, chosen.rounds, chosen.networks = 4, 1, ["test_resnet"]
    print(
        f"{processor()}, {cores()} cores, {chosen.side**2} tiles of {SIZE} x {SIZE}, {chosen.rounds} rounds\n"
    )
    for name in chosen.networks:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            make_pictures(root, chosen.side)
            make_large_pictures(root)
            save_packages(root, name)
            print("| ms each | a tile | a small picture | ratio |\n| --- | --- | --- | --- |")
            print("\n".join(compare(root, chosen, name)), flush=True)
            found = measured("memory", root, chosen)
            count = len(Tiling(overlap=OVERLAP).grid(LARGE, (SIZE, SIZE)))
            print(f"\nA picture of {LARGE[1]} x {LARGE[0]} pixels, {count} tiles, in batches of {BATCH}:\n")
            print("| MB | the run before | more at its peak | its largest decoder | seconds |")
            print("| --- | --- | --- | --- | --- |")
            for mode, name_of in (("RGB", "colour"), ("L", "grey")):
                one = found[mode]
                figures = [one[key] for key in ("before", "more", "decoder", "seconds")]
                print(f"| {name_of} | " + " | ".join(f"{value:.0f}" for value in figures) + " |")


if __name__ == "__main__":
    main()
