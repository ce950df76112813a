"""The command that trains a model."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import out, safe
from cli.model.data_counts import print_dataset
from cli.model.train_progress import TrainingLines
from cli.model.train_settings import (
    CHOICE,
    COURSE,
    DATA,
    INPUT,
    MACHINE,
    NETWORK,
    GroupedHelp,
    pairs,
    train_settings,
)
from cli.options import DataFormat, GoodClass, GroupColumn, ImageColumn, LabelColumn, MultiLabel, command_line
from configs.loading import ConfigError

if TYPE_CHECKING:
    from classifiers import ModelPackage
    from classifiers.data.dataset import Dataset
    from classifiers.data.survey import Survey

COMMAND_CLASS = GroupedHelp  # of the command below, see `cli.main.load_command`


def train(
    ctx: typer.Context,
    out_folder: Annotated[Path, typer.Option("--out", help="The model package to write.")],
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Folder with one folder per class, a CSV file, or a data set in a layout of --format. With "
            "--from: that model's own data, looked for beside it when absent."
        ),
    ] = None,
    follows: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Go on from this model package, with its data, its split and its settings.",
            rich_help_panel=DATA,
        ),
    ] = None,
    added: Annotated[
        Path | None,
        typer.Option(
            "--add",
            help="With --from: further pictures, from `kensa dataset export`.",
            rich_help_panel=DATA,
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any setting that is listed below with --set and its default."
        ),
    ] = None,
    form: DataFormat = "auto",
    good_class: GoodClass = None,
    label_column: LabelColumn = "label",
    image_column: ImageColumn = "image",
    group_column: GroupColumn = None,
    group_pattern: Annotated[
        str | None,
        typer.Option(
            help="Regular expression on the path; its first group is the lot or part.", rich_help_panel=DATA
        ),
    ] = None,
    mask_column: Annotated[
        str | None,
        typer.Option(
            help="CSV column with a mask's path: it tells how large defects are. 'mask' where there is one.",
            rich_help_panel=DATA,
        ),
    ] = None,
    multi_label: MultiLabel = False,
    fractions: Annotated[
        tuple[float, float, float, float],
        typer.Option(help="Shares of training, validation, calibration and test.", rich_help_panel=DATA),
    ] = (0.55, 0.1, 0.2, 0.15),
    input_size: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="In pixels, or one number for a square; chosen by a look at the pictures when absent.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    tile: Annotated[
        float | None,
        typer.Option(
            "--tile",
            metavar="SCALE",
            help="Cut large pictures into tiles of the input's size, of so many picture pixels per input "
            "pixel: 1 is native, 2 half the resolution. Needs masks or boxes of the defects.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    architecture: Annotated[
        str, typer.Option("--arch", help="Any CNN of timm by name.", rich_help_panel=NETWORK)
    ] = "mobilenetv3_small_050",
    model_arg: Annotated[
        list[str] | None, typer.Option(help="Further timm argument: name=value.", rich_help_panel=NETWORK)
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(
            help="Local .safetensors file, or 'hub'; from scratch when absent.", rich_help_panel=NETWORK
        ),
    ] = None,
    epochs: Annotated[
        int,
        typer.Option(min=1, help="How often all training pictures are shown.", rich_help_panel=COURSE),
    ] = 30,
    batch_size: Annotated[int, typer.Option(min=2, help="Pictures in a step.", rich_help_panel=COURSE)] = 32,
    learning_rate: Annotated[
        float, typer.Option("--lr", help="After the warm-up.", rich_help_panel=COURSE)
    ] = 1e-3,
    balance: Annotated[
        str,
        typer.Option(help="Against class imbalance: sampler, loss or none.", rich_help_panel=CHOICE),
    ] = "sampler",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel=MACHINE)] = "auto",
    precision: Annotated[
        str, typer.Option(help="float32, or bfloat16 for autocast.", rich_help_panel=MACHINE)
    ] = "float32",
    seed: Annotated[int, typer.Option(help="Decides everything random.", rich_help_panel=MACHINE)] = 0,
) -> None:
    """Train a timm CNN and write a model package; the same command goes on after a kill.

    docs/training.md says when to use which setting.
    """
    from classifiers import load_package
    from classifiers.data.dataset import split_sides
    from classifiers.data.overlap import split_record
    from classifiers.data.reading import load_dataset
    from classifiers.data.survey import survey_pictures
    from classifiers.training.train import finished_package
    from classifiers.training.train import train as train_model

    if follows is not None or added is not None:
        from cli.model.next_model import train_next

        train_next(ctx)
        return
    if data is None:
        raise ConfigError(
            "no labelled pictures: name a folder or a CSV file, or a model with --from and --add"
        )
    chosen: dict[str, Any] = {
        "architecture": architecture,
        "model_args": pairs(model_arg or [], "--model-arg"),
        "pretrained": pretrained,
        "input_size": _input_sides(input_size) if input_size is not None else (224, 224),
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "balance": balance,
        "device": device,
        "precision": precision,
        "seed": seed,
    }
    entries = setting or []
    if tile is not None:
        chosen["tiling"] = {"scale": tile}
        # Of many tiles of a good picture one is always the worst: the most probable class says little.
        entries = ["select_by=auroc", *entries]
    settings = train_settings(entries, **chosen)  # before pictures are read: a mistake costs no time
    if out_folder.exists():
        load_package(out_folder)  # so is a folder of something else
    with out.status("reading the labels …"):
        dataset = load_dataset(
            data,
            form=form,
            label_column=label_column,
            image_column=image_column,
            group_column=group_column,
            group_pattern=group_pattern,
            mask_column=mask_column,
            multi_label=multi_label,
            good_class=good_class,
        )
        sides, kept = split_sides(dataset, fractions, seed)
        survey = survey_pictures(dataset)
    print_dataset(data, dataset)
    if kept is not None:
        out.print(f"  {safe(kept)}")
    if input_size is None and tile is None:
        settings = replace(settings, input_size=survey.proposed_size)
    finished_package(
        sides[0], sides[1], settings, out_folder
    )  # the splits beside another package stay as they are
    write_splits(out_folder, sides)
    for line in survey_lines(survey, settings.input_size, asked=input_size is not None, tile=tile):
        out.print(safe(line))
    with TrainingLines() as lines:
        split = split_record(sides, grouped_by=group_column, fractions=fractions, seed=seed)
        package = train_model(
            sides[0],
            sides[1],
            settings,
            out_folder,
            command=command_line(),
            origin={"split": split},
            progress=lines,
        )
    print_trained(package)


def write_splits(out_folder: Path, sides: "Sequence[Dataset]") -> None:
    """Write the four sides beside the package, and print what is on them."""
    from classifiers.data.formats.table import write_table

    splits = out_folder.with_name(out_folder.name + ".splits")
    for name, side in zip(("training", "validation", "calibration", "test"), sides, strict=True):
        write_table(splits / f"{name}.csv", side)
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


def _input_sides(text: str) -> tuple[int, int]:
    """Return (height, width) of "576x224", or of "224" for a square."""
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if found is None:
        raise ConfigError(
            f"--input-size {text}: expected HEIGHTxWIDTH in pixels, such as 576x224, or one side"
        )
    return int(found[1]), int(found[2] or found[1])


def survey_lines(
    survey: "Survey", size: tuple[int, int], *, asked: bool, tile: float | None = None
) -> list[str]:
    """Return what pictures and defects are like, what the input makes of them, and what would suit better.

    Args:
        survey: of the pictures.
        size: height and width of the input that will be used.
        asked: whether it was given; else it is the proposal.
        tile: picture pixels per input pixel of tiles; None without them.
    """
    from classifiers.data.survey import SMALLEST_DEFECT, USUAL_SIDE

    pixels = 20 if survey.defect is None else max(1, round(survey.defect))

    def sides(scale: float) -> str:
        side = pixels * scale
        return f"{side:.0f}" if side >= 1.5 else f"{side:.1f}"

    def becomes(input_size: tuple[int, int]) -> str:
        return sides(survey.scale(input_size))

    def text(input_size: tuple[int, int]) -> str:
        return f"{input_size[0]}x{input_size[1]}"

    unlike = "" if survey.alike else ", of unlike proportions"
    known = "no masks tell how large defects are"
    if survey.defect is not None:
        known = (
            f"of {survey.masks} defects with a mask a quarter are no larger than {pixels} x {pixels} pixels"
        )
    lines = [f"pictures are {survey.width} wide and {survey.height} high{unlike}; {known}"]
    if survey.unreadable:
        lines.append(f"{len(survey.unreadable)} masks cannot be read, {survey.unreadable[0]} among them")
    if tile is not None:
        lines.append(
            f"tiles of {text(size)} (height x width) at scale {tile:g}: a defect of {pixels} pixels becomes "
            f"{sides(1 / tile)}"
        )
        if survey.defect is not None and tile > 1 and pixels / tile < 0.9 * SMALLEST_DEFECT:
            lines[-1] += f"; --tile {max(1.0, pixels / SMALLEST_DEFECT):.2g} shows more of it"
        return lines
    usual, proposed = (USUAL_SIDE, USUAL_SIDE), survey.proposed_size
    line = f"input {text(size)} (height x width): a defect of {pixels} pixels becomes {becomes(size)}"
    if asked and survey.scale(size) < 0.9 * survey.scale(proposed):
        line += f"; use --input-size {text(proposed)}, where it becomes {becomes(proposed)}"
    elif not asked and proposed != usual:
        times = proposed[0] * proposed[1] / USUAL_SIDE**2
        line += (
            f", at {text(usual)} it would be {becomes(usual)}; a step takes {times:.1f} times as long "
            "(--input-size chooses another)"
        )
    lines.append(line)
    enough = survey.size_at(min(1.0, SMALLEST_DEFECT / pixels))
    too_small = pixels * survey.scale(size) < 0.9 * SMALLEST_DEFECT
    if survey.defect is not None and not asked and too_small and survey.scale(enough) > survey.scale(size):
        times = enough[0] * enough[1] / USUAL_SIDE**2
        lines.append(
            f"more is not taken unasked: --input-size {text(enough)} shows such a defect with "
            f"{becomes(enough)} pixels, and takes {times:.0f} times as long as {text(usual)}"
        )
    if survey.defect is not None and too_small and survey.scale(size) < 0.5:
        lines.append(f"--tile 1 cuts pictures into tiles that show such a defect with {sides(1.0)} pixels")
    return lines
