"""Opening a database: SQLite or PostgreSQL, one way to read, one way to write."""

from __future__ import annotations

import importlib.metadata
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    column,
    create_engine,
    event,
    inspect,
    make_url,
    select,
    table,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, ProgrammingError
from sqlalchemy.orm import Session

from configs.credentials import masked_url
from db import guards, views
from db.chain.events import Recorder
from db.errors import RecordError
from db.failures import storage_error

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
SCHEMA_REVISION = "0004"  # of the last migration; to ask Alembic costs every command a quarter of a second
VERSION_TABLE = "kensa_schema"  # not Alembic's own name: Prefect may keep its tables in the same database
# Key of the advisory lock that lets one writer at a time at the chain. Any fixed number; "kensa" in ASCII.
CHAIN_LOCK = int.from_bytes(b"kensa")
BUSY_TIMEOUT_S = 60  # how long SQLite waits for another process's write
_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
_LOCKED = {"isolation_level": "READ COMMITTED"}
_INSUFFICIENT_PRIVILEGE = "42501"  # SQLSTATE


class Database:
    """An open database. Close it, or use it as a context manager."""

    def __init__(self, url: URL, engine: Engine, software_version: str) -> None:
        self.url = url
        self.engine = engine
        self.software_version = software_version

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def sqlite(self) -> bool:
        """Whether this is a SQLite file and not a PostgreSQL server."""
        return self.engine.dialect.name == "sqlite"

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def migrate(self) -> None:
        """Create the schema or bring it up to date, guards included; safe to call at each start.

        An account without the right to change the schema may call it where there is nothing to do.

        Raises:
            RecordError: there is something to do and the account lacks that right, or the schema is that of a
                later version.
        """
        from alembic import command
        from alembic.util import CommandError

        if self.sqlite:
            Path(str(self.url.database)).parent.mkdir(parents=True, exist_ok=True)
        with self.exclusive(migrating=True) as connection:
            present = _present_schema(connection)
            if present == SCHEMA_REVISION and not _lacks_guards_or_views(connection):
                return
            try:
                command.upgrade(self.alembic(connection), "head")
            except CommandError:  # Alembic does not know the revision it finds
                raise self._other_schema(present) from None
            except ProgrammingError as error:
                raise RecordError(
                    f"database {self}: this account may not bring the schema up to date: run "
                    f"`kensa db migrate` as the owner of the tables ({error.orig})"
                ) from error

    def alembic(self, connection: Connection | None = None) -> Config:
        """Return Alembic's configuration for this database; with `connection` it joins its transaction."""
        from alembic.config import Config

        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        return config

    def check(self) -> None:
        """Raise RecordError where the database is absent or its schema is not this version's."""
        with self.session() as session:
            present = _present_schema(session.connection())
        if present is None:
            raise RecordError(f"database {self} holds no kensa record: run `kensa run` to start one")
        if present != SCHEMA_REVISION:
            raise self._other_schema(present)

    def state(self) -> str:
        """Return in words which record is there, and write nothing.

        Raises:
            RecordError: its schema is that of a later version, or this account may not add to it.
        """
        from alembic.script import ScriptDirectory
        from alembic.util import CommandError

        use = "use the one that `kensa db grants` sets up for writing"
        create = "has_schema_privilege(current_schema(), 'CREATE')"
        try:
            with self.session() as session:
                present = _present_schema(session.connection())
                right = create if present is None else "has_table_privilege('audit_event', 'INSERT')"
                if not self.sqlite and not session.scalar(text(f"SELECT {right}")):
                    raise RecordError(
                        f"database {self}: this account may not add to the record: {use}, or let the owner "
                        "of the tables run `kensa db migrate`"
                    )
                lacking = present == SCHEMA_REVISION and _lacks_guards_or_views(session.connection())
                if lacking and not self.sqlite and not session.scalar(text(f"SELECT {create}")):
                    raise RecordError(
                        f"database {self} lacks guards or views of this version, which this account may not "
                        "make, so that no run would begin: let the owner of the tables run `kensa db migrate`"
                    )
        except ProgrammingError as error:
            raise RecordError(
                f"database {self}: this account may not read the record ({error.orig}): {use}"
            ) from error
        if self.sqlite:
            with self.exclusive():  # a file that may only be read is refused here
                pass
        if present is None:
            return "no record yet: the first run begins it"
        if lacking:
            return (
                f"schema {present}; `kensa db migrate`, or the next run, adds guards and views that it lacks"
            )
        if present == SCHEMA_REVISION:
            return f"schema {present}, that of this version"
        try:
            ScriptDirectory(str(MIGRATIONS)).get_revision(present)
        except CommandError:  # Alembic does not know it
            raise self._other_schema(present) from None
        return f"schema {present}: `kensa db migrate`, or the next run, updates it to {SCHEMA_REVISION}"

    def _other_schema(self, present: str | None) -> RecordError:
        return RecordError(
            f"database {self} has schema {present}, this version of kensa needs {SCHEMA_REVISION}: "
            "update the older of the two (`kensa db migrate` updates the database)"
        )

    def __str__(self) -> str:
        return masked_url(self.url.render_as_string(hide_password=False))

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a session for reading: it sees one consistent snapshot, and nothing can be written in it."""
        self._require_file()
        options = {} if self.sqlite else _SNAPSHOT
        with self._connect(options) as connection, Session(connection) as session:
            yield session  # ends in a rollback: there is nothing to commit

    @contextmanager
    def write(self) -> Iterator[Recorder]:
        """Open a transaction for writing, under the chain lock; after an exception nothing of it is kept."""
        self._require_file()
        with self.exclusive() as connection, Session(connection) as session:
            recorder = Recorder(session, self.software_version)
            try:
                yield recorder
                recorder.flush()
            except ProgrammingError as error:
                if getattr(error.orig, "sqlstate", None) != _INSUFFICIENT_PRIVILEGE:
                    raise
                raise RecordError(
                    f"database {self}: this account may not add to the record: {error.orig}; use the one "
                    "that `kensa db grants` sets up for writing"
                ) from error

    @contextmanager
    def exclusive(self, *, migrating: bool = False) -> Iterator[Connection]:
        """Open a connection under the chain lock: until its transaction ends, nobody else writes."""
        # READ COMMITTED: what is read under the lock is what the last holder committed.
        options = {"kensa_begin": "migrate" if migrating else "write"} if self.sqlite else _LOCKED
        with self._connect(options) as connection, connection.begin():
            if not self.sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": CHAIN_LOCK})
            yield connection

    @contextmanager
    def _connect(self, options: dict[str, Any]) -> Iterator[Connection]:
        try:
            connection = self.engine.connect()
        except DBAPIError as error:
            refused = RecordError(f"cannot open database {self}: {error.orig}")
            raise storage_error(error, self) or refused from error
        with connection:
            try:
                yield connection.execution_options(**options)
            except DBAPIError as error:
                failure = storage_error(error, self)
                if failure is None:
                    raise
                raise failure from error

    def _require_file(self) -> None:
        if self.sqlite and not Path(str(self.url.database)).is_file():
            raise RecordError(f"there is no database at {self.url.database}: run `kensa run` to start one")


def open_database(url: str, *, software_version: str | None = None) -> Database:
    """Return the database of `sqlite:///PATH` or `postgresql://…`; it connects when first used.

    Args:
        url: where it is.
        software_version: what its events name as their writer; by default the installed version of kensa.

    Raises:
        RecordError: for any other kind of URL, and for SQLite in memory, whose record would be lost.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise RecordError(
            f"database url {masked_url(url)!r} is not one: give sqlite:///PATH or postgresql://…"
        ) from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        engine = create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
        event.listen(engine, "connect", _prepare_postgres)
    elif backend == "sqlite" and parsed.database and parsed.database != ":memory:" and not parsed.query:
        parsed = parsed.set(drivername="sqlite", database=str(Path(parsed.database).expanduser()))
        engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_S})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        raise RecordError(f"database url {masked_url(url)!r}: give sqlite:///PATH (a file) or postgresql://…")
    return Database(parsed, engine, software_version or _installed_version())


