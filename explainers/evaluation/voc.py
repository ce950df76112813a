"""PASCAL VOC, through torchvision's readers."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import numpy as np
from PIL import Image
from torchvision.datasets import VOCDetection, VOCSegmentation
from torchvision.datasets.voc import ET_parse

from explainers.errors import ExplainerError
from explainers.evaluation.samples import Choice, Mask, Pixels, Sample, SampleSet, Truth, matching
from explainers.options import checked

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_VOID = 255  # pixels at the border of an object, and difficult ones: they belong to no class
Box = tuple[int, int, int, int]


def voc_samples(
    root: Path,
    *,
    year: str = "2007",
    image_set: str = "test",
    truth: Truth = "boxes",
    difficult: bool = False,
    choice: Choice | None = None,
) -> SampleSet:
    """Return samples of PASCAL VOC in its published layout.

    Args:
        root: the folder that holds VOCdevkit/VOC2007.
        year: "2007" to "2012".
        image_set: "train", "val", "trainval"; of 2007 also "test".
        truth: "boxes": the filled boxes of all pictures of the set; "masks": the pixels of the classes, in
            the pictures of the segmentation set alone (void pixels belong to no class).
        difficult: boxes marked difficult count too; VOC's own rules leave them out.
        choice: which pictures and classes; all when None.

    Returns:
        One sample for each picture and class. Pairs with difficult objects alone are counted as skipped.

    Raises:
        ExplainerError: the layout is not there, or an annotation cannot be read, naming the file.

    Source: Everingham et al., The PASCAL Visual Object Classes Challenge 2007, development kit.
    """
    checked("truth", truth)
    wanted = choice or Choice()
    skipped: Counter[str] = Counter()
    samples: list[Sample] = []
    try:
        reader: Any = (VOCDetection if truth == "boxes" else VOCSegmentation)(
            root, year=year, image_set=image_set
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise ExplainerError(
            f"{root}: no PASCAL VOC {year} {image_set} here ({error}); expected VOCdevkit/VOC{year} with "
            "Annotations, ImageSets, JPEGImages and, for masks, SegmentationClass"
        ) from error
    for index, (image, target) in enumerate(zip(reader.images, reader.targets, strict=True)):
        path = Path(image)
        if truth == "boxes":
            boxes, hidden = _boxes(Path(target), difficult)
            for label, own in boxes.items():
                if wanted.wants(path, label):
                    read = partial(_read_boxes, reader, index, tuple(own))
                    samples.append(Sample(path.stem, label, path, path.stem, read))
            for label in hidden - set(boxes):
                skipped["only difficult objects of the class"] += wanted.wants(path, label)
        else:
            for number in _classes_of_mask(Path(target)):
                label = CLASSES[number - 1]
                if wanted.wants(path, label):
                    read = partial(_read_mask, reader, index, number)
                    samples.append(Sample(path.stem, label, path, path.stem, read))
    settings = {"kind": "voc", "truth": truth, "difficult": difficult and truth == "boxes"}
    return SampleSet(
        f"PASCAL VOC {year} {image_set}, {truth}",
        tuple(samples),
        settings,
        {reason: count for reason, count in skipped.items() if count},
    )


def _boxes(annotation: Path, difficult: bool) -> tuple[dict[str, list[Box]], set[str]]:
    """Return boxes by class (left, top, right, bottom; 1-based, inclusive); classes of difficult objects."""
    try:
        content = VOCDetection.parse_voc_xml(ET_parse(str(annotation)).getroot())["annotation"]
        found: dict[str, list[Box]] = defaultdict(list)
        hidden = set()
        for thing in content.get("object", []):
            if thing.get("difficult", "0") == "1" and not difficult:
                hidden.add(thing["name"])
                continue
            corners = [round(float(thing["bndbox"][side])) for side in ("xmin", "ymin", "xmax", "ymax")]
            found[thing["name"]].append((corners[0], corners[1], corners[2], corners[3]))
    except (OSError, ParseError, KeyError, TypeError, ValueError) as error:
        raise ExplainerError(f"{annotation}: not a VOC annotation: {type(error).__name__} {error}") from error
    return dict(found), hidden


def _classes_of_mask(target: Path) -> list[int]:
    try:
        with Image.open(target) as mask:
            numbers = np.unique(np.asarray(mask))
    except OSError as error:
        raise ExplainerError(f"{target}: cannot be read as a picture: {error}") from error
    if strange := [int(number) for number in numbers if number > len(CLASSES) and number != _VOID]:
        raise ExplainerError(f"{target}: holds {strange}; VOC's masks have classes 1 to 20, 0 and 255")
    return [int(number) for number in numbers if 0 < number <= len(CLASSES)]


def _read_item(reader: Any, index: int) -> tuple[Pixels, Any]:
    try:
        picture, target = reader[index]
    except OSError as error:
        raise ExplainerError(f"{reader.images[index]}: cannot be read: {error}") from error
    return np.array(picture, dtype=np.uint8), target


def _read_boxes(reader: Any, index: int, boxes: tuple[Box, ...]) -> tuple[Pixels, Mask]:
    pixels, _ = _read_item(reader, index)
    mask = np.zeros(pixels.shape[:2], dtype=bool)
    for left, top, right, bottom in boxes:
        mask[max(0, top - 1) : bottom, max(0, left - 1) : right] = True
    return pixels, mask


def _read_mask(reader: Any, index: int, number: int) -> tuple[Pixels, Mask]:
    pixels, target = _read_item(reader, index)
    return pixels, matching(np.asarray(target) == number, pixels, str(reader.targets[index]))
