"""What changed between two heads, what was so at a head, and where two people judged."""

import hashlib
from typing import Any

import pytest

from db.chain.events import head as audit_head
from db.columns import utc_now
from db.dispositions.decide import approve, dispose, refuse
from db.dispositions.history import histories
from db.figures.agreement import DoubleDecision, double_decisions
from db.figures.changes import changes_of
from db.figures.scopes import Scope
from db.inspection.missing_images import MissingImage
from db.inspection.runs import finish_run
from db.issued.reports import ReportSubject
from db.queries.finding_records import run_findings
from db.queries.runs import run_images, run_summary, run_unreadable
from db.schema import ArtifactRetention

Plant = Any  # tests/db/conftest.py; test folders are not packages
FIRST = "R000001-0001"  # a pit on part P0001


def head(plant: Plant) -> int:
    with plant.db.session() as session:
        return audit_head(session).sequence


@pytest.fixture
def line(plant: Plant) -> Plant:
    plant.finished_run(range(4))
    plant.staff()
    return plant


SUBJECTS = {
    "run": ReportSubject.run("R000001"),
    "period": ReportSubject.period(lot="L1"),
    "finding": ReportSubject.finding(FIRST),
    "part": ReportSubject.part("P0001", "L1"),
}


@pytest.mark.parametrize("kind", SUBJECTS)
def test_decisions_and_answers_since_a_head(line: Plant, kind: str) -> None:
    engineer, manager = line.staff()
    before = head(line)
    line.decide("confirm")
    line.decide("scrap", four_eyes={"scrap"})
    middle = head(line)
    approve(line.db, FIRST, reason="agreed", signer=manager)
    other = dispose(line.db, "R000001-0002", decision="confirm", reason="so it is", signer=engineer)
    with line.db.session() as session:
        all_of_it = changes_of(session, SUBJECTS[kind], before, head(line))
        second = changes_of(session, SUBJECTS[kind], middle, middle + 1)
        nothing = changes_of(session, SUBJECTS[kind], head(line), head(line))
    told = [(c.kind, c.finding, c.decision, c.person) for c in all_of_it.decisions]
    expected = [
        ("decided", FIRST, "confirm", "engineer"),
        ("decided", FIRST, "scrap", "engineer"),
        ("approved", FIRST, "scrap", "second"),
    ]
    if kind == "run":
        expected.append(("decided", other.finding, "confirm", "engineer"))
    assert told == expected
    assert (all_of_it.listed, all_of_it.ended, all_of_it.evidence) == ({}, (), 0)
    assert [(c.kind, c.name, c.role) for c in second.decisions] == [
        ("approved", "S. Econd", "quality-manager")
    ]
    assert [bool(found) for found in (all_of_it, second, nothing)] == [True, True, False]


def test_pictures_ends_and_evidence_since_a_head(plant: Plant) -> None:
    run = plant.start()
    plant.record(run, plant.outcome(1, "reject"))
    before = head(plant)
    plant.record(run, plant.outcome(3), plant.outcome(5, "review"))
    finish_run(plant.db, run, actor=plant.actor)
    with plant.db.session() as session:
        found = changes_of(session, ReportSubject.run("R000001"), before, head(plant))
        other = changes_of(session, ReportSubject.part("P0001", "L1"), before, head(plant))
    assert (found.listed, found.ended) == ({"pass": 1, "review": 1}, (("R000001", "completed"),))
    assert other.listed == {}


def test_the_map_of_a_tile_that_was_pruned_is_a_change(plant: Plant) -> None:
    plant.record(plant.start(), plant.tiled_outcome(1), plant.outcome(2, "review"))
    before = head(plant)
    lost = hashlib.sha256(b"tile block 1 of 1").hexdigest()
    row = ArtifactRetention(artifact_digest=lost, state="pruned", policy="old", created_at=utc_now())
    with plant.db.write() as recorder:
        recorder.add([row], action="artifacts.pruned", actor=plant.actor, entity="artifact", entity_id=lost)
    with plant.db.session() as session:
        assert changes_of(session, ReportSubject.finding("R000001-0001"), before, head(plant)).evidence == 1
        assert changes_of(session, ReportSubject.finding("R000001-0002"), before, head(plant)).evidence == 0


