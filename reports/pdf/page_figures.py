"""What the figures of a finding page are made of: sizes on paper, close-ups, scale bars, compression."""

import math
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from reports.pdf.framed_region import Region
from reports.pdf.layout import Asset

Pixels = npt.NDArray[np.uint8]

DPI = 150
TEXT_WIDTH = 174.0  # mm, of the page's text area
GUTTER = 4.0  # mm, between columns
CAPTION = 6.5  # mm, of a caption of one line and the space below it
CAPTIONS = 11.5  # mm, of the highest captions below the pictures
TALLEST = 100.0  # mm, of a picture
NARROWEST = 34.0  # mm, of a column with a caption
SCALE_BAR = 4.4  # mm, of a scale bar and the space above it
_MOST_ENLARGED = 8.0  # dots that a picture's pixel is drawn with in each direction, at most
_QUALITIES = (90, 85, 80, 75, 70, 65, 60, 55, 50, 45, 40)


@dataclass(frozen=True)
class Figure:
    """A printed picture: the URL of its bytes, and its size on paper."""

    url: str
    width_mm: float
    height_mm: float


@dataclass(frozen=True)
class BlockFigure:
    """A layer's map, or the fused map, in a column of `column_mm`."""

    layer: str
    figure: Figure
    column_mm: float
    fused: bool = False


@dataclass(frozen=True)
class CloseUp:
    """A part of the picture with every pixel of it drawn.

    Attributes:
        figure: the part; a pixel of the picture is `pixel_mm` wide and high on paper.
        left, top, right, bottom: its place in the picture, in pixels, the last two exclusive.
        whole: whether it holds all of the framed piece with the map's peak, or a part around the peak alone.
    """

    figure: Figure
    left: int
    top: int
    right: int
    bottom: int
    pixel_mm: float
    whole: bool


@dataclass(frozen=True)
class ScaleBar:
    """A line below a close-up, and the length that it stands for there."""

    width_mm: float
    label: str


@dataclass(frozen=True)
class Column:
    """Figures that stand below each other in a column: "picture", "map", "close-up", "close-up map"."""

    width_mm: float
    panels: tuple[str, ...]


@dataclass(frozen=True)
class FindingFigures:
    """The figures of a finding page.

    Attributes:
        panels: the columns in which picture, map and close-up stand side by side.
        below: the columns of a second row, below those.
        frames: left, top, width and height of each frame on the map, in percent of the picture.
        close_up_map: the close-up once more, with the map over it, of a tiled picture.
        scale_bar: of the close-up.
        columns: how many block maps stand side by side.
        gap: why there is no picture.
        map_gap: why there is no map.
        width_px, height_px: size of the picture as it was taken.
        reduced: whether fewer pixels are printed than the picture has.
        region: what the outline holds, and the frames around its pieces; None without a picture or a map.
    """

    columns: int
    panels: tuple[Column, ...] = ()
    below: tuple[Column, ...] = ()
    picture: Figure | None = None
    overlay: Figure | None = None
    frames: tuple[tuple[float, float, float, float], ...] = ()
    close_up: CloseUp | None = None
    close_up_map: Figure | None = None
    scale_bar: ScaleBar | None = None
    gap: str | None = None
    map_gap: str | None = None
    width_px: int = 0
    height_px: int = 0
    reduced: bool = False
    region: Region | None = None
    blocks: tuple[BlockFigure, ...] = ()


@dataclass(frozen=True)
class Crop:
    """The place of a close-up in the picture, in pixels, and how many dots a pixel is drawn with."""

    box: tuple[int, int, int, int]
    scale: float
    whole: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.box[2] - self.box[0], self.box[3] - self.box[1]


def close_up_place(region: Region, room: tuple[float, float], width: int, height: int) -> Crop:
    """Place a close-up that fills `room` (mm): the framed piece with the map's peak and what surrounds it.

    No pixel is left out: a piece that is too large for that is shown around the peak alone.
    """
    left, top, right, bottom = region.frames[0]
    dots_wide, dots_high = to_dots(room[0]), to_dots(room[1])
    across, down = (1.3 * (right - left) + 8, 1.3 * (bottom - top) + 8)
    scale = min(dots_wide / across, dots_high / down)
    whole = min(dots_wide / (right - left), dots_high / (bottom - top)) >= 1.0
    scale = min(max(scale, 1.0), _MOST_ENLARGED)
    size = min(width, int(dots_wide / scale)), min(height, int(dots_high / scale))
    middle = ((left + right) / 2, (top + bottom) / 2) if whole else region.peak
    x, y = (
        min(max(round(at - side / 2), 0), most - side)
        for at, side, most in zip(middle, size, (width, height), strict=True)
    )
    return Crop((x, y, x + size[0], y + size[1]), scale, whole)


def scale_bar(close_up: CloseUp, pixel_size: float | None) -> ScaleBar:
    """Return a scale bar of a round length, two fifths of a close-up wide at most.

    Args:
        close_up: it stands below.
        pixel_size: millimetres that a pixel shows; without it, the bar is measured in pixels.
    """
    unit = pixel_size or 1.0
    longest = 0.4 * (close_up.right - close_up.left) * unit
    power = 10.0 ** math.floor(math.log10(longest))
    length = max(step * power for step in (1, 2, 5) if step * power <= longest)
    pixels = length / unit
    label = f"{pixels:g} px" if pixel_size is None else f"{length:g} mm, {pixels:.0f} px"
    return ScaleBar(round(pixels * close_up.pixel_mm, 2), label)


def to_dots(millimetres: float) -> int:
    """Return how many dots a length is printed with, one at least."""
    return max(1, round(millimetres / 25.4 * DPI))


def resize_pixels(pixels: Pixels, width: int, height: int) -> Pixels:
    """Return a picture (h, w, 3) brought to another size, antialiased."""
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def compressed_asset(pixels: Pixels, budget: int) -> Asset:
    """Compress without loss where that fits the budget (bytes), else as the best JPEG that fits.

    Where none fits, the JPEG of the lowest quality is taken.
    """
    grey = bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    # PNG seldom halves a photograph: it is tried only where that would do.
    if pixels.size // (3 if grey else 1) <= 2 * budget:
        data = image_bytes(image, "PNG", optimize=True)
        if len(data) <= budget:
            return Asset(data, "image/png")
    best = b""
    low, high = 0, len(_QUALITIES) - 1
    while low <= high:  # size falls with quality: search by halves
        middle = (low + high) // 2
        data = image_bytes(image, "JPEG", quality=_QUALITIES[middle], subsampling=0, optimize=True)
        if len(data) <= budget:
            best, high = data, middle - 1
        else:
            low = middle + 1
    return Asset(
        best or image_bytes(image, "JPEG", quality=_QUALITIES[-1], subsampling=0, optimize=True),
        "image/jpeg",
    )


def image_bytes(image: Image.Image, file_format: str, **options: int) -> bytes:
    """Return the bytes of a file in a format of Pillow's."""
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()
