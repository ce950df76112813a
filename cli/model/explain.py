"""The command that explains one picture."""

from pathlib import Path
from typing import Annotated

import typer

from cli.console import out, safe


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

    out.print(safe(explain_picture(image, model, out_file, class_name, method, device)))
