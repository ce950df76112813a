"""MVTec AD: train/good, test/good, test/DEFECT and ground_truth/DEFECT/NAME_mask.png.

Source: Bergmann et al., MVTec AD: A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection
(2019).
Sets in its layout whose masks have the pictures' own names (BTAD) are read as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from classifiers.data.annotations import MaskFile
from classifiers.data.dataset import DataError
from classifiers.data.formats.format import (
    SUFFIXES,
    Format,
    Reading,
    Row,
    always,
    folders_in,
    pictures_in,
    side_of,
)

GOOD = "good"
_PARTS = ("train", "validation", "test")


def _recognises(root: Path) -> bool:
    train, test = root / "train", root / "test"
    known = any((part / GOOD).is_dir() for part in (train, test)) or (root / "ground_truth").is_dir()
    return train.is_dir() and test.is_dir() and known


def _rows(root: Path, reading: Reading) -> Iterator[Row]:
    if not (root / "train" / GOOD).is_dir() or not (root / "test").is_dir():
        raise DataError(
            f"{root}: MVTec AD has train/good and test/DEFECT, and here is no "
            f"{'test' if (root / 'train' / GOOD).is_dir() else 'train/good'}; name the folder of one object, "
            "such as mvtec/bottle"
        )
    for part in _PARTS:
        for folder in folders_in(root / part) if (root / part).is_dir() else ():
            if part != "test" and folder.name != GOOD:
                raise DataError(
                    f"{folder}: in MVTec AD {part} holds good pictures alone. If folders are classes: kensa "
                    f"train {root / part} --format folders"
                )
            for file in pictures_in(folder):
                labels = () if folder.name == GOOD else (folder.name,)
                mask = _mask(root, folder.name, file) if labels else None
                known = always(MaskFile(folder.name, mask)) if mask is not None else None
                name = file.relative_to(root).as_posix()
                yield Row(str(file), file, name, labels, None, known, side_of(part))


def _mask(root: Path, defect: str, file: Path) -> Path | None:
    """Return a picture's mask; None where the whole defect has none."""
    folder = root / "ground_truth" / defect
    if not folder.is_dir():
        return None
    for name in (f"{file.stem}_mask", file.stem):
        for suffix in (file.suffix, *sorted(SUFFIXES)):
            if (found := folder / f"{name}{suffix}").is_file():
                return found
    raise DataError(
        f"{file}: there is no mask {folder / f'{file.stem}_mask.png'} for it, and other pictures of {defect} "
        f"may have one: add it, or take {folder} out to train without masks of {defect}"
    )


FORMAT = Format("mvtec", "MVTec AD", _recognises, _rows, GOOD)
