"""Say what labelled pictures were read: how many of each class, and where annotations tell of defects."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from cli.console import out, safe

if TYPE_CHECKING:
    from classifiers.data.dataset import Dataset


def print_dataset(location: Path, dataset: "Dataset") -> None:
    """Print what a data set was read as, its pictures by class, and what was decided about them."""
    out.print(f"{safe(str(location))}: {len(dataset.items)} pictures, read as {dataset.layout}")
    for line in count_lines(dataset):
        out.print(f"  {safe(line)}")
    for note in dataset.notes:
        out.print(f"  {safe(note)}")


def count_lines(dataset: "Dataset") -> list[str]:
    """Return a line for each class, the good one first: pictures, and how many have masks or boxes of it."""
    from classifiers.data.annotations import Box

    counts = dataset.counts()
    if dataset.multi_label:
        counts = {"without a label": sum(not item.labels for item in dataset.items)} | counts
    boxed: Counter[str] = Counter()
    masked: Counter[str] = Counter()
    for item in dataset.items:
        boxed.update({one.label for one in item.annotations if isinstance(one, Box)})
        masked.update({one.label for one in item.annotations if not isinstance(one, Box)})
    lines = []
    for name in sorted(counts, key=lambda name: (name != dataset.good_class, name)):
        known = [
            f"{found[name]} with {what}"
            for what, found in (("masks", masked), ("boxes", boxed))
            if found[name]
        ]
        good = " (good)" if name == dataset.good_class else ""
        lines.append(f"{name}{good}: {', '.join([str(counts[name]), *known])}")
    return lines
