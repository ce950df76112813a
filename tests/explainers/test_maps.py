"""Otsu against scikit-image; min-max; fusion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.filters import threshold_otsu

from explainers.maps import fuse, minmax, otsu_threshold, relevance_mask, upsample


def adversarial(rng):
    """Rows of 600 values, stretched to [0, 1]: smooth, spiky, tied, nearly constant, mirrored, few-valued."""
    for _ in range(60):
        yield rng.random(600)
        yield rng.beta(*rng.uniform(0.1, 5, 2), 600)
        yield np.concatenate([rng.normal(0.2, 0.05, 300), rng.normal(0.8, 0.02, 300)])
        yield rng.integers(0, rng.integers(2, 20), 600).astype(float)
        yield (rng.random(600) < rng.uniform(0.01, 0.99)).astype(float)
        yield rng.exponential(1, 600) ** 4
        half = rng.random(300)
        yield np.concatenate([half, 1 - half])
        yield np.round(rng.random(600) * 256) / 256
        yield np.nextafter(np.round(rng.random(600) * 256) / 256, rng.choice([-1.0, 2.0]))
        yield rng.random(600) * 1e-6 + rng.choice([0.0, 1.0, 5.0])


def test_otsu_is_scikit_images():
    rows = [row for row in adversarial(np.random.default_rng(0)) if np.ptp(row) > 0]
    rows += [(row - row.min()) / np.ptp(row) for row in rows]
    found = otsu_threshold(torch.from_numpy(np.stack(rows)))
    for row, threshold in zip(rows, found.tolist(), strict=True):
        assert threshold == pytest.approx(threshold_otsu(row), rel=1e-12, abs=1e-15)


def test_otsu_of_float32_maps_of_real_size():
    rng = np.random.default_rng(1)
    maps = torch.from_numpy(rng.random((4, 224 * 224)).astype(np.float32) ** np.array([[1], [2], [3], [8]]))
    for row, threshold in zip(maps, otsu_threshold(maps).tolist(), strict=True):
        assert threshold == pytest.approx(threshold_otsu(row.double().numpy()), rel=1e-12)


def test_otsu_of_a_constant_is_the_constant():
    assert otsu_threshold(torch.tensor([[0.25] * 4, [0.0, 0, 0, 1]])).tolist()[0] == 0.25


def test_minmax_stretches_each_map_and_flattens_constants():
    maps = torch.tensor([[[1.0, 3], [2, 5]], [[7, 7], [7, 7]], [[0, 1e-7], [0, 0]]])
    stretched = minmax(maps)
    assert stretched[0].tolist() == [[0, 0.5], [0.25, 1]]
    assert not stretched[1].any()
    assert stretched[2].max() == 1
    assert not minmax(maps, noise=torch.tensor([0.0, 0.0, 1e-6]))[2].any()


def test_a_mask_that_would_wipe_everything_lets_everything_through():
    block_map = torch.tensor([[0.0, 0.5], [0.7, 1.0]])
    assert relevance_mask(block_map, 1.0, "otsu").tolist() == [[1, 1], [1, 1]]
    # soft: a quarter exceeds 0.9, so t stays; with 1 pixel of 16 it becomes 1.35, which no value reaches
    small_peak = torch.zeros(4, 4)
    small_peak[0, 0] = 1.0
    assert (relevance_mask(small_peak, 0.9, "soft") == 1).all()
    assert relevance_mask(block_map, 0.9, "soft")[0, 0] < 1e-6


def test_fusion_is_unweighted_and_masks_with_the_deeper_map_only():
    """E = V1; E = (V1 + V2) B(V2); E = (E + V3) B(V3); two-valued maps have their threshold in between."""
    shallow = torch.tensor([[0.0, 1.0, 0.5, 0.25]])
    middle = torch.tensor([[1.0, 1.0, 0.0, 1.0]])
    deep = torch.tensor([[0.0, 1.0, 1.0, 1.0]])
    # (V1 + V2) B = (1, 2, 0, 1.25); plus V3 = (1, 3, 1, 2.25); times B = (0, 3, 1, 2.25)
    assert fuse([shallow, middle, deep]).tolist() == [[0.0, 1.0, pytest.approx(1 / 3), 0.75]]


def test_fusing_one_map_is_that_map():
    assert fuse([torch.tensor([[0.0, 0.5, 1.0]])]).tolist() == [[0.0, 0.5, 1.0]]


def test_fusing_constants_alone_gives_zeros():
    assert not fuse([torch.zeros(3, 3), torch.zeros(3, 3)]).any()


def test_upsampling_has_half_pixel_centres():
    assert upsample(torch.tensor([[[0.0, 1.0]]]), (1, 4)).tolist() == [[[0.0, 0.25, 0.75, 1.0]]]
