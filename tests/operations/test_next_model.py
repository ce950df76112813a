"""A package's own data and what was added: who goes where, what is refused. Files stand for pictures."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from classifiers import ModelPackage, load_package
from classifiers.data.dataset import DataError, Dataset, split_by_group
from classifiers.data.overlap import SIDES, split_record
from classifiers.data.reading import load_dataset
from classifiers.package.tiling import Tiling
from classifiers.training.settings import TilingSettings
from cli.model.train import write_splits
from cli.model.train_settings import changed_settings
from configs.loading import ConfigError
from operations.next_model import LabelColumns, NextData, next_data, next_settings
from reports.wording import inert_cell

Row = tuple[str, ...]  # name of a picture, whose bytes follow from it; label; group; perhaps lot and part
SHARES = (0.55, 0.1, 0.2, 0.15)
# A spreadsheet would run these groups as formulas, so that an export writes '-good-0 for -good-0.
ORIGINAL: list[Row] = [
    (f"{label}-{group}-{view}", label, f"-{label}-{group}")
    for label in ("good", "pit")
    for group in range(12)
    for view in range(2)
]


def write(folder: Path, rows: list[Row]) -> Path:
    (folder / "pictures").mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "label", "group", "lot", "part")[: len(rows[0])])
        for name, *cells in rows:
            (folder / "pictures" / f"{name}.png").write_bytes(name.encode())
            writer.writerow((f"pictures/{name}.png", *cells))
    return folder


@pytest.fixture
def original(tmp_path: Path) -> Dataset:
    folder = write(tmp_path / "original", ORIGINAL)
    return load_dataset(folder / "labels.csv", group_column="group", good_class="good")


@pytest.fixture
def sides(original: Dataset) -> tuple[Dataset, ...]:
    return split_by_group(original, SHARES, 7)


@pytest.fixture
def first(package: Path, sides: tuple[Dataset, ...], tmp_path: Path) -> ModelPackage:
    """A calibrated package that says that it was made from the split beside it."""
    write_splits(tmp_path / "model", sides)
    told = {
        "data_digests": {role: side.digest for role, side in zip(SIDES[:2], sides, strict=False)},
        "settings": {"seed": 7},
        "split": split_record(sides, grouped_by="item", fractions=SHARES, seed=7),
    }
    return replace(
        load_package(package), path=tmp_path / "model-calibrated", classes=("good", "pit"), training=told
    )


@pytest.fixture
def add(first: ModelPackage, tmp_path: Path) -> Callable[..., NextData]:
    """Add rows to the first package's data."""

    def call(rows: list[Row], original: Path | None = None, **options: Any) -> NextData:
        folder = write(tmp_path / f"export{len(list(tmp_path.iterdir()))}", rows)
        return next_data(options.pop("package", first), folder, original, **options)

    return call


def names(side: Dataset) -> set[str]:
    return {item.path.stem for item in side.items}


def test_every_original_picture_keeps_its_side(
    add: Callable[..., NextData], sides: tuple[Dataset, ...], first: ModelPackage
) -> None:
    training, validation, _, test = sides
    new = [(f"new-{number}", "pit", f"lot {number // 3}") for number in range(30)]
    seen = training.items[0]
    found = add(
        [
            *new,
            (seen.path.stem, seen.labels[0], "lot 1"),  # the very picture: known, whatever its group is now
            ("again-1", "good", training.items[1].group),
            ("again-2", "good", validation.items[0].group),
            ("again-3", "pit", test.items[0].group),
        ]
    )
    # Nothing has moved: calibration and test are what they were, the others have grown.
    assert [side.digest for side in found.sides[2:]] == [side.digest for side in sides[2:]]
    assert names(training) <= names(found.sides[0])
    assert names(validation) <= names(found.sides[1])
    assert "again-1" in names(found.sides[0])
    assert "again-2" in names(found.sides[1])
    assert found.held == ("added/pictures/again-3.png",)
    assert found.known == 1
    assert sum(found.added.values()) == 32
    added = (names(found.sides[0]) | names(found.sides[1])) - names(training) - names(validation)
    assert added == {name for name, _, _ in new} | {"again-1", "again-2"}
    # 30 new pictures of 10 lots, 0.55 to 0.1, and no lot on two sides.
    assert found.added["validation"] in range(2, 9)
    groups = [{item.group for item in side.items} for side in found.sides]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert all(side.classes == first.classes for side in found.sides)
    # The next package says the same of its own data as this one does.
    assert found.record["follows"]["package_digest"] == first.digest
    assert found.record["split"] == split_record(found.sides, grouped_by="item", fractions=SHARES, seed=7)


def test_a_held_out_group_is_known_however_an_export_writes_it(
    add: Callable[..., NextData], sides: tuple[Dataset, ...]
) -> None:
    training, _, calibration, test = (side.items[0].group for side in sides)
    found = add(
        [
            ("guarded", "pit", inert_cell(test), "L1", inert_cell(test)),
            ("by lot", "pit", "L1", "L1", inert_cell(calibration)),  # an export with --group lot
            ("by part", "pit", "P7", inert_cell(test), "P7"),
            ("both", "pit", inert_cell(training), inert_cell(test), inert_cell(training)),
            ("kept", "pit", "L1", "L1", inert_cell(training)),
            ("new", "pit", "L1", "L1", "P8"),
        ]
    )
    held = ("both", "by lot", "by part", "guarded")
    assert found.held == tuple(f"added/pictures/{name}.png" for name in held)
    assert found.added == {"training": 2, "validation": 0}
    added = {item.path.stem: item.group for item in found.sides[0].items}
    assert (added["kept"], added["new"]) == (training, "L1")  # a group stays whole, on one side


