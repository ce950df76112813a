"""From the bytes of a picture to upright RGB pixels, or to the reason why not.

Nothing in the file is trusted: size and page count are read from the header before any pixel is decoded,
and whatever Pillow raises becomes `Unreadable`. PNG checksums are compared; the other formats have none, so
damage that leaves them well-formed cannot be seen. Imports the standard library, numpy and Pillow alone.
"""

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile, jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import (
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    TiffImageFile,
)
from PIL.WebPImagePlugin import WebPImageFile

from sources.errors import Unreadable

MAX_PIXELS = 100_000_000
MAX_SIDE = 65_535  # pixels, as in a JPEG; Pillow fails on rows of many millions, well within MAX_PIXELS

# Bytes that decoding takes for each pixel at most: 32-bit grey, held as levels, as float64 and as RGB.
_PIXEL_BYTES = 40

Pixels = npt.NDArray[np.uint8]

_PLAIN_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
_DEEP_MODES = {"I;16", "I;16L", "I;16B", "I", "F"}
_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {  # EXIF orientation -> what puts the picture upright
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p),
}

_TURNED = (5, 6, 7, 8)  # of these, what exchange height and width


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An upright picture.

    Attributes:
        pixels: (height, width, 3) uint8 RGB, not to be written to. Of a grey picture the three channels are
            one plane in memory (a stride of 0), which spares whoever works on it two thirds of the work.
        width: of the picture; a JPEG that was decoded reduced has fewer pixels.
        height: of the picture.
        format: Pillow's name of the file format, such as "PNG".
        mode: Pillow's name of the colour mode in the file, such as "L".
    """

    pixels: Pixels
    width: int
    height: int
    format: str
    mode: str


def decode(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    grey_range: tuple[int, int] | None = None,
    memory: int | None = None,
    needed: Callable[[int, int], tuple[int, int]] | None = None,
) -> DecodedImage:
    """Decode a PNG, JPEG, TIFF, BMP or WebP file to upright 8-bit RGB.

    Transparent areas are laid over black. 16-bit colour keeps its high byte. Colour profiles and gamma are
    not applied.

    Args:
        data: the bytes of the file.
        max_pixels: a larger picture is refused before it is decoded.
        grey_range: low and high level of grey deeper than 8 bits; mapped linearly to 0..255, rounded and
            clipped. Without it 16-bit unsigned grey is mapped from 0..65535; signed, 32-bit and float grey
            have no range of their own and are refused. Other pictures do not use it.
        memory: bytes that this process may take. Libraries say "damaged" where they got no memory: where a
            picture of this size can need more, their error counts as a lack of memory.
        needed: tells, for height and width of a picture, what height and width of it are needed. A JPEG of
            twice that or more is decoded at a half, a quarter or an eighth, which costs a fraction: libjpeg
            takes the averages of 2, 4 or 8 pixels each way from the coefficients. Nothing is cut off.

    Raises:
        Unreadable: with the reason: an empty, unsupported, damaged or truncated file, more than `max_pixels`
            pixels, a side of more than `MAX_SIDE`, more than one frame or page.
        MemoryError: there was not enough memory, which says nothing about the picture.
        ValueError: a `grey_range` whose low end is not below its high end.
    """
    if grey_range is not None and grey_range[0] >= grey_range[1]:
        raise ValueError(f"grey_range {grey_range}: the low end must be below the high end")
    if not data:
        raise Unreadable("the file is empty (0 bytes)")
    try:
        with _truncation_refused():
            return _decode(data, max_pixels, grey_range, needed)
    except (Unreadable, MemoryError):
        raise  # running out of memory is this machine's trouble, not a fault of the picture to put on record
    except Exception as error:  # damaged files make Pillow raise SyntaxError, struct.error, ...
        if memory is not None and _most_memory(data) > memory:
            raise MemoryError(f"{type(error).__name__}: {error}") from error
        raise Unreadable(f"damaged or truncated file ({str(error) or type(error).__name__})") from error


def header_shape(stream: IO[bytes], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int, int]:
    """Return height, width and number of planes (3, or 1 of a grey picture) of what `decode` would give.

    Only the header is read. Height and width are those of the file: a picture that `decode` turns upright
    may have them exchanged.

    Raises:
        Unreadable: an unsupported file, or too large, as of `decode`. Other errors of a damaged header.
    """
    start = stream.read(30)
    stream.seek(0)
    if (announced := _webp_size(start)) is not None:
        (width, height), planes = announced, 3
    else:
        image = _opened_image(stream)
        width, height = image.size
        plain_grey = image.mode == "L" and not image.has_transparency_data
        planes = 1 if plain_grey or image.mode in _DEEP_MODES else 3
    _check_size(width, height, max_pixels)
    return height, width, planes


def upright_size(data: bytes) -> tuple[int, int]:
    """Return height and width of a picture as `decode` would return it, from its header alone.

    Raises:
        Unreadable: with the reason.
    """
    try:
        if (announced := _webp_size(data)) is not None:
            _check_size(*announced, MAX_PIXELS)
        image = _opened_image(BytesIO(data))
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
    except (Unreadable, MemoryError):
        raise
    except Exception as error:
        raise Unreadable(f"damaged or truncated file ({str(error) or type(error).__name__})") from error
    return (width, height) if turned else (height, width)


def _decode(
    data: bytes,
    max_pixels: int,
    grey_range: tuple[int, int] | None,
    needed: Callable[[int, int], tuple[int, int]] | None,
) -> DecodedImage:
    if (announced := _webp_size(data)) is not None:
        _check_size(*announced, max_pixels)  # libwebp takes the memory for all pixels when it opens a file
    image = _opened_image(BytesIO(data))
    _check_size(*image.size, max_pixels)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise Unreadable(f"{frames} frames or pages in one file: save each as a picture of its own")
    if isinstance(image, PngImageFile):
        # Pillow decodes pixels without comparing the file's checksums. verify() does, and uses the object up.
        image.verify()
        image = PngImageFile(BytesIO(data))
    if isinstance(image, TiffImageFile):
        _check_strips(image)
    whole = _reduced_size(image, needed) if needed is not None and isinstance(image, JpegImageFile) else None
    image.load()
    if image.mode in _DEEP_MODES:
        pixels = _pixels_of_deep_grey(image, grey_range)
    elif image.mode in _PLAIN_MODES:
        pixels = _pixels_of_plain(image)
    else:
        raise Unreadable(f"colour mode {image.mode} is not supported: save the picture as grey or RGB")
    # Pillow has turned a TIFF upright by now, and taken the tag away.
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation in _UPRIGHT:
        pixels = _UPRIGHT[orientation](pixels)
    pixels = np.ascontiguousarray(pixels)
    if pixels.ndim == 2:
        pixels = np.broadcast_to(pixels[:, :, None], (*pixels.shape, 3))
    height, width = whole or pixels.shape[:2]
    return DecodedImage(pixels, width, height, image.format or "", image.mode)


def _reduced_size(image: JpegImageFile, needed: Callable[[int, int], tuple[int, int]]) -> tuple[int, int]:
    """Have a JPEG decoded as small as what is needed allows; return its own upright height and width."""
    width, height = image.size
    if image.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED:
        image.draft(None, needed(width, height))
        return width, height
    rows, columns = needed(height, width)
    image.draft(None, (columns, rows))
    return height, width


def pillow_picture(pixels: Pixels) -> Image.Image:
    """Return decoded pixels (h, w, 3) as Pillow's picture: "L" where they are one grey plane, else "RGB".

    What Pillow computes of the one plane is, to the bit, what it would compute of each of three.
    """
    return Image.fromarray(pixels[:, :, 0] if pixels.strides[2] == 0 else pixels)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise Unreadable(f"{width} x {height} pixels are more than the limit of {max_pixels}")
    if max(width, height) > MAX_SIDE:
        raise Unreadable(f"{width} x {height} pixels: a side has at most {MAX_SIDE}")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height from the first chunk of a WebP (RFC 9649); None for anything else."""
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    match data[12:16]:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return None


