"""Training on tiles: which tiles are shown, what is learnt from them, and what the package says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from classifiers.data.annotations import Box
from classifiers.data.dataset import Dataset, Item, split_by_group
from classifiers.data.reading import load_dataset
from classifiers.data.tiles import ScaledPictures, Tiles, tile_batches
from classifiers.measure.evaluation import evaluate
from classifiers.package.package import ModelPackage
from classifiers.package.preprocessing import Preprocessing
from classifiers.package.tiling import Tiling
from classifiers.predict import Predictor
from classifiers.tiles import tiled_picture
from classifiers.training.objective import HIGHEST, best_highest, tile_metrics
from classifiers.training.settings import SettingError, TilingSettings, TrainingError, TrainSettings
from classifiers.training.tile_sampling import TileSample, annotations_digest, label_tiles
from classifiers.training.train import train
from classifiers.training.trainer import TrainProgress
from tests.classifiers.training.strips import HEIGHT, WIDTH, write_strips

PREPROCESSING = Preprocessing((32, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def labelled(*annotations: Box, labels: tuple[str, ...] = ("crack",), multi_label: bool = False) -> Dataset:
    """Return one good and one annotated picture of 32 x 128 pixels, as labels alone."""
    items = (
        Item(Path("a"), "a", () if multi_label else ("good",), "a", "a"),
        Item(Path("b"), "b", labels, "b", "b", annotations),
    )
    classes = ("crack", "dent") if multi_label else ("crack", "good")
    return Dataset(items, classes, None if multi_label else "good", multi_label)


GRIDS = [Tiling().grid((32, 128), (32, 32))] * 2  # four tiles, side by side


def shown(dataset: Dataset) -> list[tuple[int, int, list[float]]]:
    found = label_tiles(dataset, GRIDS)
    return [
        (*place, target) for place, target in zip(found.places.tolist(), found.targets.tolist(), strict=True)
    ]


def test_a_tile_shows_a_defect_with_enough_of_it_and_a_grazing_one_is_left_out() -> None:
    # 10 columns: 7 in the first tile, 3 in the second, 4 rows: 12 pixels are 1.2 % of a tile.
    dataset = labelled(Box("crack", 25, 4, 35, 8))
    crack, good = [1.0, 0.0], [0.0, 1.0]
    assert shown(dataset) == [
        *((0, number, good) for number in range(4)),
        (1, 0, crack),
        *((1, number, good) for number in (2, 3)),
    ]
    found = label_tiles(dataset, GRIDS)
    assert found.record() == {"defective": 1, "good": 6, "grazing": 1, "pictures_without_annotation": 0}
    # 30 rows of it: 90 pixels are 8.8 % of the second tile, which now shows it too.
    assert (1, 1, crack) in shown(labelled(Box("crack", 25, 1, 35, 31)))


def test_of_a_defect_that_no_tile_shows_enough_the_fullest_tile_counts() -> None:
    # 3 rows over all four tiles: a quarter in each, 96 pixels of 1024 are enough of a tile.
    assert [place[:2] for place in shown(labelled(Box("crack", 0, 4, 128, 7))) if place[2][0]] == [
        (1, number) for number in range(4)
    ]
    # 8 x 4 pixels about the middle of four tiles: 10, 6, 10 and 6 of 32 pixels, at most 1 % of a tile.
    middle = labelled(Box("crack", 27, 30, 35, 34))
    tiles = label_tiles(middle, [Tiling().grid((64, 64), (32, 32))] * 2)
    assert tiles.places[~tiles.good].tolist() == [[1, 0]]
    assert tiles.grazing == 3


def test_a_picture_of_one_label_may_show_another_class_in_other_tiles() -> None:
    alone, beside = Box("dent", 36, 4, 46, 14), Box("dent", 70, 4, 80, 14)
    boxes = Box("crack", 4, 4, 12, 12), alone, beside, Box("crack", 72, 4, 82, 20)
    dataset = replace(labelled(*boxes), classes=("crack", "dent", "good"))
    crack, dent, good = np.eye(3).tolist()
    # In the third tile the crack has more pixels than the dent.
    assert [target for _, _, target in shown(dataset)[4:]] == [crack, dent, crack, good]


def test_in_multi_label_data_what_is_grazed_is_neither_there_nor_absent() -> None:
    boxes = Box("crack", 25, 4, 35, 8), Box("dent", 36, 4, 50, 8), Box("dent", 100, 4, 110, 8)
    dataset = labelled(*boxes, labels=("crack", "dent"), multi_label=True)
    # The second tile shows a dent, and a little of the crack: it is left out.
    assert shown(dataset) == [
        *((0, number, [0.0, 0.0]) for number in range(4)),
        (1, 0, [1.0, 0.0]),
        (1, 2, [0.0, 0.0]),
        (1, 3, [0.0, 1.0]),
    ]


def test_without_annotations_nothing_is_labelled_and_the_error_says_what_helps() -> None:
    with pytest.raises(
        TrainingError, match=r"^1 .* b among them, and no mask .*--mask-column.*without --tile"
    ):
        label_tiles(labelled(), GRIDS)
    some = labelled(Box("crack", 25, 4, 35, 8))
    more = replace(some, items=(*some.items, Item(Path("c"), "c", ("crack",), "c", "c")))
    found = label_tiles(more, [*GRIDS, GRIDS[0]])
    assert found.unmarked == ("c",)
    assert 2 not in found.places[:, 0]


def sample_of(
    counts: tuple[int, ...], *, good_tiles: int, hard_share: float
) -> tuple[TileSample, np.ndarray]:
    """Return a sample of pictures with one defective tile and so many good ones, and each tile's picture."""
    items = []
    grids = []
    for index, count in enumerate(counts):
        box = Box("crack", 4, 4, 12, 12)
        items.append(Item(Path(str(index)), str(index), ("crack",), str(index), str(index), (box,)))
        grids.append(Tiling().grid((32, 32 * (count + 1)), (32, 32)))
    dataset = Dataset(tuple(items), ("crack", "good"), "good", False)
    tiles = label_tiles(dataset, grids)
    return TileSample(tiles, good_tiles, hard_share), tiles.places


