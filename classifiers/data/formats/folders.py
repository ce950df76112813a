"""One folder for each class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from classifiers.data.dataset import DataError
from classifiers.data.formats.format import Format, Reading, Row, folders_in, pictures_in


def _rows(root: Path, reading: Reading) -> Iterator[Row]:
    if reading.separator is not None or reading.group_column or reading.mask_column:
        raise DataError(f"{root}: multi-label data, group and mask columns need a CSV file, this is a folder")
    for folder in folders_in(root):
        for file in pictures_in(folder):
            yield Row(str(file), file, file.relative_to(root).as_posix(), (folder.name,))


FORMAT = Format("folders", "one folder for each class", Path.is_dir, _rows)
