"""Reviewed findings as COCO JSON: boxes, and masks from attribution maps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from classifiers.data.regions import mask_counts
from db.artifacts import ArtifactStore
from db.errors import ArtifactError
from db.queries.reviewed import ReviewedFinding
from explainers.drawing import top_mask
from operations.inspection.map_files import FloatMap, decode_map

Box = tuple[int, int, int, int]
Size = tuple[int, int]  # height, width


class CocoFile:
    """A COCO file as it grows, picture by picture.

    It has what readers of COCO want, and of each picture `labels`, `group`, `lot` and `part` as well: a label
    of which no box is known cannot be written otherwise.
    """

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories: dict[str, int] = {}

    def add(
        self,
        name: str,
        size: Size,
        labels: Sequence[str],
        names: dict[str, str],
        found: Sequence[ReviewedFinding],
    ) -> None:
        """Add a picture.

        Args:
            name: of the file, relative to the folder.
            size: height and width of the picture.
            labels: as decided.
            names: its group, lot and part.
            found: its findings. Those whose class, as decided, is a label and whose explanation points
                somewhere become annotations.
        """
        number = len(self._images) + 1
        image = {"id": number, "file_name": name, "height": size[0], "width": size[1]}
        self._images.append({**image, "labels": list(labels), **names})
        drawn: set[tuple[str, Box]] = set()
        for finding in found:
            label, box = finding.label, finding.box
            if not finding.decided or label not in labels or label is None or box is None:
                continue
            if (label, box) in drawn:
                continue  # two runs or models that point to the same place
            drawn.add((label, box))
            left, top, right, bottom = box
            segmentation, area = self._segmentation(finding.map_digest, size, box)
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": number,
                    "category_id": self._categories.setdefault(label, len(self._categories) + 1),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": area,
                    "segmentation": segmentation,
                    "iscrowd": 0,
                    "finding": finding.reference,
                }
            )

    def content(self) -> dict[str, Any]:
        """Return what the file holds."""
        return {
            "info": {
                "description": "Findings that people reviewed; boxes and masks are where explanations point"
            },
            "images": self._images,
            "annotations": self._annotations,
            "categories": [{"id": number, "name": name} for name, number in self._categories.items()],
        }

    def _segmentation(self, map_digest: str | None, size: Size, box: Box) -> tuple[Any, int]:
        """Return the mask of a map as run lengths, or the box as a polygon; and how many pixels it has."""
        left, top, right, bottom = box
        rectangle = [[left, top, right, top, right, bottom, left, bottom]], (right - left) * (bottom - top)
        if map_digest is None:
            return rectangle
        try:
            mask = map_mask(decode_map(self._store.get(map_digest)), size, box)
        except ArtifactError:
            return rectangle  # pruned by policy, or lost: the record has its box still
        area = int(np.count_nonzero(mask))
        return ({"size": list(size), "counts": list(mask_counts(mask))}, area) if area else rectangle


def map_mask(values: FloatMap, size: Size, box: Box) -> npt.NDArray[np.bool_]:
    """Return the region of a map that a finding's box is around, at the picture's size (h, w) bool."""
    region = top_mask(values)
    pieces, _ = ndimage.label(region)
    peak = np.unravel_index(int(np.argmax(np.where(region, values, -1.0))), values.shape)
    piece = region & (pieces == pieces[peak])
    rows, columns = (np.arange(side) * have // side for side, have in zip(size, values.shape, strict=True))
    mask = np.zeros(size, dtype=bool)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = piece[rows[top:bottom, None], columns[None, left:right]]
    return mask
