"""MS COCO, through torchvision's reader (pycocotools)."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets import CocoDetection

from explainers.errors import ExplainerError
from explainers.evaluation.samples import Choice, Mask, Pixels, Sample, SampleSet, Truth, matching
from explainers.options import checked


def coco_samples(
    images: Path,
    annotations: Path,
    *,
    truth: Truth = "masks",
    crowd: bool = False,
    choice: Choice | None = None,
) -> SampleSet:
    """Return samples of MS COCO in its published layout.

    Args:
        images: the folder of pictures, such as val2014.
        annotations: instances_val2014.json or the like.
        truth: "masks": the union of the instances' masks; "boxes": their filled boxes.
        crowd: regions marked as crowds count too.
        choice: which pictures and classes; all when None.

    Returns:
        One sample for each picture and category. Pairs with crowds alone are counted as skipped.

    Raises:
        ExplainerError: pycocotools is not installed, or a file is not there or not COCO's.

    Source: Lin et al., Microsoft COCO: Common Objects in Context (2014); cocodataset.org, data format.
    """
    checked("truth", truth)
    if not images.is_dir():
        raise ExplainerError(f"{images}: no such folder of pictures")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress by print
            reader: Any = CocoDetection(str(images), str(annotations))
    except ImportError as error:
        raise ExplainerError("MS COCO needs pycocotools: pip install 'kensa[eval]'") from error
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise ExplainerError(
            f"{annotations}: not COCO instance annotations: {type(error).__name__} {error}"
        ) from error
    wanted = choice or Choice()
    skipped: Counter[str] = Counter()
    samples = []
    for index, number in enumerate(reader.ids):
        file = str(reader.coco.loadImgs(number)[0]["file_name"])
        found: dict[int, list[Any]] = defaultdict(list)
        crowds = set()
        for annotation in reader.coco.loadAnns(reader.coco.getAnnIds(number)):
            if annotation.get("iscrowd", 0) and not crowd:
                crowds.add(annotation["category_id"])
            else:
                found[annotation["category_id"]].append(annotation)
        path = images / file
        for category in sorted(set(found) | crowds):
            label = str(reader.coco.loadCats(category)[0]["name"])
            if not wanted.wants(path, label):
                continue
            if category not in found:
                skipped["only crowd regions of the class"] += 1
                continue
            read = partial(_read_sample, reader, index, tuple(found[category]), truth)
            samples.append(Sample(file, label, path, file, read))
    settings = {"kind": "coco", "truth": truth, "crowd": crowd}
    return SampleSet(f"MS COCO {annotations.stem}, {truth}", tuple(samples), settings, dict(skipped))


def _read_sample(reader: Any, index: int, annotations: tuple[Any, ...], truth: Truth) -> tuple[Pixels, Mask]:
    try:
        picture, _ = reader[index]
    except OSError as error:
        raise ExplainerError(f"{reader.root}, image {reader.ids[index]}: cannot be read: {error}") from error
    pixels = np.array(picture, dtype=np.uint8)
    height, width = pixels.shape[:2]
    mask = np.zeros((height, width), dtype=bool)
    for annotation in annotations:
        if truth == "masks":
            with warnings.catch_warnings():
                # pycocotools 2.0.11 hands numpy 2 an __array__ without the copy keyword.
                warnings.simplefilter("ignore", DeprecationWarning)
                own = reader.coco.annToMask(annotation).astype(bool)
            mask |= matching(own, pixels, f"image {reader.ids[index]}")
        else:
            left, top, wide, high = annotation["bbox"]
            rows = slice(max(0, round(top)), min(height, round(top + high)))
            mask[rows, max(0, round(left)) : min(width, round(left + wide))] = True
    return pixels, mask
