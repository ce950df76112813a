"""The next model: a package's own training data, what people found since, and its settings once more.

Calibration and test pictures stay what they were, and out of training, so that the two models can be compared
on them. What was added goes to training and validation alone: reviewed findings are pictures that the earlier
model flagged, and among calibration pictures they would make escapes look rarer than they are.
"""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from classifiers.data.dataset import DataError, Dataset, Item, split_by_group, split_sides
from classifiers.data.overlap import SIDES, recorded_digests, role_of, split_of, split_record
from classifiers.data.package_data import load_package_data
from classifiers.data.pictures import Augmentation
from classifiers.data.reading import AUTO, load_dataset
from classifiers.package.package import WEIGHTS_FILE, ModelPackage
from classifiers.training.settings import TilingSettings, TrainSettings
from operations.dataset_export import COCO, LABELS
from reports.wording import plain_cell

TRAINED_ON = SIDES[:2]
# Columns of an export; its group is one of them, whichever the original data went by.
_BELONGS = ("part", "lot")
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class LabelColumns:
    """How labels are read, see `classifiers.data.reading.load_dataset`; groups are of the first split."""

    label: str = "label"
    image: str = "image"
    group: str | None = None
    pattern: str | None = None
    good_class: str | None = None
    form: str = AUTO


@dataclass(frozen=True)
class NextData:
    """The sides of the next model's data, and what became of the added pictures.

    Attributes:
        sides: training, validation, calibration and test.
        added: side -> pictures that were added to it.
        known: added pictures that the original data has already.
        held: names of added pictures that are left out, since their group, part or lot is among the groups
            of the calibration and test pictures.
        record: JSON content for the next package: which model it follows, and how the data is split.
    """

    sides: tuple[Dataset, ...]
    added: dict[str, int]
    known: int
    held: tuple[str, ...]
    record: dict[str, Any]


def next_settings(package: ModelPackage) -> TrainSettings:
    """Return the settings that a package was trained by, with its weights as the start.

    Its architecture and preprocessing are its own; the machine's part (device, threads, workers) is not kept.

    Raises:
        DataError: the package does not say how it was trained, or says what this kensa does not know.
    """
    told = package.training.get("settings")
    if not isinstance(told, Mapping):
        raise DataError(f"{package.path}: does not say how it was trained; train the next model afresh")
    kept = {name: _tuple(value) for name, value in told.items() if name not in ("device", "threads")}
    augmentation = kept.pop("augmentation", {})
    tiled = kept.pop("tiling", None)
    made = package.preprocessing
    try:
        return TrainSettings(
            **{
                **kept,
                **{field.name: getattr(made, field.name) for field in fields(made)},
                "architecture": package.architecture,
                "model_args": package.model_args,
                "pretrained": str(package.path / WEIGHTS_FILE),
            },
            augmentation=Augmentation(**augmentation),
            tiling=None if tiled is None else TilingSettings(**tiled),
        )
    except TypeError as error:
        raise DataError(
            f"{package.path}: was trained with settings that this kensa does not know ({error}); train the "
            "next model afresh"
        ) from error


