import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from db.chain.events import head as audit_head
from db.columns import digest_of, storable
from db.engine import Database, open_database
from db.errors import RecordError
from db.inspection.batches import inspected_before, known_outcomes, recorded_uris
from db.inspection.missing_images import MissingImage
from db.inspection.outcomes import BatchResult, ImageOutcome
from db.inspection.runs import finish_run, register_model
from db.issued.reports import ReportSubject, next_report, record_report, run_reports
from db.queries.runs import run_unreadable
from db.schema import Artifact, AuditEvent, Explanation, Finding, Image, Part, Prediction, Run, RunImage
from db.verification.walk import verify

Plant = Any  # tests/db/conftest.py; test folders are not packages


def rows(plant: Plant, table: type[Any]) -> int:
    with plant.db.session() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_a_batch_is_written_with_its_evidence(plant: Plant) -> None:
    run = plant.start()
    assert (run.reference, run.resumed) == ("R000001", False)
    outcomes = [plant.outcome(n, v) for n, v in enumerate(["pass", "review", "reject", "unreadable"])]
    gone = ImageOutcome(uri="z.png", version="1", size=5, verdict="unreadable", reason="vanished")
    result = plant.record(run, *outcomes, gone)
    assert result == BatchResult(
        recorded=5,
        carried_over=0,
        already_recorded=0,
        verdicts={"pass": 1, "review": 1, "reject": 1, "unreadable": 2},
        findings=("R000001-0001", "R000001-0002"),
    )
    assert [rows(plant, t) for t in (Image, Prediction, RunImage, Part)] == [4, 4, 5, 4]
    assert [rows(plant, t) for t in (Finding, Explanation, Artifact)] == [2, 2, 6]
    with plant.db.session() as session:
        uris = {o.uri for o in outcomes} | {"z.png"}
        assert recorded_uris(session, run.id, [*uris, "y.png"]) == uris
        known = known_outcomes(
            session, [o.digest for o in outcomes] + ["f" * 64], run.model.id, run.settings_digest
        )
        assert {digest: k.verdict for digest, k in known.items()} == {o.digest: o.verdict for o in outcomes}
        assert known[outcomes[3].digest].reason == "truncated"
        assert known_outcomes(session, [outcomes[0].digest], run.model.id, "other settings") == {}
        actions = session.scalars(select(AuditEvent.action).order_by(AuditEvent.sequence)).all()
    assert actions == ["model.registered", "run.started", *["image.inspected"] * 3, *["image.unreadable"] * 2]
    assert plant.verify().ok


def test_the_same_batch_again_changes_nothing(plant: Plant) -> None:
    run = plant.start()
    outcomes = [plant.outcome(n, "review") for n in range(4)]
    plant.record(run, *outcomes[:3])
    before = rows(plant, AuditEvent)
    again = plant.record(run, *outcomes[:3])
    assert (again.recorded, again.already_recorded, again.findings) == (0, 3, ())
    assert rows(plant, AuditEvent) == before
    rest = plant.record(run, *outcomes)
    assert (rest.recorded, rest.already_recorded, rest.findings) == (1, 3, ("R000001-0004",))


def test_a_picture_that_is_there_twice_has_one_outcome(plant: Plant) -> None:
    run = plant.start()
    first = plant.outcome(1, "review")
    copy = replace(first, uri="copy.png", part="P9", verdict="reject", score=0.99)
    result = plant.record(run, first, copy)
    assert (result.recorded, result.carried_over, result.verdicts) == (2, 1, {"review": 2})
    later = plant.record(run, replace(plant.outcome(1, "review"), uri="later.png", verdict=None))
    assert (later.recorded, later.carried_over, later.verdicts) == (1, 1, {"review": 1})
    assert [rows(plant, t) for t in (Image, Prediction, Finding, RunImage)] == [1, 1, 1, 3]
    finish_run(plant.db, run, actor=plant.actor, listed=3)

    # another run of the same source, model and settings repeats no work
    second = plant.start()
    assert (second.number, second.resumed) == (2, False)
    plant.record(second, replace(first, verdict=None, score=None, findings=(), picture=None))
    counts = finish_run(plant.db, second, actor=plant.actor, listed=1)
    assert counts.as_dict() == {
        "listed": 1, "pass": 0, "review": 1, "reject": 0, "unreadable": 0, "carried_over": 1, "missing": 0,
        "findings": 1,
    }  # fmt: skip
    assert [rows(plant, t) for t in (Image, Prediction, Finding)] == [1, 1, 1]

    # other settings are another question
    changed = {"settings": {"batch": 9}, "settings_digest": digest_of({"batch": 9})}
    third = plant.start(**changed)
    assert plant.record(third, first).carried_over == 0
    assert [rows(plant, t) for t in (Image, Prediction, Finding)] == [1, 2, 2]
    assert plant.verify().ok


