"""A run over large pictures: its report shows where the defect is, from the record alone."""

import dataclasses
from io import BytesIO

import pytest
from PIL import Image
from pypdf import PdfReader

from classifiers import load_package
from classifiers.package.tiling import Tiling
from db.chain.events import Actor
from db.columns import utc_now
from db.queries.finding_records import run_findings
from db.schema import ArtifactRetention
from operations.reporting.findings import finding_pages
from operations.reporting.run_report import issue_report
from tests.large_picture import scratched_surface
from tests.line import resaved

WHO = Actor("kensa", "system")


@pytest.fixture
def inspected_tiles(make_line, inspect_all, package, tmp_path):
    """A finished run over one large picture, every class of which the untrained package finds suspicious."""
    loaded = load_package(package)
    low = dataclasses.replace(loaded.thresholds, review=0.0)
    tiled = resaved(
        dataclasses.replace(loaded, thresholds=low), tmp_path / "tiled", tiling=Tiling(overlap=16)
    )
    folder = tmp_path / "large"
    folder.mkdir()
    Image.fromarray(scratched_surface(150, 300, (100, 70))).save(folder / "P1.png")
    line = make_line(
        source={"uri": str(folder), "manifest": None, "pixel_size": 0.05},
        model={"package": str(tiled)},
        explainer={"max_tiles": 2},
    )
    inspection, _ = inspect_all(line.config)
    return inspection


def pages_of(inspection):
    with inspection.database.session() as session:
        findings = run_findings(session, inspection.run.id)
        settings = {inspection.run.settings_digest: inspection.settings.model_dump(mode="json")}
        return findings, finding_pages(session, inspection.store, findings, settings, 10**9)


def test_the_page_has_the_maps_of_the_tiles(inspected_tiles):
    (finding,), (page,) = pages_of(inspected_tiles)
    assert inspected_tiles.unexplained == 0
    assert finding.tile_count == page.tile_count == 18
    assert page.pixel_size == 0.05
    tiles = finding.explanation.tiles
    assert len(tiles) == len(page.explanation.tiles) == 2
    assert [tile.map_digest for tile in page.explanation.tiles] == [tile.map_digest for tile in tiles]
    assert page.explanation.box == finding.explanation.box
    assert [mask.layer for mask in page.explanation.masks] == [layer.name for layer in tiles[0].layers]
    evidence = page.load()
    assert [rectangle for rectangle, _ in evidence.tiles] == [tile.rectangle for tile in tiles]
    assert all(values.shape == (64, 64) for _, values in evidence.tiles)
    assert [name for name, _ in evidence.block_maps] == [name for name, _ in tiles[0].block_maps]
    assert evidence.map is None


def test_maps_that_were_pruned_or_lost_are_told(inspected_tiles):
    (finding,), _ = pages_of(inspected_tiles)
    first, second = (tile.map_digest for tile in finding.explanation.tiles)
    inspected_tiles.store.delete(second)
    _, (page,) = pages_of(inspected_tiles)
    assert [rectangle for rectangle, _ in page.load().tiles] == [finding.explanation.tiles[0].rectangle]
    assert page.load().map_gap is None
    row = ArtifactRetention(artifact_digest=first, state="pruned", policy="older", created_at=utc_now())
    with inspected_tiles.database.write() as recorder:
        recorder.add([row], action="artifacts.pruned", actor=WHO, entity="artifact_store", entity_id="prune")
    _, (page,) = pages_of(inspected_tiles)
    assert page.explanation.tiles[0].status.startswith("the stored map was pruned by policy on")
    assert not page.explanation.tiles[0].has_map
    evidence = page.load()
    assert evidence.tiles == ()
    assert evidence.map_gap == "the stored map is missing or was changed: run `kensa audit verify`"


def test_the_report_says_what_was_explained(inspected_tiles):
    issued = issue_report(
        inspected_tiles.database,
        inspected_tiles.store,
        inspected_tiles.run.id,
        inspected_tiles.settings.report,
        actor=WHO,
    )
    reader = PdfReader(BytesIO(inspected_tiles.store.get(issued.record.artifact_digest)))
    said = " ".join(" ".join(page.extract_text() for page in reader.pages).split())
    assert "The network saw this picture in 18 tiles. The strongest 2 were explained" in said
    assert "Whole picture, 300 × 150 px" in said
    assert " mm, " in said
