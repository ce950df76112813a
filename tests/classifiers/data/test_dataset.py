from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from PIL import Image

from classifiers.data.annotations import MaskFile
from classifiers.data.dataset import (
    DataError,
    Dataset,
    Item,
    defective_mask,
    label_matrix,
    split_by_group,
)
from classifiers.data.pictures import Augmentation, AugmentedPictures, Pictures, read_pixels
from classifiers.data.reading import load_dataset
from classifiers.package.preprocessing import Preprocessing

WriteCsv = Callable[..., Path]


def test_csv(dataset: Dataset) -> None:
    assert dataset.classes == ("good", "line", "spot")
    assert dataset.counts() == {"good": 48, "line": 24, "spot": 12}
    assert dataset.task == "single-label"
    first = dataset.items[0]
    assert (first.name, first.labels, first.group) == ("images/good000.png", ("good",), "good-0")
    assert first.path.is_file()
    defective = defective_mask(dataset, "good")
    assert not defective[0]
    assert defective.sum() == 36
    assert label_matrix(dataset, dataset.classes).sum(axis=0).tolist() == [48, 24, 12]


def test_cells_that_are_not_written_as_they_are(tmp_path: Path) -> None:
    for name in ("-x.png", "-m.png"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("image,label,lot,mask\n'-x.png,'-a;b,'-L1,'-m.png\n")
    options: dict[str, Any] = {"group_column": "lot", "multi_label": True}
    (item,) = load_dataset(
        tmp_path / "labels.csv", **options, cell_text=lambda cell: cell.removeprefix("'")
    ).items
    assert (item.name, item.labels, item.group) == ("-x.png", ("-a", "b"), "-L1")
    assert item.annotations == tuple(MaskFile(label, tmp_path / "-m.png") for label in ("-a", "b"))
    with pytest.raises(DataError, match=r"cannot read .*'-x\.png"):
        load_dataset(tmp_path / "labels.csv", **options)


def test_folder_of_classes(tmp_path: Path) -> None:
    for name in ("good/a.png", "good/sub/b.PNG", "pit/c.jpg", ".hidden/d.png", "pit/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    loaded = load_dataset(tmp_path, good_class="good")
    assert [(item.name, item.labels) for item in loaded.items] == [
        ("good/a.png", ("good",)),
        ("good/sub/b.PNG", ("good",)),
        ("pit/c.jpg", ("pit",)),
    ]
    grouped = load_dataset(tmp_path, group_pattern=r"/([a-z])\.[^/]*$")
    assert [item.group for item in grouped.items] == ["a", "b", "c"]
    with pytest.raises(DataError, match="does not match the group pattern"):
        load_dataset(tmp_path, group_pattern=r"lot(\d+)")
    with pytest.raises(DataError, match="put parentheses"):
        load_dataset(tmp_path, group_pattern=r"lot")


def test_identical_files_share_a_group(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / "good").mkdir(exist_ok=True)
        (tmp_path / "good" / f"{name}.png").write_bytes(content)
    groups = [item.group for item in load_dataset(tmp_path).items]
    assert groups[0] == groups[1] != groups[2]


def test_multi_label(tmp_path: Path, write_csv: WriteCsv) -> None:
    file = write_csv(tmp_path / "m", {"": 2, "good": 1, "line": 2, "spot;line": 3})
    loaded = load_dataset(file, multi_label=True, good_class="good", group_column="lot")
    assert loaded.classes == ("line", "spot")
    assert loaded.counts() == {"line": 5, "spot": 3}
    assert defective_mask(loaded, "good").sum() == defective_mask(loaded, None).sum() == 5
    matrix = label_matrix(loaded, loaded.classes)
    assert matrix.sum(axis=1).tolist().count(0) == 3
    contradictory = write_csv(tmp_path / "c", {"good;line": 1})
    with pytest.raises(DataError, match="a defect at once"):
        load_dataset(contradictory, multi_label=True, good_class="good")


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("image,class\nx.png,a\n", {}, "no column 'label'; there are image, class"),
        ("image,label\nx.png,\n", {}, "line 2: column 'label' is empty"),
        ("image,label\n,a\n", {}, "line 2: column 'image' is empty"),
        ("image,label\nx.png,a\nx.png,b\n", {}, "line 3: x.png appears twice"),
        ("image,label\nabsent.png,a\n", {}, "line 2: cannot read"),
        ("image,label\nx.png,a\n", {"group_column": "lot"}, "no column 'lot'"),
        ("image,label,lot\nx.png,a,\n", {"group_column": "lot"}, "column 'lot' is empty"),
        ("image,label\nx.png,a\n", {"good_class": "fine"}, "good class 'fine' is not one of a"),
        ("image,label\n", {}, "no pictures"),
        ("", {}, "there are none"),
    ],
)
def test_bad_csv_is_refused_by_line(
    tmp_path: Path, text: str, arguments: dict[str, str], message: str
) -> None:
    (tmp_path / "x.png").write_bytes(b"x")
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        load_dataset(file, **arguments)  # type: ignore[arg-type]


