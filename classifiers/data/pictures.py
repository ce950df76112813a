"""Decode and resize the pictures of a data set; keep them in memory where they fit; batch, augment them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.random_erasing import RandomErasing
from timm.data.transforms_factory import create_transform
from torchvision import transforms

from classifiers.data.dataset import DataError, Dataset, Item
from classifiers.package.preprocessing import Preprocessing
from sources.decoding import DecodedImage, decode
from sources.errors import Unreadable

CACHE_BYTES = 4 * 2**30
DECODING_THREADS = 4


def read_pixels(item: Item) -> NDArray[np.uint8]:
    """Decode one labelled picture to (h, w, 3) uint8.

    Raises:
        DataError: the picture cannot be read. Labelled data is never skipped silently.
    """
    return _decoded(item, decode).pixels


def network_pixels(
    item: Item,
    preprocessing: Preprocessing,
    seen: Callable[[NDArray[np.uint8]], None] | None = None,
) -> NDArray[np.uint8]:
    """Decode one labelled picture for the network, and fit it into the input size: (H, W, 3) uint8.

    Args:
        item: the picture.
        preprocessing: of the network.
        seen: called with the pixels as decoded.

    Raises:
        DataError: see `read_pixels`.
    """
    decoded = _decoded(item, preprocessing.decode)
    if seen is not None:
        seen(decoded.pixels)
    return preprocessing.resize(decoded.pixels, (decoded.height, decoded.width))


def _decoded(item: Item, decoder: Callable[[bytes], DecodedImage]) -> DecodedImage:
    try:
        return decoder(item.path.read_bytes())
    except (OSError, Unreadable) as error:
        raise DataError(f"{item.path}: {error}; repair it or take it out of the labelled data") from error


def measure_colour(dataset: Dataset) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation per channel (0..1) of up to 256 pictures, spaced evenly.

    Raises:
        DataError: see `read_pixels`.
    """
    step = -(-len(dataset.items) // 256)
    total, squares, count = np.zeros(3), np.zeros(3), 0
    for item in dataset.items[::step]:
        pixels = read_pixels(item).reshape(-1, 3) / 255.0
        total += pixels.sum(axis=0)
        squares += (pixels**2).sum(axis=0)
        count += len(pixels)
    mean = total / count
    # A data set of a single colour has no spread, and pixels are divided by it.
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-4))
    red, green, blue = (round(float(value), 4) for value in mean)
    spread = tuple(round(float(value), 4) for value in std)
    return (red, green, blue), (spread[0], spread[1], spread[2])


class Pictures(torch.utils.data.Dataset[NDArray[np.uint8]]):
    """The resized pictures (H, W, 3) uint8 of a data set, decoded once where they fit into memory.

    Args:
        dataset: which pictures.
        preprocessing: how they are resized and normalised.
        cache_bytes: pictures are kept in memory where all of them together take no more than this.
        progress: called with (done, total) while the cache is filled.
        seen: called with (index, pixels as decoded) each time a picture is decoded, from several threads.
    """

    def __init__(
        self,
        dataset: Dataset,
        preprocessing: Preprocessing,
        *,
        cache_bytes: int = CACHE_BYTES,
        progress: Callable[[int, int], None] | None = None,
        seen: Callable[[int, NDArray[np.uint8]], None] | None = None,
    ) -> None:
        self.items = dataset.items
        self.preprocessing = preprocessing
        self._seen = seen
        rows, columns = preprocessing.input_size
        self._cache: NDArray[np.uint8] | None = None
        if len(self.items) * rows * columns * 3 <= cache_bytes:
            self._cache = np.empty((len(self.items), rows, columns, 3), dtype=np.uint8)
            with ThreadPoolExecutor(DECODING_THREADS) as pool:
                for index, pixels in enumerate(pool.map(self._resized_picture, range(len(self)))):
                    self._cache[index] = pixels
                    if progress is not None:
                        progress(index + 1, len(self.items))

    def _resized_picture(self, index: int) -> NDArray[np.uint8]:
        seen = None if self._seen is None else partial(self._seen, index)
        return network_pixels(self.items[index], self.preprocessing, seen)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self._cache[index] if self._cache is not None else self._resized_picture(index)

    def batches(self, batch_size: int, stride: int = 1) -> Iterator[torch.Tensor]:
        """Yield normalised input (B, 3, H, W) float32: every `stride`-th picture, in order.

        Decoding runs a batch ahead.
        """
        indices = range(0, len(self), stride)
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            ahead = [pool.submit(self.__getitem__, index) for index in indices[:batch_size]]
            for start in range(0, len(indices), batch_size):
                now = ahead
                following = indices[start + batch_size : start + 2 * batch_size]
                ahead = [pool.submit(self.__getitem__, index) for index in following]
                stacked = torch.from_numpy(np.stack([future.result() for future in now]))
                yield self.preprocessing.normalise(stacked.permute(0, 3, 1, 2))


