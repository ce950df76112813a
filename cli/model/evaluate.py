"""`kensa evaluate`: explainers times metrics times a data set, and the paper's table."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cli.console import Exit, out, progress_bar, safe
from cli.options import Overrides
from configs.evaluation import EvaluationSettings

if TYPE_CHECKING:
    from explainers.evaluation.summary import Summary


def evaluate_and_report(settings: EvaluationSettings) -> "Summary":
    """Run an evaluation with a progress bar, write its tables and print them.

    Returns:
        What was found; the files are in `settings.output`.

    Raises:
        ConfigError, ExplainerError, PackageError: what cannot be used, before anything is computed.
    """
    from operations.evaluate import open_evaluation, report

    with out.status("reading the data set and the model …"):
        evaluation = open_evaluation(settings)
    with progress_bar("evaluating") as progress:
        evaluation.run(progress)
    summary = report(settings, evaluation)
    print_table(summary)
    files = ", ".join(str(settings.output / name) for name in ("table.md", "table.json", "table.csv"))
    out.print(f"{safe(files)}{', maps.png' if settings.examples else ''}")
    return summary


def print_table(summary: "Summary") -> None:
    """Print the table, the best value of each row bold."""
    from explainers.evaluation.tables import LIMITS, heading, limit_texts, row_texts

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("", "chance", "at most"):
        table.add_column(column)
    for explainer in summary.explainers:
        table.add_column(safe(explainer), overflow="fold")
    for metric in summary.cells:
        cells = (f"[bold]{text}[/bold]" if best else text for text, best in row_texts(summary, metric))
        table.add_row(heading(summary, metric), *limit_texts(summary, metric), *cells)
    out.print(table, soft_wrap=False)
    out.print(
        f"{summary.samples} pairs of picture and class in {summary.images} pictures; in brackets 95 % "
        f"bootstrap intervals over {summary.groups} groups"
    )
    out.print(LIMITS)
    for reason, count in summary.left_out.items():
        out.print(f"[yellow]left out[/yellow]: {count} × {safe(reason)}")
    for explainer, counts in summary.statuses.items():
        for status in ("partial", "undefined"):
            if counts[status]:
                out.print(f"{safe(explainer)}: {counts[status]} {status}")
    for explainer, reasons in summary.reasons.items():
        for reason, count in reasons.items():
            out.print(f"[red]{safe(explainer)} failed[/red] {count} times: {safe(reason)}")


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
    if evaluate_and_report(settings).failures:
        raise typer.Exit(Exit.attention)
