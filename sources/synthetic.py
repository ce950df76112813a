"""Synthetic data sets on disk, from a seed: labelled ones with masks, and folders as a line delivers them."""

import csv
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sources.errors import SourceError
from sources.surfaces import SURFACE_CLASSES, Mask, surface

Progress = Callable[[int, int], None]


def write_dataset(
    root: Path,
    *,
    count: int,
    seed: int,
    size: int = 160,
    defect_share: float = 0.5,
    lots: int = 20,
    progress: Progress | None = None,
) -> Path:
    """Write a labelled set for training and calibration; return its folder.

    It holds images/CLASS/PART.png, masks/CLASS/PART.png (0 or 255) and labels.csv (image, mask, label, group,
    lot, part; the group is the lot). Picture i depends on `(seed, i)` and the size alone.

    Args:
        root: a new or empty folder.
        count: number of pictures, 1 or more.
        seed: of the pictures.
        size: of a side, in pixels.
        defect_share: probability of a defect, in [0, 1].
        lots: number of lots, 1 or more; parts go to them in turn.
        progress: called after each picture with (done, all).

    Raises:
        SourceError: `root` holds files.
        ValueError: a number out of its range.
    """
    _prepare_folder(root, count, defect_share, lots)
    rows = []
    for i in range(count):
        label, pixels, mask = _draw_surface((seed, i, 0), defect_share, size)
        lot, part = f"L{i % lots + 1:03d}", f"T{i + 1:06d}"
        image, mask_file = f"images/{label}/{part}.png", f"masks/{label}/{part}.png"
        _save_picture(root / image, pixels)
        _save_picture(root / mask_file, mask.astype(np.uint8) * 255)
        rows.append((image, mask_file, label, lot, lot, part))
        if progress:
            progress(i + 1, count)
    _write_csv(root / "labels.csv", ("image", "mask", "label", "group", "lot", "part"), rows)
    return root


def write_inspection_folder(
    root: Path,
    *,
    count: int,
    seed: int,
    size: int = 160,
    defect_share: float = 0.1,
    lots: int = 3,
    progress: Progress | None = None,
) -> Path:
    """Write pictures as a line would deliver them; return their folder, which is a source.

    It holds images/LOT/PART.png, manifest.csv (file, part, lot, station, captured_at) and, for checking only,
    truth.csv (file, label). Picture i depends on `(seed, i)` and the size alone, and differs from that of
    `write_dataset`.

    Args:
        root: a new or empty folder.
        count: number of pictures, 1 or more.
        seed: of the pictures.
        size: of a side, in pixels.
        defect_share: probability of a defect, in [0, 1].
        lots: number of lots, 1 or more; parts go to them in turn.
        progress: called after each picture with (done, all).

    Raises:
        SourceError: `root` holds files.
        ValueError: a number out of its range.
    """
    _prepare_folder(root, count, defect_share, lots)
    manifest, truth = [], []
    started = datetime(2026, 1, 5, 6, tzinfo=UTC)
    for i in range(count):
        label, pixels, _ = _draw_surface((seed, i, 1), defect_share, size)
        lot, part, station = f"L{i % lots + 1:03d}", f"P{i + 1:06d}", f"S{i % lots % 2 + 1}"
        file = f"images/{lot}/{part}.png"
        _save_picture(root / file, pixels)
        captured_at = started + timedelta(hours=8) * (i % lots) + timedelta(seconds=6) * (i // lots)
        manifest.append((file, part, lot, station, captured_at.isoformat()))
        truth.append((file, label))
        if progress:
            progress(i + 1, count)
    _write_csv(root / "manifest.csv", ("file", "part", "lot", "station", "captured_at"), manifest)
    _write_csv(root / "truth.csv", ("file", "label"), truth)
    return root


def _prepare_folder(root: Path, count: int, defect_share: float, lots: int) -> None:
    if count < 1 or lots < 1 or not 0 <= defect_share <= 1:
        raise ValueError(
            f"count {count}, lots {lots}, defect_share {defect_share}: expected 1 or more, 1 or more, 0 to 1"
        )
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise SourceError(f"{root} is not empty: name a new folder, so that old and new pictures do not mix")


def _draw_surface(
    key: tuple[int, int, int], defect_share: float, size: int
) -> tuple[str, npt.NDArray[np.uint8], Mask]:
    rng = np.random.default_rng(key)
    defective, kind = rng.random() < defect_share, int(rng.integers(1, len(SURFACE_CLASSES)))
    label = SURFACE_CLASSES[kind] if defective else "good"
    return label, *surface(label, rng, size)


def _save_picture(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG", compress_level=3)


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