def _most_memory(data: bytes) -> int:
    """Return how many bytes decoding a file may take at most, by its size and its header."""
    try:
        width, height = _webp_size(data) or _opened_image(BytesIO(data)).size
    except Exception:  # noqa: BLE001 - as in `decode`; without a header nothing is taken for pixels
        width = height = 0
    return _PIXEL_BYTES * width * height + 3 * len(data)


def _opened_image(stream: IO[bytes]) -> ImageFile.ImageFile:
    """Read the header. The plugins are called by name: Image.open would compare sizes with a global limit."""
    data = stream.read(12)
    stream.seek(0)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile(stream)
    if data.startswith(b"\xff\xd8\xff"):
        return jpeg_factory(stream)
    if data.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return TiffImageFile(stream)
    if data.startswith(b"BM"):
        return BmpImageFile(stream)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImageFile(stream)
    raise Unreadable(
        f"not a PNG, JPEG, TIFF, BMP or WebP picture (it starts with the bytes {data[:8].hex(' ')})"
    )


def _check_strips(image: TiffImageFile) -> None:
    """Refuse a TIFF whose strips do not fill it: Pillow would leave the rest black, without an error."""
    if image.use_load_libtiff:
        return  # libtiff looks after that itself
    planes = len(image.getbands()) if image.tag_v2.get(PLANAR_CONFIGURATION) == 2 else 1
    boxes = [tile.extents or (0, 0, 0, 0) for tile in image.tile]
    filled = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    if filled < image.width * image.height * planes:
        raise Unreadable("damaged or truncated file (strips or tiles of the TIFF are missing)")


