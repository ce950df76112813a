"""A model version in inspection, summed up."""

from typing import Any

from sqlalchemy import select

from db.chain.events import head
from db.dispositions.decide import dispose
from db.figures.experience import ClassExperience, model_experience
from db.schema import Finding

Plant = Any  # tests/db/conftest.py; test folders are not packages


def test_a_model_the_record_does_not_know_has_none(plant: Plant) -> None:
    with plant.db.session() as session:
        assert model_experience(session, "0" * 64) is None


def test_runs_outcomes_and_decisions_are_summed_up(plant: Plant) -> None:
    with plant.db.session() as session:
        empty = model_experience(session, plant.model.digest)
    assert empty is not None
    assert (empty.runs, empty.first, empty.verdicts, empty.classes) == (0, None, {}, ())

    first = plant.finished_run(range(16))  # 4 of each verdict
    second = plant.start("line-2")
    plant.record(second, plant.outcome(0), plant.outcome(101, "reject"))
    with plant.db.session() as session:
        pits = session.scalars(select(Finding.reference).where(Finding.class_name == "pit")).all()
    with plant.db.session() as session:
        before = head(session).sequence
        undecided = model_experience(session, plant.model.digest)
    decide(plant, pits[0], "confirm")
    decide(plant, pits[1], "overrule")
    decide(plant, pits[2], "reclassify", class_name="scratch")
    decide(plant, pits[2], "rework")  # the picture still shows a scratch
    with plant.db.session() as session:
        found = model_experience(session, plant.model.digest)
    assert found is not None
    assert found.runs == 2
    assert found.first == first.started_at
    assert found.last == second.started_at
    assert found.verdicts == {"pass": 5, "review": 4, "reject": 5, "unreadable": 4}
    assert found.classes == (
        ClassExperience("pit", 5, 1, 1, 1),
        ClassExperience("scratch", 4, 0, 0, 0),
    )
    with plant.db.session() as session:
        assert model_experience(session, plant.model.digest, before) == undecided != found


def decide(plant: Plant, reference: str, decision: str, **options: str) -> None:
    engineer, _ = plant.staff()
    dispose(plant.db, reference, decision=decision, reason="seen under the lamp", signer=engineer, **options)
