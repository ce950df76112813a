"""Events and findings by every filter, page by page, and along which index."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import combinations_with_replacement
from typing import Any

import pytest
from sqlalchemy import event as sa_event
from sqlalchemy import select

from db import index_walk
from db.chain.events import Actor
from db.columns import utc_now
from db.errors import RecordError
from db.inspection.batches import known_outcomes
from db.inspection.runs import RunHandle
from db.queries import events as event_queries
from db.queries import filters, findings, recall
from db.queries.events import EventFilter, find_events, get_event
from db.queries.finding_records import FindingRecord, run_findings
from db.queries.findings import FindingFilter, find_findings
from db.queries.part_history import part_history
from db.queries.recall import TraceFilter, trace_parts
from db.queries.runs import find_run, run_images, run_unreadable
from db.schema import Approval, Disposition, Finding

Plant = Any  # tests/db/conftest.py; test folders are not packages
Attack = Any


@pytest.fixture
def run(plant: Plant) -> RunHandle:
    """Events 3-10: pictures 0-7: pass, review (pit), reject (scratch), unreadable; 11 end, 12 report."""
    return plant.finished_run()  # type: ignore[no-any-return]


def events(plant: Plant, **wanted: Any) -> list[int]:
    with plant.db.session() as session:
        return [event.sequence for event in find_events(session, EventFilter(**wanted))]


def find(plant: Plant, **wanted: Any) -> list[str]:
    with plant.db.session() as session:
        return [f.reference[-1] for f in find_findings(session, FindingFilter(**wanted))]


def decide(plant: Plant, number: int, person: str, reason: str, approver: str | None = None) -> None:
    """Decide about a finding, and let a second person approve that."""
    reference = f"R000001-{number:04d}"
    with plant.db.write() as recorder:
        row = Disposition(
            finding_id=recorder.session.scalars(
                select(Finding.id).where(Finding.reference == reference)
            ).one(),
            decision="confirm",
            class_name=None,
            reason=reason,
            person=person,
            needs_approval=approver is not None,
            created_at=utc_now(),
            supersedes_id=None,
            signature=None,
        )
        about = {"entity": "disposition", "entity_id": row.id}
        by = Actor(person, "human")
        recorder.add([row], action="disposition.made", actor=by, reason=reason, **about)
        if approver is not None:
            second = Approval(
                disposition_id=row.id,
                decision="approve",
                reason="agreed",
                person=approver,
                created_at=utc_now(),
                signature={},
            )
            by = Actor("review-app")
            recorder.add([second], action="disposition.approved", actor=by, reason="agreed", **about)


def test_events_by_what_they_are_about(plant: Plant, run: RunHandle) -> None:
    digest = plant.outcome(1, "review").digest
    assert events(plant, image=digest) == events(plant, image=digest[:6].upper()) == [4]
    assert events(plant, verdict="unreadable") == [10, 6]
    assert events(plant, verdict="pass") == [7, 3]
    assert events(plant, verdict="reject", lot="L0") == [9, 5]
    assert events(plant, min_score=0.4) == [9, 8, 5, 4]
    assert events(plant, min_score=0.4001, max_score=0.4001) == [4]  # bounds included
    assert events(plant, max_score=0.2) == [7, 3]
    assert events(plant, station="cam-2", verdict="reject") == [9]
    decide(plant, 1, "eva", "seen under the lamp", approver="max")
    everything = {
        "image": digest, "part": "P0001", "lot": "L1", "station": "cam-1", "class_name": "pit",
        "verdict": "review", "min_score": 0.4, "max_score": 0.4002,
    }  # fmt: skip
    for name, value in everything.items():
        found = events(plant, **{name: value})
        assert {14, 13, 4} <= set(found), f"{name}: {found}"
    assert events(plant, **everything) == [14, 13, 4]
    assert events(plant, **{**everything, "station": "cam-2"}) == []


def test_events_by_person_and_reason(plant: Plant, run: RunHandle) -> None:
    decide(plant, 1, "eva", "Überprüft: 100% a_b", approver="max")
    assert events(plant, person="eva") == events(plant, actor="eva") == [13]
    assert events(plant, person="max") == [14]  # whom the event's actor does not name
    assert events(plant, actor="max") == events(plant, person="nobody") == []
    for text in ("überprüft", "ÜBERPRÜFT", "0% A", "A_B"):
        assert events(plant, reason=text) == [13], text
    assert events(plant, reason="0_ a") == events(plant, reason="1%0") == []
    assert events(plant, reason="TRUNC") == [10, 6]  # why a picture is unreadable
    assert events(plant, reason="trunc", lot="L1", part="P0007") == [10]


def test_findings_by_the_new_filters(plant: Plant, run: RunHandle) -> None:
    digest = plant.outcome(5, "review").digest
    assert find(plant, image=digest[:10]) == ["3"]
    assert find(plant, image=plant.outcome(0).digest) == []  # a picture that passed
    assert find(plant, min_score=0.5) == ["4", "2"]
    assert find(plant, min_score=0.4001, max_score=0.4005) == ["3", "1"]
    assert find(plant, verdict="pass") == find(plant, verdict="unreadable") == []
    decide(plant, 1, "eva", "seen under the lamp", approver="max")
    decide(plant, 2, "eva", "nothing there")
    assert find(plant, person="eva") == ["2", "1"]
    assert find(plant, person="max") == find(plant, reason="LAMP") == find(plant, reason="agreed") == ["1"]
    assert find(plant, person="eva", class_name="scratch") == ["2"]
    assert find(plant, person="eva", reason="lamp", verdict="reject") == []


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"verdict": "good"}, "verdict 'good' is none of pass"),
        ({"min_score": 1.2}, "score 1.2 is not between 0 and 1"),
        ({"min_score": 0.5, "max_score": 0.4}, "no score is at least 0.5 and at most 0.4"),
        ({"image": "abc"}, "6 or more digits"),
        ({"image": "xyzxyz"}, "6 or more digits"),
        ({"image": "000000"}, "there is no image 000000"),
    ],
)
def test_what_cannot_be_is_an_error(plant: Plant, run: RunHandle, wanted: Any, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        events(plant, **wanted)
    with pytest.raises(RecordError, match=message):
        find(plant, **wanted)


def test_a_finding_to_go_on_from_that_is_not_there(plant: Plant, run: RunHandle) -> None:
    with plant.db.session() as session, pytest.raises(RecordError, match="no finding R000009-0001 to go on"):
        find_findings(session, FindingFilter(), before="R000009-0001")


FILTERS: list[dict[str, Any]] = [
    {},
    {"lot": "L1"},
    {"station": "cam-1"},
    {"verdict": "reject"},
    {"verdict": "pass"},
    {"class_name": "pit"},
    {"min_score": 0.3, "max_score": 0.95},
    {"max_score": 0.5},
    {"model": "tiny"},
    {"run": 1},
    {"run": 2},
    {"reason": "e"},
    {"person": "eva"},
    {"until": utc_now() + timedelta(days=1)},
]


@pytest.mark.slow
@pytest.mark.parametrize("few", [0, 3])
def test_every_way_gives_the_same_answer(
    plant: Plant, run: RunHandle, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which way is taken depends on counts: whatever the limits, and however small the pages, no match is
    lost or given twice."""
    again = plant.start(source="line-2")
    copies = [replace(plant.outcome(n, v), uri=f"copy-{n}.png") for n, v in ((1, "review"), (4, "pass"))]
    plant.record(again, *copies, plant.outcome(10, "reject"))
    decide(plant, 1, "eva", "seen under the lamp", approver="max")
    decide(plant, 2, "max", "nothing there")
    pairs = [a | b for a, b in combinations_with_replacement(FILTERS, 2)]
    pairs = pairs if plant.db.sqlite else pairs[few::3]  # PostgreSQL takes its time to plan so many

    def answers() -> list[Any]:
        return [(events(plant, **w), find(plant, **w)) for w in pairs]

    expected = answers()
    monkeypatch.setattr(filters, "_COVERED", few)
    monkeypatch.setattr(filters, "_FINDINGS", few)
    for module in (index_walk, filters, findings, event_queries):
        monkeypatch.setattr(module, "FEW", few)
    monkeypatch.setattr(index_walk, "_WIDEST", 3)
    monkeypatch.setattr(index_walk, "_NARROWEST", 1)
    assert answers() == expected
    with plant.db.session() as session:
        for wanted, (numbers, references) in list(zip(pairs, expected, strict=True))[::4]:
            pages: list[int] = []
            while page := find_events(
                session, EventFilter(**wanted), limit=3, before=pages[-1] if pages else None
            ):
                pages += [event.sequence for event in page]
            assert pages == numbers, wanted
            flagged: list[FindingRecord] = []
            while found := find_findings(
                session, FindingFilter(**wanted), limit=2, before=flagged[-1].id if flagged else None
            ):
                flagged += found
            assert [f.reference[-1] for f in flagged] == references, wanted


