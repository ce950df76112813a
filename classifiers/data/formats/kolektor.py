"""KolektorSDD (kosNN/PartN.jpg and PartN_label.bmp) and KolektorSDD2 (train/N.png and N_GT.png, test/ alike).

Every picture has a mask; one that is black throughout means a good picture. A folder kosNN of KolektorSDD
holds the views of one commutator, which are a group.

Source: Tabernik et al., Segmentation-based deep-learning approach for surface-defect detection (2019); Božič
et al., Mixed supervision for surface-defect detection (2021).
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
from classifiers.data.regions import file_mask

DEFECT, GOOD = "defect", "good"
_ENDINGS = ("_label", "_GT")


def _recognises(root: Path) -> bool:
    return root.is_dir() and any(
        file.suffix.lower() in SUFFIXES and file.stem.endswith(_ENDINGS)
        for folder in folders_in(root)
        for file in folder.iterdir()
    )


def _rows(root: Path, reading: Reading) -> Iterator[Row]:
    for folder in folders_in(root):
        files = {file.stem: file for file in pictures_in(folder)}
        side = side_of(folder.name)
        for stem, file in files.items():
            ending = next((one for one in _ENDINGS if stem.endswith(one)), None)
            if ending is not None:
                if stem.removesuffix(ending) not in files:
                    raise DataError(f"{file}: is a mask without its picture {stem.removesuffix(ending)}")
                continue
            mask = next((files[stem + one] for one in _ENDINGS if stem + one in files), None)
            if mask is None:
                raise DataError(
                    f"{file}: has no mask {stem}_label.bmp (KolektorSDD) or {stem}_GT.png (KolektorSDD2) "
                    "beside it: add it, black where the picture is good"
                )
            name = file.relative_to(root).as_posix()
            truth = MaskFile(DEFECT, mask, above=0)
            # The masks are the labels: there is no table.
            defective = bool(file_mask(truth).any())
            known = always(truth) if defective else None
            group = folder.name if side is None else None
            yield Row(str(file), file, name, (DEFECT,) if defective else (), group, known, side)


FORMAT = Format("kolektor", "KolektorSDD", _recognises, _rows, GOOD)
