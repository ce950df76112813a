from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from classifiers.data.dataset import Dataset, split_by_group
from classifiers.data.reading import load_dataset
from classifiers.errors import ClassifierError, PackageError
from classifiers.measure.evaluation import evaluate
from classifiers.package.network import create_network
from classifiers.package.package import ModelPackage, build_model, load_package
from classifiers.predict import Predictor
from classifiers.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from classifiers.training.pretrained import (
    has_folded_batch_norms,
    load_pretrained,
    stated_colour,
    unfold_batch_norms,
)
from classifiers.training.settings import TrainingError, TrainSettings
from classifiers.training.train import train
from classifiers.training.trainer import TrainProgress

WriteCsv = Callable[..., Path]


@pytest.fixture(scope="module")
def sides(dataset: Dataset) -> tuple[Dataset, Dataset]:
    training, validation = split_by_group(dataset, (0.7, 0.3))
    return training, validation


@pytest.fixture(scope="module")
def undisturbed(
    sides: tuple[Dataset, Dataset], settings: TrainSettings, tmp_path_factory: pytest.TempPathFactory
) -> ModelPackage:
    return train(*sides, settings, tmp_path_factory.mktemp("trained") / "model", command="kensa train")


class Stopped(Exception):  # noqa: N818
    """Stands for a kill."""


def stop_in(epoch: int, phase: str, done: int) -> Callable[[TrainProgress], None]:
    def progress(now: TrainProgress) -> None:
        if (now.epoch, now.phase) == (epoch, phase) and now.done >= done:
            raise Stopped

    return progress


def test_the_package_tells_how_it_was_made(
    undisturbed: ModelPackage, sides: tuple[Dataset, Dataset], settings: TrainSettings
) -> None:
    record = undisturbed.training
    assert record["command"] == "kensa train"
    assert record["data_digests"] == {"training": sides[0].digest, "validation": sides[1].digest}
    assert record["settings"]["architecture"] == settings.architecture
    assert [entry["epoch"] for entry in record["history"]] == [1, 2, 3]
    best = max(record["history"], key=lambda entry: (entry["balanced_accuracy"], -entry["loss"]))
    assert record["best_epoch"] == best["epoch"]
    assert record["metrics"] == best
    assert undisturbed.classes == sides[0].classes
    assert undisturbed.good_class == "good"
    assert not undisturbed.path.with_name("model.training").exists()
    Predictor(undisturbed, device="cpu")


def test_the_stored_weights_are_those_of_the_best_epoch(
    undisturbed: ModelPackage, sides: tuple[Dataset, Dataset]
) -> None:
    measured = evaluate(Predictor(undisturbed, device="cpu"), sides[1])
    assert measured["balanced_accuracy"] == pytest.approx(
        undisturbed.training["metrics"]["balanced_accuracy"]
    )
    assert measured["auroc"] == pytest.approx(undisturbed.training["metrics"]["auroc"], abs=1e-6)


@pytest.mark.parametrize(
    ("epoch", "phase", "done"), [(1, "training", 2), (2, "training", 1), (3, "validated", 0)]
)
def test_interrupted_and_resumed_is_undisturbed(
    undisturbed: ModelPackage,
    sides: tuple[Dataset, Dataset],
    settings: TrainSettings,
    tmp_path: Path,
    epoch: int,
    phase: str,
    done: int,
) -> None:
    out = tmp_path / "model"
    with pytest.raises(Stopped):
        train(*sides, settings, out, progress=stop_in(epoch, phase, done))
    assert not out.exists()
    seen: list[TrainProgress] = []
    torch.manual_seed(12345)  # whatever state the process is in
    resumed = train(*sides, settings, out, command="kensa train", progress=seen.append)
    assert (
        min(now.epoch for now in seen if now.phase == "training") == epoch
    )  # no finished epoch is done again
    assert resumed.weights_sha256 == undisturbed.weights_sha256
    assert resumed.training == undisturbed.training
    assert not out.with_name("model.training").exists()


