"""Labelled pictures, and their split so that each group is on one side."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from classifiers.data.annotations import Annotation
from classifiers.errors import ClassifierError
from classifiers.package.manifest import canonical

CONTENT = "content:"
"""What a digest of the content begins with; digests before kensa 0.3 have no prefix and cover names too."""
REMEDY = (
    "Label pictures of more parts, group by something finer (--group-column), or add the pictures to the "
    "data of a model that there is: kensa train --from MODEL --add THESE"
)
Side = Literal["training", "validation", "test"]
"""A side of the split that a layout brings along."""


class DataError(ClassifierError):
    """Labelled data is missing, contradictory or too little; the message names file and remedy."""


@dataclass(frozen=True)
class Item:
    """One labelled picture.

    Attributes:
        path: the file.
        name: its path relative to the data set's root, with forward slashes.
        labels: one label (single-label), or any number (multi-label, where none means good).
        group: the part or lot, say; a split keeps the pictures of a group on one side.
        sha256: of the file's bytes.
        annotations: where its defects are, as far as that is known (`classifiers.data.regions` reads them).
            They tell how large defects are, and which tiles of a large picture show one.
        side: of the split that the data set's layout brings along, if it does; see `split_sides`.
    """

    path: Path
    name: str
    labels: tuple[str, ...]
    group: str
    sha256: str
    annotations: tuple[Annotation, ...] = ()
    side: Side | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Dataset:
    """Labelled pictures with their classes.

    Attributes:
        items: in the order of their names.
        classes: in the order of the network's outputs (sorted); in multi-label data without the good class.
        good_class: the class that means "no defect", or None.
        multi_label: whether a picture may have any number of labels.
        layout: what it was read as, for people.
        notes: what was decided while it was read, a sentence each.
    """

    items: tuple[Item, ...]
    classes: tuple[str, ...]
    good_class: str | None = None
    multi_label: bool = False
    layout: str = field(default="", compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def digest(self) -> str:
        """`CONTENT` and a SHA-256 over each picture's own SHA-256, labels and group, in whatever order.

        Where the files lie and how a path is written does not count: the same data is known again.
        """
        rows = sorted([item.sha256, sorted(item.labels), item.group] for item in self.items)
        return CONTENT + hashlib.sha256(canonical(rows)).hexdigest()

    @property
    def named_digest(self) -> str:
        """SHA-256 over names, labels, groups, the files' SHA-256 and the classes, in the order of the names.

        It is the digest in packages of kensa 0.1 and 0.2. A training hangs on it still: the names decide the
        order in which pictures are drawn.
        """
        rows = [[item.name, item.labels, item.group, item.sha256] for item in self.items]
        content = [self.classes, self.good_class, self.multi_label, rows]
        return hashlib.sha256(canonical(content)).hexdigest()

    @property
    def task(self) -> str:
        """The task as model packages call it: "single-label" or "multi-label"."""
        return "multi-label" if self.multi_label else "single-label"

    def counts(self) -> dict[str, int]:
        """Return the number of pictures of each class; a multi-label picture counts for each label."""
        found = Counter(label for item in self.items for label in item.labels)
        return {name: found[name] for name in self.classes}


def split_by_group(dataset: Dataset, fractions: Sequence[float], seed: int = 0) -> tuple[Dataset, ...]:
    """Return the sides of a split: no group is on two, and classes spread as evenly as groups allow.

    The split is greedy. Groups are taken largest first, where a rare class weighs as much as a common one;
    each goes to the side where it most reduces the squared distance from the wanted class counts. The same
    arguments give the same split.

    Args:
        dataset: what to split.
        fractions: the share of each side, positive; they are scaled to add up to 1.
        seed: decides between groups that are alike.

    Raises:
        DataError: fewer groups than sides, or a side that would be empty.
    """
    if not fractions or min(fractions) <= 0:
        raise DataError(f"fractions must be positive numbers, got {tuple(fractions)}")
    groups: dict[str, list[Item]] = {}
    for item in dataset.items:
        groups.setdefault(item.group, []).append(item)
    if len(groups) < len(fractions):
        raise DataError(
            f"{len(groups)} groups cannot be split into {len(fractions)} sides; a group stays whole. {REMEDY}"
        )

    # A picture without labels is a class of its own, and the number of pictures counts like one more class.
    def weigh(members: list[Item]) -> Counter[str]:
        weights = Counter(f"label {label}" for item in members for label in item.labels or ("",))
        weights["pictures"] = len(members)
        return weights

    totals = weigh(list(dataset.items))
    weighed = {name: weigh(members) for name, members in groups.items()}
    order = sorted(groups)
    random.Random(seed).shuffle(order)  # noqa: S311  reproducible, not secret
    order.sort(key=lambda name: -sum(count / totals[key] for key, count in weighed[name].items()))
    wanted = [{key: total * share / sum(fractions) for key, total in totals.items()} for share in fractions]
    have: list[Counter[str]] = [Counter() for _ in fractions]

    def change(side: int, weights: Counter[str]) -> float:
        # d/dn of (have - wanted)^2 / (total * wanted): relative, so that small sides and rare classes count.
        return sum(
            count * (count + 2 * (have[side][key] - wanted[side][key])) / (totals[key] * wanted[side][key])
            for key, count in weights.items()
        )

    sides: list[list[Item]] = [[] for _ in fractions]
    for name in order:
        best = min(range(len(fractions)), key=lambda side: change(side, weighed[name]))
        have[best].update(weighed[name])
        sides[best].extend(groups[name])
    if not all(sides):
        raise DataError(
            f"{len(groups)} groups are too few for fractions {tuple(fractions)}: a side is empty. {REMEDY}"
        )
    return tuple(replace(dataset, items=tuple(sorted(side, key=lambda item: item.name))) for side in sides)


def split_sides(
    dataset: Dataset, fractions: Sequence[float], seed: int = 0
) -> tuple[tuple[Dataset, ...], str | None]:
    """Return training, validation, calibration and test side, and what became of the layout's own split.

    Validation and test pictures of the layout stay what they are, where its other pictures show every class
    that these have: nothing can be learnt of a class that only the test shows, as in anomaly data whose
    training pictures are all good. What is left is split by `split_by_group`; a layout has no calibration
    side. A group on two of the layout's sides is on the test side, or else on the validation side.

    Args:
        dataset: what to split.
        fractions: the share of each of the four sides; those that the layout brings have no part in it.
        seed: as for `split_by_group`.

    Raises:
        DataError: see `split_by_group`.
    """
    rank = {"test": 2, "validation": 1}
    place: dict[str, int] = {}
    for item in dataset.items:
        place[item.group] = max(place.get(item.group, 0), rank.get(item.side or "", 0))
    kept = [[item for item in dataset.items if place[item.group] == number] for number in range(3)]
    if not kept[1] and not kept[2]:
        return split_by_group(dataset, fractions, seed), None
    known = {label for item in kept[0] for label in item.labels}
    if lacking := sorted({label for item in (*kept[1], *kept[2]) for label in item.labels} - known):
        return split_by_group(dataset, fractions, seed), (
            f"its own split is not kept, since its training pictures show no {', '.join(lacking)}: all "
            "pictures are split anew"
        )
    given = {1: kept[1], 3: kept[2]}  # place among the four sides -> what the layout brings
    others = [number for number in range(4) if not given.get(number)]
    rest = split_by_group(
        replace(dataset, items=tuple(kept[0])), [fractions[number] for number in others], seed
    )
    sides = dict(zip(others, rest, strict=True))
    for number, items in given.items():
        if items:
            sides[number] = replace(dataset, items=tuple(items))
    counts = [f"{len(kept[number])} for {name}" for name, number in rank.items() if kept[number]]
    moved = sum(rank.get(item.side or "", 0) != place[item.group] for item in dataset.items)
    sentence = f"its own split is kept: {' and '.join(counts)}; the other pictures are split anew"
    if moved:
        sentence += (
            f" ({moved} moved, since pictures of their group, or the same bytes, are on the later side)"
        )
    return tuple(sides[number] for number in range(4)), sentence


def label_matrix(dataset: Dataset, classes: Sequence[str]) -> NDArray[np.float32]:
    """Return targets (N, K) float32: 1 where the picture has the label, columns in the order of `classes`.

    Pass the model's classes: data that lacks one of them would number the others differently.
    """
    index = {name: position for position, name in enumerate(classes)}
    matrix = np.zeros((len(dataset.items), len(classes)), dtype=np.float32)
    for row, item in enumerate(dataset.items):
        matrix[row, [index[label] for label in item.labels]] = 1
    return matrix


def defective_mask(dataset: Dataset, good_class: str | None) -> NDArray[np.bool_]:
    """Return which pictures are defective, (N,) bool: those with any label but the good class."""
    return np.array([any(label != good_class for label in item.labels) for item in dataset.items], dtype=bool)
