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
    finding: FindingPage, assets: dict[str, Asset] | None = None, room: float = 80.0, **changes: object
) -> finding_figures.FindingFigures:
    evidence: Evidence = replace(finding.load(), **changes)
    shown = finding_figures.decode_evidence(finding, evidence)
    return finding_figures.draw_finding(finding, shown, 1, {} if assets is None else assets, room)


def spots(height: int, width: int, *places: tuple[int, int, int, int, float]) -> np.ndarray:
    """A map that is 0 but for rectangles (top, left, bottom, right, value)."""
    values = np.zeros((height, width), dtype=np.float32)
    for top, left, bottom, right, value in places:
        values[top:bottom, left:right] = value
    return values


def opened(asset: Asset) -> Image.Image:
    image = Image.open(BytesIO(asset.data))
    image.load()
    return image


SIZES = [(96, 96), (224, 224), (1600, 256), (150, 310), (900, 700), (3, 310), (500, 1260), (4096, 256)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_size_resolution_and_bytes(make_finding, width, height):
    assets: dict[str, Asset] = {}
    figures = drawn(make_finding(1, width=width, height=height), assets)
    assert figures.picture is not None
    assert figures.overlay is not None
    shown = [figures.picture, figures.overlay, *(block.figure for block in figures.blocks)]
    for figure in shown:
        image = opened(assets[figure.url])
        assert figure.width_mm <= 174
        assert image.width <= figure.width_mm / 25.4 * 150 + 1
        assert image.height <= figure.height_mm / 25.4 * 150 + 1
    close = [] if figures.close_up is None else [figures.close_up.figure]
    assert len({figure.url for figure in shown + close}) == len(shown + close) == len(assets)
    assert sum(len(asset.data) for asset in assets.values()) < 70_000
    assert figures.reduced == (width >= 500)
    assert [block.layer for block in figures.blocks][-2:] == ["layer4.1", "fused"]


@pytest.mark.parametrize(
    ("width", "height", "columns"),
    [
        (500, 1260, [("picture",), ("map",), ("close-up",)]),
        (150, 1200, [("picture",), ("map",), ("close-up",)]),
        (400, 400, [("picture",), ("map",), ("close-up",)]),
        (900, 600, [("picture",), ("map",), ("close-up",)]),
        (1600, 400, [("picture", "map"), ("close-up",)]),
        (4096, 256, [("picture", "map", "close-up")]),
    ],
)
def test_a_tall_picture_stands_beside_its_map_a_wide_one_above_it(make_finding, width, height, columns):
    spot = spots(height, width, (height // 2, width // 2, height // 2 + 20, width // 2 + 20, 1.0))
    room = 80.0
    figures = drawn(make_finding(1, width=width, height=height), map=spot, room=room)
    assert [column.panels for column in figures.panels] == columns
    assert sum(column.width_mm for column in figures.panels) + 4.0 * (len(columns) - 1) <= 174.01
    sizes = {"picture": figures.picture, "map": figures.overlay, "close-up": figures.close_up.figure}
    for column in figures.panels:
        assert all(sizes[panel].width_mm <= column.width_mm + 0.01 for panel in column.panels)
        assert all(sizes[panel].height_mm > 5 for panel in column.panels)
        assert sum(sizes[panel].height_mm for panel in column.panels) <= room
    # What was wasted: a tall picture takes all the height there is, whatever the column's width.
    if height > 2 * width:
        assert figures.picture.height_mm == pytest.approx(room - 11.5)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_no_pixel_of_the_close_up_is_left_out(make_finding, width, height):
    spot = spots(height, width, (height // 3, width // 3, height // 3 + 12, width // 3 + 9, 1.0))
    assets: dict[str, Asset] = {}
    finding = make_finding(1, width=width, height=height)
    close = drawn(finding, assets, map=spot).close_up
    if width < 12:
        assert close is None or close.right == width
        return
    assert close is not None
    image = opened(assets[close.figure.url])
    assert image.size == (close.right - close.left, close.bottom - close.top)
    assert close.figure.width_mm / image.width == pytest.approx(close.pixel_mm, abs=0.001)
    assert close.pixel_mm >= 25.4 / 150 - 1e-9
    assert 0 <= close.left <= width // 3 < width // 3 + 9 <= close.right <= width
    assert 0 <= close.top <= height // 3 < height // 3 + 12 <= close.bottom <= height
    assert close.whole
    original = np.asarray(Image.open(BytesIO(finding.load().picture)))
    part = original[close.top : close.bottom, close.left : close.right].astype(int)
    assert np.abs(np.asarray(image.convert("L")).astype(int) - part).mean() < 8


def test_a_piece_too_large_for_every_pixel_is_shown_around_its_peak(make_finding):
    values = spots(900, 1200, (100, 100, 800, 500, 0.5), (600, 400, 604, 404, 1.0))
    close = drawn(make_finding(1, width=1200, height=900), map=values).close_up
    assert close is not None
    assert not close.whole
    assert close.pixel_mm == pytest.approx(25.4 / 150)
    assert (close.left + close.right) / 2 == pytest.approx(402, abs=2)
    assert (close.top + close.bottom) / 2 == pytest.approx(602, abs=2)


def test_a_close_up_that_would_show_the_whole_picture_once_more_is_left_out(make_finding):
    figures = drawn(make_finding(1, width=160, height=160), map=np.ones((160, 160), dtype=np.float32))
    assert figures.close_up is None
    assert [column.panels for column in figures.panels] == [("picture",), ("map",)]


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


def test_scale_runs_from_violet_to_yellow():
    image = opened(finding_figures.scale_asset())
    assert image.size == (256, 1)
    assert (image.getpixel((0, 0)), image.getpixel((255, 0))) == ((68, 1, 84), (253, 231, 37))
