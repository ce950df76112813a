"""The settings of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from classifiers.data.pictures import CACHE_BYTES, Augmentation
from classifiers.errors import ClassifierError
from classifiers.package.preprocessing import FITS, INTERPOLATIONS, MAX_INPUT
from classifiers.package.tiling import Tiling

SMALLEST_SIDE = 16  # pixels of the network's input; below it most networks of timm have nothing left


class TrainingError(ClassifierError):
    """A training cannot begin, continue or end; the message says why and what to do."""


class SettingError(TrainingError):
    """A setting has a value that it cannot have.

    Attributes:
        name: of the setting.
        problem: what is wrong with its value.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"settings: {name} {problem}")
        self.name = name
        self.problem = problem


@dataclass(frozen=True)
class TilingSettings:
    """How large pictures are tiled, and which tiles an epoch shows.

    Attributes:
        scale: picture pixels per input pixel: 1 is native, 2 shows half the resolution.
        overlap: input pixels that neighbouring tiles share at least; None: an eighth of the shorter side.
        good_tiles: so many good tiles of a picture are shown in an epoch, drawn anew each time. Tiles with a
            defect are all shown.
        hard_share: after a third of the epochs the network scores good tiles. Those with the highest defect
            scores are shown from then on, up to this share of the good tiles; 0 for none.
    """

    scale: float = 1.0
    overlap: int | None = None
    good_tiles: int = 16
    hard_share: float = 0.5


