"""A secret in the settings of a run: taken out on record, and nothing else with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db import guards
from db.chain.events import Actor
from db.columns import digest_of
from db.engine import open_database
from db.errors import RecordError
from db.grants import grants_script
from db.inspection.runs import RunHandle, finish_run
from db.queries.events import EventFilter, find_events
from db.queries.runs import find_run
from db.retention.redaction import redact_settings
from db.transparency.inclusion import check_proof, events_of_finding, make_proof
from db.transparency.signed_notes import open_checkpoint

Plant = Any  # tests/db/conftest.py; test folders are not packages
Attack = Any
OWNER = Actor("owner", "human")
DECISION = {"precision": "float32", "explainer": {"method": "sise"}}
SETTINGS = {
    "database": {"url": "postgresql+psycopg://kensa@db/kensa?password=hunter2SECRET"},
    "source": {"uri": "s3://AKIA:hunter2SECRET@bucket/x", "include": ["*.png", "https://u:hunter2SECRET@h"]},
    "report": {"title": "Line 4, hunter3SECRET"},
    "decision": DECISION,
}
PATHS = ("database.url", "source.include.1", "source.uri")


def started(plant: Plant, **settings: Any) -> RunHandle:
    run: RunHandle = plant.start(settings=SETTINGS | settings, settings_digest=digest_of(DECISION))
    return run


@pytest.fixture
def leaking(plant: Plant) -> Plant:
    """Event 1 is the model, 2 run.started, 3 to 6 pictures (4 and 5 flagged), 7 the run's end."""
    run = started(plant)
    verdicts = ("pass", "review", "reject", "pass")
    plant.record(run, *(plant.outcome(n, verdict) for n, verdict in enumerate(verdicts)))
    finish_run(plant.db, run, actor=plant.actor, listed=4)
    return plant


def redact(plant: Plant, **options: Any) -> Any:
    return redact_settings(plant.db, actor=OWNER, **{"reason": "a password was recorded"} | options)


def settings_of(plant: Plant) -> Any:
    with plant.db.session() as session:
        return find_run(session, "R000001").settings


def run_id(plant: Plant) -> Any:
    with plant.db.session() as session:
        return find_run(session, "R000001").id


def said(plant: Plant) -> list[str]:
    return [str(problem) for problem in plant.verify().problems]


def test_secrets_go_and_the_rest_stays_and_is_still_proved(leaking: Plant) -> None:
    (done,) = redact(leaking)
    assert (done.number, done.paths, done.event) == (1, PATHS, 8)
    assert settings_of(leaking) == {
        "database": {"url": "postgresql+psycopg://kensa@db/kensa?password=***"},
        "source": {"uri": "s3://AKIA:***@bucket/x", "include": ["*.png", "https://***@h"]},
        "report": {"title": "Line 4, hunter3SECRET"},
        "decision": DECISION,
    }
    found = leaking.verify(witness=None, artifacts=leaking.store)
    assert (found.ok, found.events, found.problems) == (True, 8, ())
    (sentence,) = found.redacted
    assert sentence.startswith("run R000001, database.url, source.include.1, source.uri: content no longer ")
    assert "proved; redacted by owner on " in sentence
    assert sentence.endswith(" (event 8): a password was recorded")
    with leaking.db.session() as session:
        (event,) = find_events(session, EventFilter(action="run.redacted"))
        (start,) = find_events(session, EventFilter(action="run.started"))
        assert guards.missing(session.connection()) == []
    assert (event.actor_id, event.reason, event.rows) == ("owner", "a password was recorded", ())
    assert event.payload["old_rows_digest"] == start.rows_digest != event.payload["rows_digest"]
    assert (event.payload["table"], event.payload["event"], event.payload["paths"]) == ("run", 2, [*PATHS])
    assert redact(leaking) == []  # nothing is left to do, and nothing more is recorded
    assert leaking.verify().events == 8


def test_the_guard_stands_again(leaking: Plant) -> None:
    redact(leaking)
    with pytest.raises(DBAPIError, match="append-only"), leaking.db.exclusive() as connection:
        connection.execute(text("UPDATE run SET source = 'x'"))


def test_a_redacted_row_that_is_changed_again_is_broken(leaking: Plant, attack: Attack) -> None:
    redact(leaking)
    attack("UPDATE run SET source = 'line-2'")
    (problem,) = said(leaking)
    assert problem.startswith("event 2: the rows it speaks for were changed since event 8 redacted them")
    attack("UPDATE run SET source = 'line-1'")
    assert said(leaking) == []
    attack("UPDATE run SET settings = replace(settings, 'hunter3', 'hunter4')")
    assert "since event 8 redacted them" in said(leaking)[0]


