"""Where the defects of a picture are, in its own pixels: boxes, polygons, run lengths, mask files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MASK_ABOVE = 127
"""Pixels of a mask picture above it are defective, as in `kensa evaluate`."""


@dataclass(frozen=True)
class Box:
    """A rectangle around one defect.

    Attributes:
        label: the defect's class.
        left, top, right, bottom: in pixels; right and bottom are the first ones outside.
    """

    label: str
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Polygons:
    """The outline of one defect: the pixels inside any of its rings.

    Attributes:
        label: the defect's class.
        rings: of each ring its corners, x, y, x, y, … in pixels; the centre of the first pixel is (0.5, 0.5).
    """

    label: str
    rings: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Runs:
    """A mask as run lengths, column by column, in turn without and with a defect: COCO's own form.

    Attributes:
        label: the defect's class.
        size: height and width of the picture.
        counts: pixels of each run; the first one is without a defect.
        single: whether it is one defect, as in COCO; else each connected part of it is.
    """

    label: str
    size: tuple[int, int]
    counts: tuple[int, ...]
    single: bool = True


@dataclass(frozen=True)
class MaskFile:
    """A picture that is bright where defects of a class are; each connected part is a defect.

    Attributes:
        label: the defects' class.
        path: the file.
        above: pixels above it (0 to 255) are defective.
    """

    label: str
    path: Path
    above: int = MASK_ABOVE


Annotation = Box | Polygons | Runs | MaskFile