def test_what_another_run_of_the_kind_inspected_is_known(plant: Plant) -> None:
    first = plant.start()
    seen, unread = plant.outcome(1), plant.outcome(2, "unreadable", digest=None)
    plant.record(first, seen, unread)
    finish_run(plant.db, first, actor=plant.actor)
    again = plant.start()
    elsewhere = plant.start("line-2")
    plant.record(again, plant.outcome(3))
    listed = [(o.uri, o.version) for o in (seen, unread, plant.outcome(3))] + [(seen.uri, "newer")]
    with plant.db.session() as session:
        assert inspected_before(session, again, listed) == {(seen.uri, seen.version)}
        assert inspected_before(session, elsewhere, listed) == set()
        assert inspected_before(session, again, []) == set()


def test_carrying_over_what_is_not_there_is_refused(plant: Plant) -> None:
    run = plant.start()
    with pytest.raises(RecordError, match="nothing is recorded under this model"):
        plant.record(run, plant.outcome(1), replace(plant.outcome(2), verdict=None))
    assert rows(plant, RunImage) == 0


@pytest.mark.parametrize(
    ("verdict", "changed", "message"),
    [
        ("pass", {"verdict": "good"}, "verdict 'good' is none of"),
        ("pass", {"digest": None}, "needs the digest"),
        ("pass", {"reason": "why"}, "no other verdict takes one"),
        ("pass", {"score": None}, "score and both thresholds"),
        ("pass", {"review_threshold": None}, "score and both thresholds"),
        ("review", {"findings": ()}, "with 0 findings"),
        ("review", {"verdict": "pass"}, "verdict 'pass' with 1 findings"),
        ("unreadable", {"reason": None}, "needs a reason"),
        ("unreadable", {"score": 0.5}, "score and both thresholds"),
        ("unreadable", {"digest": None, "verdict": None}, "no digest to find it by"),
        ("pass", {"captured_at": datetime(2026, 1, 1)}, "no time zone"),
        ("pass", {"score": float("nan")}, "nan is not a number"),
        ("pass", {"probabilities": (float("inf"),)}, "canonical JSON"),
    ],
)
def test_an_outcome_that_contradicts_itself_is_refused(
    plant: Plant, verdict: str, changed: dict[str, Any], message: str
) -> None:
    run = plant.start()
    with pytest.raises(RecordError, match=message):
        plant.record(run, plant.outcome(5), replace(plant.outcome(1, verdict), **changed))
    assert rows(plant, RunImage) == 0


def test_a_stored_picture_must_be_the_inspected_one_and_classes_differ(plant: Plant) -> None:
    run = plant.start()
    outcome = plant.outcome(1, "review")
    with pytest.raises(RecordError, match="digests differ"):
        plant.record(run, replace(outcome, picture=plant.outcome(2, "review").picture))
    with pytest.raises(RecordError, match="two findings of the same class"):
        plant.record(run, replace(outcome, findings=outcome.findings * 2))


def test_hostile_names_are_recorded_spelled_out(plant: Plant) -> None:
    run = plant.start(source="in\x00box")
    name = b"lot/\xff\x00<script>.png".decode("utf-8", "surrogateescape")
    given = {"version": "\ud800", "part": "\ud800", "lot": "", "reason": "bad \x00 header"}
    outcome = plant.outcome(1, "unreadable", uri=name, **given)
    assert outcome.uri == storable(name) == "lot/\\udcff\\x00<script>.png"
    plant.record(run, outcome)
    assert plant.record(run, outcome).already_recorded == 1
    with plant.db.session() as session:
        assert recorded_uris(session, run.id, [name, "other.png"]) == {name}
        assert run_unreadable(session, run.id)[0].reason == "bad \\x00 header"
    assert plant.start(source="in\x00box").resumed
    finish_run(plant.db, run, actor=plant.actor)
    again = plant.start(source="in\x00box")
    with plant.db.session() as session:
        assert inspected_before(session, again, [(name, "\ud800")]) == {(name, "\ud800")}
    assert plant.verify().ok