def _pixels_of_plain(image: Image.Image) -> Pixels:
    """Return (h, w, 3) uint8, or (h, w) of a grey picture."""
    if not image.has_transparency_data:
        return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    colour = image.convert("RGBA")
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return np.asarray(Image.alpha_composite(black, colour).convert("RGB"))


def _pixels_of_deep_grey(image: ImageFile.ImageFile, grey_range: tuple[int, int] | None) -> Pixels:
    """Return (h, w) uint8."""
    levels = np.asarray(image)
    if isinstance(image, TiffImageFile):
        if image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0:
            raise Unreadable("a 16- or 32-bit TIFF whose zero is white: save it with zero as black")
        if image.mode == "I" and image.tag_v2.get(SAMPLEFORMAT, (1,))[0] == 1:
            levels = levels.view(np.uint32)  # Pillow holds unsigned 32-bit levels in signed ones
    if grey_range is None:
        if not image.mode.startswith("I;16"):
            kind = "float" if image.mode == "F" else "signed or 32-bit"
            raise Unreadable(
                f"{kind} grey has no range of its own: set grey_range to its (lowest, highest) level"
            )
        grey_range = (0, 65535)
    if levels.dtype.itemsize == 2:
        grey: Pixels = _scaled_levels(np.arange(65536), grey_range)[levels]
    elif np.isfinite(levels).all():
        grey = _scaled_levels(levels, grey_range)
    else:
        raise Unreadable("the picture holds levels that are not numbers (NaN or infinity)")
    transparent = image.info.get("transparency")
    if transparent is not None:  # PNG: the one level that stands for "nothing here"
        grey[levels == transparent] = 0
    return grey


def _scaled_levels(levels: npt.NDArray[Any], grey_range: tuple[int, int]) -> Pixels:
    low, high = grey_range
    scaled = (levels.astype(np.float64) - low) * 255 / (high - low)
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


_flag_lock = threading.Lock()
_decoders_at_work = 0
_flag_before = False


@contextmanager
def _truncation_refused() -> Iterator[None]:
    """Hold Pillow's LOAD_TRUNCATED_IMAGES at False while any thread decodes, and put it back afterwards.

    The flag belongs to the whole process and importing WeasyPrint sets it, upon which the missing half of a
    picture would be read as black, without an error.
    """
    global _decoders_at_work, _flag_before
    with _flag_lock:
        if _decoders_at_work == 0:
            _flag_before = ImageFile.LOAD_TRUNCATED_IMAGES
        _decoders_at_work += 1
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _flag_lock:
            _decoders_at_work -= 1
            if _decoders_at_work == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = _flag_before
