"""The attacker's side: full access to the file or the server, guards taken off and put back."""

import math
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Table, func, select, text, type_coerce, update
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.types import NullType

from db import lookup
from db.chain.events import Head, event_hash, rows_digest
from db.chain.events import head as audit_head
from db.chain.stored_rows import raw_records
from db.columns import Json, Time, utc_now, uuid7
from db.engine import Database
from db.errors import RecordError
from db.inspection.runs import RunHandle
from db.schema import (
    DOMAIN_TABLES,
    Artifact,
    AuditEvent,
    Base,
    Finding,
    Image,
    Part,
    Prediction,
    Report,
    RunEnd,
    RunImage,
)
from db.verification import log_walk
from db.verification.log_walk import LogWalk, Problem
from db.verification.walk import verify

Plant = Any  # tests/db/conftest.py; test folders are not packages
Attack = Any


@pytest.fixture
def run(plant: Plant) -> RunHandle:
    """A finished run: 1 model.registered, 2 run.started, 3-10 images, 11 run.finished, 12 report.issued."""
    run: RunHandle = plant.finished_run()
    return run


def first(plant: Plant, kind: str, where: str, **options: Any) -> Problem:
    """The first problem found; it must be of this kind and at this place."""
    found = plant.verify(**options)
    assert not found.ok
    problem: Problem = found.problems[0]
    assert (problem.kind, problem.where) == (kind, where), [str(p) for p in found.problems]
    return problem


def test_an_untouched_record_verifies(plant: Plant, run: RunHandle) -> None:
    told: list[tuple[int, int]] = []
    found = plant.verify(artifacts=plant.store, progress=lambda *of: told.append(of))
    assert found.problems == ()
    with plant.db.session() as session:
        head = audit_head(session)
        rows = sum(session.scalar(select(func.count()).select_from(t)) or 0 for t in DOMAIN_TABLES)
        artifacts = session.scalar(select(func.count()).select_from(Artifact))
    assert (found.ok, found.events, found.rows, found.head) == (True, 12, rows, head)
    assert (found.artifacts, found.truncated, told) == (artifacts, False, [(12, 12)])
    assert plant.verify(expected=[head, Head(0, "0" * 64)]).ok


def test_an_empty_log_verifies(database: Database) -> None:
    found = verify(database)
    assert (found.ok, found.events, found.head) == (True, 0, None)


