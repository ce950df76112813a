"""A finding on a tiled picture: all of the picture, and the defect of a few pixels for a person to see."""

import itertools
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader

from reports.compose.map_trust import judge_map
from reports.content.base import Counts
from reports.content.finding import Evidence, Held
from reports.pdf.finding_figures import decode_evidence, draw_finding
from reports.pdf.framed_region import tiles_sentence
from reports.pdf.layout import Asset
from reports.pdf.page_figures import CloseUp, Figure, FindingFigures, scale_bar
from reports.style import Style
from tests.reports.rendering import render_run_report

# Height and width of a picture, and where its scratches are.
PICTURES = [
    (2000, 3000, [(1500, 1200)]),
    (256, 4096, [(1200, 100), (3000, 60)]),
    (3000, 1000, [(500, 1200), (300, 2500)]),
    (200, 300, [(150, 120)]),
]


def drawn(finding, assets=None, room=80.0) -> FindingFigures:
    shown = decode_evidence(finding, finding.load())
    return draw_finding(finding, shown, 1, {} if assets is None else assets, room)


def printed(assets: dict[str, Asset], figure: Figure) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(assets[figure.url].data)).convert("L")).astype(float)


@pytest.mark.parametrize(("height", "width", "scratches"), PICTURES)
def test_a_scratch_of_three_pixels_is_seen_in_the_close_up(make_tiled_finding, height, width, scratches):
    finding = make_tiled_finding(1, height, width, scratches)
    assets: dict[str, Asset] = {}
    close = drawn(finding, assets).close_up
    assert close is not None
    pixels = printed(assets, close.figure)
    assert pixels.shape == (close.bottom - close.top, close.right - close.left), "every pixel, none twice"
    left, top = scratches[0]
    inside = pixels[top - close.top : top - close.top + 3, left - close.left : left - close.left + 60]
    around = pixels[top - close.top - 12 : top - close.top - 4, left - close.left : left - close.left + 60]
    # It is 70 levels darker in the picture; compression may take a little.
    assert around.mean() - inside.mean() > 55
    assert close.whole
    # On paper: 3 pixels of a third of a millimetre and more are seen.
    assert 3 * close.pixel_mm >= 0.5


@pytest.mark.parametrize(("height", "width", "scratches"), PICTURES)
def test_the_figures_fit_the_page(make_tiled_finding, height, width, scratches):
    for room in (60.0, 80.0, 120.0):
        figures = drawn(make_tiled_finding(1, height, width, scratches), room=room)
        tallest = 0.0
        for row in (figures.panels, figures.below):
            assert sum(column.width_mm for column in row) + 4.0 * (len(row) - 1) <= 174.01
            sizes = {
                "map": figures.overlay,
                "close-up": figures.close_up,
                "close-up map": figures.close_up_map,
            }
            shown = [
                getattr(sizes[panel], "figure", sizes[panel]) for column in row for panel in column.panels
            ]
            tallest += max((figure.height_mm for figure in shown), default=0.0)
            for column in row:
                for panel in column.panels:
                    figure = getattr(sizes[panel], "figure", sizes[panel])
                    assert figure.width_mm <= column.width_mm + 0.01
        assert tallest <= room
        assert [panel for row in (figures.panels, figures.below) for c in row for panel in c.panels] == [
            "map",
            "close-up",
            "close-up map",
        ]


def test_a_tiny_frame_is_enlarged_until_it_is_seen(make_tiled_finding):
    figures = drawn(make_tiled_finding(1, 3000, 4000, [(3900, 2900)]))
    assert figures.overlay is not None
    (frame,) = figures.frames
    x, y, wide, high = frame
    assert wide / 100 * figures.overlay.width_mm >= 2.39
    assert high / 100 * figures.overlay.height_mm >= 2.39
    assert x <= 100 * 3900 / 4000
    assert x + wide >= 100 * 3960 / 4000
    assert max(x + wide, y + high) <= 100 + 1e-9
    assert figures.region is not None
    assert figures.region.frames == ((3892, 2892, 3968, 2911),)


