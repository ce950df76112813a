"""Turn decoded pixels into the network's input: resize without cropping, then normalise.

Processes that decode pictures import this module and no torch: what needs torch asks for it when called.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sources.decoding import pillow_picture

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
FITS = ("stretch", "pad")
MAX_INPUT = 4096 * 4096  # pixels of the network's input, of which each picture of a batch takes 12 bytes


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input.

    Nothing is ever cropped: a corner that is cut off is not inspected.

    Attributes:
        input_size: height and width of the network's input, in pixels.
        mean: per-channel mean, on the 0..1 scale.
        std: per-channel standard deviation, on the 0..1 scale.
        interpolation: "bilinear" or "bicubic", both antialiased.
        fit: "stretch" (aspect ratio changes) or "pad" (aspect ratio kept, bars of the mean colour).
    """

    input_size: tuple[int, int]
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    fit: str = "pad"

    def __post_init__(self) -> None:
        # What a package says arrives here as it was read: of any type.
        size: object = self.input_size
        if (
            not isinstance(size, tuple)
            or len(size) != 2
            or not all(type(side) is int and side >= 1 for side in size)
            or size[0] * size[1] > MAX_INPUT
        ):
            raise ValueError(
                f"input_size must be (height, width) in whole pixels, at most {MAX_INPUT} together,"
                f" got {reprlib.repr(size)}"
            )
        for name, colour in (("mean", self.mean), ("std", self.std)):
            if not is_colour(colour) or (name == "std" and min(colour) <= 0):
                raise ValueError(f"{name} must be three numbers, std positive, got {reprlib.repr(colour)}")
        if self.interpolation not in tuple(INTERPOLATIONS):
            shown = reprlib.repr(self.interpolation)
            raise ValueError(f"interpolation must be one of {tuple(INTERPOLATIONS)}, not {shown}")
        if self.fit not in FITS:
            raise ValueError(f"fit must be one of {FITS}, not {reprlib.repr(self.fit)}")

    def content_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return where a picture of this size lies in the network's input.

        To draw an attribution map over the picture, cut this box out of the map first.

        Returns:
            (top, left, bottom, right) in input pixels; the whole input for "stretch".
        """
        rows, columns = self.input_size
        if self.fit == "stretch":
            return 0, 0, rows, columns
        scale = min(rows / height, columns / width)
        inner_rows = min(rows, max(1, round(height * scale)))
        inner_columns = min(columns, max(1, round(width * scale)))
        top, left = (rows - inner_rows) // 2, (columns - inner_columns) // 2
        return top, left, top + inner_rows, left + inner_columns

    def resize(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a picture (h, w, 3) uint8 fitted into the input size: (H, W, 3) uint8."""
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
            raise ValueError(
                f"pixels must be a non-empty (h, w, 3) uint8 array, got {pixels.shape} {pixels.dtype}"
            )
        top, left, bottom, right = self.content_box(pixels.shape[0], pixels.shape[1])
        picture = pillow_picture(pixels)
        resized = picture.resize((right - left, bottom - top), INTERPOLATIONS[self.interpolation])
        canvas = np.empty((*self.input_size, 3), dtype=np.uint8)
        for bar in (canvas[:top], canvas[bottom:], canvas[:, :left], canvas[:, right:]):
            bar[:] = self.fill
        canvas[top:bottom, left:right] = np.atleast_3d(np.asarray(resized))
        return canvas

    @property
    def fill(self) -> tuple[int, int, int]:
        """The mean as a colour (0..255), for bars and for the corners that a rotation uncovers."""
        red, green, blue = (min(255, max(0, round(255 * value))) for value in self.mean)
        return red, green, blue

    def normalise(self, resized: torch.Tensor) -> torch.Tensor:
        """Return (..., 3, H, W) uint8 as float32: scaled to 0..1, less the mean, divided by std."""
        scaled = resized.float() / 255.0
        mean = scaled.new_tensor(self.mean).view(3, 1, 1)
        std = scaled.new_tensor(self.std).view(3, 1, 1)
        return (scaled - mean) / std

    def transform(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """Return a picture (h, w, 3) uint8 as the network's input (3, H, W) float32."""
        import torch

        return torch.from_numpy(self.network_input(pixels))

    def network_input(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return a picture (h, w, 3) uint8 as the network's input (3, H, W) float32, in numpy."""
        # In numpy, unlike `normalise`: for single pictures, often from several threads, torch's own threads
        # would cost ten times the work they share.
        scaled = self.resize(pixels).transpose(2, 0, 1).astype(np.float32, order="C")
        scaled /= np.float32(255)
        scaled -= np.array(self.mean, dtype=np.float32)[:, None, None]
        scaled /= np.array(self.std, dtype=np.float32)[:, None, None]
        return scaled


def is_colour(value: object) -> bool:
    """Whether a value is a tuple of three numbers."""
    return (
        isinstance(value, tuple)
        and len(value) == 3
        and all(isinstance(part, int | float) and not isinstance(part, bool) for part in value)
    )
