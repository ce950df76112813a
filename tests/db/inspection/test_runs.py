"""How a run ends: complete, with pictures that are gone, or as failed."""

import pytest
from sqlalchemy import select

from db.errors import RecordError
from db.inspection.batches import inspected_before
from db.inspection.runs import finish_run, unfinished_run
from db.queries.runs import run_gone, run_inspected_before, run_summary
from db.schema import AuditEvent
from tests.db.conftest import ACTOR, Plant


def test_what_was_recorded_was_listed_though_it_is_gone_at_the_end(plant: Plant) -> None:
    run = plant.start()
    outcomes = [plant.outcome(number, "review") for number in range(4)]
    plant.record(run, *outcomes)
    gone = [outcomes[2].uri]
    counts = finish_run(plant.db, run, actor=ACTOR, listed=3, gone=gone)
    assert (counts.listed, counts.review, counts.missing) == (4, 4, 0)
    with plant.db.session() as session:
        assert run_gone(session, run.id) == tuple(gone)
        summary = run_summary(session, run.id)
        ended = session.scalars(select(AuditEvent).where(AuditEvent.action == "run.finished")).one()
        assert run_gone(session, run.id, ended.sequence - 1) == ()
    assert (summary.status, summary.missing) == ("completed", ())
    assert plant.verify().problems == ()


def test_a_run_without_such_pictures_ends_as_it_always_did(plant: Plant) -> None:
    run = plant.start()
    finish_run(plant.db, run, actor=ACTOR, listed=0)
    with plant.db.session() as session:
        ended = session.scalars(select(AuditEvent).where(AuditEvent.action == "run.finished")).one()
        assert run_gone(session, run.id) == ()
        assert run_inspected_before(session, run.id) == 0
    assert (ended.payload, ended.reason) == ({"status": "completed"}, None)


def test_the_end_says_how_many_pictures_were_left_out(plant: Plant) -> None:
    run = plant.start()
    with plant.db.session() as session:
        assert run_inspected_before(session, run.id) == 0
    finish_run(plant.db, run, actor=ACTOR, listed=0, inspected_before=8)
    with plant.db.session() as session:
        ended = session.scalars(select(AuditEvent).where(AuditEvent.action == "run.finished")).one()
        assert run_inspected_before(session, run.id) == 8
        assert run_inspected_before(session, run.id, ended.sequence - 1) == 0
    assert ended.payload == {"status": "completed", "inspected_before": 8}
    assert plant.verify().problems == ()


def test_a_listed_picture_without_a_record_is_refused_beside_one_that_is_gone(plant: Plant) -> None:
    run = plant.start()
    outcomes = [plant.outcome(number) for number in range(4)]
    plant.record(run, *outcomes)
    gone = [outcomes[0].uri]
    with pytest.raises(RecordError, match=r"listed 5 pictures and recorded 4: .*--abandon --reason"):
        finish_run(plant.db, run, actor=ACTOR, listed=4, gone=gone)  # three of the four, and another one
    with pytest.raises(RecordError, match=r"no record of 'never\.png'"):
        finish_run(plant.db, run, actor=ACTOR, listed=4, gone=["never.png"])
    with plant.db.session() as session:
        assert run_summary(session, run.id).status == "unfinished"


def test_a_failed_run_stays_one_and_its_pictures_are_listed_again(plant: Plant) -> None:
    run = plant.start()
    outcomes = [plant.outcome(number) for number in range(2)]
    plant.record(run, *outcomes)
    listed = [(outcome.uri, outcome.version) for outcome in outcomes]
    with plant.db.session() as session:
        found = unfinished_run(session, run.kind)
    assert found is not None
    assert (found.id, found.reference, found.kind) == (run.id, "R000001", run.kind)
    finish_run(plant.db, run, actor=ACTOR, status="failed", note="abandoned: line moved", reason="line moved")
    with pytest.raises(RecordError, match="run R000001 has ended"):
        plant.record(run, plant.outcome(3))
    following = plant.start()
    assert (following.reference, following.resumed) == ("R000002", False)
    with plant.db.session() as session:
        # A run that only lists what is new must account for them: a failed run's report releases nothing.
        assert inspected_before(session, following, listed) == set()
        summary = run_summary(session, run.id)
        event = session.scalars(select(AuditEvent).where(AuditEvent.action == "run.finished")).one()
    assert (summary.status, summary.note, summary.counts.listed) == ("failed", "abandoned: line moved", 2)
    assert (event.payload, event.reason) == ({"status": "failed"}, "line moved")
    plant.record(following, *outcomes)
    finish_run(plant.db, following, actor=ACTOR, listed=2)
    third = plant.start()
    with plant.db.session() as session:
        assert inspected_before(session, third, listed) == set(listed)
    assert plant.verify().problems == ()
