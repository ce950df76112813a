"""What is recorded of a decision for a replay, and of the replay itself."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from db.chain.events import Actor
from db.columns import utc_now
from db.errors import RecordError
from db.inspection.outcomes import ImageOutcome
from db.inspection.runs import model_artifacts, register_model
from db.queries.replays import (
    RecordedPrediction,
    ReplayOutcome,
    find_predictions,
    names_run,
    record_replays,
    recorded_predictions,
)
from db.schema import ArtifactRetention, AuditEvent, Replay

Plant = Any  # tests/db/conftest.py; test folders are not packages
WHO = Actor("auditor", "human")


def meant(plant: Plant, which: str) -> list[list[RecordedPrediction]]:
    with plant.db.session() as session:
        return [recorded_predictions(session, ids) for ids in find_predictions(session, which)]


def test_a_run_a_finding_and_an_image_name_predictions(plant: Plant) -> None:
    plant.finished_run(range(4))
    for name in ("R000001", "r1", "1"):
        batches = meant(plant, name)
        assert [[one.uri for one in batch] for batch in batches] == [
            ["lot-0/part-0000.png", "lot-1/part-0001.png"],
            ["lot-0/part-0002.png", "lot-1/part-0003.png"],
        ]
    ((one,),) = meant(plant, "r000001-0002")
    assert (one.uri, [finding.reference for finding in one.findings]) == (
        "lot-0/part-0002.png",
        ["R000001-0002"],
    )
    digest = hashlib.sha256(b"picture 3").hexdigest()
    ((unreadable,),) = meant(plant, digest[:6].upper())
    assert (unreadable.verdict, unreadable.reason, unreadable.image_digest) == (
        "unreadable",
        "truncated",
        digest,
    )


def test_what_is_recorded_of_a_decision_comes_back(plant: Plant) -> None:
    run = plant.start()
    outcome = plant.outcome(2, "reject")
    plant.record(run, outcome, plant.outcome(4, "pass"))
    ((one,),) = meant(plant, "R000001-0001")
    assert (one.run_id, one.run_reference, one.model, one.settings) == (
        run.id,
        "R000001",
        plant.model,
        plant.settings,
    )
    for name in ("width", "height", "format", "mode", "size", "verdict", "score", "probabilities"):
        assert getattr(one, name) == getattr(outcome, name)
    assert (one.review_threshold, one.reject_threshold, one.settings_digest) == (
        0.3,
        0.7,
        run.settings_digest,
    )
    (finding,) = one.findings
    (given,) = outcome.findings
    assert (finding.class_name, finding.class_score, finding.score, finding.threshold) == (
        given.class_name,
        given.class_score,
        outcome.score,
        given.threshold,
    )
    assert finding.explanation is not None
    assert finding.explanation.map_digest == given.explanation.map.digest
    assert finding.explanation.block_maps == (("layer1", given.explanation.block_maps[0][1].digest),)
    assert (one.picture_kept, one.retention) == (True, {})
    (batch,) = meant(plant, "1")
    assert [each.picture_kept for each in batch] == [True, False]


def test_pruned_evidence_is_known(plant: Plant) -> None:
    plant.record(plant.start(), plant.outcome(2, "reject"))
    heat = hashlib.sha256(b"map 2").hexdigest()
    row = ArtifactRetention(artifact_digest=heat, state="pruned", policy="older", created_at=utc_now())
    with plant.db.write() as recorder:
        recorder.add([row], action="artifacts.pruned", actor=WHO, entity="artifact_store", entity_id="prune")
    ((one,),) = meant(plant, "R000001-0001")
    assert {digest: said.state for digest, said in one.retention.items()} == {heat: "pruned"}


def test_carried_over_decisions_are_those_of_the_run_that_made_them(plant: Plant) -> None:
    plant.record(plant.start(), plant.outcome(1, "review"), plant.outcome(2, "pass"))
    later = plant.start("line-2")
    plant.record(later, plant.outcome(3, "reject"), replace(plant.outcome(1), verdict=None))
    batches = meant(plant, "R000002")
    assert [[(one.uri, one.run_reference) for one in batch] for batch in batches] == [
        [("lot-1/part-0001.png", "R000001")],
        [("lot-1/part-0003.png", "R000002")],
    ]


def test_an_image_under_two_settings_has_two_decisions(plant: Plant) -> None:
    plant.record(plant.start(), plant.outcome(1, "review"))
    plant.record(plant.start("line-2", settings_digest="others"), plant.outcome(1, "pass"))
    batches = meant(plant, hashlib.sha256(b"picture 1").hexdigest())
    assert [[one.verdict for one in batch] for batch in batches] == [["review"], ["pass"]]


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("R000001-0009", "there is no finding"),
        ("R000009", "there is no run"),
        ("0123456789", "no image has a digest that begins with"),
        ("", "is no finding"),
        ("abc", "is no finding"),
        ("lot 7; DROP TABLE", "is no finding"),
    ],
)
def test_what_names_nothing_is_refused(plant: Plant, which: str, message: str) -> None:
    plant.record(plant.start(), plant.outcome(1, "review"))
    with pytest.raises(RecordError, match=message):
        meant(plant, which)


def test_a_run_is_told_from_an_image() -> None:
    assert [names_run(name) for name in ("R000012", "r1", "12", " R7 ")] == [True] * 4
    assert not any(names_run(name) for name in ("R000012-0003", "123456", "abcdef", ""))


def test_digits_that_begin_two_digests_are_refused(plant: Plant) -> None:
    outcomes = [
        ImageOutcome(
            uri=f"{n}.png",
            version="1",
            size=1,
            digest="abcdef" + str(n) * 58,
            verdict="unreadable",
            reason="x",
        )
        for n in (1, 2)
    ]
    plant.record(plant.start(), *outcomes)
    with pytest.raises(RecordError, match="several images have digests that begin with abcdef"):
        meant(plant, "abcdef")
    assert meant(plant, "abcdef1")[0][0].uri == "1.png"


def test_replays_are_recorded_each_with_its_event(plant: Plant) -> None:
    plant.record(plant.start(), plant.outcome(1, "review"), plant.outcome(2, "pass"))
    (batch,) = meant(plant, "R000001")
    outcomes = [
        ReplayOutcome(batch[0], "equal", {"probability": 1e-7, "map": None, "differences": []}),
        ReplayOutcome(batch[1], "impossible", {"reason": "the picture was not kept"}),
    ]
    record_replays(plant.db, outcomes, actor=WHO, host="bench", reason="complaint 17")
    record_replays(plant.db, [], actor=WHO, host="bench")
    with plant.db.session() as session:
        rows = session.scalars(select(Replay).order_by(Replay.event_sequence)).all()
        events = session.scalars(
            select(AuditEvent).where(AuditEvent.action == "replay.made").order_by(AuditEvent.sequence)
        ).all()
        assert [(row.prediction_id, row.result, row.software_version, row.host) for row in rows] == [
            (batch[0].id, "equal", "test 1", "bench"),
            (batch[1].id, "impossible", "test 1", "bench"),
        ]
        assert rows[0].details == {"probability": 1e-7, "map": None, "differences": []}
        assert [event.image_digest for event in events] == [one.image_digest for one in batch]
        assert [event.entity_id for event in events] == [one.id.hex for one in batch]
        assert {(event.model_digest, event.actor_id, event.reason) for event in events} == {
            (plant.model.digest, "auditor", "complaint 17")
        }
        assert events[0].payload == {"result": "equal", "findings": ["R000001-0001"]}
    assert plant.verify().ok


def test_a_result_that_is_none_is_refused(plant: Plant) -> None:
    plant.record(plant.start(), plant.outcome(1, "review"))
    ((one,),) = meant(plant, "R000001")
    with pytest.raises(RecordError, match="is none of identical, equal, different, impossible"):
        record_replays(plant.db, [ReplayOutcome(one, "fine", {})], actor=WHO, host="bench")


def test_a_model_is_recorded_with_its_files(plant: Plant) -> None:
    refs = [
        plant.store.put(b"weights", "model", "application/octet-stream"),
        plant.store.put(b"{}", "model", "application/json"),
    ]
    given: dict[str, Any] = {
        "name": "other",
        "architecture": "resnet10t",
        "classes": ["good", "pit"],
        "task": "single-label",
        "thresholds": None,
        "card": {},
        "actor": plant.actor,
    }
    register_model(plant.db, digest="1" * 64, **given, artifacts=refs)
    register_model(plant.db, digest="1" * 64, **given, artifacts=refs)
    # Another calibration of the same weights; and the plant's own model, recorded long ago without files.
    other = [refs[0], plant.store.put(b'{"a":1}', "model", "application/json")]
    register_model(plant.db, digest="2" * 64, **given, artifacts=other)
    late = [plant.store.put(b"late", "model", "application/octet-stream")]
    for _ in range(2):
        register_model(plant.db, digest=plant.model.digest, **given, artifacts=late)
    with plant.db.session() as session:
        assert model_artifacts(session, "1" * 64) == {ref.media_type: ref for ref in refs}
        assert model_artifacts(session, "2" * 64) == {ref.media_type: ref for ref in other}
        assert model_artifacts(session, plant.model.digest) == {late[0].media_type: late[0]}
        assert model_artifacts(session, "3" * 64) == {}
        told = session.execute(
            select(AuditEvent.action, AuditEvent.artifact_digests).order_by(AuditEvent.sequence)
        )
        assert [tuple(row) for row in told] == [
            ("model.registered", []),
            ("model.registered", [ref.digest for ref in refs]),
            ("model.registered", [ref.digest for ref in other]),
            ("model.stored", [late[0].digest]),
        ]
    assert plant.verify(artifacts=plant.store).ok
