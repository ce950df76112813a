import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.columns import digest_of, utc_now, uuid7
from db.errors import RecordError
from db.inspection.outcomes import ImageOutcome, LayerMasks
from db.inspection.runs import RunCounts, RunHandle, finish_run
from db.issued.reports import run_reports
from db.queries.events import EventFilter, find_events, get_event
from db.queries.finding_records import ExplanationRecord, TileRecord, run_findings
from db.queries.findings import FindingFilter, find_findings
from db.queries.runs import (
    RunImageRecord,
    UnreadableRecord,
    find_run,
    latest_run,
    list_runs,
    run_images,
    run_lots,
    run_summary,
    run_unreadable,
)

Plant = Any  # tests/db/conftest.py; test folders are not packages
CAPTURED = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)


@pytest.fixture
def run(plant: Plant) -> RunHandle:
    """Pictures 0-7: pass, review (scratch on odd? see Plant), reject, unreadable, twice; lots L0 and L1."""
    return plant.finished_run()  # type: ignore[no-any-return]


def find(plant: Plant, **wanted: Any) -> list[str]:
    with plant.db.session() as session:
        return [f.reference for f in find_findings(session, FindingFilter(**wanted))]


def events(plant: Plant, **wanted: Any) -> list[int]:
    with plant.db.session() as session:
        return [event.sequence for event in find_events(session, EventFilter(**wanted))]


def test_a_finished_run_at_a_glance(plant: Plant, run: RunHandle) -> None:
    with plant.db.session() as session:
        summary = run_summary(session, run.id)
        assert latest_run(session) == summary
        assert list_runs(session) == [summary]
        for name in (1, "1", "R000001", "r000001", run.id):
            assert find_run(session, name) == summary
        (report,) = run_reports(session, run.id)
    assert (summary.reference, summary.status, summary.note, summary.missing) == (
        "R000001",
        "completed",
        "",
        (),
    )
    assert summary.counts == RunCounts(
        listed=8, passed=2, review=2, reject=2, unreadable=2, carried_over=0, missing=0, findings=4
    )
    assert summary.class_counts == (("pit", 2), ("scratch", 2))
    assert (summary.lots, summary.stations) == (("L0", "L1"), ("cam-1", "cam-2"))
    assert summary.model == plant.model
    assert summary.settings == plant.settings
    assert summary.settings_digest == digest_of(plant.settings)
    assert (summary.host, summary.trigger, summary.software_version) == ("bench", "manual", "test 1")
    assert summary.finished_at is not None
    assert summary.started_at <= summary.finished_at <= report.created_at
    assert (report.revision, report.head.sequence) == (1, 11)


def test_the_verdicts_of_each_lot(plant: Plant, run: RunHandle) -> None:
    second = plant.start()
    plant.record(second, plant.outcome(8, part=None, lot=None), plant.outcome(1, "review"))
    none = {"pass": 0, "review": 0, "reject": 0, "unreadable": 0}
    with plant.db.session() as session:
        assert run_lots(session, run.id) == {
            "L0": none | {"pass": 2, "reject": 2},
            "L1": none | {"review": 2, "unreadable": 2},
        }
        assert run_lots(session, second.id) == {"": none | {"pass": 1}, "L1": none | {"review": 1}}
        assert list(run_lots(session, second.id)) == ["", "L1"]


def test_an_unfinished_run_shows_what_it_has_so_far(plant: Plant) -> None:
    run = plant.start()
    plant.record(run, plant.outcome(1), plant.outcome(2, "review"))
    with plant.db.session() as session:
        summary = run_summary(session, run.id)
    assert (summary.status, summary.finished_at, summary.counts.listed) == ("unfinished", None, 2)