@pytest.mark.slow
def test_killed_with_sigkill_and_resumed(
    undisturbed: ModelPackage, sides: tuple[Dataset, Dataset], settings: TrainSettings, tmp_path: Path
) -> None:
    (tmp_path / "job.pickle").write_bytes(pickle.dumps((*sides, settings)))
    code = (
        "import os, pickle, signal, sys\n"
        "from pathlib import Path\n"
        "from classifiers.training.train import train\n"
        "job, out, deadly = sys.argv[1:]\n"
        "def progress(now):\n"
        "    if deadly == 'yes' and now.epoch == 2 and now.phase == 'training' and now.done == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "train(*pickle.loads(Path(job).read_bytes()), Path(out), progress=progress)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "job.pickle"), str(tmp_path / "model")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    killed = subprocess.run([*command, "yes"], check=False, env=environment)
    assert killed.returncode == -signal.SIGKILL
    subprocess.run([*command, "no"], check=True, env=environment)
    assert load_package(tmp_path / "model").weights_sha256 == undisturbed.weights_sha256


def test_the_same_command_again_returns_the_package(
    undisturbed: ModelPackage, sides: tuple[Dataset, Dataset], settings: TrainSettings
) -> None:
    left = undisturbed.path.with_name("model.training")
    left.mkdir()  # as after a kill between writing the package and clearing up
    again = train(*sides, settings, undisturbed.path, progress=stop_in(1, "training", 0))
    assert again == undisturbed
    assert not left.exists()
    with pytest.raises(TrainingError, match="another training"):
        train(*sides, replace(settings, seed=1), undisturbed.path)


def test_a_work_folder_of_other_settings_is_refused(
    sides: tuple[Dataset, Dataset], settings: TrainSettings, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    with pytest.raises(Stopped):
        train(*sides, settings, out, progress=stop_in(2, "training", 1))
    with pytest.raises(TrainingError, match="unfinished training with other data or settings"):
        train(*sides, replace(settings, learning_rate=1e-4), out)


def test_seed_decides_and_workers_do_not(
    undisturbed: ModelPackage, sides: tuple[Dataset, Dataset], settings: TrainSettings, tmp_path: Path
) -> None:
    other = train(*sides, replace(settings, seed=1), tmp_path / "seed")
    assert other.weights_sha256 != undisturbed.weights_sha256


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_do_not_change_the_result(
    sides: tuple[Dataset, Dataset], settings: TrainSettings, tmp_path: Path
) -> None:
    short = replace(settings, epochs=1)
    alone = train(*sides, short, tmp_path / "alone")
    helped = train(*sides, replace(short, workers=1), tmp_path / "helped")
    uncached = train(*sides, replace(short, cache_bytes=0), tmp_path / "uncached")
    assert alone.weights_sha256 == helped.weights_sha256 == uncached.weights_sha256


def test_it_learns(sides: tuple[Dataset, Dataset], settings: TrainSettings, tmp_path: Path) -> None:
    longer = replace(settings, epochs=12, warmup_epochs=1, learning_rate=1e-2, drop_rate=0.0)
    seen: list[TrainProgress] = []
    package = train(*sides, longer, tmp_path / "model", progress=seen.append)
    assert package.training["metrics"]["balanced_accuracy"] > 0.8
    assert package.training["metrics"]["auroc"] > 0.9
    losses = [now.loss for now in seen if now.phase == "validated" and now.loss is not None]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"balance": "loss", "ema_decay": None, "clip_gradient": None},
        {"balance": "none", "precision": "bfloat16", "optimizer": "sgd", "layer_decay": 0.8},
        {"freeze_batch_norm": True, "select_by": "auroc", "schedule": "poly", "drop_path_rate": 0.1},
    ],
)
def test_other_settings_run(
    sides: tuple[Dataset, Dataset], settings: TrainSettings, tmp_path: Path, changes: dict[str, Any]
) -> None:
    package = train(*sides, replace(settings, epochs=2, **changes), tmp_path / "model")
    assert len(package.training["history"]) == 2
    assert all(np.isfinite(entry["loss"]) for entry in package.training["history"])


