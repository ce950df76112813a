"""The pictures of a data set as tiles: each decoded and scaled once, its tiles cut where they are wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from classifiers.data.dataset import Item
from classifiers.data.pictures import CACHE_BYTES, DECODING_THREADS, read_pixels
from classifiers.package.preprocessing import Preprocessing
from classifiers.package.tiling import Grid, Tiling
from classifiers.tiles import TiledPicture, tile_inputs

Seen = Callable[[int, NDArray[np.uint8]], None]


def tiled_picture(
    item: Item,
    preprocessing: Preprocessing,
    tiling: Tiling,
    seen: Callable[[NDArray[np.uint8]], None] | None = None,
) -> TiledPicture:
    """Decode one labelled picture and scale it as a whole, ready to be cut.

    Args:
        item: the picture.
        preprocessing: of the network; `fit` and `jpeg_scaling` play no part.
        tiling: of the network.
        seen: called with the pixels as decoded.

    Raises:
        DataError: see `classifiers.data.pictures.read_pixels`.
    """
    pixels = read_pixels(item)
    if seen is not None:
        seen(pixels)
    grid = tiling.grid((pixels.shape[0], pixels.shape[1]), preprocessing.input_size)
    return TiledPicture(grid, preprocessing.scaled(pixels, grid.scaled))


def tiled_pictures(
    items: Sequence[Item], preprocessing: Preprocessing, tiling: Tiling, seen: Seen | None = None
) -> Iterator[TiledPicture]:
    """Yield the pictures in order; a few are decoded ahead, in threads.

    Args:
        items: the pictures.
        preprocessing: as for `tiled_picture`.
        tiling: as for `tiled_picture`.
        seen: called with (index, pixels as decoded) for each picture, from several threads.
    """
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        ahead: deque[Future[TiledPicture]] = deque()
        try:
            for index, item in enumerate(items):
                own = None if seen is None else partial(seen, index)
                ahead.append(pool.submit(tiled_picture, item, preprocessing, tiling, own))
                if len(ahead) > DECODING_THREADS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def tile_batches(
    pictures: Iterator[TiledPicture],
    preprocessing: Preprocessing,
    batch_size: int,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield the tiles of all pictures as normalised input (B, 3, H, W) float32, on the device.

    Tiles of several pictures share a batch. No more is held than a batch and its pictures.

    Yields:
        Each batch with the number of pictures of which all tiles are in it or before it.
    """
    waiting: list[tuple[TiledPicture, int]] = []
    complete = 0
    for picture in pictures:
        for index in range(len(picture.grid)):
            waiting.append((picture, index))
            if len(waiting) == batch_size:
                yield (
                    tile_inputs(preprocessing, waiting, device),
                    complete + (index + 1 == len(picture.grid)),
                )
                waiting = []
        complete += 1
    if waiting:
        yield tile_inputs(preprocessing, waiting, device), complete


class ScaledPictures:
    """The scaled pictures of a data set, each decoded once.

    They are kept in memory up to a limit, and in files beyond it: there a tile costs the reading of its own
    pages, which the system keeps as long as it has memory to spare. Grey pictures take a byte a pixel, others
    three.

    Args:
        items: the pictures.
        preprocessing: how they are scaled and normalised.
        tiling: how they are cut.
        folder: where the files go.
        cache_bytes: how much is kept in memory.
        progress: called with (done, total) while pictures are read.
    """

    def __init__(
        self,
        items: Sequence[Item],
        preprocessing: Preprocessing,
        tiling: Tiling,
        folder: Path,
        *,
        cache_bytes: int = CACHE_BYTES,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.preprocessing = preprocessing
        self.grids: list[Grid] = []
        self._kept: list[NDArray[np.uint8] | Path] = []
        free = cache_bytes
        for index, picture in enumerate(tiled_pictures(items, preprocessing, tiling)):
            self.grids.append(picture.grid)
            pixels = picture.pixels
            planes = np.ascontiguousarray(pixels[:, :, :1] if pixels.strides[2] == 0 else pixels)
            free -= planes.nbytes
            if free >= 0:
                self._kept.append(planes)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                file = folder / f"{index:07d}.npy"
                np.save(file, planes)
                self._kept.append(file)
            if progress is not None:
                progress(index + 1, len(items))

    def __len__(self) -> int:
        return len(self.grids)

    def __getitem__(self, index: int) -> TiledPicture:
        kept = self._kept[index]
        planes = np.load(kept, mmap_mode="r") if isinstance(kept, Path) else kept
        # Of a grey picture one plane is kept.
        return TiledPicture(self.grids[index], np.broadcast_to(planes, (*planes.shape[:2], 3)))

    def __iter__(self) -> Iterator[TiledPicture]:
        return (self[index] for index in range(len(self)))


class Tiles(torch.utils.data.Dataset[NDArray[np.uint8]]):
    """Some tiles of pictures, (H, W, 3) uint8 each.

    Args:
        pictures: from which they are cut.
        places: (n, 2), of each tile its picture and its number there.
    """

    def __init__(self, pictures: ScaledPictures, places: NDArray[np.int64]) -> None:
        self.pictures = pictures
        self.places = places
        self.preprocessing = pictures.preprocessing

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        picture, number = self.places[index].tolist()
        tiled = self.pictures[picture]
        cut: NDArray[np.uint8] = tiled.grid.cut(tiled.pixels, [number], self.preprocessing.fill)[0]
        return cut

    def batches(
        self, batch_size: int, stride: int = 1, indices: Sequence[int] | None = None
    ) -> Iterator[torch.Tensor]:
        """Yield normalised input (B, 3, H, W) float32: every `stride`-th tile, or these, in order."""
        wanted = range(0, len(self), stride) if indices is None else indices
        for start in range(0, len(wanted), batch_size):
            places = self.places[list(wanted[start : start + batch_size])].tolist()
            yield tile_inputs(
                self.preprocessing, [(self.pictures[picture], number) for picture, number in places]
            )
