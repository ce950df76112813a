"""Damaged pictures, and those that this machine could not manage, through a whole run."""

import random
import shutil
from pathlib import Path

import pytest
import timm
import torch

from classifiers import Preprocessing, save_package
from configs.loading import load_settings
from db.engine import open_database
from db.queries.runs import run_images, run_unreadable
from db.verification.walk import verify
from operations.inspection import run as pipeline
from operations.reporting.run_report import issue_report
from sources.surfaces import SURFACE_CLASSES
from tests.operations.inspection.test_decoders import png
from tests.sources.test_decoding_fuzz import FILES

LITTLE = "run.picture_memory=25165824"
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "tiff": ".tif", "bmp": ".bmp", "webp": ".webp"}


@pytest.fixture
def inbox(tmp_path: Path, pictures: Path) -> Path:
    """A few pictures of the line, and one that takes much memory, twice."""
    source = tmp_path / "inbox"
    source.mkdir()
    for file in sorted((pictures / "images").rglob("*.png"))[:6]:
        shutil.copy(file, source / file.name)
    for name in ("a.png", "b.png"):
        (source / name).write_bytes(png(5_000, 2_000))
    return source


def test_what_this_machine_could_not_manage_is_tried_again(make_line, inbox, inspect_all):
    line = make_line(
        source={"uri": str(inbox), "manifest": None, "only_new": True}, artifacts={"pictures": "all"}
    )
    first, result = inspect_all(line.config, [LITTLE])
    assert (result.counts.listed, result.counts.unreadable, result.counts.carried_over) == (8, 2, 0)
    second, again = inspect_all(line.config)
    assert first.run.settings_digest == second.run.settings_digest
    assert (again.counts.listed, again.inspected_before) == (2, 6)
    assert (again.counts.unreadable, again.counts.carried_over) == (0, 1)
    third, nothing = inspect_all(line.config)
    assert (nothing.counts.listed, nothing.inspected_before) == (0, 8)
    with open_database(line.database_url) as database:
        with database.session() as session:
            refused = list(run_unreadable(session, first.run.id))
            assert {each.uri for each in refused} == {"a.png", "b.png"}
            assert {each.reason for each in refused} == {
                "it takes more than 25165824 bytes of memory (run.picture_memory)"
            }
            untried = [each for each in run_images(session, first.run.id) if each.verdict == "unreadable"]
            assert {(each.digest, each.score) for each in untried} == {(None, None)}
        for inspection in (first, second, third):
            report = issue_report(
                database,
                inspection.store,
                inspection.run.id,
                inspection.settings.report,
                actor=pipeline.SYSTEM,
            )
            assert report.path.read_bytes().startswith(b"%PDF")
        assert verify(database, artifacts=second.store).problems == ()


def test_a_picture_with_an_endless_side_has_an_outcome_for_good(make_line, inbox, inspect_all):
    for name in ("a.png", "b.png"):
        (inbox / name).write_bytes(png(100_000_000, 1))
    line = make_line(source={"uri": str(inbox), "manifest": None, "only_new": True})
    inspection, result = inspect_all(line.config)
    assert (result.counts.listed, result.counts.unreadable, result.counts.carried_over) == (8, 2, 1)
    with open_database(line.database_url) as database, database.session() as session:
        (reason,) = {each.reason for each in run_unreadable(session, inspection.run.id)}
    assert reason == "100000000 x 1 pixels: a side has at most 65535"
    assert inspect_all(line.config)[1].inspected_before == 8


def test_large_pictures_make_small_batches(make_line, inbox, inspect_all):
    line = make_line(source={"uri": str(inbox), "manifest": None}, run={"decode_ahead": 1})
    for file in inbox.iterdir():
        file.write_bytes(file.read_bytes().ljust(20_000, b"\0"))  # bytes behind the end of a PNG do not count
    a_picture = 4 * 3 * 64 * 64 + 20_000
    with pipeline.open_inspection(
        load_settings(line.config, [f"run.held_bytes={7 * a_picture}"]), "manual"
    ) as inspection:
        batches = list(inspection.batches())
        sizes = [len(batch) for batch in batches]
        assert sizes == [2, 2, 2, 2]  # a third of seven
        assert inspection.holds(*batches[:3])
        assert not inspection.holds(*batches)
    with pipeline.open_inspection(load_settings(line.config, ["run.held_bytes=1"]), "manual") as inspection:
        batches = list(inspection.batches())
        assert [len(batch) for batch in batches] == [1] * 8
        assert inspection.holds(batches[0])
        assert not inspection.holds(*batches[:2])
    _, few = inspect_all(line.config, ["run.held_bytes=1", LITTLE])
    assert (few.counts.listed, few.counts.unreadable) == (8, 2)


@pytest.fixture
def passing(tmp_path: Path, make_thresholds) -> Path:
    """A package that passes everything, so that no time goes into explanations."""
    torch.manual_seed(1)
    return save_package(
        tmp_path / "passing",
        timm.create_model("test_resnet", num_classes=len(SURFACE_CLASSES)).eval(),
        architecture="test_resnet",
        model_args={},
        classes=SURFACE_CLASSES,
        good_class="good",
        task="single-label",
        preprocessing=Preprocessing(input_size=(32, 32)),
        thresholds=make_thresholds(0.999, 0.9999),
    ).path


def mutated(chance: random.Random) -> tuple[str, bytes]:
    """A valid file with some of its bits flipped, bytes overwritten, a piece cut out or repeated."""
    name = chance.choice(sorted(FILES))
    data = bytearray(FILES[name])
    for _ in range(chance.randint(1, 4)):
        at, length = chance.randrange(len(data)), chance.randint(1, 40)
        kind = chance.randrange(5)
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at : at + length] = chance.randbytes(length)
        elif kind == 2 and len(data) > 2 * length:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        else:
            data[at % 64 % len(data)] = chance.choice((0, 1, 127, 128, 255))
    return SUFFIXES[name.split()[0]], bytes(data)


@pytest.mark.parametrize(
    "count",
    [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_every_mutated_picture_has_one_outcome(make_line, tmp_path, passing, inspect_all, count: int):
    source = tmp_path / "mutated"
    source.mkdir()
    chance = random.Random(count)
    for number in range(count):
        suffix, data = mutated(chance)
        (source / f"{number:05d}{suffix}").write_bytes(data)
    line = make_line(
        source={"uri": str(source), "manifest": None, "max_pixels": 10_000_000},
        model={"package": str(passing)},
        run={"batch_size": 128, "decoders": 2},
    )
    inspection, result = inspect_all(line.config)
    counts = result.counts
    assert counts.listed == count
    assert counts.passed + counts.review + counts.reject + counts.unreadable == count
    assert min(counts.passed, counts.unreadable) > count / 10
    with open_database(line.database_url) as database:
        with database.session() as session:
            uris = [each.uri for each in run_images(session, inspection.run.id)]
        assert len(uris) == len(set(uris)) == count
        assert verify(database, artifacts=inspection.store).problems == ()
    assert all(each._process.returncode is not None for each in inspection.decoders._all)
    if (descriptors := Path("/proc/self/fd")).exists():
        assert not [each for each in descriptors.iterdir() if "kensa-pictures" in str(_target(each))]


def _target(link: Path) -> Path | None:
    try:
        return link.readlink()
    except FileNotFoundError:  # the descriptor of the listing itself
        return None
