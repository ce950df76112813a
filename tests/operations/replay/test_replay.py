"""Replaying recorded decisions: the same steps from the record alone, and what each difference is called."""

import csv
import io
import json
import os
import shutil
import sqlite3
import sys
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from pypdf import PdfReader
from sqlalchemy import select

from classifiers import load_package
from configs.loading import load_settings
from db.artifacts import ArtifactStore
from db.engine import open_database
from db.inspection.runs import model_artifacts
from db.queries.events import EventFilter as Events
from db.queries.events import find_events
from db.queries.finding_records import run_findings
from db.queries.runs import list_runs, run_images
from db.schema import Replay
from db.verification.walk import verify
from operations.inspection import run as pipeline
from operations.inspection.packages import keep_files
from operations.replay.compare import TOLERANCES
from operations.replay.replay import Replayer


@pytest.fixture
def recorded(make_line, inspect_all, once):
    """A finished run that kept every picture: line, artifact store, findings."""
    line = make_line(artifacts={"pictures": "all"})
    once("every picture kept", line, lambda: inspect_all(line.config))
    with open_database(line.database_url) as database, database.session() as session:
        (run,) = list_runs(session)
        return line, ArtifactStore(line.folder / "artifacts"), run_findings(session, run.id)


def make_old(line, store) -> None:
    """Let what is recorded and stored look as if it had happened in 2020."""
    for digest in store.digests():
        os.utime(store.path(digest), (0, 0))
    attack(line, "UPDATE audit_event SET at = '2020' || substr(at, 5)", rows=None)
    attack(line, "UPDATE run_image SET created_at = '2020' || substr(created_at, 5)", rows=None)


def attack(line, *statements: str, rows: int | None = 1) -> None:
    """Change the record as somebody who has the file may."""
    with sqlite3.connect(line.folder / "kensa.db") as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            changed = connection.execute(statement).rowcount
            assert rows is None or changed == rows
    connection.close()


def replay(line, *arguments: str, check: int = 0) -> list[dict]:
    done = line.kensa("replay", *arguments, "--format", "json", check=check)
    return [json.loads(text) for text in done.stdout.splitlines()]


def test_a_run_replays_to_the_last_bit(recorded):
    line, store, findings = recorded
    rows = replay(line, "R000001", "--reason", "quarterly check")
    assert len(rows) == 24
    assert {row["result"] for row in rows} == {"identical"}
    assert {row["probability"] for row in rows} == {0.0}
    assert sorted(name for row in rows for name in row["findings"]) == sorted(f.reference for f in findings)
    assert {row["map"] for row in rows if row["findings"]} <= {0.0, None}
    with open_database(line.database_url) as database:
        with database.session() as session:
            events = find_events(session, Events(action="replay.made"))
        assert len(events) == 24
        assert {event.reason for event in events} == {"quarterly check"}
        assert {event.actor_kind for event in events} == {"human"}
        assert len({event.run_id for event in events}) == 1
        assert {event.image_digest for event in events} == {row["image_digest"] for row in rows}
        assert verify(database, artifacts=store).problems == ()


def test_one_finding_and_one_picture_replay_within_tolerance_at_least(recorded):
    line, _, findings = recorded
    finding = next(f for f in findings if f.explanation.map_digest)
    (row,) = replay(line, finding.reference.lower())
    assert row["result"] in ("identical", "equal")
    assert row["findings"] == [finding.reference]
    assert row["probability"] <= TOLERANCES["float32"].probability
    (same,) = replay(line, finding.image_digest[:10].upper())
    assert same["image_digest"] == finding.image_digest
    table = list(
        csv.DictReader(io.StringIO(line.kensa("replay", finding.reference, "--format", "csv").stdout))
    )
    assert [each["result"] for each in table] == [row["result"]]


@pytest.mark.parametrize("name", ["R000001-9999", "R000099", "abcdef0123", "lot 7", "12345678901"])
def test_what_names_nothing_is_said(recorded, name):
    line, _, _ = recorded
    assert line.kensa("replay", name, check=2).stderr.startswith("kensa: ")


def test_a_wrong_device_is_no_finding_about_the_record(recorded):
    line, _, _ = recorded
    assert "not known to torch" in line.kensa("replay", "R1", "--device", "abacus", check=2).stderr
    assert line.json("audit", "log", "--action", "replay.made") == []


