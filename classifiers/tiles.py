"""Score the tiles of large pictures chunk by chunk, and decide about the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from classifiers.errors import PackageError
from classifiers.package.package import ModelPackage
from classifiers.package.preprocessing import Preprocessing
from classifiers.package.tiling import Grid, Tiling
from classifiers.predict import Decision, Predictor, decide, to_prediction

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class TiledPicture:
    """A decoded picture that the network sees tile by tile.

    Attributes:
        grid: its tiles.
        pixels: of the scaled picture, (*grid.scaled, 3) uint8. Of a grey picture the three channels may be
            one plane in memory (a stride of 0).
    """

    grid: Grid
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class TileScores:
    """What the network says of a picture's tiles: probabilities (n, K), defect scores (n,), both float32.

    `preferred`: the tile that decides although others score as high: a replay keeps to the recorded one.
    """

    probabilities: NDArray[np.float32]
    scores: NDArray[np.float32]
    preferred: int | None = None

    @property
    def deciding(self) -> int:
        """The tile with the highest score, the first of equal ones, unless another one is preferred."""
        return int(np.argmax(self.scores)) if self.preferred is None else self.preferred


def tiled_picture(package: ModelPackage, pixels: NDArray[np.uint8]) -> TiledPicture:
    """Return a picture (h, w, 3) uint8, decoded at its own size, as the network sees it.

    Raises:
        PackageError: the package has no tiling.
    """
    grid = _tiling(package).grid((pixels.shape[0], pixels.shape[1]), package.preprocessing.input_size)
    return TiledPicture(grid, package.preprocessing.scaled(pixels, grid.scaled))


def tile_inputs(
    preprocessing: Preprocessing,
    tiles: Sequence[tuple[TiledPicture, int]],
    device: torch.device | str = "cpu",
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return some tiles as the network's input (n, 3, H, W) float32, normalised on the device.

    Args:
        preprocessing: of the package.
        tiles: each with the picture it is cut from, and its number in that picture's grid.
        device: where the input is to be.
        out: memory on the CPU for it, of at least as many tiles.
    """
    if out is not None:
        for place, (picture, index) in enumerate(tiles):
            cut = picture.grid.cut(picture.pixels, [index], preprocessing.fill)
            out[place] = preprocessing.normalise(torch.from_numpy(cut).permute(0, 3, 1, 2))[0]
        return out[: len(tiles)]
    cut = np.empty((len(tiles), *preprocessing.input_size, 3), np.uint8)
    for place, (picture, index) in enumerate(tiles):
        cut[place] = picture.grid.cut(picture.pixels, [index], preprocessing.fill)[0]
    # Bytes travel to the device, a quarter of what floats would be.
    return preprocessing.normalise(torch.from_numpy(cut).to(device).permute(0, 3, 1, 2))


def scored_tiles(predictor: Predictor, pictures: Sequence[TiledPicture]) -> list[TileScores]:
    """Return the scores of all tiles of each picture.

    The tiles of all pictures share forward passes of `predictor.batch_size` tiles each. No more tiles than
    one pass takes are held at once.

    Raises:
        PackageError: as of `Predictor.logits`, or the package does not say which class is good.
    """
    package = predictor.package
    tiles = _tiles(pictures)
    parts = []
    # On the CPU one piece of memory serves all passes: taken anew for each, it leaves gaps that add up.
    size = predictor.batch_size, 3, *package.preprocessing.input_size
    kept = torch.empty(size) if predictor.device.type == "cpu" and pictures else None
    while chunk := list(islice(tiles, predictor.batch_size)):
        inputs = tile_inputs(package.preprocessing, chunk, predictor.device, kept)
        parts.append(predictor.logits(inputs))
    if not parts:
        return []
    return scores_of_pictures(package, torch.cat(parts), [len(picture.grid) for picture in pictures])


def scores_of_pictures(
    package: ModelPackage, logits: torch.Tensor, counts: Sequence[int]
) -> list[TileScores]:
    """Return of each picture what its tiles' logits say.

    Args:
        package: the model.
        logits: (M, K) of the tiles of all pictures, in order.
        counts: how many tiles each picture has.

    Raises:
        PackageError: the package does not say which class is good.
    """
    found = to_prediction(package, logits)
    ends = np.cumsum(counts)[:-1]
    return [
        TileScores(probabilities, scores)
        for probabilities, scores in zip(
            np.split(found.probabilities, ends), np.split(found.defect_scores, ends), strict=True
        )
    ]


def decide_tiles(package: ModelPackage, scored: TileScores) -> Decision:
    """Return the verdict and the flagged classes of one picture, whose score is made of its tiles' scores.

    A single-label package flags the deciding tile's most probable defect class, a multi-label package every
    class whose probability reaches the review threshold in some tile, with its highest probability.

    Raises:
        PackageError: the package has no tiling, is not calibrated, or a probability is no finite number.
    """
    score = _tiling(package).picture_scores(scored.scores)
    multi_label = package.task == "multi-label"
    shown = scored.probabilities.max(axis=0) if multi_label else scored.probabilities[scored.deciding]
    return decide(package, shown, score)


def _tiling(package: ModelPackage) -> Tiling:
    if package.tiling is None:
        raise PackageError(f"{package.path}: no tiling, so the network sees its pictures as a whole")
    return package.tiling


def _tiles(pictures: Sequence[TiledPicture]) -> Iterator[tuple[TiledPicture, int]]:
    for picture in pictures:
        for index in range(len(picture.grid)):
            yield picture, index
