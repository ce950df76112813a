"""A picture's tiles share passes with those of others, and its decision is made of theirs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classifiers.errors import PackageError
from classifiers.package.package import ModelPackage
from classifiers.package.tiling import Tiling
from classifiers.predict import Predictor
from classifiers.tiles import TiledPicture, TileScores, decide_tiles, scored_tiles, tile_inputs, tiled_picture

TILE = (32, 32)


@pytest.fixture(scope="module")
def tiled(package: ModelPackage) -> ModelPackage:
    return replace(package, tiling=Tiling(overlap=8))


def picture(height: int, width: int, seed: int = 0) -> TiledPicture:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return TiledPicture(Tiling(overlap=8).grid((height, width), TILE), pixels)


def scores(*rows: tuple[float, float, float]) -> TileScores:
    probabilities = np.array(rows, np.float32)
    return TileScores(probabilities, 1 - probabilities[:, 0])


def test_tiles_are_scored_as_pictures_of_their_size(package: ModelPackage) -> None:
    predictor = Predictor(package, device="cpu", engine="torch", batch_size=4)
    pictures = [picture(32, 32, 1), picture(70, 90, 2), picture(20, 100, 3)]
    found = scored_tiles(predictor, pictures)
    assert [len(one.scores) for one in found] == [len(one.grid) for one in pictures] == [1, 12, 4]
    for one, tiles in zip(pictures, found, strict=True):
        left, top, right, bottom = one.grid.content
        for index in range(len(one.grid)):
            canvas = np.empty((*TILE, 3), np.uint8)
            canvas[:] = package.preprocessing.fill
            first_column, first_row, last_column, last_row = one.grid.window(index)
            canvas[top:bottom, left:right] = one.pixels[first_row:last_row, first_column:last_column]
            alone = predictor.predict(predictor.transform(canvas)[None])
            np.testing.assert_allclose(tiles.probabilities[index], alone.probabilities[0], atol=1e-5)
            np.testing.assert_allclose(tiles.scores[index], alone.defect_scores[0], atol=1e-5)
    assert np.ptp(np.concatenate([tiles.scores for tiles in found])) > 0.05  # the comparison means something


def test_passes_are_full_across_pictures(package: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(package, device="cpu", engine="torch", batch_size=5)
    sizes = []
    real = Predictor.logits

    def counted(self: Predictor, batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        return real(self, batch)

    monkeypatch.setattr(Predictor, "logits", counted)
    scored_tiles(predictor, [picture(32, 32), picture(70, 90), picture(32, 32)])
    assert sizes == [5, 5, 4]


def test_grey_pictures_may_have_one_plane(package: ModelPackage) -> None:
    predictor = Predictor(package, device="cpu", engine="torch")
    plane = np.random.default_rng(5).integers(0, 256, (40, 60), np.uint8)
    grid = Tiling().grid((40, 60), TILE)
    thin = TiledPicture(grid, np.broadcast_to(plane[:, :, None], (40, 60, 3)))
    thick = TiledPicture(grid, np.repeat(plane[:, :, None], 3, axis=2))
    one, other = scored_tiles(predictor, [thin, thick])
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


def test_inputs_are_those_of_the_preprocessing(package: ModelPackage) -> None:
    one = picture(32, 40)
    found = tile_inputs(package.preprocessing, [(one, 1), (one, 0)])
    for index, row in ((1, found[0]), (0, found[1])):
        left, top, right, bottom = one.grid.window(index)
        expected = package.preprocessing.transform(one.pixels[top:bottom, left:right])
        torch.testing.assert_close(row, expected, atol=1e-6, rtol=0)


def test_a_picture_is_scaled_as_a_whole(package: ModelPackage) -> None:
    pixels = np.random.default_rng(6).integers(0, 256, (101, 60, 3), np.uint8)
    native = tiled_picture(replace(package, tiling=Tiling()), pixels)
    assert native.pixels is pixels
    half = tiled_picture(replace(package, tiling=Tiling(scale=2.0)), pixels)
    assert half.grid.picture == (101, 60)
    assert half.grid.scaled == (50, 30)
    expected = Image.fromarray(pixels).resize((30, 50), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(half.pixels, np.asarray(expected))
    plane = np.broadcast_to(pixels[:, :, :1], pixels.shape)
    grey = tiled_picture(replace(package, tiling=Tiling(scale=2.0)), plane)
    assert grey.pixels.shape == (50, 30, 3)
    assert grey.pixels.strides[2] == 0


def test_nothing_to_score(package: ModelPackage) -> None:
    assert scored_tiles(Predictor(package, device="cpu", engine="torch"), []) == []


def test_the_deciding_tile_is_the_first_of_the_highest() -> None:
    assert scores((0.9, 0.1, 0.0), (0.2, 0.1, 0.7), (0.2, 0.7, 0.1)).deciding == 1


@pytest.mark.parametrize(
    ("rows", "highest", "verdict", "score", "flagged"),
    [
        (((0.9, 0.1, 0.0), (0.1, 0.2, 0.7)), 1, "reject", 0.9, [("spot", 2, 0.7)]),
        (((0.9, 0.1, 0.0), (0.1, 0.2, 0.7)), 2, "review", 0.5, [("spot", 2, 0.7)]),
        (((0.9, 0.1, 0.0), (0.5, 0.3, 0.2)), 1, "review", 0.5, [("line", 1, 0.3)]),
        (((0.9, 0.1, 0.0), (0.8, 0.1, 0.1)), 1, "pass", 0.2, []),
    ],
)
def test_a_picture_is_decided_by_its_highest_tiles(
    tiled: ModelPackage, rows, highest: int, verdict: str, score: float, flagged: list
) -> None:
    decision = decide_tiles(replace(tiled, tiling=Tiling(highest=highest)), scores(*rows))
    assert decision.verdict == verdict
    assert decision.score == pytest.approx(score)
    assert [(name, index, pytest.approx(value)) for name, index, value in decision.flagged] == flagged


def test_multi_label_flags_each_class_by_its_highest_tile(multi_label_package: ModelPackage) -> None:
    package = replace(multi_label_package, tiling=Tiling())
    rows = np.array([(0.9, 0.1, 0.1), (0.1, 0.3, 0.2)], np.float32)
    decision = decide_tiles(package, TileScores(rows, rows.max(axis=1)))
    assert decision.verdict == "reject"
    assert decision.flagged == (("crack", 0, pytest.approx(0.9)), ("line", 1, pytest.approx(0.3)))


def test_what_cannot_be_decided_is_refused(tiled: ModelPackage, package: ModelPackage) -> None:
    with pytest.raises(PackageError, match="no tiling"):
        decide_tiles(package, scores((0.9, 0.1, 0.0)))
    with pytest.raises(PackageError, match="no tiling"):
        tiled_picture(package, np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(PackageError, match="not calibrated"):
        decide_tiles(replace(tiled, thresholds=None), scores((0.9, 0.1, 0.0)))
    with pytest.raises(PackageError, match="finite"):
        decide_tiles(tiled, scores((float("nan"), 0.1, 0.0)))


MakePackage = Callable[..., ModelPackage]


def test_a_package_without_a_good_class_has_no_scores(make_package: MakePackage, tmp_path: Path) -> None:
    predictor = Predictor(make_package(tmp_path / "model", good_class=None), device="cpu", engine="torch")
    with pytest.raises(PackageError, match="no good_class"):
        scored_tiles(predictor, [picture(32, 32)])