def test_putting_the_secret_back_is_a_change_too(leaking: Plant, attack: Attack) -> None:
    with leaking.db.session() as session:
        before = session.scalar(text("SELECT settings FROM run"))
    redact(leaking)
    attack(f"UPDATE run SET settings = '{before}'")  # noqa: S608 - what an attacker does
    assert any("since event 8 redacted them" in problem for problem in said(leaking))
    assert any("database.url is no mask, though it was redacted" in problem for problem in said(leaking))


def test_what_was_tampered_with_is_not_vouched_for_by_a_redaction(leaking: Plant, attack: Attack) -> None:
    attack("UPDATE run SET source = 'line-2'")
    with pytest.raises(RecordError, match="run 1: its row is not what was recorded"):
        redact(leaking)
    assert leaking.verify().redacted == ()
    assert "hunter2SECRET" in json.dumps(settings_of(leaking))


def test_a_second_redaction_takes_the_place_of_the_first(leaking: Plant) -> None:
    redact(leaking)
    (done,) = redact(leaking, run=run_id(leaking), path="report.title", reason="a name")
    assert (done.paths, done.event) == (("report.title",), 9)
    assert settings_of(leaking)["report"]["title"] == "***"
    found = leaking.verify()
    assert found.ok
    assert [s.split(":")[0] for s in found.redacted] == [
        f"run R000001, {', '.join(sorted([*PATHS, 'report.title']))}"
    ]


@pytest.mark.parametrize(
    ("forged", "expected"),
    [
        ("UPDATE run SET host = 'elsewhere'", "differs in host from the event"),
        ("UPDATE run SET trigger = 'schedule'", "differs in trigger from the event"),
        ("UPDATE run SET number = 7", "differs in number from the event"),
        (
            "UPDATE run SET settings = replace(settings, 'float32', 'float16')",
            "differs in what decides an outcome from the event",
        ),
    ],
)
def test_a_forged_redaction_does_not_cover_what_the_event_itself_holds(
    leaking: Plant, attack: Attack, forged: str, expected: str
) -> None:
    """Whoever can write all of the database forges the redaction of another row than was recorded."""
    from db.chain import redactions
    from db.chain.events import rows_digest
    from db.chain.stored_rows import raw_records
    from db.schema import Base

    attack(forged)
    table = Base.metadata.tables["run"]
    with leaking.db.session() as session:
        (record,) = raw_records(session, table, table.c.event_sequence == 2)
    with leaking.db.write() as recorder:
        payload = {
            "table": "run",
            "row": str(record["id"]),
            "event": 2,
            "paths": ["report.title"],
            "rows_digest": rows_digest([("run", record)]),
        }
        recorder.add(
            [],
            action=redactions.REDACTED,
            actor=OWNER,
            entity="run",
            entity_id="x",
            payload=payload,
            reason="x",
        )
    problems = said(leaking)
    assert any(expected in problem for problem in problems), problems
    assert any("report.title is no mask" in problem for problem in problems)


@pytest.mark.parametrize(
    "payload",
    [
        {"event": 4, "row": "0" * 32, "paths": ["x"], "rows_digest": "0" * 64},
        {"event": 2, "row": "0" * 32, "paths": ["x"], "rows_digest": "0" * 64},
        {"event": 2, "row": "0" * 32, "paths": ["decision.precision"], "rows_digest": "0" * 64},
        {"event": 99, "row": "0" * 32, "paths": ["x"], "rows_digest": "0" * 64},
        {"event": "many", "row": None},
        {},
    ],
)
def test_what_is_no_redaction_of_a_run_covers_nothing(
    leaking: Plant, attack: Attack, payload: dict[str, Any]
) -> None:
    with leaking.db.write() as recorder:
        recorder.add([], action="run.redacted", actor=OWNER, entity="run", entity_id="x", payload=payload)
    assert leaking.verify().ok
    attack("UPDATE prediction SET score = 0.05 WHERE event_sequence = 4")
    assert any("event 4: the rows it speaks for were changed" in problem for problem in said(leaking))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reason": " "}, "a reason of 1 to 2000 characters"),
        ({"reason": "x" * 2001}, "a reason of 1 to 2000 characters"),
        ({"path": "report.title"}, "a path is that of one run"),
        (
            {"path": "decision.precision", "run": "R000001"},
            "is what the settings digest is made of, and stays",
        ),
        ({"path": "report.nothing", "run": "R000001"}, "run 1 has no text there"),
        ({"path": "source.include", "run": "R000001"}, "run 1 has no text there"),
    ],
)
def test_what_is_refused_leaves_no_trace(leaking: Plant, options: dict[str, Any], message: str) -> None:
    if "run" in options:
        options = options | {"run": run_id(leaking)}
    with pytest.raises(RecordError, match=message):
        redact(leaking, **options)
    assert settings_of(leaking) == SETTINGS
    assert leaking.verify().events == 7


