"""The table on disk: Markdown, CSV, JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from explainers.evaluation.measures import MEASURES, title
from explainers.evaluation.outcomes import FAILED
from explainers.evaluation.summary import STATUSES, Cell, Summary
from explainers.explanation import UNDEFINED

LIMITS = (
    "Chance is what a map gets that is the same everywhere, at most what the truth itself would get as a "
    "map; both follow from how large the true regions are."
)


def write_tables(summary: Summary, about: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """Write table.md, table.csv and table.json.

    Args:
        summary: what was found.
        about: JSON content that says what was evaluated; it stands in table.json, its "title" and "facts"
            (heading -> text) above the Markdown table.
        folder: exists.

    Returns:
        The three files.
    """
    markdown, table, full = (folder / f"table.{suffix}" for suffix in ("md", "csv", "json"))
    markdown.write_text(as_markdown(summary, about), encoding="utf-8")
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = ("metric", "explainer", "mean", "low", "high", "median", "count", "chance", "attainable")
        writer.writerow(columns)
        for metric, row in summary.cells.items():
            for explainer, cell in row.items():
                limits = summary.chance.get(metric), summary.attainable.get(metric)
                figures = cell.mean, cell.low, cell.high, cell.median, cell.count
                writer.writerow((metric, explainer, *figures, *limits))
    titles = {name: title(name, summary.tolerance) for name in summary.cells}
    content = {**about, **asdict(summary), "titles": titles}
    full.write_text(
        json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    return markdown, table, full


def as_markdown(summary: Summary, about: Mapping[str, Any]) -> str:
    """Return the paper's table: metrics down, limits and explainers across, the best value of a row bold."""
    lines = [f"# {_cell_safe(about.get('title', 'Evaluation'))}", ""]
    lines += [f"- {_cell_safe(name)}: {_cell_safe(text)}" for name, text in about.get("facts", {}).items()]
    lines += [f"- left out: {count} × {_cell_safe(reason)}" for reason, count in summary.left_out.items()]
    lines += [
        "",
        f"Means over {summary.samples} pairs of picture and class ({summary.images} pictures); in brackets "
        f"the 95 % bootstrap interval over {summary.groups} groups. ↑ more is better, ↓ less is.",
        "",
        LIMITS,
        "",
        "| | " + " | ".join(("chance", "at most", *map(_cell_safe, summary.explainers))) + " |",
        "| --- |" + " --- |" * (2 + len(summary.explainers)),
    ]
    for metric in summary.cells:
        cells = [f"**{text}**" if best else text for text, best in row_texts(summary, metric)]
        texts = (*limit_texts(summary, metric), *cells)
        lines.append(f"| {heading(summary, metric)} | " + " | ".join(texts) + " |")
    for status in STATUSES:
        counts = [str(summary.statuses[explainer][status]) for explainer in summary.explainers]
        if status not in (UNDEFINED, FAILED) or any(count != "0" for count in counts):
            lines.append(f"| Maps {status} | | | " + " | ".join(counts) + " |")
    for explainer, reasons in summary.reasons.items():
        for reason, count in reasons.items():
            lines.append(f"\n{_cell_safe(explainer)} failed {count} times: {_cell_safe(reason)}")
    return "\n".join(lines) + "\n"


def heading(summary: Summary, metric: str) -> str:
    """Return a row's heading, with an arrow that says which values are better."""
    arrow = {"high": " ↑", "low": " ↓", None: ""}[MEASURES[metric].better]
    return title(metric, summary.tolerance) + arrow


def limit_texts(summary: Summary, metric: str) -> tuple[str, ...]:
    """Return a row's chance level and attainable maximum, "–" where there is none."""
    chance, most = summary.chance.get(metric), summary.attainable.get(metric)
    digits = MEASURES[metric].digits
    return tuple("–" if value is None else f"{value:.{digits}f}" for value in (chance, most))


def row_texts(summary: Summary, metric: str) -> list[tuple[str, bool]]:
    """Return a row's cells, such as "60.54 (58.10 – 62.90)", each with whether it is the best of its row."""
    best, row = summary.best(metric), summary.cells[metric]
    cells = []
    for explainer in summary.explainers:
        if metric == "rank_correlation" and explainer == summary.reference:
            cells.append(("reference", False))
        else:
            cells.append((_cell_text(metric, row.get(explainer)), explainer in best))
    return cells


def _cell_text(metric: str, cell: Cell | None) -> str:
    if cell is None:
        return "–"
    digits = MEASURES[metric].digits
    mean = f"{cell.mean:.{digits}f}"
    if cell.low is None or cell.high is None:
        return mean
    return f"{mean} ({cell.low:.{digits}f} – {cell.high:.{digits}f})"


def _cell_safe(text: Any) -> str:
    """Return text that cannot break out of a table's cell."""
    return " ".join(str(text).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