def test_findings_are_numbered_through_batches_and_past_9999(plant: Plant) -> None:
    run = plant.start()
    plant.record(run, plant.outcome(1, "review"))
    two = (plant.finding(2), replace(plant.finding(3), class_name="patch"))
    result = plant.record(run, plant.outcome(2, "reject", findings=two), plant.outcome(3, "review"))
    assert result.findings == ("R000001-0002", "R000001-0003", "R000001-0004")


def test_an_unfinished_run_is_resumed_and_a_finished_one_is_not(plant: Plant) -> None:
    first = plant.start()
    assert plant.start("line-2").number == 2
    again = plant.start()
    assert (again.id, again.number, again.resumed, again.started_at) == (first.id, 1, True, first.started_at)
    other_model = register_model(
        plant.db, digest="e" * 64, name="other", architecture="a", classes=["good", "pit"],
        task="single-label", thresholds=None, card={}, actor=plant.actor,
    )  # fmt: skip
    assert plant.start(model=other_model).number == 3
    finish_run(plant.db, first, actor=plant.actor, status="failed", note="the disk was full")
    fourth = plant.start()
    assert (fourth.number, fourth.resumed) == (4, False)
    with pytest.raises(RecordError, match="R000001 has ended"):
        plant.record(first, plant.outcome(1))
    assert plant.verify().ok


def test_a_model_is_registered_once(plant: Plant) -> None:
    before = rows(plant, AuditEvent)
    again = register_model(
        plant.db, digest=plant.model.digest, name="another name", architecture="x", classes=[],
        task="multi-label", thresholds=None, card={}, actor=plant.actor,
    )  # fmt: skip
    assert again == plant.model
    assert rows(plant, AuditEvent) == before


def test_a_completed_run_accounts_for_every_picture(plant: Plant) -> None:
    run = plant.start()
    plant.record(run, *(plant.outcome(n) for n in range(3)))
    with pytest.raises(RecordError, match="listed 4 pictures and recorded 3"):
        finish_run(plant.db, run, actor=plant.actor, listed=4)
    with pytest.raises(RecordError, match="run status 'done' is none of"):
        finish_run(plant.db, run, actor=plant.actor, status="done")
    counts = finish_run(
        plant.db, run, actor=plant.actor, listed=3, missing=[MissingImage("a.png"), MissingImage("b.png")]
    )
    assert (counts.listed, counts.passed, counts.missing) == (3, 3, 2)
    before = rows(plant, AuditEvent)
    assert finish_run(plant.db, run, actor=plant.actor, status="failed", listed=9) == counts
    assert rows(plant, AuditEvent) == before


def test_a_report_carries_a_head_that_the_log_has(plant: Plant) -> None:
    run = plant.finished_run()
    subject = ReportSubject.run(run.reference)
    with plant.db.session() as session:
        head = audit_head(session)
        (first,) = run_reports(session, run.id)
        planned = next_report(session, subject)
    assert plant.issue(subject, b"report of run 1") == first
    newer = plant.store.put(b"newer", "report", "application/pdf")
    with pytest.raises(RecordError, match="which the log does not have"):
        record_report(plant.db, planned, newer, replace(head, hash="0" * 64), actor=plant.actor)
    second = record_report(plant.db, planned, newer, head, actor=plant.actor)
    assert (first.revision, second.revision, second.head) == (1, 2, head)
    assert second.supersedes_id == first.id
    late = plant.store.put(b"rendered at the same time", "report", "application/pdf")
    with pytest.raises(RecordError, match="R000001 revision 2 was issued meanwhile"):
        record_report(plant.db, planned, late, head, actor=plant.actor)
    assert plant.verify(artifacts=plant.store).ok