def test_places_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load_dataset(tmp_path / "absent")
    with pytest.raises(DataError, match="no pictures"):
        load_dataset(tmp_path)
    with pytest.raises(DataError, match="need a CSV"):
        load_dataset(tmp_path, multi_label=True)


def test_the_digest_covers_what_the_data_is(tmp_path: Path, write_csv: WriteCsv) -> None:
    file = write_csv(tmp_path / "d", {"good": 2, "line": 2})
    before = load_dataset(file, good_class="good")
    assert load_dataset(file, good_class="good").digest == before.digest
    assert load_dataset(file, good_class="good", group_column="lot").digest != before.digest
    relabelled = replace(before, items=(replace(before.items[0], labels=("line",)), *before.items[1:]))
    assert relabelled.digest != before.digest
    changed = before.items[0].path
    changed.write_bytes(changed.read_bytes() + b"\0")
    assert load_dataset(file, good_class="good").digest != before.digest


def test_the_digest_does_not_depend_on_paths(tmp_path: Path, write_csv: WriteCsv) -> None:
    file = write_csv(tmp_path / "d", {"good": 2, "line": 2})
    rows = file.read_text().splitlines()
    before = load_dataset(file, group_column="lot", good_class="good")
    for name, write in (
        ("absolute", lambda row: f"{file.parent}/{row}"),
        ("dots", lambda row: f"images/../{row}"),
    ):
        other = file.with_name(f"{name}.csv")
        other.write_text("\n".join([rows[0], *map(write, reversed(rows[1:]))]) + "\n")
        again = load_dataset(other, group_column="lot", good_class="good")
        assert again.named_digest != before.named_digest
        assert again.digest == before.digest
    assert before.digest.startswith("content:")
    assert len(before.digest) == len("content:") + 64


def test_the_digest_of_packages_before_is_computed_still() -> None:
    """By hand, from the definition in kensa 0.2: a training that it left unfinished goes on."""
    item = Item(Path("a.png"), "a.png", ("pit",), "lot 1", "00")
    text = '[["good","pit"],"good",false,[["a.png",["pit"],"lot 1","00"]]]'
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert Dataset((item,), ("good", "pit"), "good").named_digest == expected


def made(groups: dict[str, list[str]]) -> Dataset:
    """A data set without files: {group: labels of its pictures}."""
    items = [
        Item(Path(f"{group}{index}"), f"{group}-{index}", (label,), group, f"{group}-{index}")
        for group, labels in groups.items()
        for index, label in enumerate(labels)
    ]
    classes = tuple(sorted({item.labels[0] for item in items}))
    return Dataset(tuple(sorted(items, key=lambda item: item.name)), classes, "good")


def test_split_by_hand() -> None:
    whole = made({"a": ["good"] * 4, "b": ["good"] * 4, "c": ["pit"] * 2, "d": ["pit"] * 2})
    one, two = split_by_group(whole, (0.5, 0.5))
    assert one.counts() == two.counts() == {"good": 4, "pit": 2}
    assert one.classes == two.classes == whole.classes


def test_split_of_a_rare_class_reaches_every_side() -> None:
    groups = {f"g{index}": ["good"] * 3 for index in range(100)} | {
        f"r{index}": ["pit"] for index in range(10)
    }
    for seed in range(5):
        sides = split_by_group(made(groups), (0.6, 0.2, 0.2), seed)
        assert [side.counts()["pit"] for side in sides] == [6, 2, 2]
        assert [side.counts()["good"] for side in sides] == [180, 60, 60]


