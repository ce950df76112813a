"""The engines side by side: passes of the same networks, and what a start takes.

python -m benchmarks.engines [--pictures 32] [--rounds 9] [--threads 2]

Random weights, 224 x 224, float32. Engines take turns (A B C A B C); medians. onnxruntime, which is no engine
of kensa, is in the table for comparison. The last lines of the output are the table of docs/results.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.bare_line import save_line_package
from classifiers import ModelPackage, Predictor
from classifiers.export import INPUT, OUTPUT, export_package

NETWORKS = ("mobilenetv3_large_100", "resnet50", "efficientnet_b0", "resnet18")
Passes = Callable[[torch.Tensor], torch.Tensor]


def started(package: ModelPackage, engine: str) -> tuple[Passes, float]:
    """Return an engine's passes, and the seconds that the predictor took to start."""
    begin = time.perf_counter()
    predictor = Predictor(package, device="cpu", engine=engine, precision="float32")
    return predictor.engine, time.perf_counter() - begin


def onnxruntime_passes(package: ModelPackage, folder: Path) -> Passes:
    """Return passes of the same network by onnxruntime."""
    import onnxruntime

    exported = export_package(package, folder, "onnx")
    (file,) = (exported.folder / name for name in exported.files)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run([OUTPUT], {INPUT: batch.numpy()})[0])


def medians(passes: dict[str, Passes], batch: torch.Tensor, rounds: int) -> dict[str, float]:
    """Return seconds a batch by engine; they take turns, so that what else runs strikes all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for compute in passes.values():
        compute(batch)
    for _ in range(rounds):
        for name, compute in passes.items():
            begin = time.perf_counter()
            compute(batch)
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    lines = [
        "| | torch, pictures a second | OpenVINO | onnxruntime | largest difference | first start | second |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = name  # the first start has nothing to import
        for network in NETWORKS:
            package = save_line_package(folder / network, network)
            passes = {"torch": started(package, "torch")[0]}
            passes["openvino"], first = started(package, "openvino")
            second = started(package, "openvino")[1]
            if find_spec("onnxruntime") is not None:
                passes["onnxruntime"] = onnxruntime_passes(package, folder / f"{network}-onnx")
            batch = torch.randn(asked.pictures, 3, 224, 224)
            expected = passes["torch"](batch)
            apart = max(float((compute(batch) - expected).abs().max()) for compute in passes.values())
            took = medians(passes, batch, asked.rounds)
            gain = {name: f"× {took['torch'] / seconds:.2f}" for name, seconds in took.items()}
            spread = float(expected.max() - expected.min())
            lines.append(
                f"| {network} | {asked.pictures / took['torch']:.0f} | {gain['openvino']} | "
                f"{gain.get('onnxruntime', '–')} | {apart / spread:.0e} | {first:.1f} s | {second:.1f} s |"
            )
            print(lines[-1], flush=True)
    print(
        f"\n{asked.threads} threads, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}\n"
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
