"""Measure kensa on a GPU, section by section, each in a process and within a time of its own.

    python -m benchmarks.gpu [--sections tests line …] [--device cuda] [--out FOLDER] [--small]

benchmarks/gpu.sh calls it; benchmarks/gpu-README.md says what a machine must have. Results are written after
each figure, so that a section that runs out of time keeps what it has: FOLDER/SECTION.json, and a page with
all tables. Random weights, pictures made here. --small is for a trial on a CPU: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from benchmarks.bare_line import (
    NETWORKS,
    SIZE,
    line_settings,
    make_pictures,
    network,
    prepare_all,
    prepared,
    save_line_package,
    timed_line,
)

ROOT = Path(__file__).parent.parent
WORKERS = 16


class Section:
    """The rows of one table, written to its file after each."""

    def __init__(self, name: str, device: str, out: Path, small: bool) -> None:
        self.name, self.device, self.out, self.small = name, device, out, small
        self.cuda = device.startswith("cuda")
        self.rows: list[dict[str, Any]] = []

    def add(self, **row: Any) -> None:
        """Add a row: print it, and write the table so far."""
        self.rows.append(row)
        print(f"{self.name}: " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        (self.out / f"{self.name}.json").write_text(json.dumps(self.rows, indent=1))

    def seconds(self, work: Callable[[], Any], least: float = 0.3) -> float:
        """Return the seconds of one call: the median of three or more calls, of `least` seconds in all."""
        work()
        times: list[float] = []
        while len(times) < 3 or sum(times) < (0.0 if self.small else least):
            self.synchronise()
            begun = time.perf_counter()
            work()
            self.synchronise()
            times.append(time.perf_counter() - begun)
        return float(np.median(times))

    def synchronise(self) -> None:
        """Wait for what the GPU was told to do."""
        if self.cuda:
            torch.cuda.synchronize()


def machine(section: Section) -> None:
    """Say what the machine is."""
    section.add(
        gpu=torch.cuda.get_device_name() if section.cuda else "none",
        cores=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda or "none",
        cudnn=str(torch.backends.cudnn.version()),
        timm=timm.__version__,
    )


def tests(section: Section) -> None:
    """Run the tests marked `cuda`."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--noconftest",
        "-q",
        "-rA",
        "-p",
        "no:cacheprovider",
        "-m",
        "cuda",
    ]
    done = subprocess.run(
        [*command, "tests/test_cuda.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    (section.out / "tests.log").write_text(done.stdout + done.stderr)
    for line in done.stdout.splitlines():
        outcome, _, rest = line.partition(" ")
        if outcome in ("PASSED", "FAILED", "ERROR", "SKIPPED"):
            section.add(outcome=outcome.lower(), test=rest.split("::")[-1][:150])
    if not section.rows:
        section.add(outcome="error", test=(done.stdout + done.stderr)[-500:])


PRECISIONS: dict[str, tuple[torch.dtype, str]] = {
    "float32": (torch.float32, "ieee"),
    "tf32": (torch.float32, "tf32"),
    "bfloat16": (torch.bfloat16, "ieee"),
    "float16": (torch.float16, "ieee"),
}


def _set_precision(rounding: str) -> None:
    torch.backends.cudnn.conv.fp32_precision = rounding
    torch.backends.cuda.matmul.fp32_precision = rounding


def _graphed(model: nn.Module, batch: Tensor) -> Callable[[], Tensor]:
    """Return a forward pass over `batch`, recorded once as a CUDA graph and played back."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            model(batch)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits: Tensor = model(batch)

    def played() -> Tensor:
        graph.replay()
        return logits

    return played


@torch.inference_mode()
def classification(section: Section) -> None:
    """Time forward passes: network, precision, batch size; eager, and as a CUDA graph."""
    for name in NETWORKS:
        for precision, (dtype, rounding) in PRECISIONS.items():
            _set_precision(rounding)
            model = network(name, section.device).to(dtype).to(memory_format=torch.channels_last)
            for size in (2,) if section.small else (1, 32, 256):
                batch = torch.randn(size, 3, SIZE, SIZE, device=section.device, dtype=dtype)
                batch = batch.contiguous(memory_format=torch.channels_last)
                eager = section.seconds(partial(model, batch))
                graph = section.seconds(_graphed(model, batch)) if section.cuda else float("nan")
                section.add(
                    network=name,
                    precision=precision,
                    batch=size,
                    eager_per_s=round(size / eager),
                    graph_per_s=round(size / graph) if section.cuda else None,
                    graph_speedup=round(eager / graph, 2),
                )


@torch.inference_mode()
def parity(section: Section) -> None:
    """Compare logits with float32 on the CPU, by a package's parity check; then check the shipped package."""
    from classifiers import load_package
    from classifiers.package.package import build_model
    from classifiers.package.parity import TOLERANCE, parity_logits

    for name in NETWORKS:
        torch.manual_seed(1)
        images = torch.randn(2 if section.small else 32, 3, SIZE, SIZE)
        exact = network(name)(images).double()
        scale = float(exact.max() - exact.min())  # below 1 with random weights, where the check takes 1
        for precision, (dtype, rounding) in PRECISIONS.items():
            _set_precision(rounding)
            model = network(name, section.device).to(dtype).to(memory_format=torch.channels_last)
            found = model(images.to(section.device, dtype)).double().cpu()
            allowed = TOLERANCE["float32" if precision == "tf32" else precision]
            difference = float((found - exact).abs().max()) / scale
            section.add(
                network=name,
                precision=precision,
                difference=f"{difference:.2e}",
                allowed=allowed,
                passes=difference <= allowed,
                same_class=f"{float((found.argmax(1) == exact.argmax(1)).double().mean()):.3f}",
            )

    package = load_package(ROOT / "classifiers" / "packages" / "synthetic-surface")
    for precision, (dtype, rounding) in PRECISIONS.items():
        _set_precision(rounding)
        model = build_model(package).to(section.device, dtype).to(memory_format=torch.channels_last)
        found = parity_logits(model, package.preprocessing, temperature=package.temperature)
        difference = float(np.abs(np.array(found) - np.array(package.parity)).max()) / float(
            np.ptp(np.array(package.parity))
        )
        allowed = TOLERANCE["float32" if precision == "tf32" else precision]
        section.add(
            network="the shipped package",
            precision=precision,
            difference=f"{difference:.2e}",
            allowed=allowed,
            passes=difference <= allowed,
            same_class="",
        )


def explanation(section: Section) -> None:
    """Run the comparisons of benchmarks/explain.py: SISE, sise-fast, other libraries' Score-CAM."""
    from benchmarks import explain
    from benchmarks.explain import BENCHES, Bench

    if section.small:
        explain.SIZE = 64
    for name in ("resnet18",) if section.small else NETWORKS:
        bench = Bench(name, section.device, 1 if section.small else 3, 8 if section.small else 1024)
        for letter in "afbcd":
            try:
                found = BENCHES[letter](bench)
            except ImportError as error:
                found = {"absent": str(error)}
            section.add(
                network=name,
                bench=letter,
                **{key: round(v, 5) if isinstance(v, float) else v for key, v in found.items()},
            )


def line(section: Section) -> None:
    """Inspect a folder of JPEGs from end to end, against the bare network and bare decoding on all cores."""
    made, copies = (64, 1) if section.small else (2048, 4)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "pictures").mkdir()
        cores = len(os.sched_getaffinity(0))
        # Forked before CUDA is in use: sixteen processes that import torch anew take half a minute.
        with get_context("fork").Pool(cores) as pool:
            pool.map(partial(make_pictures, root / "pictures"), np.array_split(np.arange(made), 4 * cores))
            for file in list((root / "pictures").iterdir()):
                for number in range(1, copies):  # the same picture, other bytes: a picture of its own
                    file.with_stem(f"{file.stem}-{number}").write_bytes(file.read_bytes() + bytes([number]))
            files = sorted((root / "pictures").iterdir())
            for name in NETWORKS[1:] if section.small else NETWORKS:
                _inspect(section, root, name, files, pool)


def _inspect(section: Section, root: Path, name: str, files: list[Path], pool: Any) -> None:
    """Add the rows of one network: bare decoding, bare network, and runs without and with findings."""
    from classifiers import Predictor, load_package
    from operations.inspection.preparation import Preparation

    save_line_package(root / name, name, review=1.0)
    package = load_package(root / name)
    shares = [list(share) for share in np.array_split(np.array(files, dtype=object), 4 * WORKERS)]
    how = Preparation(package.preprocessing, 2**27, None)
    prepare = partial(prepare_all, how)
    pool.map(prepare, [files[:1]] * WORKERS)  # the workers' imports
    begun = time.perf_counter()
    pool.map(prepare, shares, chunksize=1)
    decoding = len(files) / (time.perf_counter() - begun)
    predictor = Predictor(package, device=section.device, batch_size=256)
    batch = torch.randn(4 if section.small else 1024, 3, SIZE, SIZE)
    network_rate = len(batch) / section.seconds(partial(predictor.logits, batch))
    with ThreadPoolExecutor(WORKERS) as threads:
        few = torch.stack(
            [torch.from_numpy(each) for each in threads.map(partial(prepared, how), files[:512])]
        )
    scores = predictor.predict(few).defect_scores
    save_line_package(root / f"{name}-flags", name, review=float(np.quantile(scores, 0.99)))
    bare = min(decoding, network_rate)
    for folder, what in ((name, "no findings"), (f"{name}-flags", "1 % explained by sise-fast")):
        settings = line_settings(
            root / "pictures",
            root / folder,
            root / f"{folder}-run",
            model={"device": section.device, "batch_size": 256},
            explainer={"batch_size": 256},
            run={"batch_size": 256, "decode_ahead": 4, "held_bytes": 2**34, "decoders": WORKERS},
        )
        taken, flagged = timed_line(settings)
        section.add(
            network=name,
            precision=predictor.precision,
            run=what,
            pictures=len(files),
            findings=flagged,
            pictures_per_s=round(len(files) / taken),
            bare_decoding_per_s=round(decoding),
            bare_network_per_s=round(network_rate),
            share_of_bare=round(len(files) / taken / bare, 3),
        )


@torch.inference_mode()
def compiled(section: Section) -> None:
    """Time what torch.compile gains on forward passes."""
    for name in NETWORKS:
        model = network(name, section.device).to(memory_format=torch.channels_last)
        if section.cuda:
            model = model.half()
        batch = torch.randn(2 if section.small else 256, 3, SIZE, SIZE, device=section.device)
        batch = batch.to(next(model.parameters()).dtype).contiguous(memory_format=torch.channels_last)
        eager = section.seconds(partial(model, batch))
        for mode in ("default",):
            begun = time.perf_counter()
            faster = torch.compile(model, mode=mode)
            faster(batch)
            section.synchronise()
            compiling = time.perf_counter() - begun
            section.add(
                network=name,
                mode=mode,
                batch=len(batch),
                speedup=round(eager / section.seconds(partial(faster, batch)), 2),
                compiling_s=round(compiling, 1),
            )


# Each with the seconds it may take: six minutes together.
SECTIONS: dict[str, tuple[Callable[[Section], None], int]] = {
    "machine": (machine, 20),
    "tests": (tests, 50),
    "line": (line, 110),
    "explanation": (explanation, 75),
    "parity": (parity, 35),
    "classification": (classification, 40),
    "compiled": (compiled, 30),
}


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as Markdown tables, one for each set of columns."""
    lines: list[str] = []
    columns: list[str] = []
    for row in rows:
        if list(row) != columns:
            columns = list(row)
            lines += ["", f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
        lines.append(f"| {' | '.join(str(value) for value in row.values())} |")
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--out", type=Path, default=Path("gpu-results"))
    options.add_argument("--small", action="store_true")
    options.add_argument("--section", choices=list(SECTIONS), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.section:
        work, _ = SECTIONS[chosen.section]
        work(Section(chosen.section, chosen.device, chosen.out, chosen.small))
        return
    page = [f"# kensa on {torch.cuda.get_device_name() if torch.cuda.is_available() else 'a CPU'}"]
    failed = False
    for name in chosen.sections:
        command = [sys.executable, "-m", "benchmarks.gpu", "--section", name]
        command += ["--device", chosen.device, "--out", str(chosen.out), *(["--small"] * chosen.small)]
        begun, end = time.monotonic(), "complete"
        try:
            done = subprocess.run(
                command, cwd=ROOT, timeout=None if chosen.small else SECTIONS[name][1], check=False
            )
            if done.returncode:
                end = f"failed with exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            end = f"stopped after its {SECTIONS[name][1]} s; what it had measured is kept"
        failed = failed or end != "complete"
        file = chosen.out / f"{name}.json"
        rows = json.loads(file.read_text()) if file.exists() else []
        page += [f"\n## {name}\n", f"{end}, {time.monotonic() - begun:.0f} s", table(rows)]
        (chosen.out / "gpu").with_suffix(".md").write_text("\n".join(page) + "\n")
        print(f"== {name}: {end}, {time.monotonic() - begun:.0f} s", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