@dataclass(frozen=True)
class TrainSettings:
    """Settings of `train`. The defaults suit fine-tuning a small CNN on some thousand pictures.

    Attributes:
        architecture: any CNN of timm by name.
        model_args: further arguments of `timm.create_model`.
        pretrained: None (from scratch), a local .safetensors file, or "hub" (timm's own download).
        input_size: height and width of the network's input, in pixels.
        mean: per-channel mean (0..1). None takes that of pretrained weights, as a config.json beside their
            file states it, else timm. Without such weights it is measured on the training pictures: then 0 is
            their mean colour, which explainers mask with.
        std: per-channel standard deviation; None as for the mean.
        interpolation: "bilinear" or "bicubic".
        fit: "pad" keeps the aspect ratio, "stretch" does not.
        jpeg_scaling: whether large JPEGs are decoded reduced, see `Preprocessing`.
        tiling: of large pictures, see `TilingSettings`; None where the network sees a picture as a whole.
        epochs: how often all training pictures (or as many draws) are shown.
        batch_size: pictures in one step.
        optimizer: a name of `timm.optim.list_optimizers()`.
        learning_rate: its value after the warm-up.
        weight_decay: not applied to biases and norms.
        layer_decay: factor on the learning rate for each layer further from the head; None without it.
        schedule: "cosine", "poly", "tanh" or "step" of timm, updated at every step.
        warmup_epochs: epochs in which the learning rate rises linearly. None: 2, but at most half of them.
        final_learning_rate: the learning rate at the end, as a share of learning_rate.
        clip_gradient: largest norm of the gradient; None for no limit.
        label_smoothing: share of the target spread over the other classes.
        balance: "sampler" (rare classes are shown more often), "loss" (they weigh more) or "none".
        balance_power: 1 makes classes equal; 0.5 goes half the way, on a logarithmic scale.
        ema_decay: decay of the moving average of the weights, which is validated and kept; None without it.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth; None keeps the architecture's default.
        freeze_batch_norm: whether batch norms keep the statistics that were loaded.
        augmentation: how training pictures are varied.
        select_by: what the best epoch is chosen by, on the validation pictures: "balanced_accuracy", or
            "auroc" of the defect score.
        patience: epochs without a better one after which training stops; None runs all epochs.
        seed: decides everything random.
        device: "auto" or a torch device.
        precision: "float32", or "bfloat16" for autocast in bfloat16.
        threads: torch's threads on the CPU; None leaves their number as it is.
        workers: processes that augment; 0 augments in this one. The result is the same.
        cache_bytes: resized pictures are kept in memory where they take no more than this.
    """

    architecture: str = "mobilenetv3_small_050"
    model_args: Mapping[str, Any] = field(default_factory=dict)
    pretrained: str | None = None
    input_size: tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: str = "bilinear"
    fit: str = "pad"
    jpeg_scaling: bool = False
    tiling: TilingSettings | None = None
    epochs: int = 30
    batch_size: int = 32
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    layer_decay: float | None = None
    schedule: str = "cosine"
    warmup_epochs: int | None = None
    final_learning_rate: float = 0.01
    clip_gradient: float | None = 5.0
    label_smoothing: float = 0.1
    balance: str = "sampler"
    balance_power: float = 1.0
    ema_decay: float | None = 0.99
    drop_rate: float = 0.2
    drop_path_rate: float | None = None
    freeze_batch_norm: bool = False
    augmentation: Augmentation = field(default_factory=Augmentation)
    select_by: str = "balanced_accuracy"
    patience: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    threads: int | None = None
    workers: int = 0
    cache_bytes: int = CACHE_BYTES

    def __post_init__(self) -> None:
        def check(good: bool, name: str, expected: str) -> None:
            if not good:
                raise SettingError(name, f"must be {expected}, got {getattr(self, name)!r}")

        check(self.epochs >= 1, "epochs", "at least 1")
        check(self.batch_size >= 2, "batch_size", "at least 2 (batch norms need more than one picture)")
        check(self.learning_rate > 0, "learning_rate", "positive")
        check(0 <= self.warmup < self.epochs, "warmup_epochs", f"less than epochs ({self.epochs})")
        rows, columns = self.input_size
        check(
            min(rows, columns) >= SMALLEST_SIDE and rows * columns <= MAX_INPUT,
            "input_size",
            f"(height, width) of at least {SMALLEST_SIDE} pixels each and {MAX_INPUT} together",
        )
        check(self.fit in FITS, "fit", " or ".join(map(repr, FITS)))
        check(self.interpolation in INTERPOLATIONS, "interpolation", " or ".join(map(repr, INTERPOLATIONS)))
        check(
            self.schedule in ("cosine", "poly", "tanh", "step"),
            "schedule",
            "'cosine', 'poly', 'tanh' or 'step'",
        )
        check(0 <= self.final_learning_rate <= 1, "final_learning_rate", "between 0 and 1")
        check(0 <= self.label_smoothing < 1, "label_smoothing", "in [0, 1)")
        check(self.balance in ("sampler", "loss", "none"), "balance", "'sampler', 'loss' or 'none'")
        check(self.balance_power >= 0, "balance_power", "at least 0")
        check(self.ema_decay is None or 0 < self.ema_decay < 1, "ema_decay", "in (0, 1), or None")
        check(self.select_by in ("balanced_accuracy", "auroc"), "select_by", "'balanced_accuracy' or 'auroc'")
        check(self.patience is None or self.patience >= 1, "patience", "at least 1, or None")
        check(self.precision in ("float32", "bfloat16"), "precision", "'float32' or 'bfloat16'")
        check(self.threads is None or self.threads >= 1, "threads", "at least 1, or None")
        check(self.workers >= 0, "workers", "at least 0")
        if self.tiling is not None:
            self._check_tiling(self.tiling)

    def _check_tiling(self, tiling: TilingSettings) -> None:
        if self.jpeg_scaling:
            raise SettingError("jpeg_scaling", "must be false with tiles: they are cut from whole pictures")
        if tiling.good_tiles < 1:
            raise SettingError("tiling.good_tiles", f"must be at least 1, got {tiling.good_tiles}")
        if not 0 <= tiling.hard_share <= 1:
            raise SettingError("tiling.hard_share", f"must be between 0 and 1, got {tiling.hard_share}")
        try:
            found = self.package_tiling
            if found is not None:
                found.check(self.input_size)
        except ValueError as error:
            name, _, problem = str(error).partition(" ")
            raise SettingError(name, problem) from None

    @property
    def package_tiling(self) -> Tiling | None:
        """The tiling of the package that is made, its scores put together by their maximum."""
        if self.tiling is None:
            return None
        overlap = self.tiling.overlap
        return Tiling(self.tiling.scale, min(self.input_size) // 8 if overlap is None else overlap)

    @property
    def hard_epoch(self) -> int | None:
        """The epoch after which hard good tiles are looked for; None where none are, or none would follow."""
        if self.tiling is None or not self.tiling.hard_share or self.epochs == 1:
            return None
        return max(1, self.epochs // 3)

    @property
    def warmup(self) -> int:
        """The epochs in which the learning rate rises."""
        if self.warmup_epochs is None or self.epochs == 1:
            return min(2, self.epochs // 2)
        return self.warmup_epochs

    def record(self) -> dict[str, Any]:
        """Return the settings as JSON content, without what cannot change the result and without paths."""
        content = {**asdict(self), "warmup_epochs": self.warmup}
        for name in ("workers", "cache_bytes"):
            del content[name]
        # Left out where they mean "as before", so that a training that an earlier kensa began goes on.
        if not self.jpeg_scaling:
            del content["jpeg_scaling"]
        if self.package_tiling is None:
            del content["tiling"]
        else:
            content["tiling"]["overlap"] = self.package_tiling.overlap
        if self.pretrained is not None:
            content["pretrained"] = self.pretrained.replace("\\", "/").rsplit("/", 1)[-1]
        return content