def test_threads_that_record_the_same_batch_leave_one_outcome_each(plant: Plant) -> None:
    run = plant.start()
    outcomes = [plant.outcome(n, "review" if n % 2 else "pass") for n in range(20)]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: plant.record(run, *outcomes), range(6)))
    assert sum(r.recorded for r in results) == 20
    assert sorted(r.already_recorded for r in results) == [0, 20, 20, 20, 20, 20]
    assert [rows(plant, t) for t in (Image, Prediction, RunImage, Finding)] == [20, 20, 20, 10]
    assert plant.verify().ok


@contextmanager
def writers(
    url: str, batches: int, many: int, *, apart: bool = False
) -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes that record one run together, or (apart) each its own."""
    root = Path(__file__).parents[3]
    command = [sys.executable, str(Path(__file__).with_name("writer.py")), url, str(batches)]
    processes = [
        subprocess.Popen(
            [*command, f"writer-{n}", f"source-{n if apart else 0}"],
            cwd=root, env=os.environ | {"PYTHONPATH": str(root)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for n in range(many)
    ]  # fmt: skip
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_processes_that_record_the_same_run_leave_one_outcome_each(url: str) -> None:
    with writers(url, 8, 3) as processes:
        outputs = [process.communicate(timeout=120) for process in processes]
    assert [error for _, error in outputs] == ["", "", ""]
    lines = [line.split() for out, _ in outputs for line in out.splitlines()]
    assert {number for number, _, _ in lines} == {"1"}
    assert sum(int(recorded) for _, recorded, _ in lines) == 80
    with open_database(url) as database:
        check_writers_run(database, 80)


def test_a_killed_process_leaves_whole_batches_and_the_next_goes_on(url: str) -> None:
    with writers(url, 500, 1) as (process,):
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline()
        process.kill()
        process.wait()
    with open_database(url) as database:
        assert verify(database).ok
        with database.session() as session:
            done = session.scalar(select(func.count()).select_from(RunImage)) or 0
        assert done >= 30
        assert done % 10 == 0
        total = done + 20
        with writers(url, total // 10, 1) as (process,):
            out, error = process.communicate(timeout=120)
        assert error == ""
        already = [int(line.split()[2]) for line in out.splitlines()]
        assert already == [10] * (done // 10) + [0, 0]
        check_writers_run(database, total)


def check_writers_run(database: Database, total: int) -> None:
    """The numbers of an undisturbed run of writer.py over `total` pictures, seven listings to a picture."""
    with database.session() as session:
        count = lambda table: session.scalar(select(func.count()).select_from(table))  # noqa: E731
        assert count(RunImage) == total
        assert count(Image) == count(Prediction) == -(-total // 7)
        flagged = [n for n in range(0, total, 7) if n % 5 == 0]
        assert count(Finding) == len(flagged)
        references = session.scalars(select(Finding.reference).order_by(Finding.reference)).all()
        assert references == [f"R000001-{n:04d}" for n in range(1, len(flagged) + 1)]
    found = verify(database)
    assert found.ok, found.problems


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_writers_hammer_one_chain(url: str) -> None:
    """8 processes x 500 batches on PostgreSQL, 4 on SQLite: no fork, no gap, no deadlock, no lost event."""
    sqlite = url.startswith("sqlite")
    many, batches = (4, 500) if sqlite else (8, 500)
    with writers(url, batches, many, apart=True) as processes:
        outputs = [process.communicate(timeout=600) for process in processes]
    assert [error for _, error in outputs] == [""] * many
    recorded = [int(line.split()[1]) for out, _ in outputs for line in out.splitlines()]
    assert recorded == [10] * (many * batches)
    with open_database(url) as database:
        with database.session() as session:
            count = lambda table: session.scalar(select(func.count()).select_from(table))  # noqa: E731
            # the model, a start for each run, a line for each picture
            assert count(AuditEvent) == 1 + many + many * batches * 10 == audit_head(session).sequence
            assert count(RunImage) == many * batches * 10
            by_run = session.execute(select(Run.number, func.count()).join(RunImage).group_by(Run.number))
            assert sorted(by_run.tuples()) == [(n, batches * 10) for n in range(1, many + 1)]
        found = verify(database)
        assert found.ok, found.problems
