"""Severstal's steel defects: strips of 256 x 1600 with run-length masks, cut into patches."""

from __future__ import annotations

import csv
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from classifiers.data.dataset import DataError
from classifiers.data.formats import severstal
from classifiers.data.formats.severstal import StartsAndLengths
from explainers.errors import ExplainerError
from explainers.evaluation.samples import Choice, Mask, Pixels, Sample, SampleSet, read_picture

STRIP = (256, 1600)  # height and width of every picture of the data set
_DEFECTS = 4
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class Cut:
    """How strips become patches.

    Attributes:
        patch: height and width, in pixels.
        stride: between patches, down and across, in pixels; what a last whole patch does not reach is left.
        min_area: a defect with fewer pixels in the patch does not count.
        every_class: one sample for each defect class in a patch; else for the one with most pixels alone, as
            a single-label model sees it.
    """

    patch: tuple[int, int] = (256, 256)
    stride: tuple[int, int] = (256, 256)
    min_area: int = 100
    every_class: bool = False

    def __post_init__(self) -> None:
        for name, pair in (("patch", self.patch), ("stride", self.stride)):
            if min(pair) < 1:
                raise ExplainerError(f"{name} must be two numbers of 1 or more, got {pair}")
        if self.patch[0] > STRIP[0] or self.patch[1] > STRIP[1]:
            raise ExplainerError(f"a patch of {self.patch} does not fit into a strip of {STRIP}")
        if self.min_area < 1:
            raise ExplainerError(f"min_area must be 1 pixel or more, got {self.min_area}")

    def corners(self) -> list[tuple[int, int]]:
        """Return the upper left corners (top, left) of the patches of a strip."""
        return [
            (top, left)
            for top in range(0, STRIP[0] - self.patch[0] + 1, self.stride[0])
            for left in range(0, STRIP[1] - self.patch[1] + 1, self.stride[1])
        ]

    def of(self, strip: npt.NDArray[_Scalar], corner: tuple[int, int]) -> npt.NDArray[_Scalar]:
        """Return one patch of a strip (256, 1600, ...), as an array of its own."""
        top, left = corner
        return strip[top : top + self.patch[0], left : left + self.patch[1]].copy()


def severstal_samples(
    table: Path,
    images: Path,
    *,
    cut: Cut | None = None,
    class_names: tuple[str, ...] = ("1", "2", "3", "4"),
    choice: Choice | None = None,
) -> SampleSet:
    """Return samples of patches cut from Severstal's labelled strips, with the pixels of their defects.

    Args:
        table: `train.csv`: ImageId, ClassId, EncodedPixels, or the older ImageId_ClassId, EncodedPixels.
        images: `train_images/`.
        cut: patch size, stride and least area.
        class_names: the model's names of the four defect classes.
        choice: which strips and classes; all when None.

    Returns:
        Samples of the defect classes; the fifth class, no defect, has no pixels to judge a map by. Counted
        as skipped: patches of labelled strips without a defect, and defects below the least area.

    Raises:
        ExplainerError: naming file and line.

    Source: Kaggle, "Severstal: Steel Defect Detection" (2019), data description.
    """
    if len(class_names) != _DEFECTS or len(set(class_names)) != _DEFECTS:
        raise ExplainerError(f"class_names must be {_DEFECTS} different names, got {list(class_names)}")
    cut = cut or Cut()
    wanted = choice or Choice()
    skipped: Counter[str] = Counter()
    samples = []
    for image, defects in read_runs(table).items():
        path = images / image
        if not path.is_file():
            raise ExplainerError(f"{table}: there is no strip {path}")
        for corner, areas in _defect_areas(defects, cut):
            found = [number for number, area in areas.items() if area >= cut.min_area]
            small = sum(0 < area < cut.min_area for area in areas.values())
            if small:
                skipped[f"defect of less than {cut.min_area} pixels in the patch"] += small
            elif not found:
                skipped["patch without a defect"] += 1
            if not cut.every_class and len(found) > 1:
                skipped["another defect class has more of the patch"] += len(found) - 1
                found = [max(found, key=lambda number: areas[number])]
            for number in found:
                label = class_names[number - 1]
                if wanted.wants(path, label):
                    name = f"{image}@{corner[0]},{corner[1]}"
                    read = partial(_read_patch, path, defects[number], cut, corner)
                    samples.append(Sample(name, label, path, image, read))
    truth = {"kind": "severstal", "patch": list(cut.patch), "every_class": cut.every_class}
    return SampleSet(str(table), tuple(samples), truth, dict(skipped))