def next_data(
    package: ModelPackage,
    added: Path,
    original: Path | None = None,
    *,
    columns: LabelColumns = LabelColumns(),
    fractions: tuple[float, ...] = (0.55, 0.1, 0.2, 0.15),
) -> NextData:
    """Put a package's own data and added pictures together, every original picture on its side.

    Args:
        package: the model that is followed.
        added: the folder of `kensa dataset export`, or labels in that form.
        original: the folder of the split that `kensa train` wrote beside the model, or the labels that it was
            given; looked for beside the package when None.
        columns: how labels are read.
        fractions: of the first split, where an earlier kensa did not record them.

    Raises:
        DataError: the original data is not found or is not the package's, the added pictures have classes
            that the package lacks, or other labels than in the original data.
    """
    sides = _original_sides(package, original, columns, fractions)
    pictures, belongs = _added_pictures(package, added, columns)
    # A first model may have been trained on the labels of an export, with its cells as they are written.
    place = {
        plain_cell(item.group): (index, item.group) for index, side in enumerate(sides) for item in side.items
    }
    labels = {item.sha256: item.labels for side in sides for item in side.items}
    if changed := [i for i in pictures if i.sha256 in labels and labels[i.sha256] != i.labels]:
        raise DataError(
            f"{added}: {_names(changed)} labelled otherwise in the original data "
            f"({_label(labels[changed[0].sha256])} there, {_label(changed[0].labels)} here): correct the one "
            "or take it out of the other"
        )
    new = [item for item in pictures if item.sha256 not in labels]
    held: list[str] = []
    more: list[list[Item]] = [[], []]
    free: list[Item] = []
    for item in new:
        # Of several groups that it belongs to, one of calibration or test decides: they come last.
        known_groups = [place[name] for name in (item.group, *belongs[item.name]) if name in place]
        index, group = max(known_groups, default=(None, item.group))
        if index is None:
            free.append(item)
        elif index < len(TRAINED_ON):
            more[index].append(replace(item, group=group))
        else:
            held.append(item.name)
    split = split_of(package)
    shares = _shares(package, fractions)
    for side, found in zip(more, _split_added(sides[0], free, shares[:2], _seed(package)), strict=True):
        side.extend(found)
    if not any(more):
        known = len(pictures) - len(new)
        raise DataError(
            f"{added}: adds nothing to train on: {known} pictures are in the original data already, "
            f"{len(held)} belong to its calibration and test groups"
        )
    merged = (*(_with(side, items) for side, items in zip(sides, more, strict=False)), *sides[2:])
    record = split_record(merged, grouped_by=split.get("grouped_by"), fractions=shares, seed=_seed(package))
    given = Dataset(tuple(pictures), package.classes, package.good_class, package.task == "multi-label")
    return NextData(
        sides=merged,
        added=dict(zip(TRAINED_ON, map(len, more), strict=True)),
        known=len(pictures) - len(new),
        held=tuple(held),
        record={"follows": {"package_digest": package.digest, "added_digest": given.digest}, "split": record},
    )


def _original_sides(
    package: ModelPackage, original: Path | None, columns: LabelColumns, fractions: tuple[float, ...]
) -> tuple[Dataset, ...]:
    """Return the four sides that a package was made from, proven by its digests."""
    if not set(TRAINED_ON) <= recorded_digests(package).keys():
        raise DataError(
            f"{package.path}: does not say what data it was trained on, so that nothing would keep its "
            "calibration and test pictures out of training; train the next model afresh"
        )
    if original is not None:
        sides = _read_sides(package, original, columns, fractions)
        if (wrong := _wrong_side(package, sides)) is not None:
            raise DataError(
                f"{original}: its {wrong} side is not the data that {package.path} was made from (the "
                "digests of pictures, labels and groups differ); name the folder MODEL.splits that kensa "
                "train wrote, or the labels that it was given, with the same options"
            )
        return sides
    folders = sorted(package.path.resolve().parent.glob("*.splits"), key=lambda path: _unlike(path, package))
    for folder in folders:
        if (folder / f"{SIDES[0]}.csv").is_file():
            sides = _read_sides(package, folder, columns, fractions)
            if _wrong_side(package, sides) is None:
                return sides
    raise DataError(
        f"{package.path}: the data that it was trained on does not lie beside it; name the folder "
        "MODEL.splits that kensa train wrote, or the labels that it was given: kensa train DATA --from …"
    )


def _unlike(folder: Path, package: ModelPackage) -> tuple[bool, str]:
    """Return a key that sorts the split of a model of a like name first: it is most likely the package's."""
    stem = folder.name.removesuffix(".splits")
    return not package.path.resolve().name.startswith(stem), folder.name


def _read_sides(
    package: ModelPackage, original: Path, columns: LabelColumns, fractions: tuple[float, ...]
) -> tuple[Dataset, ...]:
    """Read the files of a split, or split labels as the package's were split."""
    if (original / f"{SIDES[0]}.csv").is_file():
        return tuple(
            _read(package, original / f"{role}.csv", replace(columns, group="group", form="csv"))
            for role in SIDES
        )
    whole = _read(package, original, columns)
    return split_sides(whole, _shares(package, fractions), _seed(package))[0]


