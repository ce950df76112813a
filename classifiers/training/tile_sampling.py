"""Which tiles of labelled pictures a training shows: those with a defect, and of the good ones a sample."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from classifiers.data.annotations import MaskFile
from classifiers.data.dataset import Dataset, Item
from classifiers.data.regions import annotated_share
from classifiers.package.manifest import canonical
from classifiers.package.tiling import Grid
from classifiers.training.settings import TrainingError

ENOUGH_OF_DEFECT = 0.5
"""A tile that holds so much of a defect shows it; of a defect on the edge between two, one of them does."""
ENOUGH_OF_TILE = 0.02
"""A tile of which so much is defective shows it, however large the defect: 32 x 32 of 224 x 224 pixels."""
SCORED_FOR_HARD = 8
"""Hard tiles are looked for among so many times the good tiles that a picture may show in an epoch."""


@dataclass(frozen=True, eq=False)
class LabelledTiles:
    """The tiles that a training may show.

    Attributes:
        places: (n, 2) int64, of each tile its picture and its number there; in this order.
        targets: (n, K) float32, 1 for labels that hold.
        good: (n,) bool, which tiles show no defect.
        grazing: tiles that are left out because they show only a little of a defect.
        unmarked: names of defective pictures that are left out, since nothing tells where their defects are.
    """

    places: NDArray[np.int64]
    targets: torch.Tensor
    good: NDArray[np.bool_]
    grazing: int
    unmarked: tuple[str, ...]

    def record(self) -> dict[str, int]:
        """Return the counts as JSON content."""
        return {
            "defective": int((~self.good).sum()),
            "good": int(self.good.sum()),
            "grazing": self.grazing,
            "pictures_without_annotation": len(self.unmarked),
        }


def label_tiles(dataset: Dataset, grids: Sequence[Grid]) -> LabelledTiles:
    """Say of each tile which defects it shows.

    A tile shows a class where it holds `ENOUGH_OF_DEFECT` of one of its defects, or where `ENOUGH_OF_TILE` of
    the tile is of the class; so does, where no tile of a picture would, the one that holds the most. A tile
    without any annotated pixel is good, in a good picture and in a defective one. All others are left out:
    neither label would be true of them.

    Raises:
        DataError: a mask cannot be read, or is not as large as its picture.
        TrainingError: a class of which no tile is known, with the remedy.
    """
    index_of = {name: index for index, name in enumerate(dataset.classes)}
    good_index = None if dataset.multi_label else index_of[str(dataset.good_class)]
    places, targets, unmarked = [], [], []
    grazing = 0
    for picture, (item, grid) in enumerate(zip(dataset.items, grids, strict=True)):
        shown, pixels = _shown_classes(item, grid)
        nothing = np.zeros(len(grid), dtype=bool)
        if any(not shown.get(label, nothing).any() for label in item.labels if label != dataset.good_class):
            unmarked.append(item.name)
            continue
        rows = np.zeros((len(grid), len(dataset.classes)), dtype=np.float32)
        most = np.zeros(len(grid), dtype=np.int64)
        clean: NDArray[np.bool_] = ~nothing
        grazed: NDArray[np.bool_] = nothing.copy()
        for label, own in pixels.items():
            clean &= own == 0
            seen = shown[label] & (label in index_of)
            grazed |= (own > 0) & ~seen
            if good_index is not None:
                # Of several classes in a tile the one with the most pixels is its label.
                seen &= own > most
                rows[seen] = 0
                most = np.where(seen, own, most)
            if label in index_of:
                rows[seen, index_of[label]] = 1
        usable: NDArray[np.bool_] = ~grazed  # what it shows a little of is neither there nor absent
        if good_index is not None:
            rows[clean, good_index] = 1
            usable = np.asarray(rows.any(axis=1), dtype=np.bool_)
        grazing += int((~usable).sum())
        kept = np.flatnonzero(usable)
        places.append(np.stack([np.full(len(kept), picture), kept], axis=1))
        targets.append(rows[kept])
    if unmarked and not any(item.annotations for item in dataset.items):
        raise TrainingError(
            f"{len(unmarked)} defective pictures, {unmarked[0]} among them, and no mask or box says where "
            "their defects are, so that no tile can be labelled: give masks (--mask-column) or boxes, or "
            "train without --tile"
        )
    matrix = torch.from_numpy(np.concatenate(targets)) if targets else torch.zeros(0, len(index_of))
    counts = matrix.sum(dim=0).tolist()
    if absent := [name for name, count in zip(dataset.classes, counts, strict=True) if not count]:
        raise TrainingError(
            f"no training tile of class {', '.join(absent)}: give masks (--mask-column) or boxes of such "
            "pictures, more pictures, or train without --tile"
        )
    good = (matrix.sum(dim=1) == 0) if good_index is None else matrix[:, good_index] > 0
    if not bool(good.any()):
        raise TrainingError("no training tile is good: add good pictures, or use a smaller --tile scale")
    return LabelledTiles(
        np.concatenate(places).astype(np.int64), matrix, good.numpy(), grazing, tuple(unmarked)
    )


def _shown_classes(
    item: Item, grid: Grid
) -> tuple[dict[str, NDArray[np.bool_]], dict[str, NDArray[np.int64]]]:
    """Return for each annotated class which tiles (n,) show it, and how many of its pixels they hold."""
    rectangles = [grid.rectangle(index) for index in range(len(grid))]
    areas = np.array([(right - left) * (bottom - top) for left, top, right, bottom in rectangles])
    shown, pixels = {}, {}
    for label, share in annotated_share(item, rectangles, grid.picture).items():
        enough = (share.share >= ENOUGH_OF_DEFECT) | (share.pixels >= ENOUGH_OF_TILE * areas)
        enough &= share.pixels > 0
        if not enough.any() and share.pixels.any():
            enough[int(share.share.argmax())] = True
        shown[label], pixels[label] = enough, share.pixels
    return shown, pixels


class TileSample:
    """Which tiles an epoch shows: all with a defect, of each picture at most so many good ones.

    The number of tiles is the same in each epoch.

    Args:
        tiles: what there is.
        good_tiles: of a picture, in an epoch.
        hard_share: the largest share of an epoch's good tiles that are hard ones, once they are known.
    """

    def __init__(self, tiles: LabelledTiles, good_tiles: int, hard_share: float) -> None:
        self._defective = np.flatnonzero(~tiles.good)
        self._picture = tiles.places[:, 0]
        good = np.flatnonzero(tiles.good)
        borders = np.flatnonzero(np.diff(self._picture[good])) + 1
        self._good_of_pictures = np.split(good, borders)
        self._most = good_tiles
        self._hard_count = round(
            hard_share * sum(min(good_tiles, len(own)) for own in self._good_of_pictures)
        )
        self.hard: list[int] = []

    def draw(self, generator: torch.Generator) -> torch.Tensor:
        """Return the tiles of an epoch, (m,) int64: of the good ones all hard ones, and others at random."""
        chosen = [self._defective]
        hard = np.array(sorted(self.hard), dtype=np.int64)
        for own in self._good_of_pictures:
            always = own[np.isin(own, hard)]
            others = own[~np.isin(own, hard)]
            order = torch.randperm(len(others), generator=generator).numpy()
            chosen += [always, others[order[: max(0, self._most - len(always))]]]
        return torch.from_numpy(np.concatenate(chosen))

    def candidates(self, generator: torch.Generator) -> list[int]:
        """Return the good tiles among which the hard ones are looked for: of each picture at most so many."""
        found: list[int] = []
        for own in self._good_of_pictures:
            order = torch.randperm(len(own), generator=generator).numpy()
            found += sorted(own[order[: SCORED_FOR_HARD * self._most]].tolist())
        return found

    def keep_hard(self, candidates: Sequence[int], scores: NDArray[np.floating]) -> None:
        """Keep the good tiles with the highest defect scores; of a picture no more than an epoch shows."""
        taken: dict[int, int] = {}
        self.hard = []
        for place in np.argsort(-scores, kind="stable").tolist():
            tile = candidates[place]
            picture = int(self._picture[tile])
            if len(self.hard) == self._hard_count:
                break
            if taken.get(picture, 0) < self._most:
                taken[picture] = taken.get(picture, 0) + 1
                self.hard.append(tile)


def annotations_digest(dataset: Dataset) -> str:
    """Return a SHA-256 over what is annotated in a data set, with the content of mask files."""
    rows = []
    for item in dataset.items:
        for one in item.annotations:
            if isinstance(one, MaskFile):
                try:
                    content = hashlib.sha256(one.path.read_bytes()).hexdigest()
                except OSError as error:
                    raise TrainingError(f"{one.path}: the mask cannot be read: {error.strerror}") from error
                rows.append([item.name, one.label, one.above, content])
            else:
                rows.append([item.name, repr(one)])
    return hashlib.sha256(canonical(rows)).hexdigest()
