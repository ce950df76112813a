"""Decoding: hand-computed pixels for every kind of picture, and a reason for every refusal."""

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

from sources import decoding as decoding_module
from sources.decoding import decode, header_shape
from sources.errors import Unreadable


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def colours(height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def refused(data: bytes, **options: Any) -> str:
    with pytest.raises(Unreadable) as caught:
        decode(data, **options)
    return str(caught.value)


def blocks(rows: int, columns: int, side: int) -> np.ndarray:
    """Grey squares of random levels: each is one pixel where the picture is reduced by `side`."""
    levels = np.random.default_rng(2).integers(0, 256, (rows, columns), dtype=np.uint8)
    return levels.repeat(side, axis=0).repeat(side, axis=1)


# --- a JPEG decoded reduced -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needed", "scale"),
    [((64, 96), 1), ((33, 48), 1), ((32, 48), 2), ((16, 24), 4), ((9, 9), 4), ((1, 1), 8)],
)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_is_decoded_as_small_as_is_needed_by_averages(
    mode: str, needed: tuple[int, int], scale: int
) -> None:
    data = encode(Image.fromarray(blocks(8, 12, 8)).convert(mode), "JPEG", quality=100)
    asked = []

    def answer(height: int, width: int) -> tuple[int, int]:
        asked.append((height, width))
        return needed

    decoded = decode(data, needed=answer)
    assert asked == [(64, 96)]
    assert (decoded.height, decoded.width, decoded.mode) == (64, 96, mode)
    assert decoded.pixels.shape == (64 // scale, 96 // scale, 3)
    whole = decode(data)
    assert (whole.height, whole.width) == whole.pixels.shape[:2] == (64, 96)
    averages = whole.pixels.reshape(64 // scale, scale, 96 // scale, scale, 3).mean(axis=(1, 3))
    assert np.abs(decoded.pixels - averages).max() <= 3


def test_every_pixel_counts_in_a_jpeg_decoded_reduced() -> None:
    """One white pixel anywhere, in the last and incomplete block too, brightens what is left of it."""
    for row, column in ((0, 0), (37, 42), (40, 44)):
        grey = np.zeros((41, 45), dtype=np.uint8)
        grey[row, column] = 255
        decoded = decode(encode(Image.fromarray(grey), "JPEG", quality=100), needed=lambda *_: (5, 5))
        assert decoded.pixels.shape == (6, 6, 3)
        assert decoded.pixels[row // 8, column // 8, 0] > 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_decoded_reduced_is_upright_and_knows_its_size(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(blocks(8, 12, 8)), "JPEG", quality=100, exif=exif)
    whole = decode(data)
    # Only along one side is there just enough for a quarter: exchanged sides would show.
    asked = (16, 24) if orientation < 5 else (24, 16)
    decoded = decode(data, needed=lambda *size: asked if size == (whole.height, whole.width) else (64, 64))
    assert (decoded.height, decoded.width) == (whole.height, whole.width)
    assert decoded.pixels.shape == (*asked, 3)
    averages = whole.pixels.reshape(asked[0], 4, asked[1], 4, 3).mean(axis=(1, 3))
    assert np.abs(decoded.pixels - averages).max() <= 3


def test_what_is_no_jpeg_is_decoded_whole() -> None:
    for format in ("PNG", "TIFF", "BMP"):
        data = encode(Image.fromarray(colours(64, 96)), format)
        assert decode(data, needed=lambda *_: (1, 1)).pixels.shape == (64, 96, 3)


def test_a_truncated_jpeg_is_refused_when_it_is_decoded_reduced_too() -> None:
    data = encode(Image.fromarray(colours(64, 96)), "JPEG")
    assert "truncated" in refused(data[: len(data) // 2], needed=lambda *_: (8, 8))


# --- what comes out ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_rgb_comes_back_exactly(format: str, options: dict[str, Any]) -> None:
    expected = colours()
    decoded = decode(encode(Image.fromarray(expected), format, **options))
    assert np.array_equal(decoded.pixels, expected)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.c_contiguous
    assert (decoded.width, decoded.height, decoded.format, decoded.mode) == (7, 5, format, "RGB")


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_close_to_what_was_saved(progressive: bool) -> None:
    grey = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))
    decoded = decode(encode(Image.fromarray(grey), "JPEG", quality=95, progressive=progressive))
    assert (decoded.format, decoded.mode) == ("JPEG", "L")
    assert np.abs(decoded.pixels.astype(int) - grey[:, :, None]).max() <= 3


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_grey_and_bilevel_fill_three_equal_channels(format: str) -> None:
    grey = colours()[:, :, 0]
    assert np.array_equal(decode(encode(Image.fromarray(grey), format)).pixels, np.dstack([grey] * 3))
    black_white = decode(encode(Image.fromarray(grey > 127), format))
    assert black_white.mode == "1"
    assert np.array_equal(black_white.pixels[:, :, 0], np.where(grey > 127, 255, 0))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_grey_picture_is_held_once(orientation: int) -> None:
    """Three equal channels would cost whoever resizes or measures them three times the work."""
    grey = colours(60, 40)[:, :, 0]
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode(encode(Image.fromarray(grey), "PNG", exif=exif)).pixels
    assert pixels.strides[2] == 0
    assert pixels[:, :, 0].flags.c_contiguous
    assert decoding_module.pillow_picture(pixels).mode == "L"
    assert decoding_module.pillow_picture(pixels.copy()).mode == "RGB"
    assert np.array_equal(np.asarray(decoding_module.pillow_picture(pixels)), pixels[:, :, 1])


def test_palette() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([2, 0, 1])
    for format in ("PNG", "TIFF", "BMP"):
        assert decode(encode(image, format)).pixels.tolist() == [[[70, 80, 90], [10, 20, 30], [40, 50, 60]]]


def test_transparency_is_laid_over_black() -> None:
    rgba = Image.new("RGBA", (1, 1), (200, 100, 51, 128))
    # 200 * 128 / 255 = 100.4, 100 * 128 / 255 = 50.2, 51 * 128 / 255 = 25.6
    for format, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        assert decode(encode(rgba, format, **options)).pixels.tolist() == [[[100, 50, 26]]]
    assert decode(encode(Image.new("LA", (1, 1), (255, 51)), "PNG")).pixels.tolist() == [[[51, 51, 51]]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    assert decode(encode(palette, "PNG", transparency=1)).pixels.tolist() == [[[10, 20, 30], [0, 0, 0]]]
    grey = Image.fromarray(np.array([[7, 9]], dtype=np.uint8))
    assert decode(encode(grey, "PNG", transparency=9)).pixels[:, :, 0].tolist() == [[7, 0]]
    deep = Image.fromarray(np.array([[65535, 30000]], dtype=np.uint16))
    assert decode(encode(deep, "PNG", transparency=65535)).pixels[:, :, 0].tolist() == [[0, 117]]


def test_cmyk() -> None:
    image = Image.new("CMYK", (2, 1))
    image.putdata([(0, 0, 0, 0), (0, 255, 255, 0)])
    assert decode(encode(image, "TIFF")).pixels.tolist() == [[[255, 255, 255], [255, 0, 0]]]
    jpeg = decode(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
    assert jpeg.mode == "CMYK"
    assert np.abs(jpeg.pixels.astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize(("format", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")])
def test_16_bit_grey_spans_its_full_range_unless_told(format: str, dtype: str) -> None:
    data = encode(Image.fromarray(np.array([[0, 128, 129, 32768, 65407, 65535]], dtype=dtype)), format)
    # one grey level is 257 steps wide, rounded at its half
    assert decode(data).pixels[0, :, 0].tolist() == [0, 0, 1, 128, 255, 255]
    assert decode(data, grey_range=(0, 255)).pixels[0, :, 0].tolist() == [0, 128, 129, 255, 255, 255]
    assert decode(data, grey_range=(128, 65408)).pixels[0, :, 0].tolist() == [0, 0, 0, 128, 255, 255]
    with pytest.raises(ValueError, match="low end must be below"):
        decode(data, grey_range=(5, 5))


def test_grey_range_leaves_8_bit_pictures_alone() -> None:
    expected = colours()
    assert np.array_equal(
        decode(encode(Image.fromarray(expected), "PNG"), grey_range=(0, 9)).pixels, expected
    )


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_grey_without_a_range_of_its_own_needs_one(dtype: type) -> None:
    data = encode(Image.fromarray(np.array([[-20, 0, 50, 100, 900]], dtype=dtype)), "TIFF")
    assert "set grey_range" in refused(data)
    assert decode(data, grey_range=(0, 100)).pixels[0, :, 1].tolist() == [0, 0, 128, 255, 255]


def test_levels_that_are_no_numbers_are_refused() -> None:
    data = encode(Image.fromarray(np.array([[0.0, np.nan]], dtype=np.float32)), "TIFF")
    assert "not numbers" in refused(data, grey_range=(0, 1))


def test_unsigned_32_bit_levels_above_the_signed_range() -> None:
    image = Image.fromarray(np.array([[0, 2**31 - 1]], dtype=np.int32))
    signed = encode(image, "TIFF")
    # The same file with SampleFormat (tag 339) 1, unsigned, and the second level 0xFFFFFFFF.
    unsigned = signed.replace(struct.pack("<HHIH", 339, 3, 1, 2), struct.pack("<HHIH", 339, 3, 1, 1))
    unsigned = unsigned.replace(b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff")
    assert unsigned != signed
    assert decode(unsigned, grey_range=(0, 2**32 - 1)).pixels[0, :, 0].tolist() == [0, 255]


def test_deep_tiff_whose_zero_is_white_is_refused() -> None:
    data = encode(Image.fromarray(np.array([[0, 65535]], dtype=np.uint16)), "TIFF")
    tag = struct.pack("<HHIH", PHOTOMETRIC_INTERPRETATION, 3, 1, 1)
    assert data.count(tag) == 1
    assert "zero is white" in refused(data.replace(tag, tag[:-2] + b"\x00\x00"))


SIDES = {  # EXIF 2.3, orientation: the visual side of the stored first row, and of the stored first column
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation(format: str, orientation: int) -> None:
    stored = np.zeros((2, 5, 3), dtype=np.uint8)
    stored[0, 0] = 255  # first row, first column
    stored[0, -1] = 100  # first row, last column
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    decoded = decode(encode(Image.fromarray(stored), format, exif=exif, **options))
    row_side, column_side = SIDES[orientation]
    turned = row_side in ("left", "right")
    assert (decoded.height, decoded.width) == ((5, 2) if turned else (2, 5)) == decoded.pixels.shape[:2]
    assert decoded.pixels.flags.c_contiguous
    opposite = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}
    corners = {
        frozenset(("top", "left")): (0, 0),
        frozenset(("top", "right")): (0, -1),
        frozenset(("bottom", "left")): (-1, 0),
        frozenset(("bottom", "right")): (-1, -1),
    }
    assert decoded.pixels[corners[frozenset((row_side, column_side))]].tolist() == [255] * 3
    assert decoded.pixels[corners[frozenset((row_side, opposite[column_side]))]].tolist() == [100] * 3


# --- what is refused --------------------------------------------------------------------------------------


def test_empty_and_foreign_files() -> None:
    assert "empty" in refused(b"")
    assert "it starts with the bytes 68 65 6c 6c 6f" in refused(b"hello")
    assert "not a PNG" in refused(encode(Image.new("L", (2, 2)), "GIF"))
    assert "not a PNG" in refused(b"%PDF-1.7 and so on")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_a_signature_alone_is_refused(format: str) -> None:
    data = encode(Image.fromarray(colours(40, 40)), format)
    for length in (2, 4, 12, 20, len(data) // 2):
        refused(data[:length])


def test_pixel_limit_is_read_from_the_header() -> None:
    # The rows of these files are not even there: reading them would be reported as damage.
    assert "60000 x 60000 pixels are more than the limit" in refused(png(60_000, 60_000))
    bmp = bytearray(encode(Image.new("L", (1, 1)), "BMP"))
    bmp[18:26] = struct.pack("<ii", 50_000, 50_000)
    assert "50000 x 50000" in refused(bytes(bmp))
    tiff = encode(Image.new("L", (3, 5)), "TIFF")
    wide = tiff.replace(struct.pack("<HHII", 256, 4, 1, 3), struct.pack("<HHII", 256, 4, 1, 65_000))
    wide = wide.replace(struct.pack("<HHII", 257, 4, 1, 5), struct.pack("<HHII", 257, 4, 1, 65_000))
    assert "65000 x 65000" in refused(wide)


def test_pixel_limit_is_inclusive() -> None:
    data = encode(Image.new("L", (4, 5)), "PNG")
    assert decode(data, max_pixels=20).width == 4
    assert "limit of 19" in refused(data, max_pixels=19)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_tiff_with_fewer_strips_than_it_needs_is_refused(compression: str) -> None:
    """Pillow reads such a raw picture without an error, and its missing part as black."""
    data = encode(Image.fromarray(colours(5, 7)), "TIFF", compression=compression)
    for code, kind in ((3, "HHIHxx"), (4, "HHII")):  # the height as a short or as a long
        data = data.replace(struct.pack(f"<{kind}", 257, code, 1, 5), struct.pack("<HHII", 257, 4, 1, 50))
    assert struct.pack("<HHII", 257, 4, 1, 50) in data
    refused(data)


def test_a_planar_tiff_needs_all_its_planes() -> None:
    def planar(offsets: list[int]) -> bytes:
        tags = [(256, 2), (257, 1), (258, 8), (259, 1), (262, 2), (277, 3), (278, 1), (284, 2)]
        directory = b"".join(struct.pack("<HHIHxx", tag, 3, 1, value) for tag, value in tags[:5])
        directory += struct.pack("<HHII", 273, 4, len(offsets), 20 if len(offsets) > 1 else offsets[0])
        directory += b"".join(struct.pack("<HHIHxx", tag, 3, 1, value) for tag, value in tags[5:])
        planes = b"\x0a\x0b\x14\x15\x1e\x1f"
        start = struct.pack("<2sHI", b"II", 42, 32) + planes + b"\0" * 6
        start += struct.pack(f"<{len(offsets)}I", *offsets).ljust(12, b"\0")
        return start + struct.pack("<H", 9) + directory + struct.pack("<I", 0)

    assert decode(planar([8, 10, 12])).pixels.tolist() == [[[10, 20, 30], [11, 21, 31]]]
    assert "strips or tiles of the TIFF are missing" in refused(planar([8, 10]))
    assert "strips or tiles of the TIFF are missing" in refused(planar([8]))


def test_zero_size_is_refused() -> None:
    refused(png(0, 4))
    refused(png(4, 0))


def test_more_than_one_frame_is_refused() -> None:
    frames = [Image.fromarray(colours()), Image.fromarray(255 - colours())]
    for format in ("TIFF", "WEBP", "PNG", "MPO"):
        data = encode(frames[0], format, save_all=True, append_images=frames[1:])
        assert "2 frames or pages" in refused(data), format


def test_colour_mode_without_a_meaning_here_is_refused() -> None:
    assert "colour mode LAB" in refused(encode(Image.new("LAB", (2, 2)), "TIFF"))


def test_any_flipped_bit_of_png_pixels_is_noticed() -> None:
    data = encode(Image.fromarray(colours()), "PNG")
    start = data.index(b"IDAT") + 4
    end = data.index(b"IEND") - 8
    for position in range(start, end):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            refused(bytes(damaged))


def test_running_out_of_memory_is_not_blamed_on_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def starved(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decoding_module, "_opened_image", starved)
    with pytest.raises(MemoryError):
        decode(b"\x89PNG")


# --- Pillow's process-wide settings -----------------------------------------------------------------------


@pytest.mark.parametrize("flag", [True, False])
def test_truncation_is_refused_whatever_other_libraries_set(
    monkeypatch: pytest.MonkeyPatch, flag: bool
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", flag)  # WeasyPrint sets it when imported
    data = encode(Image.fromarray(colours(64, 64)), "JPEG")
    assert "truncated" in refused(data[: len(data) * 2 // 3])
    assert flag is ImageFile.LOAD_TRUNCATED_IMAGES


def test_truncation_is_refused_in_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode(Image.fromarray(colours(64, 64)), "JPEG")

    def attempt(number: int) -> bool:
        if number % 2:
            return decode(data).width == 64
        return "truncated" in refused(data[: len(data) - 2 - number])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(attempt, range(400)))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_pillows_own_size_limit_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(encode(Image.fromarray(colours(20, 20)), "PNG")).width == 20
    assert Image.MAX_IMAGE_PIXELS == 10


# --- size, before any memory is taken ---------------------------------------------------------------------


def test_a_side_has_a_limit_of_its_own() -> None:
    """Within the number of pixels that is allowed, Pillow fails for want of memory."""
    assert refused(png(100_000_000, 1)) == "100000000 x 1 pixels: a side has at most 65535"
    assert refused(png(1, 65_536)) == "1 x 65536 pixels: a side has at most 65535"
    assert decode(png(65_535, 1, bytes(65_536))).width == 65_535


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}])
def test_the_size_of_a_webp_is_read_from_its_first_chunk(options: dict[str, Any]) -> None:
    data = encode(Image.new("RGB", (321, 123)), "WEBP", **options)
    assert decoding_module._webp_size(data) == (321, 123)
    assert refused(data, max_pixels=321 * 123 - 1) == "321 x 123 pixels are more than the limit of 39482"


def test_a_webp_of_34_bytes_takes_no_memory_for_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("libwebp has taken memory for 16,383 x 16,383 pixels")

    monkeypatch.setattr(decoding_module, "WebPImageFile", opened)
    header = struct.pack("<I", 0x3FFE | 0x3FFE << 14)
    data = b"RIFF" + struct.pack("<I", 26) + b"WEBPVP8L" + struct.pack("<I", 13) + b"\x2f" + header
    assert refused(data.ljust(34, b"\0")) == "16383 x 16383 pixels are more than the limit of 100000000"


def test_damage_counts_as_a_lack_of_memory_where_that_may_be_the_cause() -> None:
    data = png(3_000, 1_000)[:-20]
    assert "damaged" in refused(data)
    assert "damaged" in refused(data, memory=121_000_000)
    with pytest.raises(MemoryError):
        decode(data, memory=100_000_000)
    assert "empty" in refused(b"", memory=0)


# --- a header alone ---------------------------------------------------------------------------------------


def header_cases() -> dict[str, bytes]:
    rgb, grey = Image.fromarray(colours()), Image.fromarray(colours()[:, :, 0])
    deep = Image.fromarray(colours()[:, :, 0].astype("<u2"))
    turned = Image.Exif()
    turned[274] = 6
    return {
        "png": encode(rgb, "PNG"),
        "grey png": encode(grey, "PNG"),
        "grey png with transparency": encode(grey, "PNG", transparency=3),
        "16-bit png": encode(deep, "PNG"),
        "palette png": encode(rgb.convert("P"), "PNG"),
        "bilevel png": encode(grey.convert("1"), "PNG"),
        "rgba png": encode(rgb.convert("RGBA"), "PNG"),
        "jpeg": encode(rgb, "JPEG"),
        "grey jpeg": encode(grey, "JPEG"),
        "turned jpeg": encode(rgb, "JPEG", exif=turned),
        "cmyk jpeg": encode(rgb.convert("CMYK"), "JPEG"),
        "tiff": encode(rgb, "TIFF"),
        "grey tiff": encode(grey, "TIFF", compression="tiff_lzw"),
        "turned tiff": encode(grey, "TIFF", tiffinfo={274: 6}),
        "bmp": encode(rgb, "BMP"),
        "webp": encode(rgb, "WEBP"),
        "lossless webp": encode(rgb, "WEBP", lossless=True),
    }


@pytest.mark.parametrize("name", header_cases())
def test_a_header_tells_what_decoding_will_give(name: str) -> None:
    data = header_cases()[name]
    height, width, planes = header_shape(BytesIO(data))
    pixels = decode(data).pixels
    assert sorted((height, width)) == sorted(pixels.shape[:2]) == [5, 7]
    assert planes == (1 if pixels.strides[2] == 0 else 3)


def test_a_header_is_all_that_is_read() -> None:
    assert header_shape(BytesIO(png(12_000, 8_000))) == (8_000, 12_000, 1)
    with pytest.raises(Unreadable, match="damaged or truncated"):
        decode(png(12_000, 8_000))


def test_a_header_of_what_is_refused_is_refused() -> None:
    with pytest.raises(Unreadable, match="more than the limit of 34"):
        header_shape(BytesIO(encode(Image.fromarray(colours()), "PNG")), max_pixels=34)
    with pytest.raises(Unreadable, match="more than the limit of 34"):
        header_shape(BytesIO(encode(Image.fromarray(colours()), "WEBP")), max_pixels=34)
    with pytest.raises(Unreadable, match="not a PNG"):
        header_shape(BytesIO(b"something else"))
