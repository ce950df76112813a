"""The account that records may add to history and nothing else: tried as that account on a real server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine

from db import grants
from db.engine import Database, open_database
from db.errors import RecordError
from db.schema import Base

Plant = Any  # tests/db/conftest.py; test folders are not packages

pytestmark = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
TABLES = [table.name for table in Base.metadata.sorted_tables]


def script(database: Database, writer: str = "kensa_run", auditor: str = "kensa_audit") -> str:
    with database.session() as session:
        return grants.grants_script(session.connection(), writer, auditor, "kensa_read")


def owner(database: Database, *statements: str) -> None:
    address = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address) as server:
        for statement in statements:
            server.execute(statement.encode())


@pytest.fixture
def writer(plant: Plant) -> Iterator[Database]:
    """The plant's database, opened by the account that records."""
    for _ in range(2):  # twice changes nothing
        owner(plant.db, script(plant.db))
    with open_database(
        str(plant.db.url.set(username="kensa_run")), software_version=plant.db.software_version
    ) as opened:
        yield opened


def test_the_writer_records_and_everything_fits(plant: Plant, writer: Database) -> None:
    writer.migrate()  # as each run does: there is nothing to do, and no right is needed
    plant.db = writer
    plant.fill()
    told = plant.verify(artifacts=plant.store)
    assert told.ok
    assert not any("account" in remark for remark in told.remarks)


def test_the_writer_cannot_change_history(plant: Plant, writer: Database) -> None:
    plant.fill()
    tries = [f"TRUNCATE {table} CASCADE" for table in TABLES]
    tries += [f"DELETE FROM {table}" for table in TABLES]  # noqa: S608
    tries += [f"UPDATE {table} SET id = id" for table in TABLES]  # noqa: S608
    tries += [f"ALTER TABLE {table} DISABLE TRIGGER ALL" for table in TABLES]
    tries += [f"DROP TRIGGER guard_{table}_row ON {table}" for table in TABLES]
    tries += [
        "DROP TABLE audit_event CASCADE",
        "CREATE OR REPLACE FUNCTION kensa_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN RETURN NEW; END$$",
        "CREATE TABLE mine (a int)",
        "UPDATE kensa_schema SET version_num = '0001'",
        "SET session_replication_role = replica",
    ]
    address = writer.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as server:
        for statement in tries:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                server.execute(statement.encode())
    assert plant.verify().ok


def test_the_auditor_reads(plant: Plant, writer: Database) -> None:
    plant.fill()
    with open_database(str(plant.db.url.set(username="kensa_audit"))) as auditor:
        plant.db = auditor
        auditor.check()
        assert plant.verify().ok
        with pytest.raises(RecordError, match="this account may not add to the record: permission denied"):
            plant.dispose("confirm")


def test_verification_says_what_the_account_could_do(plant: Plant, writer: Database) -> None:
    def remark(database: Database) -> str | None:
        with database.session() as session:
            return grants.excess_rights(session.connection())

    assert remark(writer) is None
    assert remark(plant.db) == (
        "account 'kensa' is a superuser of the database server and could take the guards off"
    )
    assert plant.verify().remarks[-1] == (
        "account 'kensa' is a superuser of the database server and could take the guards off: "
        "`kensa db grants` sets up an account that cannot"
    )
    owner(plant.db, "GRANT UPDATE ON finding TO kensa_run")
    assert remark(writer) == "account 'kensa_run' has the right to change rows of finding"
    owner(plant.db, "REVOKE UPDATE ON finding FROM kensa_run", "ALTER TABLE finding OWNER TO kensa_run")
    try:
        assert remark(writer) == "account 'kensa_run' owns table finding and could take the guards off"
        with pytest.raises(psycopg.errors.RaiseException, match="account kensa_run owns the tables or is"):
            owner(plant.db, script(plant.db))
    finally:
        owner(plant.db, "ALTER TABLE finding OWNER TO kensa")


def test_hostile_account_names_are_names(plant: Plant) -> None:
    name = "x'; DROP TABLE finding; -- \"$kensa$"
    owner(plant.db, script(plant.db, name))
    try:
        address = plant.db.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(address) as server:
            found = server.execute("SELECT has_table_privilege(%s, 'finding', 'INSERT')", [name]).fetchone()
        assert found == (True,)
    finally:
        quoted = psycopg.sql.Identifier(name).as_string(None)
        owner(plant.db, f"DROP OWNED BY {quoted}", f"DROP ROLE {quoted}")


def test_a_view_that_the_account_may_not_make(plant: Plant, writer: Database) -> None:
    """As after an update whose schema is the same: no run of this account would begin."""
    owner(plant.db, "DROP VIEW kensa_missing")
    try:
        for use in (writer.migrate, writer.state):
            with pytest.raises(RecordError, match="kensa db migrate"):
                use()
    finally:
        plant.db.migrate()


def test_a_migration_that_the_account_may_not_make(plant: Plant, writer: Database, attack: Any) -> None:
    owner(plant.db, "DROP TRIGGER guard_finding_row ON finding")
    try:
        with pytest.raises(RecordError, match=r"run `kensa db migrate` as the owner of the tables"):
            writer.migrate()
    finally:
        plant.db.migrate()
    assert plant.verify().ok


def test_what_makes_no_script(plant: Plant, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="who writes, who verifies, who reads are three accounts"):
        script(plant.db, "same", "same")
    with (
        create_engine(f"sqlite:///{tmp_path / 'a.db'}").connect() as connection,
        pytest.raises(RecordError, match="SQLite knows no accounts"),
    ):
        grants.grants_script(connection, "a", "b", "c")
    assert grants.excess_rights(connection) is None