def test_a_changed_score_is_different_and_where(recorded):
    line, _, findings = recorded
    finding = findings[0]
    attack(
        line,
        "UPDATE prediction SET score = score - 0.01 WHERE id = "  # noqa: S608
        f"(SELECT prediction_id FROM finding WHERE reference = '{finding.reference}')",
        "UPDATE finding SET threshold = threshold * 0.5 "  # noqa: S608
        f"WHERE reference = '{finding.reference}'",
    )
    (row,) = replay(line, finding.reference, check=5)
    assert row["result"] == "different"
    beyond = {d["field"]: (d["recorded"], d["replayed"]) for d in row["differences"] if not d["within"]}
    assert set(beyond) == {"score", f"{finding.reference} threshold"}
    assert beyond["score"] == pytest.approx((finding.score - 0.01, finding.score), abs=1e-4)
    shown = line.kensa("replay", finding.reference, check=5)
    assert finding.reference in shown.stdout
    assert "score: recorded" in " ".join(shown.stdout.split())
    assert shown.stderr.splitlines()[-1] == "1 different"
    run = replay(line, "R000001", check=5)
    assert sorted(row["result"] for row in run) == ["different"] + ["identical"] * 23


def test_a_swapped_map_is_different(recorded):
    """The row names another finding's map: the file is intact, but it is not this finding's."""
    line, _, findings = recorded
    one, two = [f for f in findings if f.explanation.map_digest][:2]
    assert one.explanation.map_digest != two.explanation.map_digest
    attack(
        line,
        f"UPDATE explanation SET map_digest = '{two.explanation.map_digest}' WHERE finding_id = "  # noqa: S608
        f"(SELECT id FROM finding WHERE reference = '{one.reference}')",
    )
    (row,) = replay(line, one.reference, check=5)
    assert [d["field"] for d in row["differences"] if not d["within"]] == [f"{one.reference} map"]
    assert row["rank_correlation"] < TOLERANCES["float32"].rank


def test_pictures_that_were_not_kept_cannot_be_replayed(make_line, inspect_all):
    line = make_line()
    inspection, result = inspect_all(line.config)
    rows = replay(line, "R000001")  # a run says how many; that is no failure
    flagged = result.counts.review + result.counts.reject
    assert sum(row["result"] in ("identical", "equal") for row in rows) == flagged
    lost = [row for row in rows if row["result"] == "impossible"]
    assert len(lost) == result.counts.passed
    assert {row["reason"] for row in lost} == {"the picture was not kept (artifacts.pictures: flagged)"}
    with open_database(line.database_url) as database, database.session() as session:
        passed = next(i for i in run_images(session, inspection.run.id) if i.verdict == "pass")
    (row,) = replay(line, passed.digest, check=3)
    assert row["result"] == "impossible"


def test_a_pruned_picture_is_named_as_such(recorded):
    line, store, findings = recorded
    finding = findings[0]
    dry = line.kensa("db", "prune", "--older-than", "1d", "--undecided-too", "--dry-run").stdout
    assert "would remove 0 of kind picture" in dry
    make_old(line, store)
    said = line.kensa("db", "prune", "--older-than", "2y", "--undecided-too", "--kinds", "picture").stdout
    assert "removed 24 of kind picture" in said
    (row,) = replay(line, finding.reference, check=3)
    assert row["result"] == "impossible"
    assert row["reason"].startswith("the picture was pruned by policy on ")
    assert "(older than 2y (before " in row["reason"]
    assert store.exists(finding.explanation.map_digest)
    said = line.kensa("db", "prune", "--older-than", "2y", "--undecided-too").stdout
    assert "removed 0 of kind picture" in said
    assert not store.exists(finding.explanation.map_digest)


def test_a_damaged_picture_is_no_basis(recorded):
    line, store, findings = recorded
    with open(store.path(findings[0].image_digest), "ab") as file:  # noqa: PTH123
        file.write(b"x")
    (row,) = replay(line, findings[0].reference, check=3)
    assert row["result"] == "impossible"
    assert "was changed" in row["reason"]


def test_the_model_is_replayed_from_the_store(make_line, tmp_path, package, inspect_all):
    copy = tmp_path / "model"
    shutil.copytree(package, copy)
    line = make_line(model={"package": str(copy)})
    inspection, _ = inspect_all(line.config)
    with open_database(line.database_url) as database:
        with database.session() as session:
            files = model_artifacts(session, inspection.package.digest)
            (event,) = find_events(session, Events(action="model.registered"))
        assert {ref.kind for ref in files.values()} == {"model"}
        assert sorted(event.artifact_digests) == sorted(ref.digest for ref in files.values())
        assert keep_files(database, inspection.store, inspection.package) == [
            files[media_type] for media_type in ("application/json", "application/octet-stream")
        ]
    shutil.rmtree(copy)
    rows = replay(line, "R000001")
    assert {row["result"] for row in rows} <= {"identical", "equal", "impossible"}
    # Without the stored files, only a folder with this very model will do.
    for ref in files.values():
        inspection.store.delete(ref.digest)
    (row,) = replay(line, rows[0]["image_digest"], check=3)
    assert "is not in the artifact store" in row["reason"]
    assert "no model package here" in row["reason"]
    shutil.copytree(package.parent / "raw", copy)
    (row,) = replay(line, rows[0]["image_digest"], check=3)
    assert f"is model {load_package(copy).digest}" in row["reason"]
    shutil.rmtree(copy)
    shutil.copytree(package, copy)
    flagged = next(row for row in rows if row["findings"])
    (row,) = replay(line, flagged["image_digest"])
    assert row["result"] in ("identical", "equal")


