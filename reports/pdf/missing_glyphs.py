"""Prints characters that no font has as boxes with their numbers, so that none is lost.

PDF/A-3 forbids the glyph ".notdef", which stands for such characters otherwise (ISO 19005-3, 6.2.11.8).
WeasyPrint tells which characters these are. The boxes are a font made for them: it goes the way of all other
fonts into the PDF, and their text can be copied and searched.
"""

from collections.abc import Iterable
from io import BytesIO
from typing import Any

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

FAMILY = "KensaMissing"
_UPM = 1000  # units in an em
_WIDE = 1000  # units, of a box with its margins
_DOT = 72  # units; a digit is 3 by 5 dots
# Pango leaves a space to the font of its neighbours, and takes it for missing where that has none.
_SPACES = {" ": 280, "\u00a0": 280, "\u2009": 200, "\u202f": 200}
# Rows of the hexadecimal digits, from the top, each three dots as bits.
_DIGITS = dict(
    zip(
        "0123456789ABCDEF",
        (
            (7, 5, 5, 5, 7),
            (2, 6, 2, 2, 7),
            (7, 1, 7, 4, 7),
            (7, 1, 3, 1, 7),
            (5, 5, 7, 1, 1),
            (7, 4, 7, 1, 7),
            (7, 4, 7, 5, 7),
            (7, 1, 1, 2, 2),
            (7, 5, 7, 5, 7),
            (7, 5, 7, 1, 7),
            (2, 5, 7, 5, 5),
            (6, 5, 6, 5, 6),
            (7, 4, 4, 4, 7),
            (6, 5, 5, 5, 6),
            (7, 4, 6, 4, 7),
            (7, 4, 6, 4, 4),
        ),
        strict=True,
    )
)


def unprintable(fonts: Iterable[Any]) -> set[str]:
    """Return the characters for which WeasyPrint found no glyph in any font of a document."""
    return {chr(codepoint) for font in fonts for codepoint in font.missing}


def box_font(characters: Iterable[str]) -> bytes:
    """Return a TrueType font with a box for each character, its number in hexadecimal digits inside.

    The same characters give the same bytes.
    """
    names = {ord(char): f"u{ord(char):05X}" for char in sorted({*characters, *_SPACES})}
    glyphs = {".notdef": _box_glyph("")}
    widths = {".notdef": _WIDE}
    for number, name in names.items():
        space = _SPACES.get(chr(number))
        glyphs[name] = _box_glyph(f"{number:04X}") if space is None else TTGlyphPen(None).glyph()
        widths[name] = space or _WIDE
    builder = FontBuilder(_UPM, isTTF=True)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap(names)
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (_WIDE, 40)))
    builder.setupHorizontalHeader(ascent=900, descent=-200)
    builder.setupNameTable({"familyName": FAMILY, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900, sTypoDescender=-200, usWinAscent=900, usWinDescent=200)
    builder.setupPost()
    builder.font["head"].created = builder.font["head"].modified = 0
    builder.font.recalcTimestamp = False
    buffer = BytesIO()
    builder.save(buffer)
    return buffer.getvalue()


def _box_glyph(digits: str) -> Any:
    """Return the glyph of a frame with two rows of digits in it."""
    pen = TTGlyphPen(None)
    _draw_rectangle(pen, 40, -160, 960, 840)
    _draw_rectangle(pen, 80, -120, 920, 800, hole=True)
    half = -(-len(digits) // 2)
    for row, text in enumerate((digits[:half], digits[half:])):
        left = round((_WIDE - (4 * half - 1) * _DOT) / 2)
        for place, digit in enumerate(text):
            for line, bits in enumerate(_DIGITS[digit]):
                for column in range(3):
                    if bits & 4 >> column:
                        x, y = left + (4 * place + column) * _DOT, 700 - row * 430 - line * _DOT
                        _draw_rectangle(pen, x, y - _DOT, x + _DOT, y)
    return pen.glyph()


def _draw_rectangle(pen: Any, left: int, bottom: int, right: int, top: int, *, hole: bool = False) -> None:
    corners = [(left, bottom), (left, top), (right, top), (right, bottom)]
    pen.moveTo(corners[0])
    for corner in reversed(corners[1:]) if hole else corners[1:]:
        pen.lineTo(corner)
    pen.closePath()