def test_frozen_batch_norms_keep_their_statistics(
    sides: tuple[Dataset, Dataset], settings: TrainSettings, tmp_path: Path
) -> None:
    package = train(
        *sides, replace(settings, epochs=1, warmup_epochs=0, freeze_batch_norm=True), tmp_path / "m"
    )
    norms = [m for m in build_model(package).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(norm.running_mean is not None and not norm.running_mean.any() for norm in norms)


def test_patience_ends_early(sides: tuple[Dataset, Dataset], settings: TrainSettings, tmp_path: Path) -> None:
    # With a vanishing learning rate no epoch is clearly better than another for long.
    package = train(
        *sides,
        replace(settings, epochs=40, patience=1, learning_rate=1e-12, ema_decay=None),
        tmp_path / "model",
    )
    history = package.training["history"]
    assert len(history) < 40
    assert len(history) - package.training["best_epoch"] == 1


def test_multi_label(tmp_path: Path, settings: TrainSettings, write_csv: WriteCsv) -> None:
    file = write_csv(tmp_path / "data", {"": 30, "line": 20, "line;spot": 20})
    whole = load_dataset(file, multi_label=True, group_column="lot")
    training, validation = split_by_group(whole, (0.7, 0.3))
    package = train(training, validation, replace(settings, epochs=2), tmp_path / "model")
    assert (package.task, package.activation, package.good_class) == ("multi-label", "sigmoid", None)
    assert package.classes == ("line", "spot")
    assert package.training["metrics"]["auroc"] is not None


def test_unfit_data_is_refused(
    sides: tuple[Dataset, Dataset], settings: TrainSettings, tmp_path: Path, dataset: Dataset
) -> None:
    training, validation = sides
    out = tmp_path / "model"
    with pytest.raises(TrainingError, match="groups are in training and validation"):
        train(training, training, settings, out)
    with pytest.raises(TrainingError, match="same classes"):
        train(training, replace(validation, classes=("good", "line")), settings, out)
    lacking = replace(training, items=tuple(item for item in training.items if item.labels != ("spot",)))
    with pytest.raises(TrainingError, match="no training picture of class spot"):
        train(lacking, validation, settings, out)
    with pytest.raises(TrainingError, match="one validation picture"):
        train(training, replace(validation, items=()), settings, out)
    with pytest.raises(TrainingError, match="cannot make the optimizer"):
        train(training, validation, replace(settings, optimizer="no_such"), out)
    with pytest.raises(PackageError, match="not a model of timm"):
        train(training, validation, replace(settings, architecture="hf-hub:a/b"), out)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_explodes_is_an_error(
    sides: tuple[Dataset, Dataset], settings: TrainSettings, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="lower learning_rate"):
        train(
            *sides,
            replace(settings, learning_rate=1e30, warmup_epochs=0, clip_gradient=None, optimizer="sgd"),
            tmp_path / "model",
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1),
        ("learning_rate", 0),
        ("balance", "magic"),
        ("ema_decay", 1.0),
        ("precision", "float16"),
        ("schedule", "plateau"),
        ("select_by", "loss"),
        ("fit", "crop"),
        ("interpolation", "nearest"),
        ("input_size", (8, 224)),
        ("input_size", (8192, 8192)),
        ("workers", -1),
    ],
)
def test_impossible_settings_are_refused(name: str, value: Any) -> None:
    with pytest.raises(TrainingError, match=name):
        TrainSettings(**{name: value})


def test_records_hold_no_machine_path() -> None:
    record = TrainSettings(pretrained="/home/somebody/weights/net.safetensors").record()
    assert record["pretrained"] == "net.safetensors"
    json.dumps(record)


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """Weights of a thousand-class network of the same architecture."""
    torch.manual_seed(7)
    network = create_network("test_efficientnet", {}, 10)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "start.safetensors")
    return tmp_path / "start.safetensors"


def test_pretrained_weights_are_taken_but_for_the_head(start: Path) -> None:
    network = create_network("test_efficientnet", {}, 3)
    taken = load_pretrained(network, start)
    assert taken["head_dropped"] == ["classifier.bias", "classifier.weight"]
    assert taken["file"] == "start.safetensors"
    stored = safetensors.torch.load_file(start)
    own = network.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in stored.items() if "classifier" not in name)
    same_size = create_network("test_efficientnet", {}, 10)
    assert load_pretrained(same_size, start)["head_dropped"] == []
    assert all(torch.equal(same_size.state_dict()[name], tensor) for name, tensor in stored.items())


