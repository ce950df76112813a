import shutil
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.exc import IntegrityError

from benchmarks import db as benchmark
from db import engine, guards, views
from db.engine import Database, open_database
from db.errors import RecordError
from db.inspection.runs import artifact_row
from db.issued.reports import ReportSubject, report_by_number
from db.schema import AuditEvent, Base, Prediction, Report

Plant = Any  # tests/db/conftest.py; test folders are not packages
TABLES = {table.name for table in Base.metadata.sorted_tables}


@pytest.fixture
def url(empty_url: str) -> str:
    """A database of its own for each test here, for its schema is changed."""
    with open_database(empty_url) as database:
        database.migrate()
    return empty_url


def upgrade(database: Database, revision: str = "head") -> None:
    with database.exclusive(migrating=True) as connection:
        command.upgrade(database.alembic(connection), revision)


def downgrade(database: Database, revision: str) -> None:
    with database.exclusive(migrating=True) as connection:
        command.downgrade(database.alembic(connection), revision)


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


def test_up_down_and_up_again(empty_url: str) -> None:
    with open_database(empty_url) as database:
        database.migrate()
        with database.exclusive() as connection:
            assert tables(connection) == TABLES | {engine.VERSION_TABLE}
            assert guards.missing(connection) == views.missing(connection) == []
        downgrade(database, "base")
        with database.exclusive() as connection:
            assert tables(connection) == {engine.VERSION_TABLE}
            assert inspect(connection).get_view_names() == []
            if not database.sqlite:
                found = connection.scalar(text("SELECT count(*) FROM pg_proc WHERE proname LIKE 'kensa%'"))
                assert found == 0
        database.migrate()
        database.check()


def test_the_migrations_make_the_schema_that_the_code_has(database: Database) -> None:
    with database.exclusive(migrating=True) as connection:
        command.check(database.alembic(connection))  # raises where autogenerate would have something to do


def test_constraints_are_named_as_in_the_code(database: Database) -> None:
    with database.exclusive() as connection:
        inspector = inspect(connection)
        for table in Base.metadata.sorted_tables:
            wanted = {str(c.name) for c in table.constraints if str(c.name).startswith("ck_")}
            # A list: a constraint left beside its successor has the same name.
            there = [c["name"] for c in inspector.get_check_constraints(table.name)]
            assert sorted(map(str, there)) == sorted(wanted)
            assert inspector.get_pk_constraint(table.name)["name"] == f"pk_{table.name}"
            for key in inspector.get_foreign_keys(table.name):
                assert str(key["name"]).startswith("fk_")


def test_a_history_is_not_migrated_away(plant: Plant) -> None:
    with pytest.raises(RecordError, match="holds a history"):
        downgrade(plant.db, "base")
    assert plant.verify().ok


def test_another_programs_tables_are_left_alone(empty_url: str) -> None:
    with open_database(empty_url) as database:
        if database.sqlite:
            Path(str(database.url.database)).parent.mkdir()
        with database.exclusive(migrating=True) as connection:
            connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
            connection.execute(text("INSERT INTO alembic_version VALUES ('prefect')"))
        database.migrate()
        with database.exclusive(migrating=True) as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = 'later'"))
            command.check(database.alembic(connection))


def test_what_was_recorded_before_reports_had_kinds_is_whole_and_found(plant: Plant) -> None:
    run = plant.finished_run()
    with plant.db.write() as recorder:  # as kensa recorded a report then
        first = recorder.session.scalars(select(Report)).one()
        artifact = plant.store.put(b"second", "report", "application/pdf")
        old = Report(
            run_id=run.id, revision=2, artifact_digest=artifact.digest, head_sequence=first.head_sequence,
            head_hash=first.head_hash, supersedes_id=first.id, created_at=first.created_at, kind=None,
            number=None, subject=None, record_digest=None, content_digest=None,
        )  # fmt: skip
        recorder.add(
            [artifact_row(artifact), old],
            action="report.issued",
            actor=plant.actor,
            entity="report",
            entity_id=old.id,
        )
        digest = recorder.session.scalars(select(AuditEvent.hash).where(AuditEvent.sequence == 3)).one()
        measured = select(Prediction.event_sequence).where(Prediction.brightness.is_not(None))
        lost = sorted([*recorder.session.scalars(measured), first.event_sequence])
    while benchmark.back(plant.db) != "0002":
        pass
    with plant.db.exclusive() as connection:
        assert "kind" not in {column["name"] for column in inspect(connection).get_columns("report")}
        assert "sharpness" not in {column["name"] for column in inspect(connection).get_columns("prediction")}
    plant.db.migrate()
    with plant.db.exclusive() as connection:
        assert guards.missing(connection) == views.missing(connection) == []
    # What went with the columns is what pictures and the first report said in them; the old row says nothing.
    assert [problem.sequence for problem in plant.verify().problems] == lost
    with plant.db.session() as session:
        assert session.scalars(select(AuditEvent.hash).where(AuditEvent.sequence == 3)).one() == digest
        found = report_by_number(session, "R000001")
        assert (found.number, found.revision, found.kind) == ("R000001", 2, "run")
        assert found.subject == ReportSubject.run("R000001")
        assert found.artifact_digest == found.rendered_digest == artifact.digest
    third = plant.issue(ReportSubject.run("R000001"), b"third")
    assert (third.number, third.revision, third.supersedes_id) == ("R000001", 3, old.id)


def test_guards_survive_the_recreation_of_their_table(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """A later migration in batch mode, as Alembic has it for SQLite, drops the table with its triggers."""
    plant.finished_run()
    folder = tmp_path / "migrations"
    shutil.copytree(engine.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "9999_recreate.py").write_text(
        "from alembic import op\nimport sqlalchemy as sa\n"
        f"revision, down_revision = '9999', {engine.SCHEMA_REVISION!r}\n"
        "def upgrade():\n"
        "    recreate = 'always' if op.get_bind().dialect.name == 'sqlite' else 'never'\n"
        "    for name in ('image', 'audit_event', 'run'):\n"
        "        with op.batch_alter_table(name, recreate=recreate) as batch:\n"
        "            batch.add_column(sa.Column('remark', sa.String(), nullable=True))\n"
    )
    monkeypatch.setattr(engine, "MIGRATIONS", folder)
    monkeypatch.setattr(engine, "SCHEMA_REVISION", "9999")
    plant.db.migrate()
    with plant.db.exclusive() as connection:
        assert guards.missing(connection) == views.missing(connection) == []
        assert connection.scalar(text("SELECT count(*) FROM kensa_events")) == 12  # a broken view would fail
        partial = "SELECT count(*) FROM sqlite_master WHERE name = 'ix_audit_event_reasoned' AND sql LIKE :w"
        if plant.db.sqlite:
            assert connection.scalar(text(partial), {"w": "%WHERE reason IS NOT NULL%"}) == 1
            assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
    for statement in ("DELETE FROM image", "UPDATE audit_event SET remark = 'x'"):
        with pytest.raises(IntegrityError, match="append-only"), plant.db.exclusive() as connection:
            connection.execute(text(statement))
    found = plant.verify()
    assert found.ok, found.problems
