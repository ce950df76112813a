"""How a model did on labelled pictures, as tables: shares with their intervals, and each class."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from cli.console import out, safe

if TYPE_CHECKING:
    from classifiers import ModelPackage

_RATES = {
    "escape": "escape rate: defective pictures that pass",
    "overkill": "overkill rate: good pictures that are flagged",
    "automatic_reject_recall": "defective pictures that are rejected outright",
    "automatic_reject_overkill": "good pictures that are rejected outright",
}
_SCORES = {"auroc": "AUROC of the defect score", "balanced_accuracy": "balanced accuracy"}


def print_measures(measured: Mapping[str, Any]) -> None:
    """Print what `classifiers.measure.evaluation.measure` returns; dashes where it measured nothing."""
    if "parts" in measured:
        out.print(f"{measured['parts']['n']} parts, each by the highest score of its pictures:")
        parts = _table("", "share", "parts", "95 % interval")
        for name, told in _RATES.items():
            parts.add_row(told.replace("pictures", "parts"), *_share_cells(measured["parts"][name]))
        out.print(parts, soft_wrap=False)
        out.print()
    whole = _table("", "share", "pictures", "95 % interval")
    for name, told in _RATES.items():
        if name in measured:
            whole.add_row(told, *_share_cells(measured[name]))
    for name, told in _SCORES.items():
        if name in measured:
            whole.add_row(told, "–" if measured[name] is None else f"{measured[name]:.4f}", "", "")
    out.print(whole, soft_wrap=False)
    for name, pictures, unknown in (
        ("overkill", "good", "overkill and AUROC"),
        ("escape", "defective", "escape and AUROC"),
    ):
        if name in measured and not measured[name]["total"]:
            out.print(f"no {pictures} picture was measured, so {unknown} are unknown")
    out.print()
    classes = _table("class", "recall", "pictures", "95 % interval", "precision", "pictures", "95 % interval")
    for name, recall in measured["recall"].items():
        classes.add_row(safe(name), *_share_cells(recall), *_share_cells(measured["precision"][name]))
    out.print(classes, soft_wrap=False)
    if "verdicts" in measured:
        told = ", ".join(f"{count} {verdict}" for verdict, count in measured["verdicts"].items())
        out.print(f"\n{measured['n']} pictures: {told}")


def print_precisions(package: "ModelPackage") -> None:
    """Print what a calibrated package may compute in, with the thresholds and the figures of each."""
    columns = ("engine", "pass below", "reject from", "escape bound", "overkill bound", "flips", "shift")
    table = _table("precision", *columns)
    rows = [("float32", str(package.training["calibration"]["engine"]), package.thresholds, "–", "–")]
    rows += [
        (each.precision, each.engine, each.thresholds, str(each.flips), f"{each.score_shift:.4f}")
        for each in package.reduced
    ]
    for precision, engine, t, flips, shift in rows:
        if t is not None:
            reject = "–" if t.target_overkill is None else f"{t.reject:.4f}"
            overkill = "–" if t.overkill_bound is None else f"{t.overkill_bound:.3f}"
            table.add_row(
                precision, engine, f"{t.review:.4f}", reject, f"{t.escape_bound:.3f}", overkill, flips, shift
            )
    out.print(table, soft_wrap=False)
    out.print(
        "flips: calibration pictures with another verdict than in float32; shift: largest change of a score"
    )


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _share_cells(share: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return a share, the pictures it is of, and its interval; dashes where there was no picture."""
    counted = f"{share['count']} of {share['total']}"
    if share["share"] is None:
        return "–", counted, "–"
    low, high = share["interval"]
    return f"{share['share']:.1%}", counted, f"{low:.1%} to {high:.1%}"