def test_an_epoch_shows_all_defects_and_at_most_so_many_good_tiles_of_a_picture() -> None:
    sample, places = sample_of((2, 10, 30), good_tiles=4, hard_share=0.5)
    first, second = (sample.draw(torch.Generator().manual_seed(seed)).tolist() for seed in (1, 2))
    assert sorted(first) != sorted(second)
    for drawn in (first, second):
        assert len(set(drawn)) == len(drawn)
        good = [tile for tile in drawn if places[tile, 1] > 0]
        assert np.bincount(places[good, 0]).tolist() == [2, 4, 4]
        assert len(drawn) - len(good) == 3


def test_hard_tiles_stay_in_the_sample_and_its_size_stays() -> None:
    sample, places = sample_of((2, 10, 30), good_tiles=4, hard_share=0.5)
    candidates = sample.candidates(torch.Generator().manual_seed(0))
    assert len(candidates) == 2 + 10 + 30
    scores = np.array([places[tile, 0] + places[tile, 1] / 100 for tile in candidates])
    sample.keep_hard(candidates, scores)
    # Five of the ten good tiles of an epoch: the last four of the last picture, then the best of the second.
    assert [tuple(places[tile]) for tile in sample.hard] == [(2, 30), (2, 29), (2, 28), (2, 27), (1, 10)]
    for seed in range(3):
        drawn = sample.draw(torch.Generator().manual_seed(seed)).tolist()
        assert set(sample.hard) <= set(drawn)
        assert len(drawn) == len(set(drawn)) == 3 + 10