def test_windows_do_not_change_what_is_found(
    plant: Plant, run: RunHandle, attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plant.verify()
    monkeypatch.setattr(log_walk, "_WINDOW", 3)
    monkeypatch.setattr(lookup, "_AT_ONCE", 3)
    assert plant.verify() == whole
    attack(
        "UPDATE image SET width = 65 WHERE event_sequence = 8", "DELETE FROM part WHERE event_sequence = 10"
    )
    small = plant.verify()
    monkeypatch.setattr(log_walk, "_WINDOW", 2_000)
    monkeypatch.setattr(lookup, "_AT_ONCE", 500)
    assert plant.verify() == small
    assert [(p.kind, p.where) for p in small.problems] == [("row", "event 8"), ("row", "event 10")]


def test_an_edited_score(plant: Plant, run: RunHandle, attack: Attack) -> None:
    attack("UPDATE prediction SET score = score + 0.0000001 WHERE event_sequence = 5")
    problem = first(plant, "row", "event 5")
    assert "the rows it speaks for were changed (image.inspected; rows: " in problem.message
    assert problem.sequence == 5


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_one_changed_bit_of_a_score_in_the_file(plant: Plant, run: RunHandle, tmp_path: Path) -> None:
    with plant.db.session() as session:
        score = session.scalar(select(Prediction.score).where(Prediction.event_sequence == 5))
    assert score is not None
    path = Path(str(plant.db.url.database))
    plant.db.close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data, stored = path.read_bytes(), struct.pack(">d", score)
    assert stored in data
    path.write_bytes(data.replace(stored, stored[:-1] + bytes([stored[-1] ^ 1])))
    first(plant, "row", "event 5")


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_changed_byte_that_is_not_unicode_and_a_torn_file(plant: Plant, run: RunHandle) -> None:
    path = Path(str(plant.db.url.database))
    plant.db.close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    good = path.read_bytes()
    uri = b"lot-1/part-0003.png"
    path.write_bytes(good.replace(uri, uri[:-1] + b"\xff"))
    assert plant.verify().problems[0].sequence == 6
    plant.db.close()
    page = int.from_bytes(good[16:18])
    start = good.index(uri) // page * page
    path.write_bytes(good[:start] + b"\xff" * page + good[start + page :])
    found = plant.verify()
    assert [p.kind for p in found.problems] == ["unreadable"]
    assert "the database says: database disk image is malformed" in str(found.problems[0])
    plant.db.close()
    path.write_bytes(good[:100] + b"\xff" * (len(good) - 100))
    with pytest.raises(RecordError, match=r"cannot open database .* malformed"):
        plant.verify()


def test_a_deleted_event(plant: Plant, run: RunHandle, attack: Attack) -> None:
    attack("DELETE FROM audit_event WHERE sequence = 6")
    problem = first(plant, "gap", "event 6")
    assert problem.message == "missing: event 7 follows event 5"
    kinds = {p.kind for p in plant.verify().problems}
    assert kinds == {"gap", "uncovered"}  # its rows now have no event


def test_several_deleted_events_with_their_rows(plant: Plant, run: RunHandle, attack: Attack) -> None:
    tables = [t.name for t in reversed(DOMAIN_TABLES) if t.name in ("run_image", "prediction", "image")]
    gone = [f"DELETE FROM {t} WHERE event_sequence IN (3, 6, 7)" for t in tables]  # noqa: S608
    attack("DELETE FROM audit_event WHERE sequence IN (6, 7)", *gone)
    found = plant.verify()
    assert [str(p) for p in found.problems if p.kind == "gap"] == [
        "events 6 to 7: missing: event 8 follows event 5"
    ]


def test_the_first_event_deleted_and_all_events_deleted(plant: Plant, run: RunHandle, attack: Attack) -> None:
    attack("DELETE FROM audit_event WHERE sequence = 1")
    first(plant, "gap", "event 1")
    attack("DELETE FROM audit_event")
    found = plant.verify()
    assert found.events == 0
    assert {p.kind for p in found.problems} == {"uncovered", "report"}


def test_a_cut_tail_is_found_by_the_rows_left_and_by_a_head_kept_elsewhere(
    plant: Plant, run: RunHandle, attack: Attack
) -> None:
    with plant.db.session() as session:
        printed = audit_head(session)
        report = session.scalars(select(Report.id)).one()
        artifact = session.scalars(select(Artifact.id).where(Artifact.kind == "report")).one()
    attack("DELETE FROM audit_event WHERE sequence = 12")
    first(plant, "uncovered", f"artifact row {artifact.hex}")
    assert any(p.where == f"report row {report.hex}" for p in plant.verify().problems)
    attack("DELETE FROM report", "DELETE FROM artifact WHERE kind = 'report'")
    assert plant.verify().ok  # a shorter history is a history: only what was printed tells
    first(plant, "head", "head 12", expected=[printed])


@pytest.mark.parametrize("names", [5, 400, 0, -3])
def test_a_row_inserted_on_the_side(plant: Plant, run: RunHandle, attack: Attack, names: int) -> None:
    attack(f"INSERT INTO part (id, event_sequence, serial, lot) VALUES ('{'7' * 32}', {names}, 'P', 'L')")  # noqa: S608
    problem = first(plant, "uncovered", f"part row {'7' * 32}")
    assert problem.message == f"no event speaks for it (it names event {names})"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_an_event_inserted_before_the_beginning(plant: Plant, run: RunHandle, attack: Attack) -> None:
    names = [c.name for c in AuditEvent.__table__.columns if c.name not in ("sequence", "id", "hash")]
    copied = ", ".join(names)
    attack(
        f"INSERT INTO audit_event (sequence, id, hash, {copied}) "  # noqa: S608
        f"SELECT 0, 'other', 'other', {copied} FROM audit_event WHERE sequence = 1"
    )
    first(plant, "event", "event 0")


def test_reordered_events(plant: Plant, run: RunHandle, attack: Attack) -> None:
    attack(
        "UPDATE audit_event SET sequence = 100 WHERE sequence = 4",
        "UPDATE audit_event SET sequence = 4 WHERE sequence = 5",
        "UPDATE audit_event SET sequence = 5 WHERE sequence = 100",
    )
    first(plant, "link", "event 4")
    assert {p.where for p in plant.verify().problems if p.kind == "event"} == {"event 4", "event 5"}


def test_swapped_rows(plant: Plant, run: RunHandle, attack: Attack) -> None:
    attack("UPDATE run_image SET event_sequence = 15 - event_sequence WHERE event_sequence IN (7, 8)")
    first(plant, "row", "event 7")


def rehash(plant: Plant, attack: Attack, change: str, sequence: int, upto: int) -> None:
    """Change an event and work out its hash again, and those of the events after it."""
    attack(change)
    for number in range(sequence, upto + 1):
        with plant.db.session() as session:
            events = AuditEvent.__table__
            before, event = (
                raw_records(session, events, events.c.sequence == n)[0] for n in (number - 1, number)
            )
        event["previous_hash"] = before["hash"]
        attack(
            f"UPDATE audit_event SET previous_hash = '{before['hash']}', hash = '{event_hash(event)}' "  # noqa: S608
            f"WHERE sequence = {number}"
        )


def test_an_edited_event(plant: Plant, run: RunHandle, attack: Attack) -> None:
    attack("UPDATE audit_event SET actor_id = 'nobody' WHERE sequence = 6")
    problem = first(plant, "event", "event 6")
    assert str(problem) == "event 6: was changed: its hash is not that of its contents"
    assert len(plant.verify().problems) == 1


def test_an_edited_event_with_its_hash_recomputed(plant: Plant, run: RunHandle, attack: Attack) -> None:
    rehash(plant, attack, "UPDATE audit_event SET actor_id = 'nobody' WHERE sequence = 6", 6, 6)
    problem = first(plant, "link", "event 7")
    assert problem.message == "does not continue event 6: one of the two was replaced"


def test_all_hashes_recomputed_from_some_point_on(plant: Plant, run: RunHandle, attack: Attack) -> None:
    with plant.db.session() as session:
        printed = audit_head(session)
    rehash(plant, attack, "UPDATE audit_event SET actor_id = 'nobody' WHERE sequence = 6", 6, 12)
    first(plant, "report", "report R000001 revision 1")
    # with the report's row rewritten as well, only a head kept elsewhere tells
    attack("UPDATE report SET head_hash = (SELECT hash FROM audit_event WHERE sequence = 11)")
    with plant.db.session() as session:
        tables = [Base.metadata.tables[name] for name in ("artifact", "report")]
        rows = [(t.name, raw_records(session, t, t.c.event_sequence == 12)[0]) for t in tables]
    digest = rows_digest(rows)
    rehash(plant, attack, f"UPDATE audit_event SET rows_digest = '{digest}' WHERE sequence = 12", 12, 12)  # noqa: S608
    assert plant.verify().ok
    first(plant, "head", "head 12", expected=[printed])


def test_another_scheme_is_not_taken_on_trust(plant: Plant, run: RunHandle, attack: Attack) -> None:
    rehash(plant, attack, "UPDATE audit_event SET scheme = 2 WHERE sequence = 12", 12, 12)
    assert first(plant, "event", "event 12").message == "follows scheme 2, not 1"


def test_swapped_and_edited_and_missing_artifacts(plant: Plant, run: RunHandle) -> None:
    with plant.db.session() as session:
        maps = list(
            session.scalars(select(Artifact.digest).where(Artifact.kind == "map").order_by(Artifact.id))
        )
    paths = [Path(plant.store.path(digest)) for digest in maps]
    one, two = (path.read_bytes() for path in paths[:2])
    paths[0].write_bytes(two)
    paths[1].write_bytes(one)
    assert plant.verify().ok
    found = plant.verify(artifacts=plant.store)
    assert [(p.kind, p.where) for p in found.problems] == [
        ("artifact", f"map {digest}") for digest in sorted(maps[:2])
    ]
    assert "was changed" in found.problems[0].message
    paths[0].write_bytes(one)
    paths[1].unlink()
    assert "is missing" in first(plant, "artifact", f"map {maps[1]}", artifacts=plant.store).message


def test_artifacts_swapped_in_the_database(plant: Plant, run: RunHandle, attack: Attack) -> None:
    attack(
        "UPDATE explanation SET map_digest = (SELECT e.map_digest FROM explanation e "
        "WHERE e.event_sequence <> explanation.event_sequence LIMIT 1) WHERE event_sequence = 4"
    )
    first(plant, "row", "event 4")


def test_a_run_that_does_not_add_up(plant: Plant) -> None:
    """Not tampering but a fault of the program: properly recorded, and wrong."""
    run = plant.start()
    plant.record(run, plant.outcome(1))
    none = dict.fromkeys(("review", "reject", "unreadable", "carried_over", "missing", "findings"), 0)
    counts = {"listed": 2, "pass": 2, **none}
    end = RunEnd(run_id=run.id, status="completed", finished_at=utc_now(), counts=counts, missing=[], note="")
    with plant.db.write() as recorder:
        recorder.add([end], action="run.finished", actor=plant.actor, entity="run", entity_id=run.id)
    problem = first(plant, "run", "run R000001")
    assert problem.message == "its counts are not those of its rows: listed 2 for 1, pass 2 for 1"


def test_a_missing_guard(plant: Plant, run: RunHandle) -> None:
    with plant.db.exclusive() as connection:
        if plant.db.sqlite:
            connection.execute(text("DROP TRIGGER guard_finding_delete"))
        else:
            connection.execute(text("ALTER TABLE finding DISABLE TRIGGER guard_finding_row"))
    first(plant, "guard", "guard guard_finding_delete" if plant.db.sqlite else "guard guard_finding_row")


def test_problems_are_listed_up_to_a_limit(
    plant: Plant, run: RunHandle, attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_walk, "_MOST_PROBLEMS", 3)
    attack("UPDATE run_image SET size = size + 1")
    found = plant.verify()
    assert [p.where for p in found.problems] == ["event 3", "event 4", "event 5"]
    assert found.truncated


@contextmanager
def _unguarded(database: Database) -> Iterator[Session]:
    with database.exclusive(migrating=True) as connection:
        if database.sqlite:
            connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
            for name in connection.scalars(text("SELECT name FROM sqlite_master WHERE type='trigger'")).all():
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
        else:
            for table in Base.metadata.sorted_tables:
                connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        with Session(connection) as session:
            yield session
            session.connection().get_transaction().rollback()  # type: ignore[union-attr]


def _changed(value: Any, kind: type[Any]) -> Any:
    """The least change to a stored value: a bit of a text, a number or an identifier; NULL to something."""
    if value is None:
        made = {
            str: "x",
            float: 0.5,
            int: 1,
            bool: True,
            object: "{}",
            UUID: uuid7(),
            datetime: utc_now(),
        }
        return made[kind]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value ^ 1
    if isinstance(value, float):
        return math.nextafter(value, 0.5)
    if isinstance(value, UUID):
        return UUID(int=value.int ^ 1)
    if isinstance(value, datetime):
        return value + timedelta(microseconds=1)
    middle = len(value) // 2
    return value[:middle] + chr(ord(value[middle]) ^ 1) + value[middle + 1 :] if value else " "


@pytest.mark.slow
def test_the_least_change_to_any_column_of_any_table_is_found(plant: Plant) -> None:
    plant.fill()
    tried = 0
    with _unguarded(plant.db) as session:
        for table in Base.metadata.sorted_tables:
            key = type_coerce(next(iter(table.primary_key)), NullType())
            row = session.execute(
                select(*(type_coerce(c, NullType()).label(c.name) for c in table.columns)).order_by(
                    key.desc()
                )
            ).first()
            assert row is not None, table.name
            at = row._mapping["sequence" if table.name == "audit_event" else "event_sequence"]
            for column in table.columns:
                problems = _try_change(session, table, column.name, row._mapping)
                if problems is None:
                    continue  # the database itself would not have it
                tried += 1
                assert problems, f"{table.name}.{column.name}"
                if column.name != "sequence":
                    assert problems[0].sequence == at, f"{table.name}.{column.name}: {problems[0]}"
        assert _walked(session) == []
    assert tried > 135


def _walked(session: Session) -> list[Problem]:
    walk = LogWalk(session)
    while walk.window():
        pass
    walk.rows_beyond()
    return walk.problems


def _try_change(session: Session, table: Table, name: str, row: Any) -> list[Problem] | None:
    column, key = table.c[name], next(iter(table.primary_key))
    kind = {Time: datetime, Json: object}.get(type(column.type)) or column.type.python_type
    value = _changed(row[name], kind)
    if session.get_bind().dialect.name == "sqlite" and isinstance(value, UUID):
        value = value.hex
    statement = (
        update(table)
        .where(type_coerce(key, NullType()) == type_coerce(row[key.name], NullType()))
        .values({name: type_coerce(value, NullType())})
    )
    inner = session.begin_nested()
    try:
        assert session.execute(statement).rowcount == 1  # type: ignore[attr-defined]
        return _walked(session)
    except (IntegrityError, DataError):
        return None
    finally:
        inner.rollback()


def test_canonical_spelling_is_part_of_what_is_kept(plant: Plant, run: RunHandle, attack: Attack) -> None:
    """The same value written another way is still not what was recorded."""
    attack("UPDATE run SET settings = replace(settings, ':', ': ')")
    first(plant, "row", "event 2")
    if plant.db.sqlite:
        attack("UPDATE image SET id = upper(id) WHERE event_sequence = 9")
        attack("UPDATE run_image SET carried_over = 2 WHERE event_sequence = 7")
        attack("UPDATE run_image SET created_at = replace(created_at, 'T', ' ') WHERE event_sequence = 8")
        assert [p.sequence for p in plant.verify().problems][:4] == [2, 7, 8, 9]
    else:
        attack("UPDATE run_image SET created_at = 'infinity' WHERE event_sequence = 8")
        assert [p.sequence for p in plant.verify().problems] == [2, 8]


def test_what_was_recorded_is_what_the_test_thinks(plant: Plant, run: RunHandle) -> None:
    with plant.db.session() as session:
        events = session.execute(select(AuditEvent.sequence, AuditEvent.action).order_by(AuditEvent.sequence))
        flagged = session.scalars(select(Finding.event_sequence).order_by(Finding.number)).all()
        assert [sequence for sequence, action in events if action == "image.inspected"] == [3, 4, 5, 7, 8, 9]
        assert flagged == [4, 5, 8, 9]
        for table in (Part, Image, RunImage):
            assert session.scalars(select(table.event_sequence).order_by(table.event_sequence)).all() == list(
                range(3, 11)
            )