def _present_schema(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(select(column("version_num")).select_from(table(VERSION_TABLE)))


def _lacks_guards_or_views(connection: Connection) -> bool:
    return bool(guards.missing(connection) or views.missing(connection))


def _installed_version() -> str:
    try:
        return importlib.metadata.version("kensa")
    except importlib.metadata.PackageNotFoundError:
        return "source tree"


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transaction handling begins late and never IMMEDIATE: `_begin_sqlite` does it instead.
    connection.isolation_level = None
    _switch_to_wal(connection)
    # NORMAL, usual with WAL, can lose the last commits in a power cut; a recorded outcome must survive one.
    connection.execute("PRAGMA synchronous = FULL")


def _switch_to_wal(connection: Any) -> None:
    # Done once per file. While another process makes the switch, SQLite refuses at once and does not wait.
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _prepare_postgres(connection: Any, _record: object) -> None:
    # In another zone Python's datetime could not hold the last hours of year 9999, nor the first of year 1.
    connection.execute("SET TIME ZONE 'UTC'")
    # The server's default, 4, is that of a spinning disk: it then reads all of 500,000 rows to find 5,000.
    connection.execute("SET random_page_cost = 1.1")
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    purpose = connection.get_execution_options().get("kensa_begin", "read")
    # Set before BEGIN: inside a transaction SQLite ignores foreign_keys. They are off for migrations, which
    # recreate tables that others refer to.
    connection.exec_driver_sql(f"PRAGMA foreign_keys = {'OFF' if purpose == 'migrate' else 'ON'}")
    connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if purpose == 'read' else 'OFF'}")
    connection.exec_driver_sql("BEGIN" if purpose == "read" else "BEGIN IMMEDIATE")
