"""Pictures fit the page, the resolution and the budget; what cannot be shown leaves a gap that says why."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from reports.content.finding import Evidence, FindingPage
from reports.pdf import finding_figures
from reports.pdf.layout import Asset


def drawn(
    finding: FindingPage, assets: dict[str, Asset] | None = None, **changes: object
) -> finding_figures.FindingFigures:
    evidence: Evidence = replace(finding.load(), **changes)
    return finding_figures.draw_finding(finding, evidence, 1, {} if assets is None else assets)


def opened(asset: Asset) -> Image.Image:
    image = Image.open(BytesIO(asset.data))
    image.load()
    return image


@pytest.mark.parametrize(
    ("width", "height"), [(96, 96), (224, 224), (1600, 256), (150, 310), (900, 700), (3, 310)]
)
def test_size_resolution_and_bytes(make_finding, width, height):
    assets: dict[str, Asset] = {}
    figures = drawn(make_finding(1, width=width, height=height), assets)
    assert figures.picture is not None
    assert figures.overlay is not None
    assert figures.stacked == (width > 3 * height)
    shown = [figures.picture, figures.overlay, *(block.figure for block in figures.blocks)]
    assert len({figure.url for figure in shown}) == len(shown) == len(assets) == 8
    for figure in shown:
        image = opened(assets[figure.url])
        assert figure.width_mm <= 174
        assert image.width <= figure.width_mm / 25.4 * 150 + 1
        assert image.height <= figure.height_mm / 25.4 * 150 + 1
    assert sum(len(asset.data) for asset in assets.values()) < 70_000
    assert figures.reduced == (width >= 900)
    assert [block.layer for block in figures.blocks][-2:] == ["layer4.1", "fused"]


def test_small_pictures_are_kept_as_they_are(make_finding):
    finding = make_finding(1, width=96, height=96)
    assets: dict[str, Asset] = {}
    figures = drawn(finding, assets)
    assert figures.picture is not None
    printed, original = opened(assets[figures.picture.url]), Image.open(BytesIO(finding.load().picture))
    assert printed.mode == "L"
    assert np.array_equal(np.asarray(printed), np.asarray(original))


def test_overlay_shows_where(make_finding):
    finding = make_finding(1)
    where = np.zeros((8, 8), dtype=np.float32)
    where[0, 0] = 1.0
    assets: dict[str, Asset] = {}
    figures = drawn(finding, assets, map=where)
    assert figures.overlay is not None
    rgb = np.asarray(opened(assets[figures.overlay.url]).convert("RGB")).astype(int)
    colourful = np.ptp(rgb, axis=2)
    corner, far = colourful[4:20, 4:20].mean(), colourful[200:-20, 200:-20].mean()
    assert corner > 40
    assert far < 5


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "not in the record"),
        (b"", "empty"),
        (b"<svg onload=x>", "cannot be shown"),
        ("cut", "truncated"),
    ],
)
def test_a_picture_that_is_not_to_be_had_leaves_a_gap(make_finding, data, says):
    finding = make_finding(1)
    broken = finding.load().picture[:-3000] if data == "cut" else data
    figures = drawn(finding, picture=broken)
    assert figures.picture is None
    assert figures.overlay is None
    assert says in str(figures.gap)
    assert len(figures.blocks) == 6


def test_no_map_no_overlay(make_finding):
    finding = make_finding(1)
    bare = replace(finding.explanation, status="undefined: no positive gradient")
    figures = drawn(replace(finding, explanation=bare), block_maps=())
    assert figures.picture is not None
    assert figures.overlay is None
    assert figures.blocks == ()


@pytest.mark.parametrize(
    ("box", "percent"),
    [
        ((56, 112, 112, 168), (25.0, 50.0, 25.0, 25.0)),
        ((-5, 0, 999, 224), (0.0, 0.0, 100.0, 100.0)),
        ((50, 50, 50, 80), None),
        (None, None),
    ],
)
def test_box(make_finding, box, percent):
    finding = make_finding(1)
    boxed = replace(finding, explanation=replace(finding.explanation, box=box))
    assert drawn(boxed).box == percent


def test_scale_runs_from_violet_to_yellow():
    image = opened(finding_figures.scale_asset())
    assert image.size == (256, 1)
    assert (image.getpixel((0, 0)), image.getpixel((255, 0))) == ((68, 1, 84), (253, 231, 37))
