"""What `kensa train --set` takes: the settings of a training that have no option of their own."""

import difflib
from collections.abc import Collection
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from typer.core import TyperCommand

from configs.loading import ConfigError, option_value

if TYPE_CHECKING:
    from classifiers.training.settings import TrainSettings

DATA = "Data"
NETWORK = "Network"
INPUT = "Input of the network"
COURSE = "Course of the training"
CHOICE = "Rare classes, and which epoch is kept"
AUGMENTATION = "How training pictures are varied"
MACHINE = "Machine"

# Group -> setting -> its default as it is typed, and what it is. docs/training.md says when to use which.
FURTHER: dict[str, dict[str, tuple[str, str]]] = {
    INPUT: {
        "fit": ("pad", "pad keeps the proportions, with bars; stretch does not."),
        "interpolation": ("bilinear", "bilinear or bicubic."),
        "jpeg_scaling": ("false", "Decode JPEGs of twice the input or more reduced: faster, other pixels."),
        "mean": ("null", "Mean colour, [r, g, b] in 0..1; null: of the pretrained weights, else measured."),
        "std": ("null", "Its standard deviation; null as for the mean."),
        "tiling.overlap": (
            "null",
            "With --tile: input pixels that tiles share; null: an eighth.",
        ),
        "tiling.good_tiles": ("16", "With --tile: good tiles of a picture in an epoch, at most."),
        "tiling.hard_share": ("0.5", "With --tile: largest share of them that looked most like a defect."),
    },
    NETWORK: {
        "freeze_batch_norm": ("false", "Keep the statistics of batch norms as they were loaded."),
        "drop_rate": ("0.2", "Dropout before the head."),
        "drop_path_rate": ("null", "Stochastic depth; null: the architecture's own."),
    },
    COURSE: {
        "optimizer": ("adamw", "Any of timm by name."),
        "schedule": ("cosine", "cosine, poly, tanh or step."),
        "warmup_epochs": ("null", "The learning rate rises so long; null: 2, at most half of the epochs."),
        "final_learning_rate": ("0.01", "At the end, as a share of --lr."),
        "weight_decay": ("0.05", "Not applied to biases and norms."),
        "layer_decay": ("null", "Factor on --lr for each layer further from the head; null: none."),
        "clip_gradient": ("5.0", "Largest norm of the gradient; null: no limit."),
        "ema_decay": ("0.99", "Of the average of the weights, which is kept; null: no average."),
        "label_smoothing": ("0.1", "Share of the target that is spread over the other classes."),
    },
    CHOICE: {
        "balance_power": ("1.0", "1 makes classes equal, 0 leaves them as they are."),
        "select_by": (
            "balanced_accuracy",
            "The best epoch by balanced_accuracy, or by auroc (the default with --tile).",
        ),
        "patience": ("null", "End after so many epochs without a better one; null: never."),
    },
    AUGMENTATION: {
        "augmentation.horizontal_flip": ("0.5", "Probability of a left-right flip."),
        "augmentation.vertical_flip": ("0.5", "Probability of a top-bottom flip."),
        "augmentation.rotation": ("5.0", "Largest angle, in degrees."),
        "augmentation.crop_scale": ("0.85", "Smallest share of the area that a crop keeps; 1: no crop."),
        "augmentation.crop_ratio": ("1.1", "Largest change of the proportions by a crop."),
        "augmentation.brightness": ("0.3", "Largest relative change."),
        "augmentation.contrast": ("0.3", "Largest relative change."),
        "augmentation.saturation": ("0.0", "Largest relative change; 0 for grey pictures."),
        "augmentation.auto_augment": ("null", "A policy of timm, such as rand-m5-n2-mstd0.5."),
        "augmentation.erase": ("0.0", "Probability that a rectangle is blackened."),
    },
    MACHINE: {
        "threads": ("null", "Of torch on the CPU; null: as many as torch likes."),
        "workers": ("0", "Processes that vary pictures; the result is the same."),
        "cache_bytes": ("4294967296", "Pictures stay in memory where all take no more than this."),
    },
}

# What stays as it is from one model to the next.
_OF_THE_MODEL = {
    *("architecture", "model_args", "pretrained", "input_size", "tiling.scale"),
    *(set(FURTHER[INPUT]) - {"tiling.good_tiles", "tiling.hard_share"}),
}

