"""Train a network with timm's optimisers, schedules and averaging, resumable after a kill."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from classifiers.data.dataset import Dataset
from classifiers.package.manifest import canonical
from classifiers.package.package import ModelPackage, load_package
from classifiers.training.checkpoint import read_checkpoint, write_checkpoint
from classifiers.training.pretrained import stated_colour
from classifiers.training.settings import TrainingError, TrainSettings
from classifiers.training.tile_sampling import annotations_digest
from classifiers.training.trainer import Progress, Trainer


def train(
    training: Dataset,
    validation: Dataset,
    settings: TrainSettings,
    out: Path,
    *,
    command: str = "",
    origin: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> ModelPackage:
    """Train a network and write the model package of its best epoch.

    After each epoch the state is kept in the folder `<out>.training` beside the package. The same call after
    a kill goes on from there; on a CPU it ends with the same weights as an undisturbed one. Once the package
    exists, the same call returns it.

    Args:
        training: the pictures to learn from; every class must occur.
        validation: the pictures by which the best epoch is chosen: the same classes, no group in common.
        settings: everything that decides the result.
        out: the package's folder.
        command: how to make the package again; recorded in it.
        origin: JSON content that is recorded too: how the data was split, which model this one follows.
        progress: called after each step and epoch; an exception from it ends the training.

    Raises:
        TrainingError: the data is unfit, package or work folder are of another training, or the loss is not
            finite.
        DataError: a picture cannot be read.
    """
    _check_data(training, validation)
    if settings.tiling is not None and not training.multi_label and training.good_class is None:
        raise TrainingError("tiles need to know which label means no defect: name it (--good-class)")
    report = progress or (lambda _: None)
    work = out.with_name(out.name + ".training")
    package = finished_package(training, validation, settings, out)
    if package is not None:
        if work.exists():  # killed after the package was written
            shutil.rmtree(work)
        return package
    settings = _with_stated_colour(settings)
    fingerprint = _fingerprint(training, validation, settings)
    checkpoint = read_checkpoint(work)
    if checkpoint is not None and checkpoint.state["fingerprint"] != fingerprint:
        raise TrainingError(
            f"{work}: holds an unfinished training with other data or settings; finish it with those, "
            "or remove it"
        )
    threads = torch.get_num_threads()
    try:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        trainer = Trainer(training, validation, settings, fingerprint, report, work)
        if checkpoint is not None:
            trainer.restore(checkpoint)
        while not trainer.finished:
            trainer.run_epoch()
            write_checkpoint(work, trainer.epoch, trainer.snapshot())
        package = trainer.save(out, {"command": command, **(origin or {})})
    finally:
        torch.set_num_threads(threads)
    shutil.rmtree(work)
    return package


def finished_package(
    training: Dataset, validation: Dataset, settings: TrainSettings, out: Path
) -> ModelPackage | None:
    """Return the package where this training has made it already; None where `out` is still to be made.

    Raises:
        TrainingError: the folder holds a package of another training.
        PackageError: it holds something else.
    """
    if not out.exists():
        return None
    package = load_package(out)
    if package.training.get("fingerprint") != _fingerprint(
        training, validation, _with_stated_colour(settings)
    ):
        raise TrainingError(f"{out}: holds a package of another training; choose another folder or remove it")
    return package


def _with_stated_colour(settings: TrainSettings) -> TrainSettings:
    """Return the settings with the mean and std that a config.json beside the pretrained weights states."""
    if settings.pretrained in (None, "hub"):
        return settings
    stated = stated_colour(Path(str(settings.pretrained)))
    if stated is None:
        return settings
    return replace(settings, mean=settings.mean or stated[0], std=settings.std or stated[1])


def _check_data(training: Dataset, validation: Dataset) -> None:
    if training.classes != validation.classes or training.multi_label != validation.multi_label:
        raise TrainingError("training and validation data must have the same classes; split one data set")
    if absent := [name for name, count in training.counts().items() if not count]:
        raise TrainingError(
            f"no training picture of class {', '.join(absent)}; label some, or split differently"
        )
    if shared := {item.group for item in training.items} & {item.group for item in validation.items}:
        raise TrainingError(
            f"{len(shared)} groups are in training and validation, {sorted(shared)[0]!r} among them"
        )
    if len(training.items) < 2 or not validation.items:
        raise TrainingError("at least two training pictures and one validation picture are needed")
    if len(training.classes) < (1 if training.multi_label else 2):
        raise TrainingError(f"classes {training.classes} are too few to tell apart")


def _fingerprint(training: Dataset, validation: Dataset, settings: TrainSettings) -> str:
    """Return a digest of what decides a training's result: data, settings and pretrained weights."""
    weights = None
    if settings.pretrained not in (None, "hub"):
        try:
            weights = hashlib.sha256(Path(str(settings.pretrained)).read_bytes()).hexdigest()
        except OSError as error:
            raise TrainingError(f"pretrained weights {settings.pretrained}: {error.strerror}") from error
    content: list[Any] = [training.named_digest, validation.named_digest, settings.record(), weights]
    if settings.tiling is not None:
        content.append(annotations_digest(training))  # they label the tiles
    return hashlib.sha256(canonical(content)).hexdigest()