def test_what_was_not_explained_is_as_it_was(make_tiled_finding):
    finding = make_tiled_finding(1, 600, 900, [(150, 120)])
    assets: dict[str, Asset] = {}
    figures = drawn(finding, assets)
    shown = np.asarray(Image.open(BytesIO(assets[figures.overlay.url].data)).convert("RGB")).astype(int)
    colourful = np.ptp(shown, axis=2)
    height, width = colourful.shape
    assert colourful[:, width // 2 :].mean() < 3
    spot = colourful[int(121 / 600 * height), int(180 / 900 * width)]
    assert spot > 25


def test_a_scale_bar_has_a_round_length():
    close = CloseUp(Figure("", 100.0, 50.0), 1000, 0, 1300, 150, 100 / 300, whole=True)
    bar = scale_bar(close, None)
    assert (bar.label, bar.width_mm) == ("100 px", 33.33)
    bar = scale_bar(close, 0.05)  # the close-up shows 15 mm
    assert (bar.label, bar.width_mm) == ("5 mm, 100 px", 33.33)
    bar = scale_bar(close, 0.0037)
    assert (bar.label, bar.width_mm) == ("0.2 mm, 54 px", pytest.approx(54.054 / 3, abs=0.01))
    tiny = CloseUp(Figure("", 10.0, 5.0), 0, 0, 4, 2, 2.5, whole=True)
    assert scale_bar(tiny, None).label == "1 px"


def test_an_untiled_close_up_has_a_scale_bar_where_the_size_of_a_pixel_is_known(make_finding):
    finding = make_finding(1, width=900, height=700)
    assert drawn(finding).scale_bar is None
    bar = drawn(replace(finding, pixel_size=0.1)).scale_bar
    assert bar is not None
    assert "mm" in bar.label


def test_the_sentence_says_how_much_was_explained(make_tiled_finding):
    finding = make_tiled_finding(1, 256, 4096, [(1200, 100), (3000, 60)])
    more = replace(finding, explanation=replace(finding.explanation, tiles_left_out=7))
    shown = decode_evidence(more, more.load())
    said = tiles_sentence(more, shown.region, len(shown.tiles))
    assert said.startswith(
        "The network saw this picture in 1234 tiles. The strongest 2 were explained for “scratch”; 7 more "
        "reach the review threshold too. A dashed line is around what was explained"
    )
    assert said.endswith(
        "Framed: the 2 places where maps are highest, the strongest tile’s by a heavier line."
    )
    one = make_tiled_finding(1, 500, 500, [(100, 100)], tile_count=None)
    shown = decode_evidence(one, one.load())
    said = tiles_sentence(one, shown.region, len(shown.tiles))
    assert said.startswith("The network saw this picture in tiles. The strongest one was explained for")
    assert said.endswith("Framed: where the map is highest.")


def test_the_masked_score_is_said_to_be_the_strongest_tiles(make_tiled_finding):
    finding = make_tiled_finding(1, 500, 500, [(100, 100)])
    trust = judge_map(finding.explanation, finding.class_score, finding.score, None, 0.05)
    assert trust.word == "Score mostly kept"
    assert trust.sentence.startswith(
        "In the strongest tile, with only the pixels left where the map is above 0, 5 % of the tile"
    )


def test_maps_that_are_gone_leave_the_frames_on_record(make_tiled_finding):
    finding = make_tiled_finding(1, 900, 900, [(300, 300)])
    gone = Evidence(picture=finding.load().picture, map_gap="The maps were removed.")
    figures = drawn(replace(finding, load=Held(gone)))
    assert figures.overlay is not None
    assert figures.close_up is not None
    assert figures.close_up_map is None
    assert len(figures.frames) == 1
    assert figures.map_gap == "The maps were removed."
    assert figures.blocks == ()


def test_a_tile_without_a_box_is_shown_all_the_same(make_tiled_finding):
    finding = make_tiled_finding(1, 900, 900, [(300, 300)])
    bare = replace(finding.explanation.tiles[0], status="undefined: nothing", map_digest=None, box=None)
    explanation = replace(finding.explanation, tiles=(bare,), box=None, status="undefined: nothing")
    figures = drawn(replace(finding, explanation=explanation))
    assert figures.close_up is not None
    assert figures.close_up.left < 330 < figures.close_up.right
    assert (figures.frames, figures.region, figures.close_up_map) == ((), None, None)


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_each_has_one_page(make_report, make_tiled_finding, paper):
    findings = [
        make_tiled_finding(number, *picture, pixel_size=0.05, uri="LOT-2291/" + "deep/" * 30)
        for number, picture in enumerate(PICTURES, start=1)
    ]
    lost = Held(replace(findings[0].load(), tiles=(), block_maps=(), map_gap="The maps were removed."))
    findings.append(replace(findings[0], reference="R000012-0005", load=lost))
    bare = replace(findings[0].explanation.tiles[0], status="undefined", map_digest=None, box=None)
    explanation = replace(findings[0].explanation, tiles=(bare,), box=None)
    findings.append(replace(findings[0], reference="R000012-0006", explanation=explanation))
    record = make_report(0, findings=tuple(findings), counts=Counts(9, 1, 0, 6, 2), style=Style(paper=paper))
    reader = PdfReader(BytesIO(render_run_report(record)))
    names = [*(f"finding-{i + 1}" for i in range(len(findings))), "not-inspected"]
    pages = [reader.get_destination_page_number(reader.named_destinations[name]) for name in names]
    assert [after - before for before, after in itertools.pairwise(pages)] == [1] * len(findings)
    said = " ".join(reader.pages[pages[1]].extract_text().split())
    for part in (
        "Whole picture, 4096 × 256 px, reduced for print, with the maps of its tiles (sise)",
        "mm, ",
        "The same place with the maps",
        "Block maps of the strongest tile, shallow to deep",
        "First tile’s map, SHA-256",
    ):
        assert part in said, part
