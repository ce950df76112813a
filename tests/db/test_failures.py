"""What errors of drivers and of the file system mean: those that pass, those that do not, and what helps."""

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from benchmarks import postgres
from db import engine, files
from db.artifacts import ArtifactStore
from db.engine import open_database
from db.errors import AwayError, RecordError, StorageError
from db.failures import file_error, storage_error


def raised_by(path: Path | str, *statements: str) -> StorageError | None:
    """What SQLite's error about the last of the statements means."""
    with closing(sqlite3.connect(path, uri=True, timeout=0)) as connection:
        try:
            for statement in statements:
                connection.execute(statement)
        except sqlite3.Error as error:
            wrapped = DBAPIError.instance("", {}, error, sqlite3.Error)
            assert isinstance(wrapped, DBAPIError)
            return storage_error(wrapped, "it")
    raise AssertionError("no error")


def test_sqlite_says_what_stands_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("CREATE TABLE t (x UNIQUE)")
        writer.commit()
        full = raised_by(path, "PRAGMA max_page_count = 3", "INSERT INTO t VALUES (zeroblob(100000))")
        assert "make room" in str(full)
        read_only = raised_by(f"file:{path}?mode=ro", "INSERT INTO t VALUES (1)")
        assert "make it writable" in str(read_only)
        assert not any(isinstance(each, AwayError) for each in (full, read_only))
        writer.execute("BEGIN IMMEDIATE")
        assert isinstance(raised_by(path, "BEGIN IMMEDIATE"), AwayError)
        writer.rollback()
    assert raised_by(path, "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)") is None
    assert raised_by(path, "SELECT nonsense") is None
    with (
        open_database(f"sqlite:///{tmp_path / 'none' / 'a.db'}") as absent,
        pytest.raises(StorageError, match="its folder is there"),
        absent.exclusive(),
    ):
        raise AssertionError("a folder that is not there was opened")


def test_a_locked_sqlite_file_is_an_error_that_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "kensa.db"
    with open_database(f"sqlite:///{path}") as database, closing(sqlite3.connect(path)) as other:
        database.migrate()
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(AwayError, match=r"kensa.db .*locked") as caught, database.write():
            pass
        assert isinstance(caught.value, RecordError)
        other.rollback()
        with database.write():
            pass


def test_postgresql_that_is_away_passes_and_a_wrong_name_does_not(postgres_server: str) -> None:
    url = postgres.new_database(postgres_server)
    with open_database("postgresql://nobody:secret@127.0.0.1:1/none") as away:
        with pytest.raises(AwayError, match="does not answer") as caught:
            away.migrate()
        assert "secret" not in str(caught.value)
    with (
        open_database(f"{url}_not_there") as wrong,
        pytest.raises(RecordError, match="cannot open") as refused,
    ):
        wrong.migrate()
    assert not isinstance(refused.value, StorageError)
    with (
        open_database(url) as database,
        psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as admin,
    ):
        database.migrate()

        def write(*statements: str, cut: bool = False) -> None:
            with database.write() as recorder:
                if cut:
                    own = recorder.session.scalar(text("SELECT pg_backend_pid()"))
                    admin.execute("SELECT pg_terminate_backend(%s)", [own])
                for statement in statements:
                    recorder.session.execute(text(statement))

        with pytest.raises(AwayError, match="terminating connection"):
            write("SELECT 1", cut=True)
        write("CREATE TEMPORARY TABLE t (x int UNIQUE)")  # over a new connection
        with pytest.raises(IntegrityError):
            write("INSERT INTO t VALUES (1), (1)")
        admin.execute(
            f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on".encode()
        )
        database.close()
        with pytest.raises(StorageError, match="make it writable") as caught:
            write("CREATE TABLE t (x int)")
        assert not isinstance(caught.value, AwayError)


@pytest.mark.parametrize(
    ("code", "remedy", "passes"),
    [
        (errno.ENOSPC, "make room", False),
        (errno.EDQUOT, "make room", False),
        (errno.EROFS, "make it writable", False),
        (errno.EACCES, "give it the right", False),
        (errno.EIO, "look after it", False),
        (errno.ESTALE, "its server answers", True),
        (errno.ETIMEDOUT, "its server answers", True),
    ],
)
def test_what_stops_an_artifact_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str, passes: bool
) -> None:
    def fails(_: int) -> None:
        raise OSError(code, os.strerror(code))

    store = ArtifactStore(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", fails)
        with pytest.raises(StorageError, match=remedy) as caught:
            store.put(b"map", "map", "image/png")
    assert isinstance(caught.value, AwayError) is passes
    assert str(tmp_path) in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    store.get(store.put(b"map", "map", "image/png").digest)


def test_what_is_about_the_request_stays_as_it_is() -> None:
    assert file_error(FileNotFoundError(errno.ENOENT, "no such file"), "a") is None
    assert isinstance(file_error(ConnectionResetError(), "a"), AwayError)
