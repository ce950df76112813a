from typing import Any

import pytest
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from db import guards
from db.engine import Database
from db.issued.reports import ReportSubject
from db.schema import Base, Part

Plant = Any  # tests/db/conftest.py; test folders are not packages
TABLES = [table.name for table in Base.metadata.sorted_tables]


@pytest.fixture
def full(plant: Plant) -> Database:
    """A database with a row in every table."""
    plant.fill()
    plant.issue(ReportSubject.run("R000001"), b"another report")
    with plant.db.session() as session:
        for table in TABLES:
            assert session.execute(text(f"SELECT count(*) FROM {table}")).scalar(), table  # noqa: S608
    return plant.db


def refused(
    database: Database, *statements: str, match: str = "is append-only", unchecked: bool = False
) -> None:
    def attempt() -> None:
        with database.exclusive(migrating=unchecked) as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    with pytest.raises(DBAPIError, match=match):
        attempt()


def columns(connection: Connection, table: str) -> list[str]:
    return [column["name"] for column in inspect(connection).get_columns(table)]


def test_no_update_and_no_delete_on_any_table(full: Database) -> None:
    for table in TABLES:
        with full.exclusive() as connection:
            column = columns(connection, table)[0]
        refused(full, f"UPDATE {table} SET {column} = {column}", match=f"{table} is append-only: UPDATE")  # noqa: S608
        refused(full, f"DELETE FROM {table}", match=f"{table} is append-only: DELETE")  # noqa: S608


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_no_replacement_by_any_key_on_sqlite(full: Database) -> None:
    for table in TABLES:
        with full.exclusive() as connection:
            names = columns(connection, table)
            inspector = inspect(connection)
            keys = [inspector.get_pk_constraint(table)["constrained_columns"]]
            keys += [c["column_names"] for c in inspector.get_unique_constraints(table)]
        every = {name for key in keys for name in key}
        for key in [*keys, ["rowid"]]:
            # the same row again, with new values in every key but this one
            values = []
            for name in names:
                fresh = f"({name} || 'x')" if name != "sequence" else "sequence + 100000"
                fresh = f"{name} + 100000" if name in ("number", "revision") else fresh
                values.append(fresh if name in every and name not in key else name)
            into, out = ", ".join(names), ", ".join(values)
            if key == ["rowid"]:
                if table == "audit_event":  # its sequence is its rowid
                    continue
                into, out = f"rowid, {into}", f"rowid, {out}"
            for clause in ("INSERT OR REPLACE", "REPLACE"):
                there = " AND ".join(f"{name} IS NOT NULL" for name in key)
                statement = f"{clause} INTO {table} ({into}) SELECT {out} FROM {table} WHERE {there} LIMIT 1"  # noqa: S608
                refused(
                    full, statement, match=f"{table} is append-only: another row has this key", unchecked=True
                )


def test_no_upsert(full: Database) -> None:
    for table in TABLES:
        with full.exclusive() as connection:
            key = inspect(connection).get_pk_constraint(table)["constrained_columns"][0]
        refused(
            full,
            f"INSERT INTO {table} SELECT * FROM {table} WHERE true "  # noqa: S608
            f"ON CONFLICT ({key}) DO UPDATE SET {key} = excluded.{key}",
        )


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_no_truncate_and_no_replica_that_slips_past(full: Database) -> None:
    for table in TABLES:
        refused(full, f"TRUNCATE {table} CASCADE", match="TRUNCATE refused")
    refused(full, "SET LOCAL session_replication_role = replica", "DELETE FROM report_signature")
    refused(full, "SET LOCAL session_replication_role = replica", "TRUNCATE report_signature")


def test_missing_guards_are_named_and_put_back(full: Database) -> None:
    with full.exclusive() as connection:
        assert guards.missing(connection) == []
        if full.sqlite:
            connection.exec_driver_sql("DROP TRIGGER guard_image_delete")
            connection.exec_driver_sql("DROP TRIGGER guard_run_insert")
            connection.exec_driver_sql(
                "CREATE TRIGGER guard_run_insert BEFORE INSERT ON run BEGIN SELECT 1; END"
            )
            assert guards.missing(connection) == ["guard_image_delete", "guard_run_insert"]
        else:
            connection.exec_driver_sql("DROP TRIGGER guard_image_truncate ON image")
            connection.exec_driver_sql("ALTER TABLE run ENABLE TRIGGER guard_run_row")
            connection.exec_driver_sql("DROP TRIGGER guard_part_row ON part")
            connection.exec_driver_sql(
                "CREATE TRIGGER guard_part_row BEFORE DELETE ON part "
                "FOR EACH ROW EXECUTE FUNCTION kensa_append_only()"
            )
            connection.exec_driver_sql("ALTER TABLE part ENABLE ALWAYS TRIGGER guard_part_row")
            gone = {"guard_image_truncate", "guard_run_row", "guard_part_row"}
            assert set(guards.missing(connection)) == gone
            guards.install(connection)
            connection.exec_driver_sql(
                "CREATE OR REPLACE FUNCTION kensa_append_only() RETURNS trigger LANGUAGE plpgsql AS "
                "$$BEGIN RETURN NEW; END$$"
            )
            assert len(guards.missing(connection)) == 2 * len(TABLES), "none of them refuses anything"
        guards.install(connection)
        assert guards.missing(connection) == []


def test_rows_of_unlike_keys_still_go_in(plant: Plant) -> None:
    twice = [Part(serial="a", lot=""), Part(serial="a", lot="")]
    with pytest.raises(IntegrityError), plant.db.write() as recorder:
        recorder.add(twice, action="t", actor=plant.actor, entity="part", entity_id="a")
    with plant.db.write() as recorder:
        parts = [Part(serial=serial, lot=lot) for serial in "ab" for lot in "xy"]
        recorder.add(parts, action="t", actor=plant.actor, entity="part", entity_id="several")
    assert plant.verify().ok
