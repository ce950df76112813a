"""One process at a time at a run: a lock that the system takes back however its process ends."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from db.columns import flat_json, storable
from db.engine import Database
from db.errors import RecordError, RunBusy
from db.failures import storage_error
from db.inspection.runs import RunKind, unfinished_run

_POLL_S = 1.0  # between two tries of a run that waits
# What would end the lock's connection, idle for as long as the run takes; and a host that has lost its power
# must not hold the lock for the two hours that TCP would give it. Not every server has every setting.
_SETTINGS = text("""
SELECT set_config(wanted.name, wanted.value, true) FROM (VALUES
    ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0'), ('tcp_keepalives_idle', '30'),
    ('tcp_keepalives_interval', '10'), ('tcp_keepalives_count', '3')
) AS wanted (name, value) WHERE current_setting(wanted.name, true) IS NOT NULL""")


class RunLock(Protocol):
    """The lock of one kind of run: over one source, with one model and one settings digest."""

    def take(self) -> bool:
        """Take the lock, if no other holds it; return whether it is held now."""

    def keep(self) -> bool:
        """Take the lock again, should it have been lost; return whether it is held now."""

    def release(self) -> None:
        """Give the lock back."""


def run_lock(db: Database, kind: RunKind) -> RunLock:
    """Return the lock of the runs that `start_or_resume_run` takes for one run.

    Runs over one source with another model or other settings are other work, and go on beside it.
    """
    digest = hashlib.sha256(
        flat_json([storable(kind.source), kind.settings_digest, kind.model_digest])
    ).digest()
    if db.sqlite:
        file = Path(str(db.url.database)).resolve()
        return _FileLock(file.with_name(f"{file.name}-run-{digest.hex()[:16]}.lock"))
    return _AdvisoryLock(db, int.from_bytes(digest[:8], signed=True))


@contextmanager
def locked_run(
    db: Database,
    kind: RunKind,
    *,
    wait: bool = False,
    waiting: Callable[[str], None] | None = None,
    remedy: str = "wait for its end, or set run.when_busy to wait",
) -> Iterator[RunLock]:
    """Hold the lock of a run; `waiting` is told once what is waited for.

    Raises:
        RunBusy: another process holds it, and this one is not to wait; the message ends with the remedy.
    """
    lock = run_lock(db, kind)
    told = False
    while not lock.take():
        busy = busy_sentence(db, kind)
        if not wait:
            raise RunBusy(f"{busy}: {remedy}")
        if waiting is not None and not told:
            waiting(f"{busy}: waiting for its end")
        told = True
        time.sleep(_POLL_S)
    try:
        yield lock
    finally:
        lock.release()


def busy_sentence(db: Database, kind: RunKind) -> str:
    """Say which run of this kind another process is at."""
    with db.session() as session:
        run = unfinished_run(session, kind)
    # Without one it has not begun yet, or has ended and is rendering its report.
    which = "a run" if run is None else f"run {run.reference}"
    return f"another process is at {which} over {kind.source} with the same model and settings"


class _FileLock:
    """A lock on an empty file beside the SQLite database, of the machine that both processes run on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self) -> bool:
        try:
            while not self._taken():
                pass
        except BlockingIOError:
            return False
        except OSError as error:
            raise RecordError(
                f"run lock {self._path}: cannot be taken ({error.strerror}): the folder of the database must "
                "be writable, on a file system with locks"
            ) from error
        return True

    def _taken(self) -> bool:
        # For reading: that is enough for a lock, and leaves it open to other accounts.
        file = os.open(self._path, os.O_RDONLY | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            present = self._path.stat()
        except FileNotFoundError:
            os.close(file)
            return False
        except BaseException:
            os.close(file)
            raise
        # Its last holder may have removed the file meanwhile: nobody else would see a lock on that one.
        if not os.path.samestat(os.fstat(file), present):
            os.close(file)
            return False
        self._file = file
        return True

    def keep(self) -> bool:
        return self._file is not None or self.take()

    def release(self) -> None:
        if self._file is not None:
            self._path.unlink(missing_ok=True)  # while it is held, so that no other can have taken it
            os.close(self._file)
            self._file = None


class _AdvisoryLock:
    """An advisory lock of PostgreSQL, on a connection of its own.

    It belongs to a transaction, not to the session, because poolers such as PgBouncer may hand a session on
    to others between two transactions. The transaction keeps no snapshot: it holds up no VACUUM.
    """

    def __init__(self, db: Database, key: int) -> None:
        self._db, self._key = db, key
        self._connection: Connection | None = None

    def take(self) -> bool:
        try:
            return self._taken()
        except DBAPIError as error:
            raise storage_error(error, self._db) or error from error

    def _taken(self) -> bool:
        connection = self._db.engine.connect()
        try:
            # Under another isolation, and by a statement with parameters, whose portal stays open, a snapshot
            # would last as long as the transaction.
            connection = connection.execution_options(isolation_level="READ COMMITTED", no_parameters=True)
            connection.execute(_SETTINGS)
            taken = bool(connection.scalar(text(f"SELECT pg_try_advisory_xact_lock({self._key})")))
        except BaseException:
            connection.close()
            raise
        if taken:
            self._connection = connection
        else:
            connection.close()
        return taken

    def keep(self) -> bool:
        if self._connection is not None:
            try:
                self._connection.execute(text("SELECT 1"))
                return True
            except DBAPIError:  # the server was restarted, or the network failed: the lock went with it
                self._connection.invalidate()
                self.release()
        return self.take()

    def release(self) -> None:
        if self._connection is None:
            return
        try:
            self._connection.rollback()  # which ends the lock
        except DBAPIError:  # the server was restarted: the lock ended with its connection
            self._connection.invalidate()
        self._connection.close()
        self._connection = None
