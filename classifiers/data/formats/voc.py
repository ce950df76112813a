"""PASCAL VOC: Annotations/NAME.xml, JPEGImages/NAME.jpg; perhaps ImageSets/Main/train.txt and the like.

Pictures without an XML file, as labelImg leaves those without an object, are good. Boxes marked difficult
count.

Source: Everingham et al., The PASCAL Visual Object Classes Challenge 2007, development kit.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from classifiers.data.annotations import Annotation
from classifiers.data.dataset import DataError, Side
from classifiers.data.formats.format import (
    Format,
    Reading,
    Row,
    Size,
    box_of,
    check_size,
    class_name,
    number_list,
    pictures_in,
    relative_name,
    side_of,
    subfolder,
)

GOOD = "good"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_xml(file: Path) -> Element:
    """Return the root element of an XML file.

    A document type is refused: annotations have none, and its entities can make a file of a kilobyte fill the
    memory, or name other files.

    Raises:
        DataError: naming the file.
    """

    def refuse(*_: object) -> NoReturn:
        raise DataError(
            f"{file}: has a document type (<!DOCTYPE …>), which annotations do not need: remove it"
        )

    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.StartElementHandler = lambda name, attributes: builder.start(name, attributes) and None
    parser.EndElementHandler = lambda name: builder.end(name) and None
    parser.CharacterDataHandler = lambda text: builder.data(text)
    try:
        parser.Parse(file.read_bytes(), True)
    except (OSError, expat.ExpatError, ValueError, LookupError) as error:
        raise DataError(f"{file}: cannot be read as XML: {error}") from error
    return builder.close()


def _folders(root: Path) -> tuple[Path | None, Path | None]:
    return subfolder(root, "Annotations"), subfolder(root, "JPEGImages", "images")


def _recognises(root: Path) -> bool:
    annotations, images = _folders(root)
    named = images is not None and images.name.lower() == "jpegimages"
    return named or (annotations is not None and any(annotations.rglob("*.xml")))


def _rows(root: Path, reading: Reading) -> Iterator[Row]:
    annotations, images = _folders(root)
    if annotations is None or images is None:
        missing = "Annotations" if annotations is None else "JPEGImages"
        raise DataError(f"{root}: PASCAL VOC has Annotations/NAME.xml and JPEGImages/NAME.jpg; no {missing}")
    pictures = {file.relative_to(images).as_posix(): file for file in pictures_in(images)}
    by_stem = {Path(name).with_suffix("").as_posix(): name for name in pictures}
    sides = _sides(root)
    for file in sorted(annotations.rglob("*.xml")):
        tree = read_xml(file)
        stem = file.relative_to(annotations).with_suffix("").as_posix()
        # Tools leave names of other folders, or of before a renaming, in <filename>: the file's own counts.
        name = by_stem.get(stem)
        if name is None and (said := (tree.findtext("filename") or "").strip()):
            said = relative_name(said, str(file))
            name = said if said in pictures else None
        if name is None or name not in pictures:
            raise DataError(f"{file}: there is no picture {images / stem}.jpg for it, nor any of that name")
        objects = [_object(thing, str(file)) for thing in tree.iter("object")]
        said_size = [_whole(tree.findtext(f"size/{side}")) for side in ("height", "width")]
        yield Row(
            str(file),
            pictures[name],
            pictures.pop(name).relative_to(root).as_posix(),
            tuple(dict.fromkeys(label for label, _ in objects)),
            annotations=partial(_boxes, str(file), objects, said_size) if objects else None,
            side=sides.get(stem),
        )
    for name, path in pictures.items():
        stem = Path(name).with_suffix("").as_posix()
        yield Row(str(path), path, path.relative_to(root).as_posix(), (), side=sides.get(stem), silent=True)


def _object(thing: Element, where: str) -> tuple[str, list[float]]:
    """Return an object's class and its corners: left, top, right, bottom, from 1, the last ones inside."""
    label = class_name(thing.findtext("name"), f"{where}, object")
    return label, number_list([thing.findtext(f"bndbox/{name}") or "" for name in _CORNERS], where)


def _whole(text: str | None) -> int:
    return int(text) if text is not None and text.strip().isdecimal() else 0


def _boxes(
    where: str, objects: list[tuple[str, list[float]]], said: list[int], size: Size
) -> tuple[Annotation, ...]:
    check_size(said, size, where)
    return tuple(
        box_of(label, (left - 1, top - 1, right, bottom), size, where)
        for label, (left, top, right, bottom) in objects
    )


def _sides(root: Path) -> dict[str, Side]:
    """Return picture -> side, from the lists of ImageSets/Main; those of single classes are not read."""
    found: dict[str, Side] = {}
    lists = root / "ImageSets" / "Main"
    for file in sorted(lists.glob("*.txt")) if lists.is_dir() else ():
        if (side := side_of(file.stem)) is not None:
            try:
                names = file.read_text(encoding="utf-8").split("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{file}: cannot be read: {error}") from error
            found |= {name.split()[0]: side for name in names if name.strip()}
    return found


FORMAT = Format("voc", "PASCAL VOC", _recognises, _rows, GOOD)