def test_evidence_that_was_pruned_is_a_change(plant: Plant) -> None:
    plant.finished_run()
    before = head(plant)
    with plant.db.write() as recorder:
        picture = plant.outcome(1, "review").digest
        row = ArtifactRetention(
            artifact_digest=picture, state="pruned", policy="older than 1 d", created_at=utc_now()
        )
        recorder.add(
            [row], action="artifacts.pruned", actor=plant.actor, entity="artifact", entity_id=picture
        )
    with plant.db.session() as session:
        assert changes_of(session, ReportSubject.run("R000001"), before, head(plant)).evidence == 1
        assert changes_of(session, ReportSubject.finding("R000001-0002"), before, head(plant)).evidence == 0


def test_a_run_as_of_an_earlier_event_is_as_it_was_then(plant: Plant) -> None:
    run = plant.start()
    plant.record(run, plant.outcome(1, "reject"))
    then = head(plant)
    with plant.db.session() as session:
        summary, findings = run_summary(session, run.id), run_findings(session, run.id)
        listing = list(run_images(session, run.id))
    plant.record(run, plant.outcome(3, "review"), plant.outcome(4, "unreadable"))
    finish_run(
        plant.db, run, actor=plant.actor, status="failed", note="lamp", missing=[MissingImage("late.png")]
    )
    plant.staff()
    plant.decide("confirm")
    plant.decide("scrap", four_eyes={"scrap"})
    waiting = head(plant)
    approve(plant.db, FIRST, reason="agreed", signer=plant.staff()[1])
    with plant.db.session() as session:
        assert run_summary(session, run.id, then) == summary
        assert run_findings(session, run.id, then) == findings
        assert run_unreadable(session, run.id, then) == []
        assert list(run_images(session, run.id, then)) == listing
        now = run_findings(session, run.id)[0]
        before = run_findings(session, run.id, waiting)[0]
        key = now.id
        assert (now.disposition, now.awaiting_approval) == ("scrap", None)
        assert (before.disposition, before.awaiting_approval) == ("confirm", "scrap")
        assert [row.state for row in histories(session, [key])[key]] == ["superseded", "in effect"]
        assert [row.state for row in histories(session, [key], waiting)[key]] == ["in effect", "pending"]
        assert histories(session, [key], then) == {}


def test_two_people_on_one_finding(line: Plant) -> None:
    engineer, manager = line.staff()
    line.decide("confirm")
    middle = head(line)
    line.decide("reclassify", class_name="scratch")  # the same person: no second opinion
    scope = Scope(run="R000001")
    with line.db.session() as session:
        assert double_decisions(session, scope) == []
    dispose(line.db, FIRST, decision="overrule", reason="dust", signer=manager)
    dispose(line.db, "R000001-0002", decision="confirm", reason="yes", signer=engineer, four_eyes={"confirm"})
    refuse(line.db, "R000001-0002", reason="no", signer=manager)
    with line.db.session() as session:
        found = double_decisions(session, scope)
        assert double_decisions(session, scope, middle) == []
        assert double_decisions(session, Scope(lot="L1")) == found[:1]
    assert found == [
        DoubleDecision(FIRST, "engineer", "confirm", "second", "overrule", "superseded"),
        DoubleDecision("R000001-0002", "engineer", "confirm", "second", "not confirm", "refused"),
    ]


def test_what_is_done_with_a_part_is_no_second_opinion(line: Plant) -> None:
    _, manager = line.staff()
    line.decide("confirm")
    dispose(line.db, FIRST, decision="rework", reason="grind it", signer=manager)
    scope = Scope(run="R000001")
    with line.db.session() as session:
        assert double_decisions(session, scope) == []
    line.decide("use-as-is", four_eyes={"use-as-is"})
    approve(line.db, FIRST, reason="customer agreed", signer=manager)
    with line.db.session() as session:
        assert double_decisions(session, scope) == [
            DoubleDecision(FIRST, "engineer", "use-as-is", "second", "use-as-is", "approved")
        ]


def test_a_lot_is_reported_anew_when_more_of_it_is_missing(plant: Plant) -> None:
    lot, other = ReportSubject.period(lot="L9"), ReportSubject.period(lot="L1")

    def missed(*uris: str) -> int:
        run = plant.start()
        missing = [MissingImage(uri, "P9", "L9") for uri in uris]
        finish_run(plant.db, run, actor=plant.actor, missing=missing)
        return head(plant)

    first = missed("a.png")
    same = missed("a.png")
    more = missed("a.png", "b.png", "c.png")
    with plant.db.session() as session:
        assert changes_of(session, lot, 1, first).missing == 1
        assert not changes_of(session, lot, first, same)
        assert changes_of(session, lot, same, more).missing == 2
        assert not changes_of(session, other, 1, more)
