"""What a driver's or the system's error means: will it pass, what stands in the way, what helps."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, OperationalError

from db.errors import AwayError, StorageError

_FULL = "there is no space left: make room, then run it again"
_READ_ONLY = "it is read-only: make it writable, then run it again"
_DENIED = "this account may not: give it the right to read and write there, then run it again"
_BROKEN = "the disk or the server reports an error: look after it, then run it again"
_FILE_HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _READ_ONLY,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EIO: _BROKEN,
}
# What a network file system or a bucket gives while it is away.
_FILE_PASSING = {
    *(errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENOTCONN, errno.ESTALE),
}
# SQLite's primary result codes (https://www.sqlite.org/rescode.html).
_SQLITE_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_SQLITE_HINTS = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: "see that its folder is there and that this account may write in it",
    sqlite3.SQLITE_PERM: _DENIED,
    sqlite3.SQLITE_IOERR: _BROKEN,
}
# PostgreSQL's SQLSTATEs: connection, shutdown, crash, start-up, too many clients, deadlock, lock.
_POSTGRES_PASSING = ("08", "57P", "53300", "40001", "40P01", "55P03", "25P03")
_POSTGRES_HINTS = {"53100": _FULL, "25006": _READ_ONLY, "58030": _BROKEN}
# A refused connection has no SQLSTATE, only text. FATAL means that a server answered: it will say the same
# again (no such database, wrong password) unless it is one of these.
_FATAL_PASSING = ("starting up", "shutting down", "not yet accepting", "recovery", "too many", "reserved")


def storage_error(error: DBAPIError, database: object) -> StorageError | None:
    """Return what a database's error means; None where it is none of the surroundings but of what was asked.

    Args:
        error: as SQLAlchemy raised it.
        database: how messages name it, without its password.
    """
    cause = error.orig
    passing, hint = False, None
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the extended codes begin with the primary one
        passing, hint = code in _SQLITE_PASSING, _SQLITE_HINTS.get(code)
    elif cause is not None and hasattr(cause, "sqlstate"):  # psycopg's; not imported for SQLite
        state = cause.sqlstate
        if state is None:
            text = str(cause)
            lost = error.connection_invalidated or isinstance(error, OperationalError)
            passing = lost and ("FATAL" not in text or any(each in text for each in _FATAL_PASSING))
        else:
            passing, hint = state.startswith(_POSTGRES_PASSING), _POSTGRES_HINTS.get(state)
    reason = " ".join(str(cause).split())
    if passing:
        return AwayError(f"database {database} does not answer or is locked ({reason}): start or free it")
    return None if hint is None else StorageError(f"database {database} ({reason}): {hint}")


def file_error(error: OSError, path: object) -> StorageError | None:
    """Return what a file system's error means; None where it says nothing about the surroundings."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in _FILE_PASSING or (
        error.errno is None and isinstance(error, ConnectionError | TimeoutError)
    ):
        return AwayError(
            f"{path} cannot be reached ({reason}): see that its server answers, then run it again"
        )
    hint = _FILE_HINTS.get(error.errno or 0)
    return None if hint is None else StorageError(f"{path} cannot be read or written ({reason}): {hint}")


@contextmanager
def named_failures(path: object) -> Iterator[None]:
    """Raise what the file system answers within as StorageError that names the path, where that says more."""
    try:
        yield
    except OSError as error:
        failure = file_error(error, path)
        if failure is None:
            raise
        raise failure from error