# Settings whose option is not called like them.
_FLAGS = {
    "architecture": "--arch",
    "model_args": "--model-arg",
    "learning_rate": "--lr",
    "tiling.scale": "--tile",
}


class GroupedHelp(TyperCommand):
    """A command whose help lists options under their `rich_help_panel`, and below them what --set takes."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group."""
        groups: dict[str, list[tuple[str, str]]] = {
            name: [] for name in ("Arguments", "Options", DATA, *FURTHER)
        }
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            if record is not None:
                group = getattr(parameter, "rich_help_panel", None) or usual
                groups[group].append(record)
        for group, settings in FURTHER.items():
            groups[group] += [(f"--set {name}={default}", text) for name, (default, text) in settings.items()]
        for group, rows in groups.items():
            with formatter.section(group):
                formatter.write_dl(rows)


def pairs(entries: list[str], option: str) -> dict[str, Any]:
    """Return the names and values of an option that is given as name=value, several times.

    Raises:
        ConfigError: one has no equals sign, or a value beyond the limits of `option_value`.
    """
    found = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        if not equals:
            raise ConfigError(f"{option} {entry}: expected name=value")
        found[name] = option_value(text, f"{option} {name}")
    return found


def train_settings(entries: list[str], **chosen: Any) -> "TrainSettings":
    """Return the settings of a training.

    Args:
        entries: of `--set`, as name=value.
        chosen: what options of their own say, by the settings' names.

    Raises:
        ConfigError: naming the option: an unknown name, a value that the setting cannot have, or an
            architecture or weights that are not there.
    """
    from classifiers.training.pretrained import check_start
    from classifiers.training.settings import SettingError

    options = {*chosen, "tiling.scale"}
    settings = _with_entries({"tiling": None, **chosen, "augmentation": {}}, entries, options)
    try:
        check_start(settings)
    except SettingError as error:
        raise ConfigError(f"{_flag(error.name, options)} {error.problem}") from None
    return settings


def changed_settings(
    settings: "TrainSettings", entries: list[str], chosen: dict[str, Any], options: Collection[str]
) -> "TrainSettings":
    """Return the settings of the next training: those of an earlier one, but for what was typed.

    Args:
        settings: of the earlier training.
        entries: of `--set`, as name=value.
        chosen: what options of their own say, by the settings' names.
        options: the settings that have an option of their own, given or not.

    Raises:
        ConfigError: naming the option: an unknown name, a setting that the earlier model decides, or a value
            that the setting cannot have.
    """
    if decided := [name for name in pairs(entries, "--set") if name in _OF_THE_MODEL]:
        raise ConfigError(f"--set {decided[0]}: not a setting that can change from one model to the next")
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    values["augmentation"] = asdict(settings.augmentation)
    values["tiling"] = None if settings.tiling is None else asdict(settings.tiling)
    if "epochs" in chosen:
        values["warmup_epochs"] = None  # it was chosen for another number of epochs
    return _with_entries({**values, **chosen}, entries, options)


def _with_entries(values: dict[str, Any], entries: list[str], options: Collection[str]) -> "TrainSettings":
    """Return settings of these values, but for what the entries of --set say."""
    from classifiers.training.settings import SettingError, TrainSettings

    known = [name for settings in FURTHER.values() for name in settings]
    of_flags = {flag.removeprefix("--").replace("-", "_"): name for name, flag in _FLAGS.items()}
    for name, value in pairs(entries, "--set").items():
        if (meant := of_flags.get(name, name)) in options:
            raise ConfigError(f"--set {name}: has an option of its own, {_flag(meant, options)}")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "`kensa train --help` lists what there is"
            raise ConfigError(f"--set {name}: unknown; {hint}")
        group, dot, field = name.partition(".")
        if group == "tiling" and values["tiling"] is None:
            raise ConfigError(f"--set {name}: tiles are asked for by --tile SCALE")
        (values[group] if dot else values)[field or name] = value
    try:
        return TypeAdapter(TrainSettings).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, SettingError):
            raise ConfigError(f"{_flag(cause.name, options)} {cause.problem}") from None
        name = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
        problem = "expected more values" if first["type"] == "missing" else first["msg"]
        raise ConfigError(f"{_flag(name, options)}: {problem}, got {first['input']!r}") from None


def _flag(name: str, options: Collection[str]) -> str:
    if name not in options:
        return f"--set {name}"
    return _FLAGS.get(name, "--" + name.replace("_", "-"))