def _read(
    package: ModelPackage, path: Path, columns: LabelColumns, cell_text: Callable[[str], str] = str
) -> Dataset:
    """Read labels; the classes are the package's, whichever of them occur."""
    found = load_package_data(
        package,
        path,
        form=columns.form,
        good_class=columns.good_class,
        label_column=columns.label,
        image_column=columns.image,
        group_column=columns.group,
        group_pattern=columns.pattern,
        cell_text=cell_text,
    )
    if strange := sorted(set(found.classes) - set(package.classes)):
        count = sum(not set(item.labels).isdisjoint(strange) for item in found.items)
        raise DataError(
            f"{path}: {count} pictures are labelled {', '.join(strange)}, and {package.path} has the classes "
            f"{', '.join(package.classes)} alone: take them out, or train a model afresh with all the data"
        )
    return replace(found, classes=package.classes)


def _wrong_side(package: ModelPackage, sides: tuple[Dataset, ...]) -> str | None:
    """Return the first side that is not what the package was made from; None where all are."""
    told = split_of(package).get("digests")
    kept = told if isinstance(told, Mapping) else {}
    for role, side in zip(SIDES, sides, strict=True):
        known = role in TRAINED_ON or role in kept
        if known and kept.get(role) != side.digest and role_of(package, side) != role:
            return role
    return None


def _added_pictures(
    package: ModelPackage, added: Path, columns: LabelColumns
) -> tuple[list[Item], dict[str, tuple[str, ...]]]:
    """Read the added pictures, and the part and lot of each as far as they are given.

    The pictures' names tell them from those of the original data.
    """
    file = added / LABELS if added.is_dir() else added
    if not file.is_file():
        raise DataError(
            f"{file}: not there; name the folder that kensa dataset export wrote, or labels as in it"
        )
    found = _read(package, file, replace(columns, group="group", pattern=None, form="csv"), plain_cell)
    drawn = {}
    if (coco := file.with_name(COCO)).is_file():  # labels may have been corrected by hand: they decide
        drawn = {item.sha256: item.annotations for item in load_dataset(coco, multi_label=True).items}
    pictures = [
        replace(
            item,
            name=f"added/{item.name}",
            annotations=item.annotations
            or tuple(one for one in drawn.get(item.sha256, ()) if one.label in item.labels),
        )
        for item in found.items
    ]
    belongs: dict[str, tuple[str, ...]] = {}
    with file.open(newline="", encoding="utf-8-sig") as stream:
        for row in csv.DictReader(stream):
            name, *texts = (
                plain_cell((row.get(column) or "").strip()) for column in (columns.image, *_BELONGS)
            )
            belongs[f"added/{Path(name).as_posix()}"] = tuple(texts)
    return pictures, belongs


def _split_added(
    like: Dataset, items: list[Item], shares: tuple[float, ...], seed: int
) -> tuple[tuple[Item, ...], ...]:
    """Return what goes to training and to validation; all to training where there is too little to split."""
    try:
        return tuple(side.items for side in split_by_group(replace(like, items=tuple(items)), shares, seed))
    except DataError:
        return tuple(items), ()


def _with(side: Dataset, items: list[Item]) -> Dataset:
    return replace(side, items=tuple(sorted((*side.items, *items), key=lambda item: item.name)))


# A package is read, not trusted: what it records may be of any type.


def _shares(package: ModelPackage, otherwise: tuple[float, ...]) -> tuple[float, ...]:
    """Return the fractions of the package's split, or those that were given where it does not say."""
    told = split_of(package).get("fractions")
    if isinstance(told, list) and len(told) == len(SIDES) and all(isinstance(one, float) for one in told):
        return tuple(told)
    return otherwise


def _seed(package: ModelPackage) -> int:
    """Return the seed of the package's split, which before kensa 0.3 was that of its training."""
    for told in (split_of(package), package.training.get("settings")):
        if isinstance(told, Mapping) and type(told.get("seed")) is int:
            return int(told["seed"])
    return 0


def _names(items: list[Item]) -> str:
    shown = ", ".join(item.name.removeprefix("added/") for item in items[:_SHOWN])
    if len(items) == 1:
        return f"{shown} is"
    return f"{shown}{' …' if len(items) > _SHOWN else ''} ({len(items)} pictures) are"


def _label(labels: tuple[str, ...]) -> str:
    return ";".join(labels) or "no label"


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
