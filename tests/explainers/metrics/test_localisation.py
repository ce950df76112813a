"""EBPG, mIoU, Bbox and the pointing game: by hand, where they are undefined, and against quantus."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import quantus
import torch

from explainers import ExplainerError
from explainers.metrics.localisation import bbox, ebpg, miou, pointing_game

# Ten pixels; the truth holds the 1st, the 3rd and the 6th, of which the map has 0.5, 0.2 and 0.
MAPS = torch.tensor([[[0.5, 0.3, 0.2, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]]])
MASKS = torch.tensor([[[1, 0, 1, 0, 0], [1, 0, 0, 0, 0]]]).bool()


def test_by_hand():
    """Top 20 % = 2 pixels, 1 in G: 1 / (2 + 3 - 1). Top |G| = 3 pixels, 2 in G."""
    torch.testing.assert_close(ebpg(MAPS, MASKS), torch.tensor([0.7]))
    torch.testing.assert_close(miou(MAPS, MASKS), torch.tensor([0.25]))
    torch.testing.assert_close(bbox(MAPS, MASKS), torch.tensor([2 / 3]))
    assert pointing_game(MAPS, MASKS).tolist() == [True]


def test_places_left_on_a_plateau_at_zero_are_shared():
    """Top 50 % = 5 pixels: three above 0, two places for seven zeros, one of them in G.

    Intersection 2 + 2/7 = 16/7, union 5 + 3 - 16/7 = 40/7.
    """
    torch.testing.assert_close(miou(MAPS, MASKS, share=0.5), torch.tensor([0.4]))
    torch.testing.assert_close(
        bbox(torch.tensor([[[1.0, 1.0, 1.0, 0.0]]]), torch.tensor([[[True, False, False, False]]])),
        torch.tensor([1 / 3]),
    )


def test_shared_places_are_the_mean_over_all_ways_to_break_the_tie():
    values = torch.tensor([0.9, 0.4, 0.4, 0.4, 0.4, 0.4, 0.1, 0.0])
    truth = torch.tensor([1, 1, 0, 0, 1, 0, 1, 0]).bool()
    ways = [{0, *some} for some in combinations(range(1, 6), 3)]
    hits = np.mean([sum(bool(truth[pixel]) for pixel in way) for way in ways])
    assert float(bbox(values.view(1, 2, 4), truth.view(1, 2, 4))) == pytest.approx(hits / 4)


def test_where_the_defect_lies_does_not_matter_on_a_flat_map():
    maps, masks = torch.ones(1, 4, 5), torch.zeros(1, 4, 5, dtype=torch.bool)
    masks[:, 0, :2] = True
    for turned in (masks, masks.flip(1), masks.flip(2)):
        torch.testing.assert_close(bbox(maps, turned), torch.tensor([0.1]))
        # 4 pixels at 20 % spread evenly: 0.4 of one in G.
        torch.testing.assert_close(miou(maps, turned), torch.tensor([0.4 / 5.6]))


def test_a_map_of_nothing_scores_0_and_a_truth_of_nothing_has_no_score():
    maps = torch.stack([torch.zeros(2, 5), MAPS[0], torch.zeros(2, 5), MAPS[0]])
    masks = torch.stack(
        [MASKS[0], torch.zeros(2, 5).bool(), torch.zeros(2, 5).bool(), torch.ones(2, 5).bool()]
    )
    for metric, whole in ((ebpg, 1.0), (miou, 0.2), (bbox, 1.0)):
        scores = metric(maps, masks)
        assert scores.dtype == torch.float32
        torch.testing.assert_close(
            scores, torch.tensor([0.0, torch.nan, torch.nan, whole]), equal_nan=True, msg=metric.__name__
        )
    for tolerance in (0, 100):
        assert pointing_game(maps, masks, tolerance).tolist() == [False, False, False, True]


def test_rows_are_judged_alone_and_nothing_is_changed():
    maps, masks = torch.rand(5, 6, 7), torch.rand(5, 6, 7) > 0.6
    kept = maps.clone(), masks.clone()
    for metric in (ebpg, miou, bbox, pointing_game):
        one_by_one = torch.cat([metric(maps[i : i + 1], masks[i : i + 1]) for i in range(5)])
        assert torch.equal(metric(maps, masks), one_by_one)
    assert torch.equal(maps, kept[0])
    assert torch.equal(masks, kept[1])


def test_the_peak_may_miss_by_the_tolerance():
    maps, masks = torch.zeros(1, 6, 8), torch.zeros(1, 6, 8, dtype=torch.bool)
    maps[0, 1, 1], masks[0, 4, 5] = 1.0, True  # 3 down, 4 across: 5 away
    assert pointing_game(maps, masks, 5).tolist() == [True]
    assert pointing_game(maps, masks, 4.99).tolist() == [False]
    assert pointing_game(maps, masks).tolist() == [False]


@pytest.mark.parametrize(("inside", "hit"), [(1, False), (2, True), (4, True)])
def test_of_tied_peaks_half_must_hit(inside, hit):
    maps = torch.tensor([[[1.0, 1.0, 1.0, 1.0, 0.5]]])
    assert pointing_game(maps, (torch.arange(5) < inside).view(1, 1, 5)).tolist() == [hit]


@pytest.mark.parametrize("metric", [ebpg, miou, bbox, pointing_game])
@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (MAPS[0], MASKS[0], r"maps must be a \(N, H, W\)"),
        (MAPS > 0, MASKS, "float"),
        (torch.zeros(0, 2, 5), torch.zeros(0, 2, 5).bool(), "at least one pixel"),
        (MAPS / 0, MASKS, "NaN or infinity"),
        (MAPS - 0.1, MASKS, "no attribution"),
        (MAPS, MASKS.float(), "masks must be bool"),
        (MAPS, MASKS[:, :, :4], "masks must be bool"),
    ],
)
def test_bad_input_is_named(metric, maps, masks, message):
    with pytest.raises(ExplainerError, match=message):
        metric(maps, masks)


def test_bad_settings_are_named():
    for share in (0.0, 1.1, torch.nan):
        with pytest.raises(ExplainerError, match="share"):
            miou(MAPS, MASKS, share)
    for tolerance in (-1, torch.nan):
        with pytest.raises(ExplainerError, match="tolerance"):
            pointing_game(MAPS, MASKS, tolerance)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ebpg, quantus.RelevanceMassAccuracy),
        (bbox, quantus.RelevanceRankAccuracy),
        (pointing_game, quantus.PointingGame),
    ],
)
def test_the_same_as_quantus_where_nothing_is_tied(ours, theirs):
    maps, masks = torch.rand(40, 9, 11), torch.rand(40, 1, 1) > torch.rand(40, 9, 11)
    masks[:, 4, 5] = True  # no truth is empty
    peer = theirs(abs=False, normalise=False, disable_warnings=True, return_aggregate=False)
    scores = peer(
        model=None,
        x_batch=np.zeros((40, 1, 9, 11), dtype=np.float32),
        y_batch=np.zeros(40, dtype=int),
        a_batch=maps[:, None].numpy(),
        s_batch=masks[:, None].numpy(),
        channel_first=True,
    )
    np.testing.assert_allclose(ours(maps, masks).float().numpy(), np.float32(scores), rtol=1e-5)