def test_a_held_out_picture_never_moves_whatever_its_group_is_called(
    add: Callable[..., NextData], sides: tuple[Dataset, ...]
) -> None:
    moved = [
        (item.path.stem, item.labels[0], sides[0].items[0].group) for side in sides[2:] for item in side.items
    ]
    found = add([*moved, ("new", "pit", "L1")])
    assert found.known == len(moved)
    assert found.added == {"training": 1, "validation": 0}
    assert [side.digest for side in found.sides[2:]] == [side.digest for side in sides[2:]]


def test_five_pictures_of_one_lot_are_enough(add: Callable[..., NextData]) -> None:
    found = add([(f"new-{number}", "pit", "L1") for number in range(5)])
    assert found.added == {"training": 5, "validation": 0}


def test_the_original_data_may_be_named(
    add: Callable[..., NextData], sides: tuple[Dataset, ...], first: ModelPackage, tmp_path: Path
) -> None:
    elsewhere = (tmp_path / "model.splits").rename(tmp_path / "kept")
    rows = [("new", "pit", "L1")]
    with pytest.raises(DataError, match=r"does not lie beside it; name the folder MODEL\.splits"):
        add(rows)
    by_folder = add(rows, elsewhere)
    by_labels = add(rows, tmp_path / "original" / "labels.csv", columns=LabelColumns(group="group"))
    for found in (by_folder, by_labels):
        assert [side.digest for side in found.sides[1:]] == [side.digest for side in sides[1:]]
    with pytest.raises(DataError, match="its training side is not the data that"):
        add(rows, tmp_path / "original" / "labels.csv")  # without the groups


def test_a_test_picture_cannot_be_slipped_into_training(add: Callable[..., NextData], tmp_path: Path) -> None:
    splits = tmp_path / "model.splits"
    header, moved, *rest = (splits / "test.csv").read_text().splitlines(keepends=True)
    (splits / "test.csv").write_text(header + "".join(rest))
    with pytest.raises(DataError, match="its test side is not the data"):
        add([("new", "pit", "L1")], splits)
    with (splits / "training.csv").open("a") as file:
        file.write(moved)
    with pytest.raises(DataError, match="its training side is not the data"):
        add([("new", "pit", "L1")], splits)


def test_a_package_of_before_splits_were_recorded(
    add: Callable[..., NextData], first: ModelPackage, sides: tuple[Dataset, ...], tmp_path: Path
) -> None:
    digests = {role: side.named_digest for role, side in zip(SIDES[:2], sides, strict=False)}
    older = replace(first, training={"data_digests": digests, "settings": {"seed": 7}})
    rows = [("new", "pit", "L1")]
    labels = tmp_path / "original" / "labels.csv"
    for named in (None, labels):
        found = add(rows, named, package=older, columns=LabelColumns(group="group"), fractions=SHARES)
        assert [side.digest for side in found.sides[1:]] == [side.digest for side in sides[1:]]
        assert found.record["split"]["digests"]["test"] == sides[3].digest
    with pytest.raises(DataError, match="does not say what data it was trained on"):
        add(rows, package=replace(first, training={}))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("new", "dent", "L1")], r"1 pictures are labelled dent, and .* has the classes good, pit alone"),
        ([("good-3-0", "pit", "L1")], r"good-3-0\.png is labelled otherwise .*good there, pit here"),
        ([("pit-3-0", "pit", "L1")], "adds nothing to train on: 1 pictures are in the original data already"),
    ],
)
def test_what_does_not_fit_is_named(add: Callable[..., NextData], rows: list[Row], message: str) -> None:
    with pytest.raises(DataError, match=message):
        add(rows)


def test_an_export_that_is_not_there(first: ModelPackage, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name the folder that kensa dataset export wrote"):
        next_data(first, tmp_path / "nothing")


def test_settings_are_the_packages_and_the_start_its_weights(first: ModelPackage) -> None:
    recorded = {"epochs": 12, "seed": 3, "augmentation": {"rotation": 2.0}, "device": "cuda:1", "threads": 64}
    settings = next_settings(
        replace(first, training={"settings": {**recorded, "pretrained": "old.safetensors"}})
    )
    assert (settings.epochs, settings.seed, settings.augmentation.rotation) == (12, 3, 2.0)
    assert (settings.device, settings.threads) == ("auto", None)
    assert settings.pretrained == str(first.path / "model.safetensors")
    assert (settings.architecture, settings.input_size) == ("test_resnet", (64, 64))
    assert (settings.mean, settings.fit) == (first.preprocessing.mean, first.preprocessing.fit)
    assert settings.tiling is None
    tiled = {"tiling": {"scale": 2.0, "overlap": 5, "good_tiles": 4, "hard_share": 0.0}}
    kept = next_settings(replace(first, training={"settings": {**recorded, **tiled}}))
    assert kept.package_tiling == Tiling(2.0, 5)
    assert kept.tiling == TilingSettings(2.0, 5, 4, 0.0)
    # What an epoch shows may change from one model to the next, how pictures are cut may not.
    changed = changed_settings(kept, ["tiling.good_tiles=9"], {}, {"epochs"})
    assert changed.tiling == TilingSettings(2.0, 5, 9, 0.0)
    for entry in ("tiling.overlap=3", "tiling.scale=1"):
        with pytest.raises(ConfigError, match="not a setting that can change"):
            changed_settings(kept, [entry], {}, {"epochs"})
    for wrong in ({"warp": 9}, {"tiling": {"warp": 9}}):
        with pytest.raises(DataError, match="settings that this kensa does not know"):
            next_settings(replace(first, training={"settings": wrong}))
    with pytest.raises(DataError, match="does not say how it was trained"):
        next_settings(replace(first, training={}))