@given(
    st.lists(
        st.lists(st.sampled_from(["good", "good", "pit", "crack"]), min_size=1, max_size=6),
        min_size=8,
        max_size=40,
    ),
    st.integers(0, 3),
)
def test_split_properties(groups: list[list[str]], seed: int) -> None:
    whole = made({f"g{index}": labels for index, labels in enumerate(groups)})
    try:
        sides = split_by_group(whole, (0.5, 0.25, 0.25), seed)
    except DataError:  # few groups, one of them with nearly all pictures: a side stays empty
        reject()
    names = [item.name for side in sides for item in side.items]
    assert sorted(names) == sorted(item.name for item in whole.items)  # nothing lost, nothing twice
    where = Counter(group for side in sides for group in {item.group for item in side.items})
    assert set(where.values()) == {1}  # no group on two sides
    assert split_by_group(whole, (2, 1, 1), seed) == sides  # deterministic, and fractions are relative


def test_seeds_differ_and_impossible_splits_are_refused() -> None:
    whole = made({f"g{index}": ["good"] for index in range(20)})
    assert split_by_group(whole, (0.5, 0.5), 0) != split_by_group(whole, (0.5, 0.5), 1)
    with pytest.raises(DataError, match="2 groups cannot be split into 3"):
        split_by_group(made({"a": ["good"], "b": ["good"]}), (1, 1, 1))
    with pytest.raises(DataError, match="positive"):
        split_by_group(whole, (1, 0))
    with pytest.raises(DataError, match="positive"):
        split_by_group(whole, ())


def test_pictures_are_the_same_with_and_without_memory(dataset: Dataset) -> None:
    preprocessing = Preprocessing((24, 40))
    seen: list[tuple[int, int]] = []
    kept = Pictures(dataset, preprocessing, progress=lambda done, total: seen.append((done, total)))
    read = Pictures(dataset, preprocessing, cache_bytes=0)
    assert seen[-1] == (84, 84)
    ours, theirs = (np.concatenate([batch.numpy() for batch in one.batches(9)]) for one in (kept, read))
    np.testing.assert_array_equal(ours, theirs)
    assert ours.shape == (84, 3, 24, 40)
    direct = preprocessing.transform(read_pixels(dataset.items[50]))
    np.testing.assert_array_equal(ours[50], direct.numpy())


def test_an_unreadable_labelled_picture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png: .*take it out"):
        Pictures(load_dataset(tmp_path), Preprocessing((8, 8)))


def test_augmentation_depends_on_seed_epoch_and_position_alone(dataset: Dataset) -> None:
    import random

    import torch

    pictures = Pictures(dataset, Preprocessing((32, 32)))
    augmentation = Augmentation(auto_augment="rand-m5-n2-mstd0.5", erase=0.5, rotation=10)
    view = AugmentedPictures(pictures, augmentation, seed=1)
    state, other, third = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index]
    one, index = view[(1, 5, 7)]
    assert index == 7
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers are used up
    assert random.getstate() == other
    assert (np.random.get_state()[1] == third).all()  # type: ignore[index]
    torch.manual_seed(99)
    assert torch.equal(view[(1, 5, 7)][0], one)
    for draw in ((2, 5, 7), (1, 6, 7)):
        assert not torch.equal(view[draw][0], one)
    assert not torch.equal(AugmentedPictures(pictures, augmentation, seed=2)[(1, 5, 7)][0], one)


def test_augmentation_off_is_the_plain_transform(dataset: Dataset) -> None:
    import torch

    still = Augmentation(0, 0, 0, crop_scale=1, crop_ratio=1, brightness=0, contrast=0)
    pictures = Pictures(dataset, Preprocessing((32, 32)))
    image, _ = AugmentedPictures(pictures, still, seed=0)[(1, 0, 3)]
    assert torch.equal(image.permute(1, 2, 0), torch.from_numpy(pictures[3]))


def test_default_augmentation_keeps_the_defect(tmp_path: Path) -> None:
    """A bright spot in the middle ninth of the picture survives every one of 200 draws."""
    (tmp_path / "spot").mkdir()
    pixels = np.full((96, 96, 3), 100, np.uint8)
    pixels[20:26, 70:76] = 255
    Image.fromarray(pixels).save(tmp_path / "spot" / "a.png")
    preprocessing = Preprocessing((96, 96), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    view = AugmentedPictures(Pictures(load_dataset(tmp_path), preprocessing), Augmentation(), seed=0)
    for position in range(200):
        image, _ = view[(1, position, 0)]
        assert int(image.max()) - int(image.median()) > 40