def test_the_filters_agree_with_a_look_at_everything(plant: Plant, run: RunHandle) -> None:
    """An oracle that knows nothing of indexes: Python over all records."""
    decide(plant, 3, "eva", "seen under the lamp")
    with plant.db.session() as session:
        every = find_events(session, EventFilter())
        findings = find_findings(session, FindingFilter())
    by = {
        "actor": lambda e, v: e.actor_id == v,
        "action": lambda e, v: e.action == v,
        "reason": lambda e, v: v in (e.reason or ""),
    }
    for name, value in (("actor", "inspector"), ("action", "image.inspected"), ("reason", "lamp")):
        assert events(plant, **{name: value}) == [e.sequence for e in every if by[name](e, value)]
    for name in ("part", "lot", "station", "class_name", "verdict"):
        for value in {getattr(f, name) for f in findings}:
            assert find(plant, **{name: value}) == [
                f.reference[-1] for f in findings if getattr(f, name) == value
            ]


def test_pages_give_each_match_once_while_events_are_appended(plant: Plant, run: RunHandle) -> None:
    wanted = EventFilter(station="cam-1")
    expected = events(plant, station="cam-1")
    every = find(plant, station="cam-1")
    again = plant.start(source="line-2")
    seen: list[int] = []
    found: list[str] = []
    before, cursor = None, None
    for number in range(20, 40):
        with plant.db.session() as session:
            page = find_events(session, wanted, limit=2, before=before)
            flagged = find_findings(session, FindingFilter(station="cam-1"), limit=1, before=cursor)
        plant.record(again, plant.outcome(number, "reject", station="cam-1"))  # newer than all pages
        if number == 22:
            decide(plant, 1, "eva", "again")  # about a picture of that station
        seen += [event.sequence for event in page]
        found += [f.reference[-1] for f in flagged]
        before = page[-1].sequence if page else before
        cursor = flagged[-1].reference if flagged else cursor
        if not page and not flagged:
            break
    assert seen == expected
    assert found == every


