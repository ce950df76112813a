"""A run over pictures that the network sees in tiles, from the files to the record and back."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sqlalchemy import select

from classifiers import Predictor, load_package, save_package
from classifiers.package.preprocessing import Preprocessing
from classifiers.package.tiling import Tiling
from classifiers.tiles import tiled_picture
from configs.loading import load_settings
from db.artifacts import ArtifactStore
from db.chain.events import Actor
from db.engine import open_database
from db.inspection.outcomes import ImageOutcome
from db.schema import Finding, Prediction, RunImage
from operations.inspection import run as pipeline
from operations.inspection.pictures import Picture, decide_pictures
from operations.replay.compare import TOLERANCES
from operations.replay.replay import _decided_as_recorded, open_replayer, replay
from tests.operations.inspection.test_decoders import png

TILE = 32
DEFECT = (150, 100, 162, 112)  # left, top, right, bottom of what is bright in the large picture


def grey(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(90, 3, (height, width)).clip(0, 255).astype(np.uint8)


def with_defect(pixels: np.ndarray, box: tuple[int, int, int, int] = DEFECT) -> np.ndarray:
    left, top, right, bottom = box
    pixels = pixels.copy()
    pixels[top:bottom, left:right] = 255
    return pixels


@pytest.fixture(scope="session")
def large_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures smaller than a tile, exactly a tile, a strip, a large one with a defect; two are equal."""
    folder = tmp_path_factory.mktemp("tiled") / "pictures"
    folder.mkdir()
    Image.fromarray(grey(20, 25, 1)).save(folder / "a-small.png")
    Image.fromarray(grey(TILE, TILE, 2)).save(folder / "b-tile.png")
    Image.fromarray(grey(TILE, 300, 3)).save(folder / "c-strip.png")
    large = np.repeat(with_defect(grey(200, 260, 4))[:, :, None], 3, axis=2)
    Image.fromarray(large).save(folder / "d-large.png")
    shutil.copy(folder / "d-large.png", folder / "e-again.png")
    (folder / "f-bad.png").write_bytes(b"not a picture")
    return folder


@pytest.fixture(scope="session")
def tiled_package(tmp_path_factory: pytest.TempPathFactory, make_thresholds) -> Path:
    """A package whose random features are told apart by hand: plain tiles, and such with a bright square."""
    torch.manual_seed(5)
    network = timm.create_model("test_resnet", num_classes=2).eval()
    preprocessing = Preprocessing((TILE, TILE), mean=(90 / 255,) * 3, std=(0.25,) * 3)
    plain = [np.repeat(grey(TILE, TILE, 50 + seed)[:, :, None], 3, axis=2) for seed in range(4)]
    spots = [with_defect(tile, (8, 8, 20, 20)) for tile in plain]
    with torch.no_grad():
        good, bad = (
            network.forward_head(
                network.forward_features(torch.stack([preprocessing.transform(tile) for tile in tiles])),
                pre_logits=True,
            ).mean(dim=0)
            for tiles in (plain, spots)
        )
        apart = bad - good
        weight = 12 * apart / apart.square().sum()  # a logit of 6 for what is bad, of -6 for what is good
        network.fc.weight[:] = torch.stack([torch.zeros_like(weight), weight])
        network.fc.bias[:] = torch.tensor([0.0, -float(weight @ (good + bad) / 2)])
    return save_package(
        tmp_path_factory.mktemp("packages") / "tiled",
        network,
        architecture="test_resnet",
        model_args={},
        classes=("good", "spot"),
        good_class="good",
        task="single-label",
        preprocessing=preprocessing,
        tiling=Tiling(overlap=8),
        thresholds=make_thresholds(0.5, 0.9),
    ).path


@pytest.fixture
def tiled_line(make_line, large_pictures, tiled_package):
    """Return a function that writes settings over the large pictures into a folder of their own."""

    def make(name: str = "a", **sections):
        source = {"uri": str(large_pictures), "manifest": None, **sections.pop("source", {})}
        return make_line(
            name,
            source=source,
            model={"package": str(tiled_package), "device": "cpu", "batch_size": 16},
            **sections,
        )

    return make


def recorded(line) -> dict[str, tuple]:
    """Return what the last run recorded of each picture: verdict, tiles, deciding tile, score."""
    with open_database(line.database_url) as database, database.session() as session:
        rows = session.execute(
            select(RunImage, Prediction)
            .outerjoin(Prediction, Prediction.id == RunImage.prediction_id)
            .order_by(RunImage.event_sequence)
        )
        return {
            row.RunImage.uri: (
                row.Prediction.verdict,
                row.Prediction.tile_count,
                row.Prediction.deciding_tile,
                row.Prediction.score,
            )
            for row in rows
        }


def test_pictures_are_decided_by_their_tiles(tiled_line, inspect_all, large_pictures, tiled_package):
    line = tiled_line()
    _, result = inspect_all(line.config)
    counts = result.counts
    assert (counts.listed, counts.passed, counts.reject, counts.unreadable) == (6, 3, 2, 1)
    found = recorded(line)
    assert {uri: one[:2] for uri, one in found.items()} == {
        "a-small.png": ("pass", 1),
        "b-tile.png": ("pass", 1),
        "c-strip.png": ("pass", 13),  # of 32 pixels, at most 24 apart
        "d-large.png": ("reject", 88),  # 8 rows of 11
        "e-again.png": ("reject", 88),
        "f-bad.png": ("unreadable", None),
    }
    assert found["a-small.png"][2] == [0, 0, 25, 20]
    assert found["f-bad.png"][2:] == (None, None)
    left, top, right, bottom = found["d-large.png"][2]
    assert (right - left, bottom - top) == (TILE, TILE)
    # All of the defect is in the tile that decides, whose score is that of a picture of its pixels alone.
    assert left <= DEFECT[0] < DEFECT[2] <= right
    assert top <= DEFECT[1] < DEFECT[3] <= bottom
    pixels = np.asarray(Image.open(large_pictures / "d-large.png"))[top:bottom, left:right]
    predictor = Predictor(load_package(tiled_package), device="cpu", engine="torch")
    alone = predictor.predict(predictor.transform(pixels)[None])
    assert found["d-large.png"][3] == pytest.approx(float(alone.defect_scores[0]), abs=1e-5)
    with open_database(line.database_url) as database, database.session() as session:
        prediction = session.scalars(select(Prediction).where(Prediction.verdict == "reject")).one()
        assert prediction.probabilities == pytest.approx(alone.probabilities[0].tolist(), abs=1e-5)
        whole = np.asarray(Image.open(large_pictures / "d-large.png"))
        assert prediction.brightness == pytest.approx(whole.mean() / 255, abs=1e-6)
        finding = session.scalars(select(Finding)).one()
        assert finding.class_name == "spot"


