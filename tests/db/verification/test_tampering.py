"""The tamper battery: what an attacker with the file, or the superuser's psql, does, and what `verify` says.

Each attack takes the guards off, changes history and puts them back; the sentence that verification prints is
held word for word.
"""

import hashlib
import json
import struct
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Table, select, text, type_coerce, update
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.types import NullType

from db.chain.events import GENESIS, Head, event_hash, rows_digest
from db.chain.stored_rows import raw_records
from db.columns import flat_json, time_text
from db.engine import Database
from db.schema import DOMAIN_TABLES, Artifact, AuditEvent, Base, Report
from db.transparency.signed_notes import open_checkpoint
from db.verification.walk import verify
from db.verification.witness import ReportFile, Witness

EVENTS = Base.metadata.tables["audit_event"]

Plant = Any  # tests/db/conftest.py; test folders are not packages
Attack = Any


@pytest.fixture
def full(plant: Plant) -> Plant:
    """1 model, 2 run.started, 3-10 images (4, 5, 8, 9 flagged), 11 run.finished, 12 report, 13-14
    dispositions (13 with the people), 15 a row of every other kind."""
    plant.fill()
    assert plant.verify(artifacts=plant.store).ok
    return plant


def said(plant: Plant, **options: Any) -> list[str]:
    return [str(problem) for problem in plant.verify(**options).problems]


def listed(plant: Plant, sequence: int) -> str:
    """An event's rows as a sentence about them names them."""
    with plant.db.session() as session:
        event = session.get(AuditEvent, sequence)
        assert event is not None
        return ", ".join(f"{table} {identifier}" for table, identifier in event.rows)