@pytest.mark.parametrize("which", [7, "R000007", "seven", "", "R", uuid7(), "9" * 30, "²"])
def test_a_run_that_is_not_there(plant: Plant, which: Any) -> None:
    with plant.db.session() as session:
        with pytest.raises(RecordError, match="there is no run"):
            find_run(session, which)
        with pytest.raises(RecordError, match="there is no run"):
            find_findings(session, FindingFilter(run=which))
        assert latest_run(session) is None


@pytest.mark.parametrize(
    ("which", "hint"),
    [("R000009", "the latest is R000001"), ("seven", "give a number such as 12 or R000012")],
)
def test_a_run_that_is_not_there_is_told_from_a_name_that_is_none(
    plant: Plant, run: RunHandle, which: str, hint: str
) -> None:
    with plant.db.session() as session, pytest.raises(RecordError, match=f"there is no run {which}: {hint}"):
        find_run(session, which)


def test_a_run_of_an_empty_record(plant: Plant) -> None:
    with plant.db.session() as session, pytest.raises(RecordError, match="the record holds none yet"):
        find_run(session, "R000001")


def test_the_listing_of_a_run(plant: Plant) -> None:
    run = plant.start()
    outcomes = [
        plant.outcome(1, "review", captured_at=CAPTURED),
        plant.outcome(2, part=None, lot=None, station=None),
        plant.outcome(3, "unreadable", lot=None),
    ]
    gone = ImageOutcome(uri="a.png", version="1", size=5, verdict="unreadable", reason="vanished")
    plant.record(run, *outcomes, gone)
    with plant.db.session() as session:
        lines = list(run_images(session, run.id))
        unreadable = run_unreadable(session, run.id)
    assert [line.uri for line in lines] == sorted(o.uri for o in [*outcomes, gone])
    by_uri = {line.uri: line for line in lines}
    assert by_uri[outcomes[0].uri] == RunImageRecord(
        uri=outcomes[0].uri, digest=outcomes[0].digest, part="P0001", lot="L1", station="cam-1",
        captured_at=CAPTURED, verdict="review", reason=None, score=outcomes[0].score, carried_over=False,
            brightness=0.501, contrast=0.1, sharpness=1.01,
    )  # fmt: skip
    bare = by_uri[outcomes[1].uri]
    assert (bare.part, bare.lot, bare.station, bare.captured_at) == (None, None, None, None)
    assert (by_uri[outcomes[2].uri].part, by_uri[outcomes[2].uri].lot) == ("P0003", None)
    assert unreadable == [
        UnreadableRecord("a.png", "vanished", None),
        UnreadableRecord(outcomes[2].uri, "truncated", outcomes[2].digest),
    ]


def test_listings_sort_by_bytes_on_both_databases(plant: Plant) -> None:
    run = plant.start()
    names = ["a.png", "B.png", "Z/1.png", "é.png", "a-1.png", "a/1.png", "_.png"]
    plant.record(run, *(plant.outcome(n, uri=name) for n, name in enumerate(names)))
    with plant.db.session() as session:
        listed = [line.uri for line in run_images(session, run.id)]
    assert listed == sorted(names, key=lambda name: name.encode())


def test_a_finding_on_a_tiled_picture_has_the_maps_of_its_tiles(plant: Plant) -> None:
    run = plant.start()
    given = plant.tiled_outcome(1)
    plant.record(run, given)
    with plant.db.session() as session:
        (found,) = run_findings(session, run.id)
    assert (found.tile_count, found.deciding_tile) == (18, (0, 0, 32, 32))
    explanation = found.explanation
    assert explanation is not None
    assert (explanation.map_digest, explanation.block_maps, explanation.tiles_left_out) == (None, (), 3)
    assert explanation.tiles is not None
    assert explanation.tiles[1] == TileRecord(
        rectangle=(32, 0, 64, 32),
        score=0.8,
        layers=(LayerMasks("layer1", 3, 64),),
        status="ok",
        masked_score=0.25,
        drop=37.5,
        increase=False,
        map_digest=hashlib.sha256(b"tile map 1 of 1").hexdigest(),
        block_maps=(("layer1", hashlib.sha256(b"tile block 1 of 1").hexdigest()),),
        box=(34, 3, 52, 30),
    )
    texts = (b"tile map 0 of 1", b"tile block 0 of 1", b"tile map 1 of 1", b"tile block 1 of 1")
    assert list(explanation.map_digests()) == [hashlib.sha256(text).hexdigest() for text in texts]