def test_an_interrupted_run_goes_on_and_what_is_known_is_left_out(tiled_line, inspect_all):
    whole = tiled_line("whole")
    inspect_all(whole.config)
    line = tiled_line("cut", run={"batch_size": 2}, source={"only_new": True})
    inspect_all(line.config, stop_after=1)
    inspection, result = inspect_all(line.config)
    assert inspection.run.resumed
    assert (result.counts.listed, result.counts.reject) == (6, 2)
    assert recorded(line) == recorded(whole)
    again = inspect_all(line.config)[1]
    assert (again.inspected_before, again.counts.listed) == (6, 0)


def test_a_tiled_run_replays(tiled_line, inspect_all, tiled_package):
    line = tiled_line()
    inspect_all(line.config)
    store = ArtifactStore(load_settings(line.config, []).artifacts.uri)
    with (
        open_database(line.database_url) as database,
        open_replayer(database, store, tiled_package, "cpu") as replayer,
    ):
        who = Actor("tests", "system")
        outcomes = {one.prediction.uri: one for one in replay(database, replayer, "R000001", actor=who)}
    # Of what passed no pictures are kept.
    (uri,) = [uri for uri, one in outcomes.items() if one.result != "impossible"]
    assert uri == "d-large.png"
    assert outcomes[uri].result in ("identical", "equal"), outcomes[uri].details
    assert outcomes[uri].details["map"] is not None


def test_a_replay_keeps_to_the_recorded_one_of_equal_tiles(tiled_package):
    predictor = Predictor(load_package(tiled_package), device="cpu", engine="torch")
    pixels = grey(TILE, 4 * TILE, 6)
    block = with_defect(grey(TILE, TILE, 7), (8, 8, 20, 20))
    package = replace(predictor.package, tiling=Tiling())
    predictor.package = package
    for place in (0, 2):
        pixels[:, place * TILE : (place + 1) * TILE] = block
    outcome = ImageOutcome(uri="a.png", version="", size=1, width=4 * TILE, height=TILE)
    tiled = tiled_picture(package, np.repeat(pixels[:, :, None], 3, axis=2))
    (picture,) = decide_pictures(predictor, [Picture(outcome, tiled=tiled)])
    machine = SimpleNamespace(predictor=predictor, tolerance=TOLERANCES["float32"])
    first, plain, other = ((TILE * place, 0, TILE * (place + 1), TILE) for place in (0, 1, 2))
    assert picture.outcome.deciding_tile in (first, other)
    for recorded_tile, kept in ((first, True), (other, True), (plain, False)):
        again = _decided_as_recorded(machine, SimpleNamespace(deciding_tile=recorded_tile), picture)
        assert (again.outcome.deciding_tile == recorded_tile) is kept
        assert again.decision.verdict == "reject"


def test_large_pictures_make_small_batches_by_what_they_take_decoded(tiled_line, tmp_path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for number in range(6):
        Image.fromarray(grey(40, 50, number)).save(inbox / f"{number}.png")
    (inbox / "2-large.png").write_bytes(png(12_000, 8_000))  # 96 MB of grey pixels in a file of 0.1 MB
    line = tiled_line(source={"uri": str(inbox)}, run={"batch_size": 5})
    with pipeline.open_inspection(
        load_settings(line.config, ["run.held_bytes=200000000"]), "manual"
    ) as inspection:
        batches = list(inspection.batches())
        assert [[item.uri[:-4] for item in batch] for batch in batches] == [
            ["0", "1"],
            ["2-large"],
            ["2", "3", "4", "5"],
        ]
        size = inspection.decoders.held_bytes(batches[1][0])
        assert size == 12_000 * 8_000 + batches[1][0].size
        assert inspection.holds(*batches)
    one_of = f"run.held_bytes={size}"
    with pipeline.open_inspection(load_settings(line.config, [one_of]), "manual") as inspection:
        batches = list(inspection.batches())
        assert inspection.holds(batches[1])
        assert not inspection.holds(*batches)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak memory")
def test_tiles_of_a_large_picture_are_never_held_at_once(tiled_line, inspect_all, tmp_path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    Image.fromarray(grey(40, 50, 1)).save(inbox / "a.png")
    line = tiled_line(source={"uri": str(inbox), "only_new": True})
    inspect_all(line.config)  # loads what is loaded once
    Image.fromarray(np.tile(grey(300, 400, 2), (10, 10))).save(inbox / "large.png")
    before = memory_megabytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    _, result = inspect_all(line.config)
    assert result.counts.listed == 1
    assert recorded(line)["large.png"][1] == 125 * 167
    # The pixels take 12 MB, all tiles as floats 257 MB.
    assert memory_megabytes("VmHWM") - before < 60


def memory_megabytes(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(f"{name}:"))