# What is changed, the event that speaks for it, and that event's action.
EDITS = {
    "a score": ("UPDATE prediction SET score = 0.05 WHERE event_sequence = 5", 5, "image.inspected"),
    "a class's score": (
        "UPDATE finding SET class_score = 0.999 WHERE event_sequence = 4",
        4,
        "image.inspected",
    ),
    "a threshold of a decision": (
        "UPDATE prediction SET reject_threshold = 0.95 WHERE event_sequence = 5",
        5,
        "image.inspected",
    ),
    "a threshold of the model": (
        "UPDATE model_version SET thresholds = replace(thresholds, '0.7', '0.9')",
        1,
        "model.registered",
    ),
    "a verdict": (
        "UPDATE run_image SET verdict = 'pass' WHERE event_sequence = 5",
        5,
        "image.inspected",
    ),
    "why a picture was unreadable": (
        "UPDATE run_image SET reason = 'lens cap' WHERE event_sequence = 6",
        6,
        "image.unreadable",
    ),
    "when a picture was inspected": (
        "UPDATE prediction SET created_at = (SELECT started_at FROM run) WHERE event_sequence = 7",
        7,
        "image.inspected",
    ),
    "the setting a run was made with": (
        "UPDATE run SET settings = replace(settings, 'line-1', 'line-2')",
        2,
        "run.started",
    ),
    "how a run ended": ("UPDATE run_end SET status = 'failed'", 11, "run.finished"),
    "a disposition": (
        "UPDATE disposition SET decision = 'overrule' WHERE event_sequence = 13",
        13,
        "disposition.made",
    ),
    "a disposition's reason": (
        "UPDATE disposition SET reason = 'the customer insists' WHERE event_sequence = 14",
        14,
        "disposition.made",
    ),
    "who decided": (
        "UPDATE disposition SET person = 'somebody' WHERE event_sequence = 14",
        14,
        "disposition.made",
    ),
    "what was signed": (
        "UPDATE disposition SET signature = replace(signature, 'resp', 'diss') WHERE event_sequence = 13",
        13,
        "disposition.made",
    ),
    "a person's role": ("UPDATE person_revision SET role = 'quality-engineer'", 13, "disposition.made"),
    "whether a report was accepted": (
        "UPDATE report_signature SET decision = 'do not accept'",
        15,
        "test.filled",
    ),
    "what a report is about": ("UPDATE report SET subject = '{}'", 12, "report.issued"),
    "a checkpoint": (
        "UPDATE checkpoint SET root = substr(root, 2) || substr(root, 1, 1)",
        15,
        "test.filled",
    ),
    "what a replay said": ("UPDATE replay SET result = 'different'", 15, "test.filled"),
    "which bytes were pruned": (
        "UPDATE artifact_retention SET policy = 'older than 10 y'",
        15,
        "test.filled",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_row(full: Plant, attack: Attack, edit: str) -> None:
    statement, sequence, action = EDITS[edit]
    attack(statement)
    assert (
        f"event {sequence}: the rows it speaks for were changed ({action}; rows: {listed(full, sequence)})"
        in said(full)
    )


EVENT_EDITS = {
    "its time": (
        "UPDATE audit_event SET at = (SELECT at FROM audit_event WHERE sequence = 3) WHERE sequence = 14"
    ),
    "its reason": "UPDATE audit_event SET reason = 'no reason' WHERE sequence = 14",
    "who did it": "UPDATE audit_event SET actor_id = 'nobody' WHERE sequence = 14",
    "the name of who did it": "UPDATE audit_event SET actor_name = 'N. Obody' WHERE sequence = 14",
    "the role of who did it": "UPDATE audit_event SET actor_role = 'auditor' WHERE sequence = 14",
    "what was there before": "UPDATE audit_event SET old_value = NULL WHERE sequence = 14",
    "what replaced it": 'UPDATE audit_event SET new_value = \'{"decision":"repair"}\' WHERE sequence = 14',
    "what was done": "UPDATE audit_event SET action = 'disposition.seen' WHERE sequence = 14",
    "the software's version": "UPDATE audit_event SET software_version = '0' WHERE sequence = 14",
    "the digest of its rows": (
        "UPDATE audit_event SET rows_digest = substr(rows_digest, 2) || substr(rows_digest, 1, 1) "
        "WHERE sequence = 14"
    ),
}


@pytest.mark.parametrize("edit", EVENT_EDITS)
def test_an_edited_event(full: Plant, attack: Attack, edit: str) -> None:
    attack(EVENT_EDITS[edit])
    assert said(full)[0] == "event 14: was changed: its hash is not that of its contents"


def test_a_deleted_event(full: Plant, attack: Attack) -> None:
    attack("DELETE FROM audit_event WHERE sequence = 2")
    assert said(full)[0] == "event 2: missing: event 3 follows event 1"


def test_an_event_deleted_and_the_others_moved_up(full: Plant, attack: Attack) -> None:
    attack(
        "DELETE FROM audit_event WHERE sequence = 14",
        "UPDATE audit_event SET sequence = 14 WHERE sequence = 15",
    )
    assert said(full)[:2] == [
        "event 14: does not continue event 13: one of the two was replaced",
        "event 14: was changed: its hash is not that of its contents",
    ]


COPIED = ", ".join(c.name for c in AuditEvent.__table__.columns if c.name not in ("sequence", "id", "hash"))


def test_a_duplicated_event(full: Plant, attack: Attack) -> None:
    attack(
        f"INSERT INTO audit_event (sequence, id, hash, {COPIED}) "  # noqa: S608
        f"SELECT 16, '{'7' * 32}', '{'7' * 64}', {COPIED} FROM audit_event WHERE sequence = 12"
    )
    assert said(full)[0] == "event 16: does not continue event 15: one of the two was replaced"


def test_an_event_inserted_in_between(full: Plant, attack: Attack) -> None:
    attack(
        "UPDATE audit_event SET sequence = 16 WHERE sequence = 15",
        f"INSERT INTO audit_event (sequence, id, hash, {COPIED}) "  # noqa: S608
        f"SELECT 15, '{'7' * 32}', '{'7' * 64}', {COPIED} FROM audit_event WHERE sequence = 14",
    )
    assert said(full)[0] == "event 15: does not continue event 14: one of the two was replaced"


def test_events_in_another_order(full: Plant, attack: Attack) -> None:
    attack(
        "UPDATE audit_event SET sequence = 100 WHERE sequence = 13",
        "UPDATE audit_event SET sequence = 13 WHERE sequence = 14",
        "UPDATE audit_event SET sequence = 14 WHERE sequence = 100",
    )
    assert said(full)[0] == "event 13: does not continue event 12: one of the two was replaced"


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_the_same_date_before_our_era(full: Plant, attack: Attack) -> None:
    """Which PostgreSQL's to_char does not tell from ours."""
    attack("UPDATE prediction SET created_at = (created_at::text || ' BC')::timestamptz")
    assert [p.sequence for p in full.verify().problems if "were changed" in p.message] == list(range(3, 11))
    attack("UPDATE audit_event SET at = (at::text || ' BC')::timestamptz WHERE sequence = 14")
    assert "event 14: was changed: its hash is not that of its contents" in said(full)


def test_an_identifier_that_is_none(full: Plant, attack: Attack) -> None:
    """Its column's type cannot give it: that is a finding, not a failure of verification."""
    if full.db.sqlite:
        attack("UPDATE report SET id = 'x' || substr(id, 2)")
        told = said(full)
        assert "event 12: report row " in told[0]
        assert told[-1].startswith("the heads that reports print: hold a value that cannot be read: ")


def test_all_events_deleted(full: Plant, attack: Attack) -> None:
    attack("DELETE FROM audit_event")
    found = full.verify()
    assert found.events == 0
    assert not found.ok
    assert all(problem.message.startswith("no event speaks for it") for problem in found.problems[:20])
    assert found.problems[0].where.startswith("artifact row ")


def test_rows_moved_to_another_event(full: Plant, attack: Attack) -> None:
    attack("UPDATE disposition SET event_sequence = 27 - event_sequence")
    with full.db.session() as session:
        first, second = session.execute(text("SELECT id FROM disposition ORDER BY created_at, id")).scalars()
    names = [UUID(str(first)).hex, UUID(str(second)).hex]
    told = said(full)
    assert f"event 13: disposition row {names[0]}, which it speaks for, is missing" in told
    assert f"event 14: disposition row {names[1]}, which it speaks for, is missing" in told


def test_two_artifacts_swapped_in_the_store(full: Plant) -> None:
    with full.db.session() as session:
        maps = sorted(session.scalars(select(Artifact.digest).where(Artifact.kind == "map")))[:2]
    paths = [Path(full.store.path(digest)) for digest in maps]
    one, two = (path.read_bytes() for path in paths)
    paths[0].write_bytes(two)
    paths[1].write_bytes(one)
    told = said(full, artifacts=full.store)
    for digest, path in zip(maps, paths, strict=True):
        expected = f"map {digest}: artefact {digest} was changed: the bytes of {path} have another digest"
        assert expected in told


def test_two_artifacts_swapped_in_the_database(full: Plant, attack: Attack) -> None:
    attack(
        "UPDATE explanation SET map_digest = (SELECT e.map_digest FROM explanation e "
        "WHERE e.event_sequence <> explanation.event_sequence ORDER BY e.event_sequence LIMIT 1) "
        "WHERE event_sequence = 8"
    )
    assert said(full)[0] == (
        f"event 8: the rows it speaks for were changed (image.inspected; rows: {listed(full, 8)})"
    )


# What only something outside the database can tell


@pytest.fixture
def witness(full: Plant) -> Witness:
    """The full plant's signed checkpoint of its first 14 events, which event 15 records."""
    witness: Witness = full.witness
    assert [name for name, _ in witness.folder.notes()] == ["000000000014.checkpoint"]
    return witness


@pytest.fixture
def forge(full: Plant, attack: Attack) -> Callable[..., None]:
    """Change history, then recompute every digest, link and hash from an event on: a chain without a flaw."""

    def run(*statements: str, since: int) -> None:
        attack(*statements)
        with full.db.session() as session:
            where = EVENTS.c.sequence >= since - 1
            events = sorted(raw_records(session, EVENTS, where), key=lambda event: event["sequence"])
            rows = {
                (table.name, row["id"]): row
                for table in DOMAIN_TABLES
                for row in raw_records(session, table, table.c.event_sequence >= since)
            }
        changed = []
        previous = events[0]["hash"] if since > 1 else GENESIS
        for event in events[1 if since > 1 else 0 :]:
            listed = [(table, row) for table, row in json.loads(str(event["rows"])) if (table, row) in rows]
            event["rows"] = flat_json(listed).decode()
            event["rows_digest"] = rows_digest([(table, rows[table, row]) for table, row in listed])
            event["previous_hash"] = previous
            previous = event["hash"] = event_hash(event)
            changed.append(event)
        attack(
            *(
                f"UPDATE audit_event SET rows = '{event['rows']}', rows_digest = '{event['rows_digest']}', "  # noqa: S608
                f"previous_hash = '{event['previous_hash']}', hash = '{event['hash']}' "
                f"WHERE sequence = {event['sequence']}"
                for event in changed
            )
        )

    return run


def signed_on(witness: Witness, size: int = 14) -> str:
    note = open_checkpoint(str(witness.folder.get(size)), witness.trusted)
    return time_text(note.at)


NO_REPORT = (
    "DELETE FROM report_signature",
    "DELETE FROM report",
    "DELETE FROM artifact WHERE kind = 'report'",
)


def outside(plant: Plant, witness: Witness) -> list[str]:
    """What the notes tell, without what lacks in the database's own copy of them."""
    return [line for line in said(plant, witness=witness) if line.startswith("0000")]


def test_a_cut_tail(full: Plant, witness: Witness, attack: Attack) -> None:
    attack(
        "DELETE FROM approval",
        "DELETE FROM report_signature",
        "DELETE FROM artifact WHERE event_sequence = 15",
        "DELETE FROM replay",
        "DELETE FROM artifact_retention",
        "DELETE FROM checkpoint",
        "DELETE FROM disposition WHERE event_sequence = 14",
        "DELETE FROM audit_event WHERE sequence >= 14",
    )
    assert said(full) == []
    assert outside(full, witness) == [
        f"000000000014.checkpoint: on {signed_on(witness)} plant-1/kensa signed 14 events, and the log ends "
        "with event 13: its end was cut off, or an older state was restored"
    ]


def test_hashes_recomputed_from_some_point_on(
    full: Plant, witness: Witness, forge: Callable[..., None]
) -> None:
    forge("UPDATE prediction SET score = 0.45 WHERE event_sequence = 9", *NO_REPORT, since=9)
    assert said(full) == []
    assert outside(full, witness) == [
        f"000000000014.checkpoint: the first 14 events are not those that plant-1/kensa signed on "
        f"{signed_on(witness)}: history was replaced"
    ]


def test_a_printed_head_tells_as_well(full: Plant, forge: Callable[..., None]) -> None:
    """Even where the forger leaves the report's own row as it was."""
    forge("UPDATE prediction SET score = 0.45 WHERE event_sequence = 9", since=9)
    (signed, told) = said(full)
    assert signed == (
        "signature 1 on report R000001 revision 1: what was signed is not what is recorded: "
        "its signature has another digest"
    )
    assert told.startswith("report R000001 revision 1: audit head 11, ")
    assert told.endswith(": that event has another hash")


def test_the_whole_chain_replaced(full: Plant, witness: Witness, forge: Callable[..., None]) -> None:
    forge(
        "UPDATE model_version SET thresholds = replace(thresholds, '0.7', '0.9')",
        "UPDATE audit_event SET actor_id = 'somebody'",
        *NO_REPORT,
        since=1,
    )
    # Signatures name the event that recorded what they are about: they would have to be forged one by one.
    assert [problem.kind for problem in full.verify().problems] == ["signature"] * 3
    assert outside(full, witness) == [
        f"000000000014.checkpoint: the first 14 events are not those that plant-1/kensa signed on "
        f"{signed_on(witness)}: history was replaced"
    ]
    told = full.verify(witness=witness).remarks[0]
    assert told.startswith("no checkpoint that holds: nothing outside the database vouches for this log")


def test_last_weeks_backup_restored_with_its_checkpoint_table(
    full: Plant, witness: Witness, attack: Attack
) -> None:
    """Database and checkpoint table are wound back together; the notes outside are not."""
    full.dispose("return")
    assert full.sign().tree_size == 16
    attack(
        "DELETE FROM checkpoint WHERE event_sequence = 17",
        "DELETE FROM disposition WHERE event_sequence = 16",
        "DELETE FROM audit_event WHERE sequence >= 16",
    )
    assert said(full) == []
    told = full.verify(witness=witness)
    assert str(told.problems[0]).endswith(
        "plant-1/kensa signed 16 events, and the log ends with event 15: its end was cut off, or an older "
        "state was restored"
    )
    assert told.remarks[0].startswith("proved: events 1 to 14 are those that plant-1/kensa signed on")
    # And the plant goes on working on it, until the log is longer than what was signed.
    full.dispose("scrap")
    full.dispose("scrap")
    assert said(full) == []
    assert outside(full, witness)[0].startswith(
        "000000000016.checkpoint: the first 16 events are not those that plant-1/kensa signed on"
    )


def test_an_edited_report(full: Plant, witness: Witness) -> None:
    with full.db.session() as session:
        row = session.scalars(select(Report)).one()
        head = Head(row.head_sequence, row.head_hash)
    pdf = full.store.get(row.artifact_digest)
    edited = ReportFile("R000001-1.pdf", hashlib.sha256(pdf + b" ").hexdigest(), head)
    assert said(full, witness=witness, reports=[edited])[-1] == (
        "R000001-1.pdf: is not a report that this record issued: it was changed afterwards, or comes from "
        "elsewhere"
    )


# Any single bit of any column of any audited table


def _flip(value: Any, bit: int) -> Any:
    """The value with one bit of what is stored of it changed; the bit is taken modulo their number."""
    if value is None:
        return None
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value ^ (1 << bit % 31)
    if isinstance(value, float):
        stored = bytearray(struct.pack(">d", value))
        stored[bit // 8 % 8] ^= 1 << bit % 8
        return struct.unpack(">d", bytes(stored))[0]
    if isinstance(value, UUID):
        return UUID(int=value.int ^ (1 << bit % 128))
    if isinstance(value, datetime):
        return value + timedelta(microseconds=1 << bit % 40)
    stored = bytearray(value.encode())
    assume(stored)
    at = bit % (8 * len(stored))
    stored[at // 8] ^= 1 << at % 8
    try:
        changed = stored.decode()
    except UnicodeDecodeError:
        assume(False)  # a text column takes no such bytes through SQL; test_verification damages the file
        raise
    assume("\x00" not in changed)
    return changed


def _columns() -> list[tuple[Table, str]]:
    return [(table, column.name) for table in Base.metadata.sorted_tables for column in table.columns]


@given(place=st.sampled_from(_columns()), row=st.integers(0, 7), bit=st.integers(0, 4095))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow
def test_any_changed_bit_of_any_column_is_detected(
    unguarded: Callable[[], Database], place: tuple[Table, str], row: int, bit: int
) -> None:
    """Each example flips a bit, verifies the committed database as anybody would, and flips it back."""
    database = unguarded()
    table, name = place
    key = next(iter(table.primary_key))
    columns = [type_coerce(column, NullType()).label(column.name) for column in table.columns]
    with database.session() as session:
        rows = session.execute(select(*columns).order_by(type_coerce(key, NullType()))).all()
    chosen = rows[row % len(rows)]._mapping
    old = chosen[name]
    assume(old is not None)
    new = _flip(old, bit)

    def put(connection: Connection, at: Any, value: Any) -> None:
        changed = connection.execute(
            update(table)
            .where(type_coerce(key, NullType()) == type_coerce(at, NullType()))
            .values({name: type_coerce(value, NullType())})
        )
        assert changed.rowcount == 1

    try:
        with database.exclusive(migrating=True) as connection:
            if database.sqlite:
                connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
            put(connection, chosen[key.name], new)
    except (IntegrityError, DataError):
        assume(False)  # the database itself would not have it
    try:
        found = verify(database)
        kinds = {problem.kind for problem in found.problems} - {"guard"}
        assert kinds, f"{table.name}.{name}: {old!r} became {new!r} and nothing was said"
    finally:
        with database.exclusive(migrating=True) as connection:
            if database.sqlite:
                connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
            put(connection, new if name == key.name else chosen[key.name], old)


@pytest.fixture
def unguarded(full: Plant) -> Callable[[], Database]:
    """The full database with its guards, and PostgreSQL's reference checks, taken off for good."""
    with full.db.exclusive(migrating=True) as connection:
        if full.db.sqlite:
            for name in connection.scalars(text("SELECT name FROM sqlite_master WHERE type='trigger'")).all():
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
        else:
            for table in Base.metadata.sorted_tables:
                connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    assert {problem.kind for problem in full.verify().problems} == {"guard"}
    return lambda: full.db
