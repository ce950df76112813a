"""The training loop, and its state, from which it goes on after an interruption between epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_data_config
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from timm.scheduler.scheduler_factory import create_scheduler_v2
from timm.utils.model_ema import ModelEmaV3

from classifiers.data.dataset import Dataset, label_matrix
from classifiers.data.pictures import AugmentedPictures, Pictures, derived_seed, measure_colour
from classifiers.data.tiles import ScaledPictures, Tiles, tile_batches
from classifiers.package.network import create_network
from classifiers.package.package import ModelPackage, save_package
from classifiers.package.preprocessing import Preprocessing
from classifiers.predict import resolve_device
from classifiers.training.checkpoint import Checkpoint
from classifiers.training.objective import (
    balance_weights,
    best_highest,
    defect_probabilities,
    tile_metrics,
    training_loss,
    validation_metrics,
)
from classifiers.training.pretrained import has_folded_batch_norms, starting_network, unfold_batch_norms
from classifiers.training.settings import TilingSettings, TrainingError, TrainSettings
from classifiers.training.tile_sampling import TileSample, label_tiles

# Folded batch norms are measured on at least so many pictures, where there are as many.
UNFOLDING_PICTURES = 256


@dataclass(frozen=True)
class TrainProgress:
    """How far a training is.

    Attributes:
        phase: "reading" (pictures), "training" (after a step), "validating" (pictures), "validated" (after an
            epoch), "notice" (something that whoever trains should know).
        done: pictures read or validated, or steps done in this epoch.
        total: how many there are of these.
        epoch: counted from 1; 0 while reading.
        epochs: how many there are.
        loss: mean training loss of this epoch so far.
        metrics: of this epoch, once validated: loss, balanced_accuracy, auroc, is_best.
        text: of a notice.
    """

    phase: str
    done: int
    total: int
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    metrics: dict[str, Any] | None = None
    text: str | None = None


Progress = Callable[[TrainProgress], None]


class Trainer:
    """A training: its data, network and optimizer, and its state between epochs.

    With tiles, what is shown is tiles of the training pictures; what is validated is pictures.
    """

    def __init__(
        self,
        training: Dataset,
        validation: Dataset,
        settings: TrainSettings,
        fingerprint: str,
        report: Progress,
        work: Path,
    ) -> None:
        self.settings = settings
        self.report = report
        self.dataset, self.validation = training, validation
        self.fingerprint = fingerprint
        self.device = resolve_device(settings.device)
        torch.manual_seed(settings.seed)
        self.model, self.origin = starting_network(settings, len(training.classes))
        self.preprocessing = _preprocessing(settings, self.model, training)
        folded = settings.pretrained is not None and has_folded_batch_norms(self.model)
        if settings.pretrained is not None:
            self._tell_about_weights(folded)

        def reading(done: int, total: int) -> None:
            report(TrainProgress("reading", done, total))

        size = settings.cache_bytes
        self.pictures: Pictures | Tiles
        self.held_out: Pictures | ScaledPictures
        self.sample: TileSample | None = None
        self.tile_counts: dict[str, int] = {}
        if settings.tiling is None or settings.package_tiling is None:
            self.pictures = Pictures(training, self.preprocessing, cache_bytes=size, progress=reading)
            self.held_out = Pictures(validation, self.preprocessing, cache_bytes=size, progress=reading)
            self.targets = torch.from_numpy(label_matrix(training, training.classes))
        else:
            whole, self.held_out = (
                ScaledPictures(
                    side.items,
                    self.preprocessing,
                    settings.package_tiling,
                    work / f"pictures-{name}",
                    cache_bytes=size,
                    progress=reading,
                )
                for name, side in (("training", training), ("validation", validation))
            )
            self.pictures, self.targets = self._tiles(whole, settings.tiling)

        self.model.to(self.device).to(memory_format=torch.channels_last)
        if folded:
            self._measure_batch_norms()
        try:
            self.optimizer = create_optimizer_v2(
                self.model,
                opt=settings.optimizer,
                lr=settings.learning_rate,
                weight_decay=settings.weight_decay,
                layer_decay=settings.layer_decay,
            )
        except (ValueError, AssertionError, TypeError) as error:
            raise TrainingError(f"timm cannot make the optimizer {settings.optimizer!r}: {error}") from error
        shown = self._shown(torch.Generator().manual_seed(derived_seed(settings.seed)))
        self.steps = max(1, len(shown) // settings.batch_size)
        self.schedule, _ = create_scheduler_v2(
            self.optimizer,
            sched=settings.schedule,
            num_epochs=settings.epochs,
            warmup_epochs=settings.warmup,
            warmup_lr=settings.learning_rate * 0.01,
            min_lr=settings.learning_rate * settings.final_learning_rate,
            step_on_epochs=False,
            updates_per_epoch=self.steps,
        )
        self.average: Any = None
        if settings.ema_decay is not None:
            self.average = ModelEmaV3(self.model, decay=settings.ema_decay, use_warmup=True)
        self.loss_weight, _ = self._balance(shown)
        self.loss_weight = None if self.loss_weight is None else self.loss_weight.to(self.device)
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.best_epoch = 0
        self.best: dict[str, torch.Tensor] = {}

    def _tiles(self, pictures: ScaledPictures, tiling: TilingSettings) -> tuple[Tiles, torch.Tensor]:
        """Return the tiles that may be shown and their targets; say how many there are of which kind."""
        labelled = label_tiles(self.dataset, pictures.grids)
        self.sample = TileSample(labelled, tiling.good_tiles, tiling.hard_share)
        self.tile_counts = labelled.record()
        height, width = self.settings.input_size
        text = (
            f"{len(pictures)} pictures have {sum(map(len, pictures.grids))} tiles of {height} x {width} at "
            f"scale {tiling.scale:g}: {self.tile_counts['defective']} show a defect, {labelled.grazing} only "
            f"a little of one and are left out, {self.tile_counts['good']} are good, of which an epoch shows "
            f"at most {tiling.good_tiles} a picture"
        )
        self.report(TrainProgress("notice", 0, 0, text=text))
        if labelled.unmarked:
            text = (
                f"{len(labelled.unmarked)} defective pictures are left out of training, since no mask or box "
                f"says where all of their defects are: {labelled.unmarked[0]}"
            )
            self.report(TrainProgress("notice", 0, 0, text=text))
        return Tiles(pictures, labelled.places), labelled.targets

    def _shown(self, generator: torch.Generator) -> torch.Tensor:
        """Return what an epoch draws from: all pictures, or a sample of the tiles, (m,) int64."""
        return torch.arange(len(self.pictures)) if self.sample is None else self.sample.draw(generator)

    def _balance(self, shown: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return weights in the loss, or weights of what is shown; see `balance_weights`."""
        return balance_weights(
            self.targets[shown],
            balance=self.settings.balance,
            power=self.settings.balance_power,
            multi_label=self.dataset.multi_label,
        )

    def _tell_about_weights(self, folded: bool) -> None:
        """Say how pictures are normalised for pretrained weights, and what happens to folded batch norms."""
        mean, std = (
            "/".join(f"{value:g}" for value in colour)
            for colour in (self.preprocessing.mean, self.preprocessing.std)
        )
        texts = [f"pretrained weights: input normalised with mean {mean} and standard deviation {std}"]
        if folded:
            texts.append(
                "a conversion folded the batch norms of these weights into them: their statistics are "
                "measured anew on the training pictures, without which training would destroy what was learnt"
            )
        for text in texts:
            self.report(TrainProgress("notice", 0, 0, text=text))

    def _measure_batch_norms(self) -> None:
        """Measure the statistics of folded batch norms on training pictures, spaced evenly."""
        stride = max(1, len(self.pictures) // UNFOLDING_PICTURES)
        batches = self.pictures.batches(self.settings.batch_size, stride)
        unfold_batch_norms(self.model, (batch.to(self.device) for batch in batches))
        self.origin["batch_norms_unfolded"] = True

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or patience has run out."""
        patience = self.settings.patience
        stale = patience is not None and self.epoch - self.best_epoch >= patience and self.epoch > 0
        return self.epoch >= self.settings.epochs or stale

    def run_epoch(self) -> None:
        """Train on as many draws as there are training pictures, then validate."""
        settings = self.settings
        self.epoch += 1
        # All randomness of an epoch starts here: it is the same epoch whether or not it follows a kill.
        torch.manual_seed(derived_seed(settings.seed, self.epoch))
        self.model.train()
        if settings.freeze_batch_norm:
            for module in self.model.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()
        total = 0.0
        for step, (batch, indices) in enumerate(self._loader(), start=1):
            update = (self.epoch - 1) * self.steps + step
            batch = self.preprocessing.normalise(batch.to(self.device, non_blocking=True))
            with self._autocast():
                logits = self.model(batch.contiguous(memory_format=torch.channels_last))
            loss = training_loss(
                logits.float(),
                self.targets[indices].to(self.device),
                weight=self.loss_weight,
                smoothing=settings.label_smoothing,
                multi_label=self.dataset.multi_label,
            )
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss became {value} in epoch {self.epoch}, step {step}; lower learning_rate "
                    f"(now {settings.learning_rate:g}), or use precision 'float32'"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if settings.clip_gradient is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_gradient)
            self.optimizer.step()
            self.schedule.step_update(update)
            if self.average is not None:
                self.average.update(self.model, step=update)
            total += value
            self.report(
                TrainProgress("training", step, self.steps, self.epoch, settings.epochs, loss=total / step)
            )
        self._validate(total / self.steps)
        if self.epoch == settings.hard_epoch:
            self._find_hard_tiles()

    def _find_hard_tiles(self) -> None:
        """Let the network score good tiles; those that look most like a defect stay in the sample."""
        tiles, sample = self.pictures, self.sample
        if sample is None or not isinstance(tiles, Tiles):
            return
        generator = torch.Generator().manual_seed(derived_seed(self.settings.seed, self.epoch) + 2)
        candidates = sample.candidates(generator)
        batches = tiles.batches(self.settings.batch_size, indices=candidates)
        logits = torch.cat([self._logits(batch) for batch in batches])
        _, scores = defect_probabilities(logits, self.dataset)
        sample.keep_hard(candidates, scores.numpy())
        text = (
            f"{len(sample.hard)} good tiles that look most like a defect are shown from now on, of "
            f"{len(candidates)} that were scored"
        )
        self.report(TrainProgress("notice", 0, 0, text=text))

    def _loader(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        settings = self.settings
        generator = torch.Generator().manual_seed(derived_seed(settings.seed, self.epoch) + 1)
        pool = self._shown(generator)
        _, draw_weight = self._balance(pool)
        if draw_weight is None:
            order = torch.randperm(len(pool), generator=generator)
        else:
            order = torch.multinomial(draw_weight, len(pool), replacement=True, generator=generator)
        # The last, smaller batch is left out; the next epoch's order puts other pictures there.
        shown = pool[order[: self.steps * settings.batch_size]].tolist()
        loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
            AugmentedPictures(self.pictures, settings.augmentation, settings.seed),
            batch_size=settings.batch_size,
            sampler=[(self.epoch, position, index) for position, index in enumerate(shown)],
            num_workers=settings.workers,
            generator=generator,
        )
        return iter(loader)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.settings.precision == "bfloat16"
        )

    @property
    def _network(self) -> torch.nn.Module:
        """What is validated and kept: the average of the weights where there is one."""
        network: torch.nn.Module = self.model if self.average is None else self.average.module
        return network

    def _logits(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) of normalised input, on the CPU, by the network that is validated."""
        network = self._network
        network.eval()
        with torch.inference_mode(), self._autocast():
            batch = batch.to(self.device, memory_format=torch.channels_last)
            return network(batch).float().cpu()  # type: ignore[no-any-return]

    def _validate(self, training_loss: float) -> None:
        parts = []
        held_out, size = self.held_out, self.settings.batch_size
        # With the number of pictures that are done after each batch.
        batches: Iterator[tuple[torch.Tensor, int]]
        if isinstance(held_out, Pictures):
            ends = range(size, len(held_out) + size, size)
            batches = zip(held_out.batches(size), (min(end, len(held_out)) for end in ends), strict=True)
        else:
            batches = tile_batches(iter(held_out), self.preprocessing, size, self.device)
        for batch, done in batches:
            parts.append(self._logits(batch))
            self.report(TrainProgress("validating", done, len(held_out), self.epoch, self.settings.epochs))
        metrics: dict[str, Any]
        if isinstance(held_out, Pictures):
            metrics = validation_metrics(torch.cat(parts), self.validation)
        else:
            metrics = tile_metrics(torch.cat(parts), [len(grid) for grid in held_out.grids], self.validation)
        learning_rate = self.optimizer.param_groups[0]["lr"]
        entry = {
            "epoch": self.epoch,
            "training_loss": training_loss,
            "learning_rate": learning_rate,
            **metrics,
        }
        if not self.best_epoch or _rank(entry, self.settings) > _rank(
            self.history[self.best_epoch - 1], self.settings
        ):
            self.best_epoch = self.epoch
            weights = self._network.state_dict()
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        self.history.append(entry)
        self.report(
            TrainProgress(
                "validated",
                self.steps,
                self.steps,
                self.epoch,
                self.settings.epochs,
                loss=training_loss,
                metrics={**metrics, "is_best": self.best_epoch == self.epoch},
            )
        )

    def snapshot(self) -> Checkpoint:
        """Return everything that the next epoch needs."""
        weights = {"model": self.model.state_dict(), "best": self.best}
        if self.average is not None:
            weights["average"] = self.average.module.state_dict()
        state = {
            "fingerprint": self.fingerprint,
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "origin": self.origin,
        }
        if self.sample is not None:
            state["hard_tiles"] = self.sample.hard
        return Checkpoint(state, weights, self.optimizer.state_dict())

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was taken."""
        self.model.load_state_dict(checkpoint.weights["model"])
        if self.average is not None:
            self.average.module.load_state_dict(checkpoint.weights["average"])
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.best = checkpoint.weights["best"]
        self.epoch = checkpoint.state["epoch"]
        self.best_epoch = checkpoint.state["best_epoch"]
        self.history = checkpoint.state["history"]
        self.origin = checkpoint.state["origin"]
        if self.sample is not None:
            self.sample.hard = checkpoint.state["hard_tiles"]
        self.schedule.step_update(self.epoch * self.steps)

    def save(self, out: Path, record: Mapping[str, Any]) -> ModelPackage:
        """Write the model package of the best epoch; its training record begins with `record`."""
        settings, sides = self.settings, {"training": self.dataset, "validation": self.validation}
        network = create_network(settings.architecture, settings.model_args, len(self.dataset.classes))
        network.load_state_dict(self.best)
        metrics = self.history[self.best_epoch - 1]
        tiling = settings.package_tiling
        if tiling is not None:
            record = {**record, "tiles": self.tile_counts}
            tiling = replace(tiling, highest=best_highest(metrics))
        return save_package(
            out,
            network,
            architecture=settings.architecture,
            model_args=settings.model_args,
            classes=self.dataset.classes,
            good_class=None if self.dataset.multi_label else self.dataset.good_class,
            task=self.dataset.task,
            preprocessing=self.preprocessing,
            tiling=tiling,
            training={
                **record,
                "settings": settings.record(),
                "fingerprint": self.fingerprint,
                "data_digests": {role: side.digest for role, side in sides.items()},
                "data_counts": {role: side.counts() for role, side in sides.items()},
                "origin": self.origin,
                "best_epoch": self.best_epoch,
                "metrics": metrics,
                "history": self.history,
                "versions": {"torch": torch.__version__, "timm": timm.__version__},
            },
        )


def _rank(entry: dict[str, Any], settings: TrainSettings) -> tuple[float, float]:
    """Return what epochs are compared by, higher is better: the metric, then the loss.

    With few validation pictures, epochs often have the same metric.
    """
    value = entry[settings.select_by]
    return (float("-inf") if value is None else value, -entry["loss"])


def _preprocessing(settings: TrainSettings, model: torch.nn.Module, training: Dataset) -> Preprocessing:
    if settings.pretrained is None:
        mean, std = measure_colour(training)
    else:
        config = resolve_data_config(model=model)  # type: ignore[no-untyped-call]
        mean, std = tuple(config["mean"]), tuple(config["std"])
    return Preprocessing(
        input_size=settings.input_size,
        mean=settings.mean or mean,
        std=settings.std or std,
        interpolation=settings.interpolation,
        fit=settings.fit,
        jpeg_scaling=settings.jpeg_scaling,
    )
