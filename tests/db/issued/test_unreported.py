"""Ended runs that lack what their settings want, on both databases."""

import pytest

from db.inspection.missing_images import MissingImage
from db.inspection.runs import RunHandle, finish_run
from db.issued.reports import ReportSubject
from db.issued.unreported import unreported_runs, unsigned_runs
from tests.db.conftest import ACTOR, Plant


@pytest.fixture
def end(plant: Plant):
    """End a run of these settings over some pictures."""

    def ended(pictures: int = 1, *, missing: tuple[MissingImage, ...] = (), **settings: dict) -> RunHandle:
        run = plant.start(settings={"name": "line", **settings})
        if pictures:
            plant.record(run, *(plant.outcome(number) for number in range(pictures)))
        finish_run(plant.db, run, actor=ACTOR, listed=pictures, missing=missing)
        return run

    return ended


def names(plant: Plant, found) -> list[str]:
    with plant.db.session() as session:
        return [run.reference for run in found(session)]


def test_a_run_lacks_a_report_when_its_settings_want_one_and_it_had_something_to_do(
    plant: Plant, end
) -> None:
    end(report={"enabled": False})
    end()  # settings of an earlier version, which say nothing of reports
    end(0, report={"enabled": True})
    wanting = end(report={"enabled": True})
    missed = end(0, missing=(MissingImage("announced.png"),), report={"enabled": True})
    plant.start(settings={"report": {"enabled": True}})  # not ended
    assert names(plant, unreported_runs) == [wanting.reference, missed.reference]
    with plant.db.session() as session:
        found = unreported_runs(session)[0]
    assert (found.id, found.inspection, found.kind) == (wanting.id, "line", wanting.kind)
    told = "ended without its report: R000004, R000005; `kensa report missing` makes up for it"
    assert told in plant.verify().remarks
    plant.issue(ReportSubject.run(wanting.reference), b"report")
    plant.issue(ReportSubject.run(missed.reference), b"another report")
    assert names(plant, unreported_runs) == []
    found_again = plant.verify()
    assert found_again.ok
    assert not any("ended without" in remark for remark in found_again.remarks)


def test_a_run_lacks_a_checkpoint_when_none_covers_its_end(plant: Plant, end) -> None:
    end()
    first = end(audit={"checkpoints": "notes"})
    assert names(plant, unsigned_runs) == [first.reference]
    plant.sign()
    assert names(plant, unsigned_runs) == []
    second, third = end(audit={"checkpoints": "notes"}), end(audit={"checkpoints": None})
    assert names(plant, unsigned_runs) == [second.reference]
    told = f"ended without its checkpoint: {second.reference}; `kensa report missing` makes up for it"
    found = plant.verify()
    assert found.ok
    assert told in found.remarks
    assert third.number > second.number


def test_a_run_that_had_nothing_to_do_lacks_something_only_where_its_settings_say_so(
    plant: Plant, end
) -> None:
    end(0, report={"enabled": True, "empty_runs": False}, audit={"checkpoints": "notes"})
    assert not any("ended without" in remark for remark in plant.verify().remarks)
    wanting = end(0, report={"enabled": True, "empty_runs": True}, audit={"checkpoints": "notes"})
    assert names(plant, unreported_runs) == names(plant, unsigned_runs) == [wanting.reference]


def test_ten_of_many_are_named(plant: Plant, end) -> None:
    for _ in range(12):
        end(report={"enabled": True})
    (told,) = [remark for remark in plant.verify().remarks if "ended without" in remark]
    assert "R000010 and 2 more; " in told