def test_a_finding_with_its_evidence(plant: Plant, run: RunHandle) -> None:
    outcome = plant.outcome(1, "review")
    with plant.db.session() as session:
        findings = run_findings(session, run.id)
    assert [f.uri for f in findings] == sorted(f.uri for f in findings)
    found = next(f for f in findings if f.reference == "R000001-0001")
    digest = lambda data: hashlib.sha256(data).hexdigest()  # noqa: E731
    assert found.explanation == ExplanationRecord(
        method="sise",
        parameters={"mu": 0.0, "batch_size": 16},
        layers=(LayerMasks("layer1", 3, 64), LayerMasks("layer2", 5, 128)),
        status="ok",
        masked_score=0.25,
        drop=37.5,
        increase=False,
        map_digest=digest(b"map 1"),
        block_maps=(("layer1", digest(b"block map 1")),),
        box=(1, 2, 30, 40),
    )
    assert found.probabilities == outcome.probabilities
    assert (found.uri, found.part, found.lot, found.station) == (outcome.uri, "P0001", "L1", "cam-1")
    assert (found.class_name, found.class_score, found.score, found.threshold) == (
        "pit",
        0.5001,
        outcome.score,
        0.3,
    )
    assert (found.review_threshold, found.reject_threshold, found.verdict) == (0.3, 0.7, "review")
    assert (found.image_digest, found.image_format, found.width, found.height) == (
        outcome.digest,
        "PNG",
        64,
        48,
    )
    assert (found.run_reference, found.model_name, found.model_digest) == (
        "R000001",
        "tiny",
        plant.model.digest,
    )
    assert (found.carried_over, found.disposition, found.settings_digest) == (
        False,
        None,
        run.settings_digest,
    )
    plant.decide("confirm")
    plant.decide("overrule")
    with plant.db.session() as session:
        assert [f.disposition for f in run_findings(session, run.id) if f.id == found.id] == ["overrule"]


def test_findings_by_every_filter(plant: Plant, run: RunHandle) -> None:
    every = ["R000001-0004", "R000001-0003", "R000001-0002", "R000001-0001"]  # pictures 6, 5, 2, 1
    assert find(plant) == every
    assert find(plant, part="P0005") == ["R000001-0003"]
    assert find(plant, lot="L1") == ["R000001-0003", "R000001-0001"]
    assert find(plant, part="P0005", lot="L0") == []
    assert find(plant, station="cam-2") == ["R000001-0004"]
    assert find(plant, class_name="scratch") == ["R000001-0004", "R000001-0002"]
    assert find(plant, verdict="reject") == ["R000001-0004", "R000001-0002"]
    assert find(plant, model="tiny") == find(plant, model=plant.model.digest[:6]) == every
    assert find(plant, run=1) == find(plant, run="R000001") == every
    now = utc_now()
    assert find(plant, since=now - timedelta(hours=1), until=now) == every
    assert find(plant, since=now) == find(plant, until=now - timedelta(hours=1)) == []
    assert find(plant, lot="L0", class_name="scratch", verdict="reject", station="cam-2", run=1) == [every[0]]
    for wrong in ("other", plant.model.digest[:5], "%%%%%%"):
        with pytest.raises(RecordError, match="there is no model"):
            find(plant, model=wrong)


def test_findings_page_by_page(plant: Plant, run: RunHandle) -> None:
    with plant.db.session() as session:
        first = find_findings(session, FindingFilter(), limit=3)
        rest = find_findings(session, FindingFilter(), limit=3, before=first[-1].id)
    assert [f.reference[-1] for f in first + rest] == ["4", "3", "2", "1"]