@dataclass(frozen=True)
class Augmentation:
    """How training pictures are varied. The defaults keep small defects visible and suit grey surfaces.

    Attributes:
        horizontal_flip: probability of a left-right flip.
        vertical_flip: probability of a top-bottom flip.
        rotation: largest angle, in degrees.
        crop_scale: the smallest share of the area that a random crop keeps; 1 for no crop. Below 0.7, defects
            at the border are cut off although the label still claims them.
        crop_ratio: largest factor by which a crop changes the aspect ratio.
        brightness: largest relative change, as by the camera's exposure.
        contrast: largest relative change.
        saturation: largest relative change; 0 for grey pictures.
        auto_augment: a policy of timm, such as "rand-m5-n2-mstd0.5"; it turns colour jitter off.
        erase: probability that a rectangle is blackened; it may hide the defect.
    """

    horizontal_flip: float = 0.5
    vertical_flip: float = 0.5
    rotation: float = 5.0
    crop_scale: float = 0.85
    crop_ratio: float = 1.1
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.0
    auto_augment: str | None = None
    erase: float = 0.0

    def transform(self, preprocessing: Preprocessing) -> Callable[[Image.Image], torch.Tensor]:
        """Return timm's transform from a resized PIL picture to a varied one (3, H, W) uint8.

        It does not normalise. Whole batches are normalised at once: for single pictures, torch's threads
        cost more than they save.
        """
        chain: Any = create_transform(
            (3, *preprocessing.input_size),
            is_training=True,
            scale=(self.crop_scale, 1.0),
            ratio=(1 / self.crop_ratio, self.crop_ratio),
            hflip=self.horizontal_flip,
            vflip=self.vertical_flip,
            color_jitter=(self.brightness, self.contrast, self.saturation),
            auto_augment=self.auto_augment,
            interpolation=preprocessing.interpolation,
            mean=preprocessing.mean,
            normalize=False,
        )
        steps = list(chain.transforms)
        if self.rotation:
            steps.insert(
                0,
                transforms.RandomRotation(
                    self.rotation,
                    interpolation=transforms.InterpolationMode.BILINEAR,
                    fill=list(preprocessing.fill),
                ),
            )
        if self.erase:
            erasing = RandomErasing(self.erase, device="cpu")  # type: ignore[no-untyped-call]
            steps.append(erasing)
        return transforms.Compose(steps)  # type: ignore[no-any-return]


class NetworkPictures(Protocol):
    """What is shown to the network: pictures (H, W, 3) uint8 of its input size, or tiles of pictures."""

    preprocessing: Preprocessing

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...


class AugmentedPictures(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Pictures varied at random: (seed, epoch, position) decide each, in whichever process it is made."""

    def __init__(self, pictures: NetworkPictures, augmentation: Augmentation, seed: int) -> None:
        self.pictures = pictures
        self.transform = augmentation.transform(pictures.preprocessing)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, draw: tuple[int, int, int]) -> tuple[torch.Tensor, int]:
        """Return a varied picture (3, H, W) uint8 and its index.

        Args:
            draw: (epoch, position in the epoch, picture index).
        """
        epoch, position, index = draw
        # timm draws from `random` and numpy, torchvision from torch. All three states are restored: where no
        # worker process makes the picture, dropout in this process must see its own stream.
        key = derived_seed(self.seed, epoch, position)
        states = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices=[]):
            random.seed(key)
            np.random.seed(key)
            torch.manual_seed(key)
            result = self.transform(Image.fromarray(self.pictures[index]))
        random.setstate(states[0])
        np.random.set_state(states[1])
        return result, index


def derived_seed(*numbers: int) -> int:
    """Return a 32-bit seed that depends on all of the numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
