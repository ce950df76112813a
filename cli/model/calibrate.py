"""The command that fits a model's thresholds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Exit, out, progress_bar, safe
from cli.model.data_counts import print_dataset
from cli.model.measures import print_measures, print_precisions
from cli.options import DataFormat, GroupColumn, ImageColumn, LabelColumn, command_line
from configs.loading import ConfigError

if TYPE_CHECKING:
    from classifiers.measure.units import Unit


def _share_or_none(text: str) -> float | None:
    """Return a target share, or None for "none"."""
    if text == "none":
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter(f"{text!r} is neither a share between 0 and 1 nor none")
    return share


def _unit(per: str, column: str | None, grouped: bool) -> "Unit":
    """Return what targets are of.

    Args:
        per: as it was typed.
        column: what the groups were called where they were read first, if anything.
        grouped: whether the data says which pictures belong together.

    Raises:
        ConfigError: no such unit, or parts of data that has no groups.
    """
    if per == "auto":
        return "part" if column == "part" else "picture"
    if per == "picture":
        return "picture"
    if per != "part":
        raise ConfigError(f"--per {per}: expected auto, picture or part")
    if not grouped:
        raise ConfigError(
            "--per part: the data does not say which pictures are of one part; name a CSV file with a column"
        )
    return "part"


_LISTED = 5  # numbers of tiles
_USELESS = 0.5  # share of good pictures that are flagged, beyond which a person has to look at most of them


def calibrate(
    package: Annotated[Path, typer.Argument(help="Model package from `kensa train`.")],
    data: Annotated[Path, typer.Argument(help="Labelled pictures that training never saw.")],
    out_folder: Annotated[Path, typer.Option("--out", help="The calibrated package to write.")],
    target_escape_rate: Annotated[
        float, typer.Option(min=0, max=1, help="The largest share of defective pictures that may pass.")
    ] = 0.05,
    target_overkill: Annotated[
        str,
        typer.Option(
            metavar="SHARE|none",
            help="The largest share of good pictures rejected automatically. none: no target, for data with "
            "few good pictures or no one; then nothing is rejected without a person.",
        ),
    ] = "0.05",
    form: DataFormat = "auto",
    label_column: LabelColumn = "label",
    image_column: ImageColumn = "image",
    group_column: GroupColumn = "group",
    per: Annotated[
        str,
        typer.Option(
            metavar="auto|picture|part",
            help="What the targets are shares of. part: a group is a part, judged by its highest score. "
            "auto: parts where the group column is called part, else pictures.",
        ),
    ] = "auto",
    test: Annotated[
        Path | None,
        typer.Option(
            help="Labelled pictures to measure the result on, in the same form; the figures go into "
            "OUT.test.json beside the package."
        ),
    ] = None,
    device: Annotated[str, typer.Option()] = "auto",
    engine: Annotated[
        str, typer.Option(help="The engine that will inspect: auto, torch or openvino.")
    ] = "auto",
    precision: Annotated[
        list[str] | None,
        typer.Option(
            metavar="auto|float32|bfloat16|float16",
            help="A precision that may inspect, beside float32, which always may; repeatable. auto: those "
            "that the device is fast in.",
        ),
    ] = None,
) -> None:
    """Fit temperature and thresholds to a target escape rate; write a new model package."""
    from classifiers import Predictor, load_package
    from classifiers.data.dataset import Dataset
    from classifiers.data.overlap import grouped_by
    from classifiers.data.package_data import load_package_data
    from classifiers.data.reading import reading_format
    from classifiers.measure.calibrate import calibrate as calibrate_package
    from classifiers.measure.evaluation import evaluate
    from classifiers.measure.units import calibrated_per
    from classifiers.package.package import new_folder

    overkill = _share_or_none(target_overkill)
    new_folder(out_folder)  # refused before anything is computed
    uncalibrated = load_package(package)

    def read(path: Path) -> Dataset:
        found = load_package_data(
            uncalibrated,
            path,
            form=form,
            good_class=uncalibrated.good_class,
            label_column=label_column,
            image_column=image_column,
            group_column=group_column,
        )
        print_dataset(path, found)
        return found

    dataset = read(data)
    is_table = reading_format(data, form).name == "csv"
    column = grouped_by(uncalibrated, dataset) or (group_column if is_table else None)
    grouped = any(item.group != f"sha256:{item.sha256}" for item in dataset.items)
    with progress_bar("calibrating") as progress:
        calibrated = calibrate_package(
            uncalibrated,
            dataset,
            out_folder,
            target_escape_rate=target_escape_rate,
            target_overkill=overkill,
            per=_unit(per, column, grouped),
            device=device,
            engine=engine,
            precisions=None if precision in (None, ["auto"]) else precision,
            command=command_line(),
            progress=progress,
        )
    t = calibrated.thresholds
    if t is None:
        raise ConfigError(f"{out_folder}: calibration gave no thresholds")
    unit = calibrated_per(calibrated)
    of = " parts" if unit == "part" else ""
    cost = "not measured: there is no good picture in the calibration data"
    if t.overkill_rate is not None:
        cost = f"overkill rate {t.overkill_rate:.3f} ({t.n_flagged_good} of {t.n_good}{of})"
    rejection = "  reject: nothing without a person, since overkill has no target"
    if t.target_overkill is not None and t.reject_overkill_bound is not None:
        rejection = (
            f"  reject from {t.reject:.4f}: {t.reject_recall:.1%} of the defective {unit}s and "
            f"{t.n_rejected_good} of {t.n_good} good ones (95 % bound {t.reject_overkill_bound:.3f}, "
            f"target {t.target_overkill:.3f})"
        )
    out.print(
        f"model package {safe(str(calibrated.path))} {calibrated.digest[:12]}\n"
        f"  pass below {t.review:.4f}: escape rate {t.escape_rate:.3f} ({t.n_missed} of {t.n_defective}{of})"
        f", 95 % bound {t.escape_bound:.3f}, target {t.target_escape_rate:.3f}\n"
        f"  what that costs: {cost}\n"
        f"{rejection}"
    )
    if calibrated.tiling is not None:
        counts = calibrated.training["calibration"]["tile_counts"]
        told = ", ".join(f"{pictures} of {count}" for count, pictures in list(counts.items())[:_LISTED])
        out.print(f"  pictures by their number of tiles: {told}{' …' if len(counts) > _LISTED else ''}")
    bad, good = t.n_defective_effective, t.n_good_effective
    if bad is not None and good is not None and (bad < t.n_defective or good < t.n_good):
        out.print(
            f"  pictures of one group are alike: {t.n_defective} defective ones count as {bad:.1f} "
            f"independent ones, {t.n_good} good ones as {good:.1f}"
        )
    if t.overkill_rate is not None and t.overkill_rate > _USELESS:
        out.print(
            f"  [yellow]the model does not tell good from defective {unit}s: to keep the target it flags "
            f"{t.overkill_rate:.0%} of the good ones; docs/training.md says what helps[/yellow]"
        )
    refused = calibrated.training["calibration"]["refused"]
    if calibrated.reduced:
        print_precisions(calibrated)
    for name, reason in refused.items():
        out.print(f"  [yellow]not calibrated in {name}: {safe(reason)}[/yellow]")
    if test is not None:
        predictor = Predictor(calibrated, device=device, engine=engine)
        examined = read(test)
        with progress_bar("measuring") as progress:
            measured = evaluate(predictor, examined, progress=progress)
        figures = out_folder.with_name(f"{out_folder.name}.test.json")
        figures.write_text(json.dumps(measured, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        out.print(f"\n[bold]measured on {safe(str(test))}[/bold] ({predictor.sentence()})")
        print_measures(measured)
        out.print(f"all figures, and which label was taken for which: {safe(str(figures))}")
    if set(refused) & set(precision or ()):
        raise typer.Exit(Exit.attention)