@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_pictures_are_cut_alike_from_memory_and_from_files(tmp_path: Path, scale: float) -> None:
    dataset = load_dataset(write_strips(tmp_path / "data", 3, 2), good_class="good")
    tiling = Tiling(scale, 4)
    kept, filed = (
        ScaledPictures(dataset.items, PREPROCESSING, tiling, tmp_path / "files", cache_bytes=size)
        for size in (10**9, int(HEIGHT * WIDTH / scale**2) + 100)
    )
    assert len(list((tmp_path / "files").iterdir())) == 4  # one of five fits into memory, in one plane
    places = np.array(
        [(picture, tile) for picture, grid in enumerate(kept.grids) for tile in range(len(grid))]
    )
    one, other = Tiles(kept, places), Tiles(filed, places)
    assert all(np.array_equal(one[index], other[index]) for index in range(len(one)))
    batches = [batch for batch, _ in tile_batches(iter(kept), PREPROCESSING, 7)]
    assert torch.equal(torch.cat(batches), torch.cat(list(other.batches(7))))
    done = [pictures for _, pictures in tile_batches(iter(kept), PREPROCESSING, 7)]
    ends = np.cumsum([len(grid) for grid in kept.grids])
    assert done == [int((ends <= min(7 * count, ends[-1])).sum()) for count in range(1, len(done) + 1)]


def test_the_aggregation_is_the_one_that_separates_validation_pictures_best() -> None:
    # Good pictures have one bright tile each, defective ones three of middling scores.
    scores = [[0.9, 0.1, 0.1], [0.85, 0.1, 0.1], [0.8, 0.8, 0.8], [0.7, 0.7, 0.7]]
    dataset = Dataset(
        tuple(
            Item(Path(name), name, (label,), name, name)
            for name, label in zip("abcd", ["good", "good", "crack", "crack"], strict=True)
        ),
        ("crack", "good"),
        "good",
    )
    values = torch.tensor(scores).flatten()
    metrics = tile_metrics(torch.stack([values.logit(), torch.zeros(12)], dim=1), [3] * 4, dataset)
    assert metrics["auroc"] == metrics["auroc_of_highest"]["1"] == 0.0
    assert [metrics["auroc_of_highest"][str(highest)] for highest in HIGHEST] == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert best_highest(metrics) == 2  # ties go to the fewest
    assert best_highest({"auroc_of_highest": dict.fromkeys(map(str, HIGHEST), None)}) == 1


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, ...]:
    file = write_strips(tmp_path_factory.mktemp("strips") / "data", 60, 40)
    return split_by_group(load_dataset(file, group_column="part", good_class="good"), (0.5, 0.2, 0.3))


@pytest.fixture(scope="module")
def tiled_settings(settings: TrainSettings) -> TrainSettings:
    return replace(
        settings, epochs=6, select_by="auroc", tiling=TilingSettings(scale=1.0, good_tiles=4), batch_size=16
    )


@pytest.fixture(scope="module")
def tiled(
    sides: tuple[Dataset, ...], tiled_settings: TrainSettings, tmp_path_factory: pytest.TempPathFactory
) -> ModelPackage:
    return train(*sides[:2], tiled_settings, tmp_path_factory.mktemp("tiled") / "model")


def test_tiles_find_what_a_squeezed_picture_has_lost(
    sides: tuple[Dataset, ...], tiled: ModelPackage, settings: TrainSettings, tmp_path: Path
) -> None:
    found = evaluate(Predictor(tiled, device="cpu"), sides[2])
    assert found["auroc"] > 0.95
    # As many pixels are shown: a strip squeezed into the input has as many as one of its tiles.
    squeezed = train(*sides[:2], replace(settings, epochs=10, select_by="auroc"), tmp_path / "squeezed")
    assert squeezed.tiling is None
    lost = evaluate(Predictor(squeezed, device="cpu"), sides[2])
    assert lost["auroc"] < found["auroc"] - 0.15


def test_the_package_says_how_it_is_tiled(tiled: ModelPackage, tiled_settings: TrainSettings) -> None:
    assert tiled.tiling is not None
    assert (tiled.tiling.scale, tiled.tiling.overlap) == (1.0, 4)
    best = tiled.training["metrics"]
    assert tiled.tiling.highest == best_highest(best)
    assert best == max(tiled.training["history"], key=lambda entry: (entry["auroc"], -entry["loss"]))
    assert tiled.training["settings"]["tiling"] == {
        "scale": 1.0,
        "overlap": 4,
        "good_tiles": 4,
        "hard_share": 0.5,
    }
    assert tiled.training["tiles"]["defective"] >= 20


