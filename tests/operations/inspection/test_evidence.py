"""The maps of findings, whatever engine scores the masked pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import classifiers
from classifiers import Predictor, load_package
from classifiers.package.tiling import Tiling
from classifiers.tiles import TileScores, decide_tiles, scored_tiles, tile_inputs, tiled_picture
from configs.schema import ExplainerSettings
from db.inspection.outcomes import ImageOutcome
from explainers import ExplainerError
from explainers.tile_maps import merged_boxes
from operations.inspection.evidence import (
    TILE_CORE,
    Memory,
    attribution_box,
    chosen_tiles,
    explain_each,
    explain_findings,
    explainer_for,
)
from operations.inspection.map_files import decode_map
from operations.inspection.pictures import Picture
from sources.surfaces import surface
from tests.large_picture import scratched_surface

PACKAGE = Path(classifiers.__file__).parent / "packages" / "synthetic-surface"


@pytest.fixture(scope="module")
def package():
    return load_package(PACKAGE)


def explained(predictor, method="sise-fast"):
    size = predictor.package.preprocessing.input_size[0]
    images, targets = [], []
    for seed, label in ((11, "scratch"), (12, "pit")):
        grey, _ = surface(label, np.random.default_rng(seed), size)
        images.append(predictor.transform(np.repeat(grey[..., None], 3, axis=2)))
        targets.append([predictor.package.classes.index(label)])
    explainer = explainer_for(predictor, ExplainerSettings(method=method))
    return explain_each(explainer, predictor, torch.stack(images), targets)


@pytest.mark.parametrize("method", ["sise-fast", "ada-sise"])
def test_openvino_scores_the_masks_and_the_map_is_that_of_torch(package, method, monkeypatch):
    pytest.importorskip("openvino")
    by_torch = explained(Predictor(package, device="cpu", engine="torch"), method)
    predictor = Predictor(package, device="cpu", engine="openvino")
    scored = []
    compute = predictor.engine

    class Counted:
        name, precision, version = compute.name, compute.precision, compute.version

        def __call__(self, pictures):
            scored.append(len(pictures))
            return compute(pictures)

    monkeypatch.setattr(predictor, "engine", Counted())
    by_openvino = explained(predictor, method)
    for (one, maps), (other, others) in zip(by_openvino, by_torch, strict=True):
        assert one.status == other.status == "ok"
        assert one.parameters == other.parameters
        assert [layer.total for layer in one.layers] == [layer.total for layer in other.layers]
        assert one.masked_score == pytest.approx(other.masked_score, abs=1e-4)
        assert spearmanr(maps.maps.flatten(), others.maps.flatten()).statistic >= 0.999
    masks = sum(layer.kept for outcome, _ in by_openvino for layer in outcome.layers)
    *chunks, judged = scored
    assert len(set(chunks)) == 1
    assert sum(chunks) - chunks[0] < masks <= sum(chunks)
    assert judged == 4, "the two pictures whole, and by their maps' best pixels alone"


def test_drop_is_computed_in_float32_where_the_engine_is_not(package):
    predictor = Predictor(package, device="cpu", engine="torch", precision="bfloat16")

    class Refused:
        name, precision, version = "torch", "bfloat16", "0"

        def __call__(self, pictures):
            raise AssertionError("the torch engine has no part in an explanation")

    predictor.engine = Refused()
    reduced = explained(predictor)
    exact = explained(Predictor(package, device="cpu", engine="torch", precision="float32"))
    for (one, _), (other, _) in zip(reduced, exact, strict=True):
        assert one.parameters["precision"] == "bfloat16"
        assert other.parameters["precision"] == "float32"
        assert one.masked_score == pytest.approx(other.masked_score, abs=1e-2)


SCRATCH, PIT = 4, 3


def tile_scores(package, shown, count):
    """Scores of tiles that are good but for those in `shown`: {tile: {class: probability}}."""
    probabilities = np.full((count, len(package.classes)), 0.001, np.float32)
    probabilities[:, package.good_index] = 0.99
    for tile, classes in shown.items():
        probabilities[tile, package.good_index] = 1 - sum(classes.values())
        for index, value in classes.items():
            probabilities[tile, index] = value
    return TileScores(probabilities, (1 - probabilities[:, package.good_index]).astype(np.float32))


def test_tiles_are_chosen_by_their_defect_score_and_class(package):
    assert [package.classes[index] for index in (PIT, SCRATCH)] == ["pit", "scratch"]
    scores = tile_scores(
        package,
        {1: {SCRATCH: 0.6}, 3: {SCRATCH: 0.9}, 4: {PIT: 0.95}, 5: {SCRATCH: 0.3}, 7: {SCRATCH: 0.5}},
        9,
    )
    assert chosen_tiles(package, scores, SCRATCH, 0.4, 4) == ([3, 1, 7], 1)  # the pit's tile is left out
    assert chosen_tiles(package, scores, SCRATCH, 0.4, 2) == ([3, 1], 2)
    assert chosen_tiles(package, scores, PIT, 0.4, 4) == ([4], 3)
    # A class that no tile is flagged for, as of an escape that a model report shows: its likeliest tile.
    assert chosen_tiles(package, scores, SCRATCH, 0.99, 4) == ([3], 0)


def test_tiles_of_a_multi_label_package_are_chosen_class_by_class(package):
    both = replace(package, task="multi-label", good_class=None)
    scores = tile_scores(package, {1: {SCRATCH: 0.6, PIT: 0.35}, 2: {SCRATCH: 0.2, PIT: 0.7}}, 4)
    assert chosen_tiles(both, scores, SCRATCH, 0.3, 4) == ([1], 0)
    assert chosen_tiles(both, scores, PIT, 0.3, 4) == ([2, 1], 0)


def test_a_tile_below_the_threshold_by_the_last_bit_does_not_count(package):
    scores = tile_scores(package, {0: {SCRATCH: 0.5}, 1: {SCRATCH: 0.3}}, 2)
    threshold = float(scores.scores[1])
    assert chosen_tiles(package, scores, SCRATCH, threshold, 4) == ([0, 1], 0)
    above = float(np.nextafter(threshold, 1))  # as a float32 it would be the score itself
    assert chosen_tiles(package, scores, SCRATCH, above, 4) == ([0], 0)


class Line:
    """A tiled package at work: two pictures of one scratch, or of none."""

    def __init__(self, package, tiling):
        thresholds = replace(package.thresholds, review=0.4, reject=0.9)
        self.package = replace(package, tiling=tiling, thresholds=thresholds)
        self.predictor = Predictor(self.package, device="cpu", engine="torch")
        self.explainer = explainer_for(self.predictor, ExplainerSettings(method="sise-fast"))
        self.memory = Memory()

    def picture(self, name, grey):
        tiled = tiled_picture(self.package, np.repeat(grey[..., None], 3, axis=2))
        (scores,) = scored_tiles(self.predictor, [tiled])
        outcome = ImageOutcome(
            uri=name,
            version="",
            size=1,
            height=grey.shape[0],
            width=grey.shape[1],
            review_threshold=self.package.thresholds.review,
        )
        decision = decide_tiles(self.package, scores)
        return Picture(outcome, tiled=tiled, tile_scores=scores, decision=decision)

    def explain(self, pictures, **options):
        return explain_findings(self.explainer, self.predictor, self.memory, pictures, **options)


@pytest.fixture(scope="module")
def scratched(package):
    line = Line(package, Tiling(overlap=48))
    pictures = [
        line.picture("one", scratched_surface(480, 720, (300, 250))),
        line.picture("none", scratched_surface(200, 300, seed=2)),
        line.picture("two", scratched_surface(480, 720, (40, 60), (560, 400), seed=3)),
    ]
    return line, pictures, line.explain(pictures)


def test_a_scratch_in_a_large_picture_is_boxed_over_the_tiles_that_show_it(scratched):
    _, (picture, _, _), ((finding,), none, _) = scratched
    assert none == ()
    explanation = finding.explanation
    scores = picture.tile_scores.scores
    assert explanation.method == "sise-fast"
    assert explanation.map is None
    assert (explanation.layers, explanation.block_maps) == ((), ())
    assert len(explanation.tiles) == (scores >= 0.4).sum() == 4
    assert explanation.tiles_left_out == 0
    first = explanation.tiles[0]
    assert first.rectangle == picture.tiled.grid.rectangle(picture.tile_scores.deciding)
    assert first.score == finding.class_score
    strengths = [tile.score for tile in explanation.tiles]
    assert strengths == sorted(strengths, reverse=True)
    told = (explanation.masked_score, explanation.drop, explanation.increase, explanation.status)
    assert told == (first.masked_score, first.drop, first.increase, first.status)
    assert explanation.box == merged_boxes([tile.box for tile in explanation.tiles])[0]
    # Every edge lies within 20 pixels of the scratch's.
    assert np.abs(np.array(explanation.box) - (300, 250, 360, 253)).max() <= 20


def test_scratches_far_apart_are_not_boxed_together(scratched):
    _, _, (_, _, (finding,)) = scratched
    boxes = merged_boxes([tile.box for tile in finding.explanation.tiles])
    assert len(boxes) >= 2
    assert finding.explanation.box == boxes[0]
    assert boxes[0][2] - boxes[0][0] < 300


def test_the_map_of_a_tile_is_the_one_that_the_tile_alone_has(scratched):
    line, (picture, _, _), ((finding,), _, _) = scratched
    explanation = finding.explanation
    index = picture.decision.flagged[0][1]
    for tile in explanation.tiles[:2]:
        left, top, right, bottom = tile.rectangle
        pixels = picture.tiled.pixels[top:bottom, left:right]
        image = line.package.preprocessing.transform(np.ascontiguousarray(pixels))[None]
        ((outcome, alone),) = explain_each(line.explainer, line.predictor, image, [[index]])
        kept = decode_map(line.memory.maps[tile.map.digest])
        assert kept.shape == (160, 160)
        assert spearmanr(kept.flatten(), alone.maps[0].flatten()).statistic >= 0.999
        assert tile.masked_score == pytest.approx(outcome.masked_score, abs=1e-3)
        assert [name for name, _ in tile.block_maps] == list(alone.block_maps)
        x0, y0, x1, y1 = attribution_box(kept, 160, 160, core=TILE_CORE)
        assert tile.box == (left + x0, top + y0, left + x1, top + y1)


def test_a_box_around_the_core_of_a_map_leaves_other_pieces_out():
    values = np.zeros((100, 100), np.float32)
    values[40:50, 10:60] = 0.5  # the piece with the peak, 5 % of the map
    values[44:46, 12:58] = 0.9
    values[45, 50] = 1.0
    values[80:90, 80:90] = 0.95  # another piece
    assert attribution_box(values, 100, 100) == (10, 40, 60, 50)
    assert attribution_box(values, 100, 100, core=0.0192) == (12, 44, 58, 46)


def test_no_more_tiles_are_explained_than_the_settings_allow(scratched):
    line, (picture, _, _), _ = scratched
    ((finding,),) = line.explain([picture], max_tiles=1)
    assert len(finding.explanation.tiles) == 1
    assert finding.explanation.tiles_left_out == 3


def test_boxes_are_in_the_pixels_of_a_picture_that_is_scaled(package):
    line = Line(package, Tiling(scale=2.0, overlap=48))
    small = scratched_surface(240, 360, (150, 125))
    picture = line.picture("twice as large", np.kron(small, np.ones((2, 2), np.uint8)))
    assert picture.tiled.grid.scaled == (240, 360)
    ((finding,),) = line.explain([picture])
    left, top, right, bottom = finding.explanation.box
    assert left <= 320
    assert 340 <= right <= 720
    assert top <= 250 < 256 <= bottom <= 480
    assert all(
        right - left == 320 for left, _, right, _ in [tile.rectangle for tile in finding.explanation.tiles]
    )


def test_bars_beside_a_small_picture_are_cut_off_the_map(package):
    line = Line(package, Tiling(overlap=48))
    picture = line.picture("a strip", scratched_surface(90, 400, (200, 40)))
    assert picture.decision.flagged, "the scratch is seen"
    ((finding,),) = line.explain([picture])
    for tile in finding.explanation.tiles:
        assert tile.rectangle[1::2] == (0, 90)
        for ref in (tile.map, *(ref for _, ref in tile.block_maps)):
            assert decode_map(line.memory.maps[ref.digest]).shape == (90, 160)
        assert 0 <= tile.box[1] < tile.box[3] <= 90


def test_a_tile_that_cannot_be_explained_takes_no_other_with_it(scratched):
    line, (picture, _, _), ((usual,), _, _) = scratched

    class Refusing:
        method = "sise-fast"

        def __call__(self, images, targets):
            if len(images) > 1 or torch.equal(images, first):
                raise ExplainerError("this tile is refused")
            return line.explainer(images, targets)

    first = tile_inputs(line.package.preprocessing, [(picture.tiled, picture.tile_scores.deciding)])
    ((finding,),) = explain_findings(Refusing(), line.predictor, line.memory, [picture])
    explanation = finding.explanation
    assert explanation.status == "failed: this tile is refused"
    assert explanation.masked_score is None
    assert explanation.tiles[0].map is None
    assert explanation.tiles[1].map is not None
    assert explanation.has_map
    assert explanation.box == merged_boxes([tile.box for tile in usual.explanation.tiles[1:]])[0]
