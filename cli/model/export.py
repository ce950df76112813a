"""The command that writes a model package for another runtime."""

from pathlib import Path
from typing import Annotated

import typer

from cli.console import out, safe


def export(
    package: Annotated[Path, typer.Argument(help="Model package, best a calibrated one.")],
    to: Annotated[
        str, typer.Option(metavar="onnx|openvino", help="The format; needs the extra of its name.")
    ],
    out_folder: Annotated[Path, typer.Option("--out", help="The folder to make.")],
) -> None:
    """Write a model for ONNX or OpenVINO, checked by parity, with what is needed to serve it elsewhere."""
    from classifiers import load_package
    from classifiers.export import DESCRIPTION_FILE, export_package

    loaded = load_package(package)
    with out.status(f"exporting to {safe(to)} ..."):
        exported = export_package(loaded, out_folder, to)
    out.print(
        f"{safe(str(exported.folder))}: {', '.join(exported.files)} of model package {loaded.digest[:12]}\n"
        f"  computed by its own runtime, the logits differ from the validated ones by at most "
        f"{exported.difference:.1g} of their spread\n"
        f"  how to use it: {safe(str(exported.folder / DESCRIPTION_FILE))}"
    )
    if loaded.thresholds is None:
        out.print("  [yellow]not calibrated: there are no thresholds; run `kensa calibrate` first[/yellow]")