def test_a_dry_run_changes_nothing(leaking: Plant) -> None:
    (would,) = redact(leaking, dry_run=True)
    assert (would.number, sorted(would.paths), would.event) == (1, sorted(PATHS), None)
    assert settings_of(leaking) == SETTINGS
    assert leaking.verify().redacted == ()


def test_proofs_from_before_hold_and_new_ones_say_what_was_redacted(leaking: Plant) -> None:
    signed = leaking.sign()
    trusted = leaking.witness.trusted
    with leaking.db.session() as session:
        old = make_proof(
            session,
            events_of_finding(session, "R000001-0001"),
            signed.note,
            open_checkpoint(signed.note, trusted),
        )
    redact(leaking)
    assert all(event.redaction is None for event in check_proof(old, signed.note, trusted).events)
    later = leaking.sign()
    assert later.tree_size > signed.tree_size
    with leaking.db.session() as session:
        events = events_of_finding(session, "R000001-0001")
        new = make_proof(session, events, later.note, open_checkpoint(later.note, trusted))
    proved = check_proof(new, later.note, trusted)
    assert [event.sequence for event in proved.events] == [2, 4, 9]  # 8 is the first checkpoint
    redaction = proved.events[0].redaction
    assert redaction is not None
    assert (redaction.sequence, redaction.paths) == (9, PATHS)
    without = {**new, "events": new["events"][:2]}
    with pytest.raises(RecordError, match="event 2: the rows in the proof are not those"):
        check_proof(without, later.note, trusted)
    found = leaking.verify(witness=leaking.witness)
    assert (found.ok, len(found.redacted)) == (True, 1)
    found = leaking.verify(witness=leaking.witness, incremental=True)
    assert (found.ok, len(found.redacted)) == (True, 1)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_the_file_itself_no_longer_holds_the_secret(leaking: Plant) -> None:
    path = Path(str(leaking.db.url.database))
    files = [path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))]
    assert any(b"hunter2SECRET" in file.read_bytes() for file in files if file.exists())
    redact(leaking)
    assert not any(b"hunter2SECRET" in file.read_bytes() for file in files if file.exists())
    assert leaking.verify().ok


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_an_account_that_is_not_the_owner_cannot_redact(leaking: Plant) -> None:
    with leaking.db.session() as session:
        script = grants_script(session.connection(), "redact_writer", "redact_auditor", "redact_reader")
    with leaking.db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(script.replace("%", "%%"))
    url = leaking.db.url.set(username="redact_writer").render_as_string(hide_password=False)
    with open_database(url) as writer, pytest.raises(RecordError, match="redact as the owner of the tables"):
        redact_settings(writer, actor=OWNER, reason="x")
    assert settings_of(leaking) == SETTINGS


def test_the_next_run_goes_on_as_before(leaking: Plant) -> None:
    redact(leaking)
    again = started(leaking)
    assert not again.resumed
    leaking.record(again, leaking.outcome(1, "review"))
    counts = finish_run(leaking.db, again, actor=leaking.actor, listed=1)
    assert counts.carried_over == 1
    assert leaking.verify().ok


def test_several_runs_are_redacted_together(leaking: Plant) -> None:
    for source in ("line-2", "line-3"):
        run = started(leaking, source=source)
        finish_run(leaking.db, run, actor=leaking.actor, listed=0)
    finish_run(
        leaking.db, started(leaking, database={"url": "sqlite:///x.db"}, source={}), actor=OWNER, listed=0
    )
    assert [(one.number, one.paths) for one in redact(leaking)] == [
        (1, PATHS),
        (2, ("database.url",)),
        (3, ("database.url",)),
    ]
    found = leaking.verify()
    assert (found.ok, len(found.redacted)) == (True, 3)