def test_a_model_registered_before_is_stored_by_the_next_run(make_line, monkeypatch, inspect_all):
    line = make_line()
    with monkeypatch.context() as patch:
        patch.setattr("operations.inspection.run.keep_files", lambda *_: [])
        inspect_all(line.config, stop_after=1)
    for _ in range(2):
        with pipeline.open_inspection(load_settings(line.config), "manual") as inspection:
            assert inspection.run.resumed
    with open_database(line.database_url) as database, database.session() as session:
        (stored,) = find_events(session, Events(action="model.stored"))
        assert set(stored.artifact_digests) == set(inspection.store.digests()) & {
            ref.digest for ref in model_artifacts(session, inspection.package.digest).values()
        }
        assert len(stored.artifact_digests) == 2


def test_settings_other_than_recorded_are_no_basis(recorded):
    line, _, _ = recorded
    attack(line, "UPDATE run SET settings = replace(settings, '\"mu\":0', '\"mu\":0.5') WHERE number = 1")
    rows = replay(line, "R000001")
    assert {row["result"] for row in rows} == {"impossible"}
    assert "not those that its digest names" in rows[0]["reason"]


def test_an_unreadable_picture_is_replayed_too(make_line, tmp_path, pictures, inspect_all):
    source = tmp_path / "damaged"
    shutil.copytree(pictures, source)
    sorted((source / "images").rglob("*.png"))[1].write_bytes(b"no picture")
    line = make_line(source={"uri": str(source)}, artifacts={"pictures": "all"})
    inspect_all(line.config, stop_after=1)
    rows = replay(line, "R000001")
    assert len(rows) == 5
    assert [row["result"] for row in rows if row["verdict"] == "unreadable"] == ["identical"]


def test_reports_name_pruned_evidence(recorded):
    line, store, _ = recorded
    make_old(line, store)
    line.kensa("db", "prune", "--older-than", "2y", "--undecided-too")
    line.kensa("report", "run")
    pages = PdfReader(line.folder / "reports" / "R000001-1.pdf").pages
    said = " ".join(" ".join(page.extract_text() for page in pages).split())
    assert "The picture was pruned by policy on" in said
    assert "run `kensa audit verify`" not in said


@pytest.mark.skipif(find_spec("openvino") is None, reason="the extra openvino is absent")
def test_a_replay_computes_by_the_recorded_engine_or_says_that_it_does_not(
    make_line, inspect_all, monkeypatch
):
    line = make_line(artifacts={"pictures": "all"}, model={"engine": "openvino"})
    inspect_all(line.config)
    assert {row["result"] for row in replay(line, "R000001")} == {"identical"}
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were absent
    rows = replay(line, "R000001")
    assert {row["result"] for row in rows} <= {"equal", "identical"}
    assert all("computed by torch, and recorded by openvino: " in row["reason"] for row in rows)
    with open_database(line.database_url) as database, database.session() as session:
        replayed = [one.details for one in session.scalars(select(Replay))]
    engines = [details["engine"] for details in replayed]
    assert engines.count("openvino") == engines.count("torch") == 24
    assert all(details["openvino"].startswith("20") for details in replayed if "openvino" in details)
    assert all(details["torch"] == torch.__version__ for details in replayed)


def test_without_the_engine_of_a_reduced_precision_torch_decides_in_float32_by_its_thresholds(
    package_in_two, monkeypatch
):
    """A record by OpenVINO in bfloat16, on a machine without it: no torch calibration is there to go by."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    package = load_package(package_in_two)
    by_openvino = replace(package.reduced[0], engine="openvino")
    package = replace(package, reduced=(by_openvino,))
    predictor, note = Replayer._predictor(SimpleNamespace(_device="cpu"), package, "openvino", "bfloat16", 8)
    assert (predictor.engine.name, predictor.precision) == ("torch", "float32")
    assert predictor.package.thresholds == by_openvino.thresholds != package.thresholds
    assert "computed by torch, and recorded by openvino: " in note