def test_interrupted_after_the_hard_tiles_and_resumed_is_undisturbed(
    sides: tuple[Dataset, ...], tiled: ModelPackage, tiled_settings: TrainSettings, tmp_path: Path
) -> None:
    class Stopped(Exception):  # noqa: N818
        """Stands for a kill."""

    assert tiled_settings.hard_epoch == 2

    def stop(now: TrainProgress) -> None:
        if (now.phase, now.epoch, now.done) == ("training", 4, 1):
            raise Stopped

    seen: list[TrainProgress] = []
    # Pictures that do not fit into memory are in the work folder, and go with it.
    small = replace(tiled_settings, cache_bytes=10 * HEIGHT * WIDTH)
    with pytest.raises(Stopped):
        train(*sides[:2], small, tmp_path / "model", progress=stop)
    assert list((tmp_path / "model.training" / "pictures-training").glob("*.npy"))
    resumed = train(*sides[:2], small, tmp_path / "model", progress=seen.append)
    assert resumed.weights_sha256 == tiled.weights_sha256
    assert not (tmp_path / "model.training").exists()
    assert not any(now.text and "look most like a defect" in now.text for now in seen)
    assert min(now.epoch for now in seen if now.phase == "training") == 4


def test_scores_of_pictures_are_those_that_inspection_makes(
    sides: tuple[Dataset, ...], tiled: ModelPackage
) -> None:
    from classifiers.data.pictures import read_pixels
    from classifiers.measure.evaluation import predict_dataset
    from classifiers.tiles import scored_tiles

    predictor = Predictor(tiled, device="cpu")
    some = replace(sides[2], items=sides[2].items[:5])
    prediction = predict_dataset(predictor, some)
    alone = [scored_tiles(predictor, [tiled_picture(tiled, read_pixels(item))])[0] for item in some.items]
    assert tiled.tiling is not None
    expected = [tiled.tiling.picture_scores(one.scores) for one in alone]
    assert prediction.defect_scores == pytest.approx(expected, abs=1e-5)
    rows = np.stack([one.probabilities[one.deciding] for one in alone])
    assert prediction.probabilities == pytest.approx(rows, abs=1e-5)


def test_a_training_hangs_on_what_is_annotated(sides: tuple[Dataset, ...]) -> None:
    side = sides[0]
    assert annotations_digest(side) == annotations_digest(side)
    without = tuple(replace(item, annotations=()) for item in side.items)
    assert annotations_digest(replace(side, items=without)) != annotations_digest(side)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tiling": TilingSettings(scale=0)}, r"tiling\.scale must be a number"),
        ({"tiling": TilingSettings(overlap=17)}, r"tiling\.overlap must be at most half .* 16, got 17"),
        ({"tiling": TilingSettings(good_tiles=0)}, r"tiling\.good_tiles must be at least 1"),
        ({"tiling": TilingSettings(hard_share=1.5)}, r"tiling\.hard_share must be between"),
        ({"tiling": TilingSettings(), "jpeg_scaling": True}, r"jpeg_scaling must be false"),
    ],
)
def test_settings_that_cannot_be(settings: TrainSettings, changes: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        replace(settings, **changes)  # type: ignore[arg-type]


def test_tiles_need_to_know_what_is_good(
    sides: tuple[Dataset, ...], tiled_settings: TrainSettings, tmp_path: Path
) -> None:
    training, validation = (replace(side, good_class=None) for side in sides[:2])
    with pytest.raises(TrainingError, match="--good-class"):
        train(training, validation, tiled_settings, tmp_path / "model")


def test_without_tiles_a_training_is_recorded_as_before(settings: TrainSettings) -> None:
    assert "tiling" not in settings.record()
