import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from db.chain.events import Actor
from db.columns import utc_now, uuid7
from db.engine import Database, open_database
from db.errors import RecordError, StorageError
from db.schema import AuditEvent, Disposition, Image
from db.verification.walk import verify

ACTOR = Actor("tester")


def image(digest: str) -> Image:
    return Image(digest=digest, size=1, width=1, height=1, format="PNG", mode="L")


def add(database: Database, digest: str) -> None:
    with database.write() as recorder:
        row = image(digest)
        recorder.add([row], action="test", actor=ACTOR, entity="image", entity_id=row.id)


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///a.db?mode=ro", "mysql://u:secret@h/d", "no url", ""]
)
def test_other_urls_are_refused_without_showing_passwords(url: str) -> None:
    with pytest.raises(RecordError, match="give sqlite:///PATH") as caught:
        open_database(url)
    assert "secret" not in str(caught.value)


def test_a_database_is_named_without_its_password() -> None:
    with open_database("postgresql://u:secret@localhost/d") as database:
        assert str(database) == "postgresql://u:***@localhost/d"


def test_an_absent_sqlite_file_is_reported_and_not_created(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with open_database(f"sqlite:///{path}") as database:
        for use in (database.check, lambda: add(database, "a")):
            with pytest.raises(RecordError, match="no database at"):
                use()
    assert not path.exists()


def test_an_absent_server_is_reported() -> None:
    with (
        open_database("postgresql://nobody:secret@127.0.0.1:1/none") as database,
        pytest.raises(RecordError, match="does not answer or is locked") as caught,
    ):
        database.migrate()
    assert "secret" not in str(caught.value)


def test_check_wants_this_versions_schema(empty_url: str) -> None:
    with open_database(empty_url) as database:
        if database.sqlite:
            Path(str(database.url.database)).parent.mkdir()
            sqlite3.connect(str(database.url.database)).close()
            Path(str(database.url.database)).touch()
        with pytest.raises(RecordError, match="holds no kensa record"):
            database.check()
        database.migrate()
        database.migrate()
        database.check()
        with database.exclusive(migrating=True) as connection:
            connection.execute(text("UPDATE kensa_schema SET version_num = '9999'"))
        with pytest.raises(RecordError, match="has schema 9999"):
            database.check()


def test_the_state_of_a_record_is_told_without_a_change(empty_url: str) -> None:
    with open_database(empty_url) as database:
        if database.sqlite:
            Path(str(database.url.database)).parent.mkdir()
            Path(str(database.url.database)).touch()
        assert database.state() == "no record yet: the first run begins it"
        with pytest.raises(RecordError, match="holds no kensa record"):
            database.check()
        database.migrate()
        with database.session() as session:
            wanted = session.scalar(text("SELECT version_num FROM kensa_schema"))
        assert database.state() == f"schema {wanted}, that of this version"
        with database.exclusive(migrating=True) as connection:
            connection.execute(text("DROP VIEW kensa_missing"))
        assert "or the next run, adds guards and views that it lacks" in database.state()
        database.migrate()
        assert database.state() == f"schema {wanted}, that of this version"

        def set_version(version: str) -> None:
            with database.exclusive(migrating=True) as connection:
                connection.execute(text("UPDATE kensa_schema SET version_num = :v"), {"v": version})

        set_version("0001")
        assert database.state() == f"schema 0001: `kensa db migrate`, or the next run, updates it to {wanted}"
        set_version("9999")
        with pytest.raises(RecordError, match="has schema 9999, this version of kensa needs"):
            database.state()


def test_migrating_at_the_same_time_is_safe(empty_url: str) -> None:
    barrier = threading.Barrier(4)

    def migrate(_: int) -> None:
        with open_database(empty_url) as database:
            barrier.wait(30)
            database.migrate()
            database.check()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, range(4)))


def test_nothing_can_be_written_through_a_reading_session(database: Database) -> None:
    add(database, "a")
    with pytest.raises(StorageError, match=r"readonly|read-only"), database.session() as session:
        session.execute(insert(Image.__table__), [{"id": uuid7()}])
    add(database, "b")  # the pooled connection is writable again


def test_a_session_sees_one_snapshot(database: Database) -> None:
    add(database, "a")
    with database.session() as session:
        assert session.scalars(select(Image.digest)).all() == ["a"]
        add(database, "b")
        assert session.scalars(select(Image.digest)).all() == ["a"]
    with database.session() as session:
        assert session.scalars(select(Image.digest).order_by(Image.digest)).all() == ["a", "b"]


def add_and_fail(database: Database) -> None:
    with database.write() as recorder:
        row = image("b")
        recorder.add([row], action="test", actor=ACTOR, entity="image", entity_id=row.id)
        recorder.flush()
        raise ZeroDivisionError


def test_an_exception_undoes_the_whole_transaction(database: Database) -> None:
    add(database, "a")
    with pytest.raises(ZeroDivisionError):
        add_and_fail(database)
    with pytest.raises(IntegrityError):
        add(database, "a")
    with database.session() as session:
        assert session.scalars(select(Image.digest)).all() == ["a"]
        assert session.scalars(select(AuditEvent.sequence)).all() == [1]
    assert verify(database).ok


def test_a_row_that_refers_to_nothing_is_refused(database: Database) -> None:
    row = Disposition(
        finding_id=uuid7(), decision="confirm", reason="", person="p", created_at=utc_now(),
        supersedes_id=None, signature=None, class_name=None, needs_approval=None,
    )  # fmt: skip
    with pytest.raises(IntegrityError), database.write() as recorder:
        recorder.add([row], action="test", actor=ACTOR, entity="disposition", entity_id=row.id)


@pytest.mark.parametrize(
    ("column", "value", "error", "message"),
    [
        ("format", "\x00", RecordError, r"image\.format: text .* holds NUL"),
        ("format", 3, RecordError, r"image\.format: expected text, got int"),
        ("id", "7", RecordError, r"image\.id: expected an identifier, got str"),
        ("size", -1, IntegrityError, "ck_image_size"),
        ("size", None, IntegrityError, r"(?i)not.null"),
    ],
)
def test_values_out_of_range_are_refused_with_their_column(
    database: Database, column: str, value: object, error: type[Exception], message: str
) -> None:
    row = image("a")
    setattr(row, column, value)
    with pytest.raises(error, match=message), database.write() as recorder:
        recorder.add([row], action="test", actor=ACTOR, entity="image", entity_id="some")


def test_sqlite_is_set_up_to_keep_what_it_is_given(tmp_path: Path, sqlite_template: Path) -> None:
    with open_database(f"sqlite:///{sqlite_template}") as database:
        with database.session() as session:
            assert session.scalar(text("PRAGMA journal_mode")) == "wal"
            assert session.scalar(text("PRAGMA foreign_keys")) == 1
            assert session.scalar(text("PRAGMA synchronous")) == 2
        with database.exclusive() as connection:
            assert connection.scalar(text("PRAGMA foreign_keys")) == 1


def test_writers_in_threads_queue_up(database: Database) -> None:
    def write(worker: int) -> None:
        for number in range(5):
            add(database, f"{worker}-{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    found = verify(database)
    assert found.ok, found.problems
    assert found.events == 20


def test_an_actor_has_a_name_and_a_kind() -> None:
    with pytest.raises(RecordError):
        Actor("")
    with pytest.raises(RecordError):
        Actor("x", "robot")  # type: ignore[arg-type]
