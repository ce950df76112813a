"""Measure what an explanation costs, as ratios of times taken side by side in one process.

    python benchmarks/explain.py [--models resnet18 …] [--only g h …] [--device cpu] [--out FILE.json]

The two of a ratio are timed in turns (A B A B); the medians of --repeats (5) rounds are compared. Weights are
random, pictures 224 x 224. Precision is reduced (bfloat16 on a CPU, float16 on CUDA) unless said otherwise.
An explainer has explained before and keeps its copies of the model, as in a run.

  a  SISE, everything included, against as many bare forward passes of the same model at its best batch
  b  one masked pass of SISE against one of Score-CAM in torchcam and in pytorch-grad-cam, at the same layer
  c  SISE against sise-fast, everything included
  d  eight findings explained one by one against together
  e  peak memory with few masks and with many, each in a process of its own
  f  SISE at several chunk sizes, and the parts that sise-fast's time is made of
  g  a finding as a run explains it (sise-fast, and Drop), now against --against (a git revision), each in a
     process of its own; and the rank correlation of their maps
  h  (a) and (b) with OpenVINO in float32: SISE against as many bare passes of the same engine; Score-CAM's
     masked pass in torchcam and pytorch-grad-cam against SISE's by that engine

a, d, f and h use only the strongest --masks maps (by the option mu), as a VGG-16 has 1472. Fixed costs weigh
more with few maps, so that this is no advantage.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from explainers import create_explainer
from explainers.isolation import isolated
from explainers.sise.probing import probe

MODELS = ["resnet18", "resnet50", "mobilenetv3_large_100", "efficientnet_b0", "vgg16"]
# A layer with some hundred maps, all of which Score-CAM masks with: enough to hide what comes once.
SCORE_CAM_LAYER = {
    "resnet18": "layer3",
    "resnet50": "layer1",
    "mobilenetv3_large_100": "blocks.4",
    "efficientnet_b0": "blocks.4",
    "vgg16": "features.8",
}
SIZE = 224
AGAINST = "a5c760d"  # before engines, and before an explainer kept anything from call to call


class Bench:
    """One model and picture on one device."""

    def __init__(self, name: str, device: str, repeats: int, masks: int, against: str = AGAINST) -> None:
        self.against = against
        self.name, self.device, self.repeats = name, torch.device(device), repeats
        torch.manual_seed(0)
        self.model = timm.create_model(name, num_classes=10).eval().to(self.device)
        with torch.no_grad():  # gates and norms whose initial value is zero would make maps constant
            for parameter in self.model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.02 * torch.randn_like(parameter))
        self.images = torch.randn(8, 3, SIZE, SIZE, device=self.device)
        with torch.no_grad():
            self.targets = self.model(self.images).argmax(dim=1)
        self.cuda = self.device.type == "cuda"
        self.precision = "float16" if self.cuda else "bfloat16"
        self.chunks = (16, 64, 256, 1024) if self.cuda else (4, 8, 16, 32)
        self.chunk = 256 if self.cuda else 16
        self.masks = masks
        self.mu = self._mu(masks)

    def _mu(self, masks: int) -> float:
        """Return the mu by which the `masks` strongest maps of the first picture are kept."""
        with isolated(self.model, self.images) as private:
            taps, *_ = probe(private, 0, self.images[:1], self.targets[:1], layers=None, activation="softmax")
        shares = torch.cat([(tap.alpha[0] / tap.alpha[0].max()).clamp_min(0) for tap in taps])
        ordered = shares[shares > 0].sort(descending=True).values
        return 0.0 if len(ordered) <= masks else min(0.999, float(ordered[masks]))

    def timed(self, work: Callable[[], Any]) -> float:
        """Return the seconds of one call."""
        if self.cuda:
            torch.cuda.synchronize()
        begun = time.perf_counter()
        work()
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    def medians(self, *works: Callable[[], Any]) -> list[float]:
        """Return the median seconds of each, measured in turns after one round to warm up."""
        for work in works:
            work()
        rounds = [[self.timed(work) for work in works] for _ in range(self.repeats)]
        return [statistics.median(column) for column in zip(*rounds, strict=True)]

    def save_package(self, folder: Path) -> None:
        """Save the model as a package."""
        from classifiers.package.package import save_package
        from classifiers.package.preprocessing import Preprocessing

        save_package(
            folder,
            self.model,
            architecture=self.name,
            model_args={},
            classes=tuple(f"c{index}" for index in range(10)),
            good_class="c0",
            task="single-label",
            preprocessing=Preprocessing((SIZE, SIZE), fit="stretch"),
        )

    def explainer(self, method: str = "sise", **options: Any) -> Any:
        options = {"precision": self.precision, "batch_size": self.chunk, "constant": True, **options}
        return create_explainer(method, self.model, **options)

    def explain(self, explainer: Any, count: int = 1) -> Callable[[], Any]:
        return lambda: explainer(self.images[:count], self.targets[:count])

    def bare(self, passes: int, batch: int, model: nn.Module) -> Callable[[], None]:
        """Return a function that makes so many forward passes, in whole batches."""
        dtype = next(model.parameters()).dtype
        picture = torch.randn(batch, 3, SIZE, SIZE, device=self.device, dtype=dtype)
        picture = picture.contiguous(memory_format=torch.channels_last)

        def run() -> None:
            with torch.inference_mode():
                for _ in range(-(-passes // batch)):
                    model(picture)

        return run

    def reduced(self) -> nn.Module:
        """Return the model in reduced precision."""
        made: nn.Module = timm.create_model(self.name, num_classes=10).eval().to(self.device)
        dtype = torch.float16 if self.cuda else torch.bfloat16
        return made.to(dtype).to(memory_format=torch.channels_last)

    def best_batch(self, model: nn.Module) -> int:
        """Return the batch size at which a forward pass takes least time for each picture."""
        times = {batch: self.timed_passes(model, batch) for batch in self.chunks}
        return min(times, key=lambda batch: times[batch])

    def timed_passes(self, model: nn.Module, batch: int) -> float:
        """Return the least seconds of a forward pass for each picture, of three times."""
        run = self.bare(64, batch, model)
        run()
        return min(self.timed(run) for _ in range(3)) / (-(-64 // batch) * batch)


def total_masks(explanation: Any) -> int:
    """Return the number of masks that the model scored, over all layers."""
    return int(sum(int(count.sum()) for count in explanation.masks.values()))


def bench_a(bench: Bench) -> dict[str, Any]:
    model = bench.reduced()
    batch = bench.best_batch(model)
    explainer = bench.explainer(mu=bench.mu, batch_size=batch)
    passes = total_masks(bench.explain(explainer)())
    ours, bare = bench.medians(bench.explain(explainer), bench.bare(passes, batch, model))
    # The last bare batch may be fuller than needed.
    bare *= passes / (-(-passes // batch) * batch)
    return {"masks": passes, "best_batch": batch, "sise_s": ours, "bare_s": bare, "ratio": ours / bare}


def score_cams(bench: Bench, layer: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return the Score-CAMs of torchcam and of pytorch-grad-cam, of the first picture at a layer."""
    from pytorch_grad_cam import ScoreCAM as GradCamScoreCam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from torchcam.methods import ScoreCAM as TorchCamScoreCam

    module = dict(bench.model.named_modules())[layer]
    image, target = bench.images[:1], int(bench.targets[0])

    def torchcam() -> None:
        with TorchCamScoreCam(bench.model, layer, batch_size=bench.chunk) as cam:
            with torch.no_grad():
                scores = bench.model(image)
            cam(target, scores)

    def grad_cam() -> None:
        with GradCamScoreCam(bench.model, [module]) as cam:
            cam.batch_size = bench.chunk
            cam(image, [ClassifierOutputTarget(target)])

    return torchcam, grad_cam


