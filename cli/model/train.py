"""The command that trains a model."""

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.console import err, out, safe
from cli.options import GoodClass, GroupColumn, ImageColumn, LabelColumn, MultiLabel, command_line
from configs.loading import ConfigError, option_value

if TYPE_CHECKING:
    from classifiers import ModelPackage
    from classifiers.data.dataset import Dataset


def train(
    ctx: typer.Context,
    out_folder: Annotated[Path, typer.Option("--out", help="The model package to write.")],
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Folder with one folder per class, or a CSV file. With --from: that model's own data, "
            "looked for beside it when absent."
        ),
    ] = None,
    follows: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Go on from this model package, with its data, its split and its settings."
        ),
    ] = None,
    added: Annotated[
        Path | None,
        typer.Option("--add", help="With --from: further pictures, from `kensa dataset export`."),
    ] = None,
    architecture: Annotated[
        str, typer.Option("--arch", help="Any CNN of timm by name.")
    ] = "mobilenetv3_small_050",
    model_arg: Annotated[list[str] | None, typer.Option(help="Further timm argument: name=value.")] = None,
    good_class: GoodClass = None,
    label_column: LabelColumn = "label",
    image_column: ImageColumn = "image",
    group_column: GroupColumn = None,
    group_pattern: Annotated[
        str | None, typer.Option(help="Regular expression on the path; its first group is the lot or part.")
    ] = None,
    multi_label: MultiLabel = False,
    fractions: Annotated[
        tuple[float, float, float, float],
        typer.Option(help="Shares of training, validation, calibration and test."),
    ] = (0.55, 0.1, 0.2, 0.15),
    pretrained: Annotated[
        str | None, typer.Option(help="Local .safetensors file, or 'hub'; from scratch when absent.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any other training setting, such as epochs=30 or augmentation.rotation=10."
        ),
    ] = None,
    input_size: Annotated[int, typer.Option(min=16, help="Side of the network's input, in pixels.")] = 224,
    epochs: Annotated[int, typer.Option(min=1)] = 30,
    batch_size: Annotated[int, typer.Option(min=2)] = 32,
    learning_rate: Annotated[float, typer.Option("--lr")] = 1e-3,
    balance: Annotated[str, typer.Option(help="Against class imbalance: sampler, loss or none.")] = "sampler",
    device: Annotated[str, typer.Option()] = "auto",
    precision: Annotated[str, typer.Option(help="float32, or bfloat16 for autocast.")] = "float32",
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Train a timm CNN and write a model package; the same command goes on after a kill."""
    from classifiers.data.dataset import load_dataset, split_by_group
    from classifiers.data.overlap import split_record
    from classifiers.training.train import train as train_model

    if follows is not None or added is not None:
        from cli.model.next_model import train_next

        train_next(ctx)
        return
    if data is None:
        raise ConfigError(
            "no labelled pictures: name a folder or a CSV file, or a model with --from and --add"
        )
    with out.status("reading the labels …"):
        dataset = load_dataset(
            data,
            label_column=label_column,
            image_column=image_column,
            group_column=group_column,
            group_pattern=group_pattern,
            multi_label=multi_label,
            good_class=good_class,
        )
        sides = split_by_group(dataset, fractions, seed)
    write_splits(out_folder, sides)
    settings = _train_settings(
        setting or [],
        architecture=architecture,
        model_args=_pairs(model_arg or [], "--model-arg"),
        pretrained=pretrained,
        input_size=(input_size, input_size),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        balance=balance,
        device=device,
        precision=precision,
        seed=seed,
    )
    with _TrainingBar() as bar:
        split = split_record(sides, grouped_by=group_column, fractions=fractions, seed=seed)
        package = train_model(
            sides[0],
            sides[1],
            settings,
            out_folder,
            command=command_line(),
            origin={"split": split},
            progress=bar,
        )
    print_trained(package)


def write_splits(out_folder: Path, sides: "Sequence[Dataset]") -> None:
    """Write the four sides beside the package, and print what is on them."""
    splits = out_folder.with_name(out_folder.name + ".splits")
    for name, side in zip(("training", "validation", "calibration", "test"), sides, strict=True):
        _write_split(splits / f"{name}.csv", side)
        counts = ", ".join(f"{count} {safe(label)}" for label, count in sorted(side.counts().items()))
        out.print(f"  {name:<12}{len(side.items):>6} images: {counts}")


def print_trained(package: "ModelPackage") -> None:
    """Say how good a trained package is, and what to do next."""
    best = package.training["metrics"]
    epoch = package.training["best_epoch"]
    splits = package.path.with_name(package.path.name + ".splits")
    out.print(
        f"model package {safe(str(package.path))} {package.digest[:12]}: balanced accuracy "
        f"{best['balanced_accuracy']:.3f} on the validation pictures (epoch {epoch})\n"
        f"next: kensa calibrate {safe(str(package.path))} {safe(str(splits / 'calibration.csv'))} --out "
        f"{safe(str(package.path))}-calibrated"
    )


def _write_split(path: Path, side: Any) -> None:
    """Write one side of the split, with paths relative to the file as `load_dataset` reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "label", "group"))
        for item in side.items:
            image = Path(os.path.relpath(item.path, path.parent)).as_posix()
            writer.writerow((image, ";".join(item.labels), item.group))


def _pairs(entries: list[str], option: str) -> dict[str, Any]:
    pairs = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        if not equals:
            raise ConfigError(f"{option} {entry}: expected name=value")
        pairs[name] = option_value(text, f"{option} {name}")
    return pairs


def _train_settings(entries: list[str], **chosen: Any) -> Any:
    from classifiers.data.pictures import Augmentation
    from classifiers.training.settings import TrainSettings

    augmentation: dict[str, Any] = {}
    for name, value in _pairs(entries, "--set").items():
        group, dot, field = name.partition(".")
        if dot and group == "augmentation":
            augmentation[field] = value
        else:
            chosen[name] = tuple(value) if isinstance(value, list) else value
    try:
        return TrainSettings(**chosen, augmentation=Augmentation(**augmentation))
    except TypeError as error:
        # dataclasses answer an unknown name with a TypeError that names it.
        raise ConfigError(
            f"--set: {str(error).split('() ')[-1]}; see classifiers.training.settings.TrainSettings"
        ) from None


class _TrainingBar:
    """A progress bar per epoch, and one line for each validated epoch."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=err,
        )
        self._task = self._bar.add_task("reading", total=None)

    def __enter__(self) -> Callable[[Any], None]:
        self._bar.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _show(self, progress: Any) -> None:
        if progress.phase == "validated":
            metrics = progress.metrics
            auroc = "" if metrics["auroc"] is None else f"  AUROC {metrics['auroc']:.3f}"
            self._bar.console.print(
                f"epoch {progress.epoch:>3}  loss {progress.loss:.3f}  balanced accuracy "
                f"{metrics['balanced_accuracy']:.3f}{auroc}{'  best' if metrics['is_best'] else ''}"
            )
        else:
            title = (
                "reading" if progress.phase == "reading" else f"epoch {progress.epoch} of {progress.epochs}"
            )
            self._bar.update(self._task, description=title, completed=progress.done, total=progress.total)
