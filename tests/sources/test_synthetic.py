"""The generator: deterministic, picture by picture, with masks that lie where the defect is."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sources.decoding import decode as decode_bytes
from sources.errors import SourceError
from sources.folder import Source
from sources.surfaces import _DEFECTS, SURFACE_CLASSES, surface
from sources.synthetic import write_dataset, write_inspection_folder

DEFECTS = [label for label in SURFACE_CLASSES if label != "good"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("label", SURFACE_CLASSES)
@pytest.mark.parametrize("size", [32, 97, 160])
def test_shape_and_range(label: str, size: int) -> None:
    pixels, mask = surface(label, np.random.default_rng(3), size)
    assert pixels.shape == mask.shape == (size, size)
    assert pixels.dtype == np.uint8
    assert mask.dtype == np.bool_
    assert mask.any() == (label != "good")
    assert pixels.std() > 2  # a surface, not a blank
    assert np.mean((pixels == 0) | (pixels == 255)) < 0.02  # exposed, not clipped


@pytest.mark.parametrize("label", DEFECTS)
def test_the_mask_is_where_the_defect_changed_the_surface(
    label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same stream of chance with the defect's effect left out differs inside the mask, hardly outside."""
    inside, outside = [], []
    for seed in range(25):
        pixels, mask = surface(label, np.random.default_rng(seed))
        with monkeypatch.context() as patch:
            real = _DEFECTS[label]

            def without_effect(*args: object, real: object = real) -> object:
                effect, mask = real(*args)  # type: ignore[operator]
                return effect * 0, mask

            patch.setitem(_DEFECTS, label, without_effect)  # type: ignore[arg-type]
            untouched, same_mask = surface(label, np.random.default_rng(seed))
        assert np.array_equal(mask, same_mask)
        change = np.abs(pixels.astype(int) - untouched.astype(int))
        inside.append(change[mask].mean())
        outside.append(change[~mask].mean())
        assert change.sum() > 0
        # most of all change lies within two pixels of the mask: optics are soft, scratches have flanks
        near = np.zeros_like(mask)
        ys, xs = np.nonzero(mask)
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                near[np.clip(ys + dy, 0, 159), np.clip(xs + dx, 0, 159)] = True
        assert change[near].sum() > 0.85 * change.sum(), seed
    assert np.mean(inside) > 25 * np.mean(outside)
    assert min(inside) > 1.5  # faint ones are there, invisible ones are not


def test_defects_vary_in_size_and_place() -> None:
    for label in DEFECTS:
        masks = [surface(label, np.random.default_rng(seed))[1] for seed in range(60)]
        areas = sorted(int(mask.sum()) for mask in masks)
        assert areas[0] >= 12
        assert areas[-6] > 2 * areas[6]
        assert np.mean(masks, axis=0).max() < 0.5


def test_wrong_arguments() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(
        ValueError, match="label 'dent': expected one of good, scratch, pit, inclusion, patch"
    ):
        surface("dent", rng)
    with pytest.raises(ValueError, match="at least 32 pixels"):
        surface("good", rng, 31)


# --- data sets on disk ------------------------------------------------------------------------------------


def test_dataset(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    root = write_dataset(
        tmp_path / "set",
        count=60,
        seed=7,
        size=48,
        lots=4,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i + 1, 60) for i in range(60)]
    labels = rows(root / "labels.csv")
    assert list(labels[0]) == ["image", "mask", "label", "group", "lot", "part"]
    assert {row["label"] for row in labels} == set(SURFACE_CLASSES)
    assert 18 <= sum(row["label"] == "good" for row in labels) <= 42
    assert {row["lot"] for row in labels} == {"L001", "L002", "L003", "L004"}
    assert len({row["part"] for row in labels}) == 60
    for row in labels:
        assert row["group"] == row["lot"]
        assert row["image"] == f"images/{row['label']}/{row['part']}.png"
        mask = np.asarray(Image.open(root / row["mask"]))
        assert mask.shape == np.asarray(Image.open(root / row["image"])).shape == (48, 48)
        assert set(np.unique(mask)) <= {0, 255}
        assert (mask.max() == 255) == (row["label"] != "good")
    listed = {row[column] for row in labels for column in ("image", "mask")} | {"labels.csv"}
    assert set(files(root)) == listed


def test_the_same_seed_gives_the_same_bytes_and_each_picture_stands_alone(tmp_path: Path) -> None:
    first = files(write_dataset(tmp_path / "a", count=12, seed=5, size=40))
    assert files(write_dataset(tmp_path / "b", count=12, seed=5, size=40)) == first
    longer = files(write_dataset(tmp_path / "c", count=15, seed=5, size=40))
    assert {name: longer[name] for name in first if name != "labels.csv"} == {
        name: data for name, data in first.items() if name != "labels.csv"
    }
    other = files(write_dataset(tmp_path / "d", count=12, seed=6, size=40))
    assert not set(pictures(first)) & set(pictures(other))
    inspected = files(write_inspection_folder(tmp_path / "e", count=12, seed=5, size=40, defect_share=0.5))
    assert not set(pictures(first)) & set(pictures(inspected))


def pictures(content: dict[str, bytes]) -> list[bytes]:
    return [data for name, data in content.items() if name.startswith("images/")]


def test_defect_share(tmp_path: Path) -> None:
    for share, expected in ((0.0, {"good"}), (1.0, set(DEFECTS))):
        root = write_dataset(tmp_path / str(share), count=40, seed=1, size=32, defect_share=share)
        assert {row["label"] for row in rows(root / "labels.csv")} == expected


def test_inspection_folder_is_a_source(tmp_path: Path) -> None:
    root = write_inspection_folder(tmp_path / "line", count=20, seed=3, size=40, defect_share=0.4, lots=3)
    source = Source(str(root), manifest="manifest.csv")
    listed = list(source.list())
    assert source.missing_from_listing() == ()
    manifest = {row["file"]: row for row in rows(root / "manifest.csv")}
    truth = {row["file"]: row["label"] for row in rows(root / "truth.csv")}
    assert [item.uri for item in listed] == sorted(manifest) == sorted(truth)
    assert len({item.metadata.part for item in listed}) == 20
    assert {item.metadata.lot for item in listed} == {"L001", "L002", "L003"}
    for item in listed:
        row, known = manifest[item.uri], item.metadata
        assert (known.part, known.lot, known.station) == (row["part"], row["lot"], row["station"])
        assert item.uri == f"images/{known.lot}/{known.part}.png"
        assert known.captured_at is not None
        assert known.captured_at.isoformat() == row["captured_at"]
        assert not any(label in item.uri for label in SURFACE_CLASSES)
        assert decode_bytes(source.read(item)).pixels.shape == (40, 40, 3)
    assert {"good"} < set(truth.values()) <= set(SURFACE_CLASSES)


def test_old_and_new_pictures_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    for write in (write_dataset, write_inspection_folder):
        with pytest.raises(SourceError, match="is not empty: name a new folder"):
            write(tmp_path, count=1, seed=0)
        with pytest.raises(ValueError, match="count 0, lots"):
            write(tmp_path / "new", count=0, seed=0)
    assert list(files(tmp_path)) == ["kept.txt"]