def bench_b(bench: Bench) -> dict[str, Any]:
    layer = SCORE_CAM_LAYER[bench.name]
    reduced = bench.explainer(layers=[layer])
    exact = bench.explainer(layers=[layer], precision="float32")
    passes = total_masks(bench.explain(reduced)())
    maps = next(iter(bench.explain(reduced)().layers)).maps

    ours, ours32, first, second = bench.medians(
        bench.explain(reduced), bench.explain(exact), *score_cams(bench, layer)
    )
    each = {
        "sise": ours / passes,
        "sise_float32": ours32 / passes,
        "torchcam": first / maps,
        "grad_cam": second / maps,
    }
    best = min(each["torchcam"], each["grad_cam"])
    return {
        "layer": layer,
        "sise_masks": passes,
        "score_cam_masks": maps,
        **{f"{name}_ms": 1e3 * value for name, value in each.items()},
        "ratio": best / each["sise"],
        "ratio_float32": best / each["sise_float32"],
    }


def bench_c(bench: Bench) -> dict[str, Any]:
    whole, fast = bench.explainer(), bench.explainer("sise-fast")
    masks, few = total_masks(bench.explain(whole)()), total_masks(bench.explain(fast)())
    slow_s, fast_s = bench.medians(bench.explain(whole), bench.explain(fast))
    return {
        "sise_masks": masks,
        "fast_masks": few,
        "share": few / masks,
        "sise_s": slow_s,
        "fast_s": fast_s,
        "ratio": slow_s / fast_s,
    }