def write_patches(
    table: Path,
    images: Path,
    folder: Path,
    *,
    cut: Cut | None = None,
    class_names: tuple[str, ...] = ("1", "2", "3", "4"),
    good_class: str = "none",
    good: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write patches as a data set for `kensa train`: the paper's five classes.

    A patch has the class with most defect pixels in it. One whose defects are all smaller than
    `cut.min_area` shows neither a defect nor none, and is not written.

    Args:
        table: `train.csv`, see `severstal_samples`.
        images: `train_images/`; strips that the table does not name have no defect.
        folder: new; gets images/CLASS/ and labels.csv (image, label, group: the strip).
        cut: patch size, stride and least area.
        class_names: of the four defect classes.
        good_class: of patches without a defect.
        good: most patches of that class, drawn at random; all when None.
        seed: of the draw.
        progress: called with (strips done, strips).

    Returns:
        labels.csv.

    Raises:
        ExplainerError: naming file and line; or the folder exists.
    """
    cut = cut or Cut()
    if folder.exists():
        raise ExplainerError(f"{folder}: exists already; choose a new folder")
    runs = read_runs(table)
    strips = sorted(path.name for path in images.glob("*.jpg"))
    if missing := sorted(set(runs) - set(strips)):
        raise ExplainerError(f"{table}: there is no strip {images / missing[0]}")
    labels = {strip: _patch_labels(runs.get(strip, {}), cut) for strip in strips}
    without = [(strip, corner) for strip in strips for corner, number in labels[strip].items() if not number]
    if good is not None and good < len(without):
        kept = set(random.Random(seed).sample(without, good))  # noqa: S311  a draw, not a secret
        for strip, corner in set(without) - kept:
            del labels[strip][corner]
    folder.mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "label", "group"))
        for done, strip in enumerate(strips):
            if progress is not None:
                progress(done, len(strips))
            if not labels[strip]:
                continue
            pixels = _read_strip(images / strip)
            for corner, number in labels[strip].items():
                label = class_names[number - 1] if number else good_class
                name = Path("images", label, f"{Path(strip).stem}_{corner[0]}_{corner[1]}.png")
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(cut.of(pixels, corner)).save(folder / name)
                writer.writerow((name.as_posix(), label, strip))
    if progress is not None:
        progress(len(strips), len(strips))
    return folder / "labels.csv"


def _defect_areas(
    defects: dict[int, StartsAndLengths], cut: Cut
) -> Iterator[tuple[tuple[int, int], dict[int, int]]]:
    """Yield the corner of each patch of a strip, and the pixels of each defect class in it."""
    masks = {number: decode_runs(runs) for number, runs in defects.items()}
    for corner in cut.corners():
        yield corner, {number: int(cut.of(mask, corner).sum()) for number, mask in masks.items()}


def _patch_labels(defects: dict[int, StartsAndLengths], cut: Cut) -> dict[tuple[int, int], int]:
    """Return corner -> defect class with most pixels, 0 for none; without patches of small defects alone."""
    labels = {}
    for corner, areas in _defect_areas(defects, cut):
        if not any(areas.values()):
            labels[corner] = 0
        elif max(areas.values()) >= cut.min_area:
            labels[corner] = max(areas, key=lambda number: areas[number])
    return labels


def read_runs(table: Path) -> dict[str, dict[int, StartsAndLengths]]:
    """Read the defects of all strips from `train.csv`.

    Returns:
        strip -> defect class 1 to 4 -> its runs.

    Raises:
        ExplainerError: naming file and line.
    """
    try:
        return severstal.read_runs(table, STRIP)
    except DataError as error:
        raise ExplainerError(str(error)) from error


def decode_runs(runs: StartsAndLengths) -> Mask:
    """Return a strip's mask (256, 1600) bool, made of runs (n, 2)."""
    return severstal.runs_mask(runs, STRIP)


def _read_patch(path: Path, runs: StartsAndLengths, cut: Cut, corner: tuple[int, int]) -> tuple[Pixels, Mask]:
    return cut.of(_read_strip(path), corner), cut.of(decode_runs(runs), corner)


def _read_strip(path: Path) -> Pixels:
    pixels = read_picture(path)
    if pixels.shape[:2] != STRIP:
        raise ExplainerError(f"{path}: a strip is {STRIP}, this picture is {pixels.shape[:2]}")
    return pixels
