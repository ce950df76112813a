"""Whatever the bytes are, decoding gives a picture or says why not; half a picture never passes for one."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sources.decoding import DecodedImage, decode
from sources.errors import Unreadable

# In production Pillow's warnings stay warnings; as errors they would hide the paths behind them.
pytestmark = pytest.mark.filterwarnings("ignore")


def _valid_files() -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    colour = Image.fromarray(rng.integers(0, 256, (19, 23, 3), dtype=np.uint8))
    grey = colour.convert("L")
    deep = Image.fromarray(rng.integers(0, 65536, (19, 23), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "png": (colour, "PNG", {}),
        "png grey, exif": (grey, "PNG", {"exif": exif}),
        "png 16-bit": (deep, "PNG", {}),
        "png palette": (colour.convert("P"), "PNG", {"transparency": 3}),
        "jpeg": (colour, "JPEG", {"exif": exif}),
        "jpeg progressive": (grey, "JPEG", {"progressive": True}),
        "jpeg cmyk": (colour.convert("CMYK"), "JPEG", {}),
        "tiff": (grey, "TIFF", {}),
        "tiff 16-bit": (deep, "TIFF", {}),
        "tiff lzw": (colour, "TIFF", {"compression": "tiff_lzw"}),
        "tiff deflate": (deep, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "tiff packbits": (grey, "TIFF", {"compression": "packbits"}),
        "bmp": (colour, "BMP", {}),
        "bmp palette": (colour.convert("P"), "BMP", {}),
        "webp": (colour, "WEBP", {}),
        "webp lossless": (colour.convert("RGBA"), "WEBP", {"lossless": True}),
    }
    files = {}
    for name, (image, format, options) in kinds.items():
        buffer = BytesIO()
        image.save(buffer, format, **options)
        files[name] = buffer.getvalue()
    return files


FILES = _valid_files()
NAMES = st.sampled_from(sorted(FILES))


def outcome(data: bytes) -> DecodedImage | None:
    try:
        decoded = decode(data, max_pixels=1_000_000)
    except Unreadable as error:
        reason = str(error)
    else:
        reason = ""
    if reason:  # it goes on record: one short line, the same on every machine
        assert reason.isprintable()
        assert len(reason) < 200
        assert " at 0x" not in reason
        return None
    assert decoded.pixels.shape == (decoded.height, decoded.width, 3)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.c_contiguous or decoded.pixels[:, :, 0].flags.c_contiguous
    return decoded


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_truncated_file_is_refused_or_complete(name: str) -> None:
    data = FILES[name]
    whole = outcome(data)
    assert whole is not None
    for length in range(len(data)):
        part = outcome(data[:length])
        assert part is None or np.array_equal(part.pixels, whole.pixels), length


@settings(deadline=None, max_examples=400)
@given(
    name=NAMES, flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 7)), min_size=1, max_size=6)
)
def test_flipped_bits(name: str, flips: list[tuple[int, int]]) -> None:
    data = bytearray(FILES[name])
    for position, bit in flips:
        data[position % len(data)] ^= 1 << bit
    outcome(bytes(data))


@settings(deadline=None, max_examples=400)
@given(name=NAMES, place=st.integers(0, 300), junk=st.binary(min_size=1, max_size=24))
def test_overwritten_headers(name: str, place: int, junk: bytes) -> None:
    data = FILES[name]
    place %= len(data)
    outcome(data[:place] + junk + data[place + len(junk) :])


@settings(deadline=None, max_examples=300)
@given(
    start=st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"II+\x00", b"BM"]
    ),
    rest=st.binary(max_size=200),
)
def test_arbitrary_bytes(start: bytes, rest: bytes) -> None:
    outcome(start + rest)
    outcome(b"RIFF" + rest[:4] + b"WEBP" + rest[4:])