def test_a_finding_is_found_by_every_part_whose_picture_it_is_on(plant: Plant, run: RunHandle) -> None:
    again = plant.start()
    plant.record(again, replace(plant.outcome(1, "review"), uri="copy.png", part="P0099", lot="L9"))
    finish_run(plant.db, again, actor=plant.actor, listed=1)
    with plant.db.session() as session:
        (found,) = find_findings(session, FindingFilter(part="P0099"))
        assert (found.reference, found.uri, found.part, found.carried_over) == (
            "R000001-0001",
            "copy.png",
            "P0099",
            True,
        )
        (same,) = find_findings(session, FindingFilter(part="P0001"))
        assert (same.id, same.part, same.carried_over) == (found.id, "P0001", False)
        (carried,) = run_findings(session, again.id)
        assert carried == found
        summary = run_summary(session, again.id)
        assert (summary.counts.findings, summary.class_counts) == (1, (("pit", 1),))
    assert find(plant, run=2) == ["R000001-0001"]
    assert find(plant) == ["R000001-0004", "R000001-0003", "R000001-0002", "R000001-0001"]


def test_events_by_every_filter(plant: Plant, run: RunHandle) -> None:
    every = list(range(12, 0, -1))
    assert events(plant) == events(plant, model="tiny") == every
    assert events(plant, part="P0001") == [4]
    assert events(plant, lot="L1") == [10, 8, 6, 4]
    assert events(plant, station="cam-2") == [9, 6, 3]
    assert events(plant, class_name="pit") == [8, 4]
    assert events(plant, lot="L0", class_name="pit") == []
    assert events(plant, action="image.unreadable") == [10, 6]
    assert events(plant, run=1) == every[:-1]
    assert events(plant, actor="nobody") == []
    now = utc_now()
    assert events(plant, since=now - timedelta(hours=1), until=now, actor="inspector") == every
    plant.dispose("confirm")  # of R000001-0001, on part P0001: its event belongs to the part's life
    assert events(plant, part="P0001") == events(plant, class_name="pit", lot="L1", part="P0001") == [13, 4]
    assert events(plant, class_name="scratch") == [9, 5]
    assert events(plant, actor="engineer") == [13]
    with plant.db.session() as session:
        page = find_events(session, EventFilter(), limit=5, before=9)
        assert [event.sequence for event in page] == [8, 7, 6, 5, 4]


def test_one_event_with_all_it_holds(plant: Plant, run: RunHandle) -> None:
    outcome = plant.outcome(1, "review")
    with plant.db.session() as session:
        event = get_event(session, 4)
        assert get_event(session, "4") == event
        assert get_event(session, event.id) == get_event(session, str(event.id)) == event
        before = get_event(session, 3)
        for wrong in (99, uuid7(), "99"):
            with pytest.raises(RecordError, match="there is no audit event"):
                get_event(session, wrong)
        with pytest.raises(RecordError, match="neither an event's number nor its id"):
            get_event(session, "four")
    assert (event.action, event.entity, event.actor_id, event.actor_kind) == (
        "image.inspected", "run_image", "inspector", "system",
    )  # fmt: skip
    assert event.previous_hash == before.hash
    assert event.payload == {"uri": outcome.uri, "verdict": "review"}
    assert (event.run_id, event.model_digest, event.settings_digest) == (
        run.id, plant.model.digest, run.settings_digest,
    )  # fmt: skip
    assert (event.image_digest, event.software_version, event.scheme) == (outcome.digest, "test 1", 1)
    assert len(event.artifact_digests) == 3
    tables = [table for table, _ in event.rows]
    assert tables == ["image", *["artifact"] * 3, "prediction", "finding", "explanation", "part", "run_image"]
    assert event.entity_id == event.rows[-1][1]