def test_pretrained_weights_that_do_not_fit_are_refused(start: Path, tmp_path: Path) -> None:
    state = safetensors.torch.load_file(start)
    name = "conv_stem.weight"
    for changed, message in (
        ({key: value for key, value in state.items() if key != name}, "conv_stem.weight is missing"),
        ({**state, "surplus": torch.zeros(1)}, "surplus is unexpected"),
        ({**state, name: torch.zeros(2, 2)}, r"conv_stem.weight has shape \(2, 2\)"),
    ):
        safetensors.torch.save_file(changed, tmp_path / "changed.safetensors")
        with pytest.raises(ClassifierError, match=message):
            load_pretrained(create_network("test_efficientnet", {}, 3), tmp_path / "changed.safetensors")
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ClassifierError, match="pickles are not read"):
        load_pretrained(create_network("test_efficientnet", {}, 3), tmp_path / "weights.pt")
    (tmp_path / "weights.pt").rename(tmp_path / "renamed.safetensors")
    with pytest.raises(ClassifierError, match="cannot be read as safetensors"):
        load_pretrained(create_network("test_efficientnet", {}, 3), tmp_path / "renamed.safetensors")


def test_training_from_pretrained_weights_is_recorded(
    start: Path, sides: tuple[Dataset, Dataset], settings: TrainSettings, tmp_path: Path
) -> None:
    package = train(*sides, replace(settings, epochs=1, pretrained=str(start)), tmp_path / "model")
    origin = package.training["origin"]
    assert origin["weights"] == "file"
    assert origin["file"] == "start.safetensors"
    assert origin["head_dropped"] == ["classifier.bias", "classifier.weight"]
    with pytest.raises(TrainingError, match=r"absent\.safetensors"):
        train(*sides, replace(settings, pretrained="absent.safetensors"), tmp_path / "other")


def test_folded_batch_norms_are_recognised_measured_and_told(
    start: Path, sides: tuple[Dataset, Dataset], settings: TrainSettings, tmp_path: Path
) -> None:
    """Conversions leave means of 0 and one variance; here 1, as a network's constructor has them."""
    network = create_network("test_efficientnet", {}, 3)
    assert has_folded_batch_norms(network)
    seen: list[TrainProgress] = []
    one_epoch = replace(settings, epochs=1, pretrained=str(start))
    package = train(*sides, one_epoch, tmp_path / "folded", progress=seen.append)
    assert any("measured anew" in str(now.text) for now in seen if now.phase == "notice")
    assert package.training["origin"]["batch_norms_unfolded"] is True

    # Some norms that were never folded, as where part of a network was trained on: still. Most: no more.
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for index, norm in enumerate(norms):
        assert norm.running_mean is not None
        assert has_folded_batch_norms(network) == (index < len(norms) / 2)
        norm.running_mean += 0.1
    assert not has_folded_batch_norms(network)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "real.safetensors")
    seen.clear()
    real = replace(one_epoch, pretrained=str(tmp_path / "real.safetensors"))
    package = train(*sides, real, tmp_path / "real", progress=seen.append)
    assert not any("measured anew" in str(now.text) for now in seen)
    assert "batch_norms_unfolded" not in package.training["origin"]


def test_unfolding_keeps_the_function_and_measures_the_statistics() -> None:
    """One convolution that passes the channel on, one folded norm: everything is known by hand."""
    norm = torch.nn.BatchNorm2d(1, eps=1e-12)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1, bias=False), norm)
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1))
        norm.bias.fill_(7.0)
    assert has_folded_batch_norms(network)
    batches = [torch.full((2, 3, 2, 2), 1.0), torch.full((2, 3, 2, 2), 5.0)]  # mean 3, variance 4
    network.train()
    unfold_batch_norms(network, batches)
    assert network.training
    assert not has_folded_batch_norms(network)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert float(norm.running_mean) == pytest.approx(3)
    assert float(norm.running_var) == pytest.approx(4)
    assert float(norm.weight.detach()) == pytest.approx(2)
    assert float(norm.bias.detach()) == pytest.approx(10)
    # Training mode on all pictures now computes what the folded network did: x + 7.
    together = torch.cat(batches)
    torch.testing.assert_close(network(together), together[:, :1] + 7)


