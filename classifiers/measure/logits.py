"""The logits of labelled pictures, or of their tiles, and what a model package makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from classifiers.data.dataset import DataError, Dataset
from classifiers.data.pictures import Pictures
from classifiers.data.tiles import tile_batches, tiled_pictures
from classifiers.package.package import ModelPackage
from classifiers.predict import Decision, Prediction, Predictor, decide, to_prediction
from classifiers.tiles import TiledPicture, TileScores, decide_tiles, scores_of_pictures


@dataclass(frozen=True, eq=False)
class DatasetLogits:
    """Logits of pictures in the data set's order; of tiled ones, those of all tiles.

    Attributes:
        package: the model; where it has a tiling, rows are of tiles.
        rows: (M, K) float32.
        counts: how many tiles each picture has, (N,); None where rows are of pictures.
    """

    package: ModelPackage
    rows: torch.Tensor
    counts: tuple[int, ...] | None = None

    def tile_scores(self) -> list[TileScores]:
        """Return of each tiled picture what its tiles' logits say."""
        return scores_of_pictures(self.package, self.rows, self.counts or ())

    def deciding(self) -> torch.Tensor:
        """Return logits (N, K) of pictures: of a tiled one, those of its deciding tile."""
        if self.counts is None:
            return self.rows
        firsts = np.cumsum([0, *self.counts[:-1]])
        places = [int(first) + own.deciding for first, own in zip(firsts, self.tile_scores(), strict=True)]
        return self.rows[places]

    def prediction(self) -> Prediction:
        """Return probabilities (N, K), of a tiled picture its deciding tile's, and defect scores (N,)."""
        tiling = self.package.tiling
        if tiling is None:
            return to_prediction(self.package, self.rows)
        tiles = self.tile_scores()
        return Prediction(
            np.stack([own.probabilities[own.deciding] for own in tiles]),
            np.array([tiling.picture_scores(own.scores) for own in tiles], dtype=np.float32),
        )

    def decisions(self) -> tuple[Decision, ...]:
        """Return what the package, which must have thresholds, decides about each picture."""
        if self.package.tiling is None:
            return tuple(decide(self.package, row) for row in self.prediction().probabilities)
        return tuple(decide_tiles(self.package, own) for own in self.tile_scores())

    def tile_counts(self) -> dict[str, int]:
        """Return number of tiles -> pictures that have so many, as JSON content; empty without tiles."""
        return {str(count): pictures for count, pictures in sorted(Counter(self.counts or ()).items())}


def dataset_logits(
    predictor: Predictor,
    dataset: Dataset,
    *,
    progress: Callable[[int, int], None] | None = None,
    seen: Callable[[int, NDArray[np.uint8]], None] | None = None,
) -> DatasetLogits:
    """Return logits, divided by the package's temperature, in the data set's order.

    Args:
        predictor: the model.
        dataset: the pictures.
        progress: called with (pictures done, pictures).
        seen: called with (index, pixels as decoded) for each picture, from several threads.

    Raises:
        DataError: a picture cannot be read, or the data has other classes than the package.
    """
    package = predictor.package
    check_classes(package, dataset)
    parts = [torch.empty(0, len(package.classes))]
    if package.tiling is None:
        # Every picture is used once: there is nothing to gain from keeping them.
        pictures = Pictures(dataset, package.preprocessing, cache_bytes=0, seen=seen)
        done = 0
        for batch in pictures.batches(predictor.batch_size):
            parts.append(predictor.logits(batch))
            done += len(batch)
            if progress is not None:
                progress(done, len(pictures))
        return DatasetLogits(package, torch.cat(parts))
    counts: list[int] = []

    def counted(pictures: Iterator[TiledPicture]) -> Iterator[TiledPicture]:
        for picture in pictures:
            counts.append(len(picture.grid))
            yield picture

    tiled = counted(tiled_pictures(dataset.items, package.preprocessing, package.tiling, seen))
    for batch, done in tile_batches(tiled, package.preprocessing, predictor.batch_size, predictor.device):
        parts.append(predictor.logits(batch))
        if progress is not None:
            progress(done, len(dataset.items))
    return DatasetLogits(package, torch.cat(parts), tuple(counts))


def check_classes(package: ModelPackage, dataset: Dataset) -> None:
    """Raise DataError where labels are not of a package's task, or of classes that it does not know."""
    known = set(package.classes)
    strange = sorted({label for item in dataset.items for label in item.labels} - known)
    if dataset.task != package.task or strange:
        raise DataError(
            f"the data is {dataset.task} with labels unknown to the model: {', '.join(strange) or 'none'}; "
            f"{package.path} is {package.task} with classes {', '.join(package.classes)}"
        )
