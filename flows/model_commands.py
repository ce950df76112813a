"""Commands around the model: train, calibrate, explain one picture, make synthetic surfaces."""

import csv
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from configs.loading import ConfigError
from flows.console import err, out, progress_bar, safe
from flows.options import Overrides

GoodClass = Annotated[str | None, typer.Option(help="The class that means 'no defect'.")]
LabelColumn = Annotated[str, typer.Option(help="CSV column with the label.")]
ImageColumn = Annotated[str, typer.Option(help="CSV column with the picture's path, relative to the CSV.")]
GroupColumn = Annotated[
    str | None, typer.Option(help="CSV column with the lot or part: one is never on both sides of a split.")
]
MultiLabel = Annotated[
    bool, typer.Option("--multi-label", help="A picture may have several labels, joined by ';'.")
]


def train(
    data: Annotated[Path, typer.Argument(help="Folder with one folder per class, or a CSV file.")],
    out_folder: Annotated[Path, typer.Option("--out", help="The model package to write.")],
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
    from classifiers.training.train import train as train_model

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
    splits = out_folder.with_name(out_folder.name + ".splits")
    for name, side in zip(("training", "validation", "calibration", "test"), sides, strict=True):
        _write_split(splits / f"{name}.csv", side)
        counts = ", ".join(f"{count} {safe(label)}" for label, count in sorted(side.counts().items()))
        out.print(f"  {name:<12}{len(side.items):>6} images: {counts}")
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
        package = train_model(sides[0], sides[1], settings, out_folder, command=_command(), progress=bar)
    best = package.training["metrics"]
    epoch = package.training["best_epoch"]
    out.print(
        f"model package {safe(str(package.path))} {package.digest[:12]}: balanced accuracy "
        f"{best['balanced_accuracy']:.3f} on the validation pictures (epoch {epoch})\n"
        f"next: kensa calibrate {safe(str(package.path))} {safe(str(splits / 'calibration.csv'))} --out "
        f"{safe(str(package.path))}-calibrated",
        soft_wrap=True,
    )


def calibrate(
    package: Annotated[Path, typer.Argument(help="Model package from `kensa train`.")],
    data: Annotated[Path, typer.Argument(help="Labelled pictures that training never saw: CSV or folder.")],
    out_folder: Annotated[Path, typer.Option("--out", help="The calibrated package to write.")],
    target_escape_rate: Annotated[
        float, typer.Option(min=0, max=1, help="The largest share of defective pictures that may pass.")
    ] = 0.05,
    target_overkill: Annotated[
        float, typer.Option(min=0, max=1, help="The largest share of good pictures rejected automatically.")
    ] = 0.05,
    label_column: LabelColumn = "label",
    image_column: ImageColumn = "image",
    group_column: GroupColumn = "group",
    test: Annotated[
        Path | None, typer.Option(help="Labelled pictures to measure the result on, in the same form.")
    ] = None,
    device: Annotated[str, typer.Option()] = "auto",
    precision: Annotated[str, typer.Option(help="The precision that will inspect.")] = "auto",
) -> None:
    """Fit temperature and thresholds to a target escape rate; write a new model package."""
    from classifiers import Predictor, load_package
    from classifiers.data.dataset import Dataset, load_dataset
    from classifiers.measure.calibrate import calibrate as calibrate_package
    from classifiers.measure.evaluation import evaluate

    uncalibrated = load_package(package)

    def read(path: Path) -> Dataset:
        return load_dataset(
            path,
            label_column=label_column,
            image_column=image_column,
            group_column=group_column if path.is_file() else None,
            multi_label=uncalibrated.task == "multi-label",
            good_class=uncalibrated.good_class,
        )

    with progress_bar("calibrating") as progress:
        calibrated = calibrate_package(
            uncalibrated,
            read(data),
            out_folder,
            target_escape_rate=target_escape_rate,
            target_overkill=target_overkill,
            device=device,
            precision=precision,
            command=_command(),
            progress=progress,
        )
    t = calibrated.thresholds
    if t is None:
        raise ConfigError(f"{out_folder}: calibration gave no thresholds")
    out.print(
        f"model package {safe(str(calibrated.path))} {calibrated.digest[:12]}\n"
        f"  pass below {t.review:.4f}: escape rate {t.escape_rate:.3f} ({t.n_missed} of {t.n_defective}), "
        f"95 % bound {t.escape_bound:.3f}, target {t.target_escape_rate:.3f}\n"
        f"  what that costs: overkill rate {t.overkill_rate:.3f} ({t.n_flagged_good} of {t.n_good})\n"
        f"  reject from {t.reject:.4f}: {t.reject_recall:.1%} of the defective pictures and "
        f"{t.n_rejected_good} of {t.n_good} good ones (95 % bound {t.reject_overkill_bound:.3f}, "
        f"target {t.target_overkill:.3f})",
        soft_wrap=True,
    )
    if test is not None:
        with progress_bar("measuring") as progress:
            measured = evaluate(
                Predictor(calibrated, device=device, precision=precision), read(test), progress=progress
            )
        print(json.dumps(measured, indent=2))


def _write_split(path: Path, side: Any) -> None:
    """Write one side of the split, with paths relative to the file as `load_dataset` reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "label", "group"))
        for item in side.items:
            image = Path(os.path.relpath(item.path, path.parent)).as_posix()
            writer.writerow((image, ";".join(item.labels), item.group))


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _pairs(entries: list[str], option: str) -> dict[str, Any]:
    pairs = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        if not equals:
            raise ConfigError(f"{option} {entry}: expected name=value")
        pairs[name] = yaml.safe_load(text)
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


def synth(
    folder: Annotated[Path, typer.Argument(help="New or empty folder to write.")],
    count: Annotated[int, typer.Option(min=1, help="Pictures.")] = 100,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    size: Annotated[int, typer.Option(min=32, help="Side of a picture, in pixels.")] = 160,
    defect_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of defective parts.")
    ] = None,
    lots: Annotated[int | None, typer.Option(min=1, help="Number of lots.")] = None,
    kind: Annotated[
        str, typer.Option(help="dataset: class folders, masks, labels; inspection: lots and a manifest.")
    ] = "dataset",
) -> None:
    """Make synthetic rolled-metal surfaces with scratches, pits, inclusions and patches."""
    from sources.synthetic import write_dataset, write_inspection_folder

    writers: dict[str, Callable[..., Path]] = {
        "dataset": write_dataset,
        "inspection": write_inspection_folder,
    }
    if kind not in writers:
        raise ConfigError(f"--kind {kind}: expected dataset or inspection")
    options = {"defect_share": defect_share, "lots": lots}
    given = {name: value for name, value in options.items() if value is not None}
    with progress_bar("making synthetic surfaces") as progress:
        root = writers[kind](folder, count=count, seed=seed, size=size, progress=progress, **given)
    out.print(f"{count} pictures in {safe(str(root))}", soft_wrap=True)


def explain(
    image: Annotated[Path, typer.Argument(help="The picture to explain.")],
    model: Annotated[Path, typer.Option(help="Model package.")],
    out_file: Annotated[Path, typer.Option("--out", help="PNG to write.")],
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to explain; the most probable one when absent.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="Explanation method: a name of explainers.list_explainers().")
    ] = "sise-fast",
    device: Annotated[str, typer.Option()] = "auto",
) -> None:
    """Draw why the model sees a class in a picture: the map, the block maps, the outline."""
    from operations.explain_picture import explain_picture

    out.print(safe(explain_picture(image, model, out_file, class_name, method, device)), soft_wrap=True)


def evaluate(
    config: Annotated[
        str,
        typer.Option("--config", "-c", help="YAML file, or a shipped one by name, such as evaluate-voc."),
    ],
    overrides: Overrides = None,
) -> None:
    """Judge explainers by the paper's metrics on a data set with ground truth; the same command goes on after
    a kill."""
    from configs.evaluation import load_evaluation

    settings = load_evaluation(config, overrides or [])
    from flows.evaluating import evaluate_and_report

    if evaluate_and_report(settings).failures:
        raise typer.Exit(1)


def patches(
    table: Annotated[Path, typer.Argument(help="Severstal's train.csv.")],
    images: Annotated[Path, typer.Argument(help="Severstal's train_images.")],
    out_folder: Annotated[Path, typer.Option("--out", help="New folder for the patches and labels.csv.")],
    good: Annotated[
        int | None, typer.Option(min=1, help="Most patches without a defect, drawn at random.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of that draw.")] = 0,
) -> None:
    """Cut Severstal's steel strips into labelled patches for `kensa train`."""
    from explainers.evaluation.severstal import write_patches

    with progress_bar("cutting strips") as progress:
        labels = write_patches(table, images, out_folder, good=good, seed=seed, progress=progress)
    out.print(
        f"next: kensa train {safe(str(labels))} --out MODEL --good-class none --group-column group",
        soft_wrap=True,
    )