def test_unfolding_a_whole_network_keeps_its_function() -> None:
    torch.manual_seed(0)
    network = create_network("test_efficientnet", {}, 4).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2)
                module.bias.uniform_(-1, 1)
    images = torch.randn(8, 3, 48, 48)
    with torch.inference_mode():
        before = network(images)
    unfold_batch_norms(network, [images])
    with torch.inference_mode():
        torch.testing.assert_close(network(images), before, rtol=1e-3, atol=1e-4)
        # And training mode, whose batch statistics are the measured ones here, hardly differs.
        torch.testing.assert_close(network.train()(images), before, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    "content",
    [
        {"architecture": "x", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}},
        {
            "start.safetensors": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
            "other": {"mean": [9, 9, 9]},
        },
    ],
)
def test_mean_and_std_are_those_that_the_weights_configuration_states(
    start: Path, sides: tuple[Dataset, Dataset], settings: TrainSettings, tmp_path: Path, content: Any
) -> None:
    one_epoch = replace(settings, epochs=1, pretrained=str(start))
    plain = train(*sides, one_epoch, tmp_path / "plain")
    assert plain.preprocessing.mean == (0.485, 0.456, 0.406)  # as timm states them for this network
    (tmp_path / "config.json").write_text(json.dumps(content))
    seen: list[TrainProgress] = []
    package = train(*sides, one_epoch, tmp_path / "stated", progress=seen.append)
    assert (package.preprocessing.mean, package.preprocessing.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert "mean 0.1/0.2/0.3 and standard deviation 0.4/0.5/0.6" in str(seen[0].text)
    # What the settings say wins.
    package = train(*sides, replace(one_epoch, mean=(0.7, 0.7, 0.7)), tmp_path / "given")
    assert (package.preprocessing.mean, package.preprocessing.std) == ((0.7, 0.7, 0.7), (0.4, 0.5, 0.6))


def test_a_weights_configuration_that_says_nothing_or_nonsense(tmp_path: Path) -> None:
    weights, file = tmp_path / "w.safetensors", tmp_path / "config.json"
    assert stated_colour(weights) is None
    for silent in ("[]", "{}", '{"pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}', '{"w.safetensors": 3}'):
        file.write_text(silent)
        assert stated_colour(weights) is None
    for broken in (
        "{",
        '{"pretrained_cfg": {"mean": [0.5, 0.5], "std": [1, 1, 1]}}',
        '{"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [1, 0, 1]}}',
        '{"pretrained_cfg": {"mean": "grey", "std": [1, 1, 1]}}',
    ):
        file.write_text(broken)
        with pytest.raises(ClassifierError, match=r"config\.json"):
            stated_colour(weights)


def test_the_warm_up_adapts_to_few_epochs() -> None:
    assert [TrainSettings(epochs=epochs).warmup for epochs in (1, 2, 3, 4, 30)] == [0, 1, 1, 2, 2]
    assert TrainSettings(epochs=30).record()["warmup_epochs"] == 2  # as earlier versions wrote it
    assert TrainSettings(epochs=1, warmup_epochs=1).warmup == 0
    with pytest.raises(TrainingError, match="warmup_epochs must be less than epochs"):
        TrainSettings(epochs=2, warmup_epochs=2)


def test_checkpoints_are_whole_or_absent(tmp_path: Path) -> None:
    def at(epoch: int) -> Checkpoint:
        weights = {"model": {"a.b": torch.full((2,), float(epoch))}, "best": {}}
        return Checkpoint({"epoch": epoch}, weights, {"state": {0: {"step": torch.tensor(epoch)}}})

    work = tmp_path / "work"
    assert read_checkpoint(work) is None
    for epoch in (1, 2):
        write_checkpoint(work, epoch, at(epoch))
    assert [path.name for path in work.iterdir()] == ["epoch-00002"]
    for name in (".epoch-00003.x1y2", "epoch-00003.writing"):
        (work / name).mkdir()  # a kill while writing leaves the first, one under version 0.1.0 the second
    found = read_checkpoint(work)
    assert found is not None
    assert found.state == {"epoch": 2}
    assert found.weights["model"]["a.b"].tolist() == [2, 2]
    assert int(found.optimizer["state"][0]["step"]) == 2
    write_checkpoint(work, 3, at(3))
    assert [path.name for path in work.iterdir()] == ["epoch-00003"]