def bench_d(bench: Bench) -> dict[str, Any]:
    explainer = bench.explainer(mu=max(bench.mu, bench._mu(max(16, bench.masks // 4))))

    def one_by_one() -> None:
        for index in range(len(bench.images)):
            explainer(bench.images[index, None], bench.targets[index, None])

    together, alone = bench.medians(bench.explain(explainer, len(bench.images)), one_by_one)
    return {"together_s": together, "one_by_one_s": alone, "ratio": alone / together}


def bench_e(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for label, masks in (("few", 48), ("many", 1 << 30)):
        command = [sys.executable, __file__, "--peak", str(masks), "--models", bench.name]
        command += ["--device", str(bench.device)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[label] = json.loads(done.stdout)
    extra = [found[label]["peak_mib"] - found[label]["before_mib"] for label in ("few", "many")]
    return {
        "masks": [found["few"]["masks"], found["many"]["masks"]],
        "extra_mib": extra,
        "ratio": extra[1] / extra[0],
    }


def peak(name: str, device: str, masks: int) -> dict[str, float]:
    """Return the memory (MiB) before and at the peak of an explanation, and its number of masks.

    It is that of the process on a CPU, of the allocator on CUDA.
    """
    bench = Bench(name, device, 1, masks)
    explainer = bench.explainer(mu=bench.mu)
    if bench.cuda:
        before = torch.cuda.memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
    else:
        # The peak so far is that of choosing mu, by a gradient pass like the one to come: it hides nothing.
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    explanation = bench.explain(explainer)()
    most = (
        torch.cuda.max_memory_allocated() / 2**20
        if bench.cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    )
    return {"masks": total_masks(explanation), "before_mib": before, "peak_mib": most}


def bench_f(bench: Bench) -> dict[str, Any]:
    chunks = [bench.explain(bench.explainer(mu=bench.mu, batch_size=chunk)) for chunk in bench.chunks]
    found = dict(zip((f"chunk_{chunk}_s" for chunk in bench.chunks), bench.medians(*chunks), strict=True))
    image, target = bench.images[:1], bench.targets[:1]

    def copied() -> None:
        with isolated(bench.model, image):
            pass

    def probed() -> None:
        with isolated(bench.model, image) as private:
            probe(private, 0, image, target, layers=None, activation="softmax")

    fast = bench.explain(bench.explainer("sise-fast", batch_size=bench.chunks[-1]))
    copy_s, probe_s, fast_s = bench.medians(copied, probed, fast)
    found |= {"fast_s": fast_s, "private_copy_s": copy_s, "gradient_pass_s": probe_s - copy_s}
    return found | {
        "ratio": max(found[f"chunk_{chunk}_s"] for chunk in bench.chunks) / found[f"chunk_{bench.chunk}_s"]
    }


def bench_g(bench: Bench) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, checkout(Path(folder) / "before", bench.against) as before:
        work = Path(folder)
        bench.save_package(work / "package")
        torch.save((bench.images.cpu(), bench.targets.tolist()), work / "pictures.pt")
        here = Path(__file__).resolve().parents[1]
        both = [Finder(tree, work, bench) for tree in (before, here)]
        for finder in both:
            for _ in bench.images:  # each once, to warm up
                finder.seconds()
        rounds = [[finder.seconds() for finder in both] for _ in range(bench.repeats * len(bench.images))]
        then, now = (statistics.median(column) for column in zip(*rounds, strict=True))
        maps = [finder.maps() for finder in both]
    from explainers.metrics.sanity import rank_correlation

    ranks = rank_correlation(maps[0], maps[1])
    return {
        "before_s": then,
        "now_s": now,
        "engine": both[1].engine,
        "least_rank_correlation": float(ranks.min()),
        "median_rank_correlation": float(ranks.median()),
        "ratio": then / now,
    }


@contextmanager
def checkout(folder: Path, revision: str) -> Iterator[Path]:
    """Check a revision of this repository out for the time of the block."""
    git = ["git", "-C", str(Path(__file__).resolve().parent), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


class Finder:
    """A process that explains findings by the code of one checkout."""

    def __init__(self, tree: Path, work: Path, bench: Bench) -> None:
        self._maps = work / f"maps-{tree.name}.pt"
        # Without this folder on the path, where a module has the name of a room (db).
        command = [sys.executable, "-P", __file__, "--finder", str(work), str(self._maps)]
        # Threads of the process whose turn it is not must not spin.
        environment = os.environ | {"PYTHONPATH": str(tree), "OMP_WAIT_POLICY": "passive"}
        command += ["--device", str(bench.device), "--threads", str(torch.get_num_threads())]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.engine = self._answer("")

    def _answer(self, asked: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if asked:
            print(asked, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline().strip()
        if not answer:
            raise RuntimeError(f"a process that explains findings ended with {self._process.wait()}")
        return answer

    def seconds(self) -> float:
        """Return the seconds that the next finding takes."""
        return float(self._answer("next"))

    def maps(self) -> torch.Tensor:
        """Return the last map of each picture, and end the process."""
        self._answer("save")
        self._process.communicate()
        maps: torch.Tensor = torch.load(self._maps)
        return maps


def find(work: Path, kept: Path, device: str) -> None:
    """Explain a finding for each line of the input, as a run does; the other end is `Finder`."""
    from classifiers import Predictor, load_package
    from configs.schema import ExplainerSettings
    from operations.inspection.evidence import explain_each, explainer_for

    predictor = Predictor(load_package(work / "package"), device=device)
    chunk = 256 if predictor.device.type == "cuda" else 16
    explainer = explainer_for(predictor, ExplainerSettings(method="sise-fast", batch_size=chunk))
    images, targets = torch.load(work / "pictures.pt")
    images = images.to(predictor.device)
    engine = getattr(predictor, "engine", None)
    print("torch" if engine is None else engine.name, flush=True)
    maps: dict[int, torch.Tensor] = {}
    for number, asked in enumerate(sys.stdin):
        at = number % len(images)
        if asked.strip() == "save":
            torch.save(torch.stack([maps[index] for index in range(len(images))]), kept)
            print("saved", flush=True)
            continue
        begun = time.perf_counter()
        (_, explanation), *_ = explain_each(explainer, predictor, images[at, None], [[targets[at]]])
        if predictor.device.type == "cuda":
            torch.cuda.synchronize()
        took = time.perf_counter() - begun
        if explanation is not None:
            maps[at] = explanation.maps[0].cpu()
        print(took, flush=True)


def bench_h(bench: Bench) -> dict[str, Any]:
    from classifiers import Predictor, load_package

    with tempfile.TemporaryDirectory() as folder:
        bench.save_package(Path(folder) / "package")
        predictor = Predictor(load_package(Path(folder) / "package"), device="cpu", engine="openvino")
    layer = SCORE_CAM_LAYER[bench.name]
    by_engine = {"precision": predictor.precision, "forward": predictor.engine, "constant": True}
    whole = bench.explainer(mu=bench.mu, **by_engine)
    one_layer = bench.explainer(layers=[layer], **by_engine)
    passes, few = (total_masks(bench.explain(each)()) for each in (whole, one_layer))
    chunk = bench.images.new_zeros(-(-passes // -(-passes // bench.chunk)), 3, SIZE, SIZE)

    def bare() -> None:
        for _ in range(-(-passes // len(chunk))):
            predictor.engine(chunk)

    ours, alone, small, first, second = bench.medians(
        bench.explain(whole), bare, bench.explain(one_layer), *score_cams(bench, layer)
    )
    alone *= passes / (-(-passes // len(chunk)) * len(chunk))
    maps = next(iter(bench.explain(one_layer)().layers)).maps
    masked, theirs = small / few, min(first, second) / maps
    return {
        "masks": passes,
        "sise_s": ours,
        "bare_s": alone,
        "ratio": ours / alone,
        "masked_ms": 1e3 * masked,
        "score_cam_ms": 1e3 * theirs,
        "score_cam_ratio": theirs / masked,
    }


BENCHES = {
    "a": bench_a,
    "b": bench_b,
    "c": bench_c,
    "d": bench_d,
    "e": bench_e,
    "f": bench_f,
    "g": bench_g,
    "h": bench_h,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--models", nargs="+", default=MODELS)
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--only", nargs="+", choices=sorted(BENCHES), default=sorted(BENCHES))
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--masks", type=int, default=256)
    options.add_argument("--out")
    options.add_argument("--against", default=AGAINST, help="git revision that (g) compares with")
    options.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options.add_argument("--finder", nargs=2, type=Path, help=argparse.SUPPRESS)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.finder is not None:
        find(*chosen.finder, chosen.device)
        return
    if chosen.peak is not None:
        print(json.dumps(peak(chosen.models[0], chosen.device, chosen.peak)))
        return
    machine = torch.cuda.get_device_name() if chosen.device.startswith("cuda") else "CPU"
    print(f"{machine}, torch {torch.__version__}, timm {timm.__version__}, {torch.get_num_threads()} threads")
    results: dict[str, dict[str, Any]] = {}
    for name in chosen.models:
        bench = Bench(name, chosen.device, chosen.repeats, chosen.masks, chosen.against)
        results[name] = {}
        for letter in chosen.only:
            results[name][letter] = BENCHES[letter](bench)
            print(f"{name:24} {letter}  {line(results[name][letter])}", flush=True)
    if chosen.out:
        Path(chosen.out).write_text(
            json.dumps({"machine": machine, "torch": torch.__version__, "results": results}, indent=2)
        )


def line(found: dict[str, Any]) -> str:
    shown = {
        name: f"{value:.3f}" if isinstance(value, float) else str(value) for name, value in found.items()
    }
    ratio = shown.pop("ratio")
    return f"ratio {ratio}   " + ", ".join(f"{name} {value}" for name, value in shown.items())


if __name__ == "__main__":
    main()
