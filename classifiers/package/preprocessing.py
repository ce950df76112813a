"""Turn decoded pixels into the network's input: resize without cropping, then normalise.

Processes that decode pictures import this module and no torch: what needs torch asks for it when called.
"""

from __future__ import annotations

import reprlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sources.decoding import MAX_PIXELS, DecodedImage, decode, pillow_picture

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
        jpeg_scaling: whether a JPEG of at least twice the size that the network sees is decoded at a half, a
            quarter or an eighth, in less than half the time. Its statistics are those of what was decoded.
    """

    input_size: tuple[int, int]
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    fit: str = "pad"
    jpeg_scaling: bool = False

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
        if type(self.jpeg_scaling) is not bool:
            raise ValueError(f"jpeg_scaling must be true or false, not {reprlib.repr(self.jpeg_scaling)}")

    def record(self) -> dict[str, Any]:
        """Return JSON content; what came later than a package is left out where it means "as before"."""
        content = asdict(self)
        if not self.jpeg_scaling:
            del content["jpeg_scaling"]
        return content

    def decode(
        self,
        data: bytes,
        *,
        max_pixels: int = MAX_PIXELS,
        grey_range: tuple[int, int] | None = None,
        memory: int | None = None,
    ) -> DecodedImage:
        """Decode the bytes of a picture for the network; arguments and errors are those of `decode`.

        Give the picture's own height and width, besides its pixels, to what is to fit it into the input.
        """
        return decode(
            data,
            max_pixels=max_pixels,
            grey_range=grey_range,
            memory=memory,
            needed=self._needed if self.jpeg_scaling else None,
        )

    def _needed(self, height: int, width: int) -> tuple[int, int]:
        top, left, bottom, right = self.content_box(height, width)
        return bottom - top, right - left

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

    def resize(self, pixels: NDArray[np.uint8], size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Return a picture (h, w, 3) uint8 fitted into the input size: (H, W, 3) uint8.

        Args:
            pixels: of the picture.
            size: its own height and width, where it was decoded reduced: they decide its proportions.
        """
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
            raise ValueError(
                f"pixels must be a non-empty (h, w, 3) uint8 array, got {pixels.shape} {pixels.dtype}"
            )
        top, left, bottom, right = self.content_box(*(size or pixels.shape[:2]))
        picture = pillow_picture(pixels)
        resized = picture.resize((right - left, bottom - top), INTERPOLATIONS[self.interpolation])
        canvas = np.empty((*self.input_size, 3), dtype=np.uint8)
        for bar in (canvas[:top], canvas[bottom:], canvas[:, :left], canvas[:, right:]):
            bar[:] = self.fill
        canvas[top:bottom, left:right] = np.atleast_3d(np.asarray(resized))
        return canvas

    def scaled(self, pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return a picture (h, w, 3) uint8 as a whole at another height and width: (*size, 3) uint8.

        A grey picture stays one plane in memory. At its own size the picture is returned as it is.
        """
        if pixels.shape[:2] == size:
            return pixels
        resized = pillow_picture(pixels).resize((size[1], size[0]), INTERPOLATIONS[self.interpolation])
        scaled = np.asarray(resized)
        return scaled if scaled.ndim == 3 else np.broadcast_to(scaled[:, :, None], (*size, 3))

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

    def transform(self, pixels: NDArray[np.uint8], size: tuple[int, int] | None = None) -> torch.Tensor:
        """Return a picture as the network's input (3, H, W) float32; arguments are those of `resize`."""
        import torch

        return torch.from_numpy(self.network_input(pixels, size))

    def network_input(
        self, pixels: NDArray[np.uint8], size: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """Return what `transform` returns, in numpy."""
        # In numpy, unlike `normalise`: for single pictures, often from several threads, torch's own threads
        # would cost ten times the work they share.
        scaled = self.resize(pixels, size).transpose(2, 0, 1).astype(np.float32, order="C")
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