def test_a_time_range_is_found_though_a_clock_was_wrong(plant: Plant, run: RunHandle, attack: Attack) -> None:
    """Event 11 says 1999: it is in that year's range, and not in today's, whatever lies around it."""
    attack("UPDATE audit_event SET at = '1999-05-05T00:00:00.000000Z' WHERE sequence = 11")
    old = utc_now().replace(year=2000)
    assert events(plant, until=old) == [11]
    assert events(plant, since=old) == [n for n in range(12, 0, -1) if n != 11]


BIG = ("audit_event", "run_image", "image", "prediction", "finding", "part", "explanation", "artifact")
EVENTS: list[dict[str, Any]] = [
    {}, {"part": "P0001"}, {"part": "P0001", "lot": "L1"}, {"lot": "L1"}, {"station": "cam-1"},
    {"class_name": "pit"}, {"class_name": "rust"}, {"verdict": "pass"}, {"verdict": "reject"},
    {"verdict": "unreadable"}, {"min_score": 0.5}, {"max_score": 0.9}, {"min_score": 0.1, "max_score": 0.9},
    {"model": "tiny"}, {"run": 1}, {"person": "eva"}, {"actor": "inspector"}, {"action": "run.started"},
    {"reason": "lamp"}, {"since": utc_now() - timedelta(days=1)}, {"until": utc_now()},
    {"station": "cam-1", "class_name": "pit"}, {"lot": "L1", "verdict": "reject", "person": "eva"},
]  # fmt: skip


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # PostgreSQL rightly scans tables this small
@pytest.mark.parametrize("few", [0, 2_000])
def test_queries_find_their_way_by_an_index(
    plant: Plant, run: RunHandle, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No full scan of a table that grows with the pictures, as SQLite plans it, however many match."""
    for module in (index_walk, filters, findings, event_queries, recall):
        monkeypatch.setattr(module, "FEW", few)
    for name in ("_COVERED", "_FINDINGS"):
        monkeypatch.setattr(filters, name, few)
    seen: list[tuple[str, Any]] = []

    def plan(query: Callable[[Any], Any]) -> list[str]:
        seen.clear()
        with plant.db.session() as session:
            connection = session.connection()
            listener = lambda c, cur, statement, parameters, ctx, many: seen.append((statement, parameters))  # noqa: E731
            sa_event.listen(connection, "before_cursor_execute", listener)
            query(session)
            sa_event.remove(connection, "before_cursor_execute", listener)
            return [
                row.detail
                for statement, parameters in list(seen)
                for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            ]

    decide(plant, 1, "eva", "seen under the lamp", approver="max")
    digest = plant.outcome(1, "review").digest
    asked: dict[str, Callable[[Any], Any]] = {
        "run": lambda s: find_run(s, 1),
        "run findings": lambda s: run_findings(s, run.id),
        "run unreadable": lambda s: run_unreadable(s, run.id),
        "run images": lambda s: list(run_images(s, run.id)),
        "known": lambda s: known_outcomes(s, ["a" * 64], run.model.id, run.settings_digest),
        "event": lambda s: get_event(s, 4),
        "part": lambda s: part_history(s, "P0001"),
        "trace": lambda s: trace_parts(s, TraceFilter(model="tiny")),
        "trace lot": lambda s: trace_parts(s, TraceFilter(model="tiny", lot="L1", verdict="pass")),
        "trace day": lambda s: trace_parts(s, TraceFilter(model="tiny", until=utc_now())),
    }
    for wanted in [*EVENTS, {"image": digest}]:
        asked[f"events {wanted}"] = lambda s, w=wanted: find_events(s, EventFilter(**w))
        if not {"actor", "action"} & set(wanted):
            asked[f"findings {wanted}"] = lambda s, w=wanted: find_findings(s, FindingFilter(**w))
    for name, query in asked.items():
        for step in plan(query):
            wrong = step.startswith("SCAN ") and step.split()[1] in BIG
            assert not wrong or "COVERING INDEX" in step, f"{name}: {step}"
