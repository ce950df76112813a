"""Commands that make training pictures: synthetic surfaces, patches of Severstal's strips."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from cli.console import out, progress_bar, safe
from configs.loading import ConfigError


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
    out.print(f"{count} pictures in {safe(str(root))}")


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
    out.print(f"next: kensa train {safe(str(labels))} --out MODEL --good-class none --group-column group")
