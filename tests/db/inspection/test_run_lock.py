"""One process at a time at a run, on both databases."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from db.engine import Database, open_database
from db.errors import RunBusy
from db.inspection.run_lock import RunLock, locked_run, run_lock
from db.inspection.runs import RunKind, finish_run
from tests.db.conftest import ACTOR, Plant

KIND = RunKind("line-1", "1" * 64, "2" * 64)
HOLDER = """
import sys
from db.engine import open_database
from db.inspection.run_lock import run_lock
from db.inspection.runs import RunKind
database = open_database(sys.argv[1])
lock = run_lock(database, RunKind("line-1", "1" * 64, "2" * 64))
print(lock.take(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(database: Database, url: str) -> Iterator[Database]:
    """The same database, as another process has it open."""
    with open_database(url) as opened:
        yield opened


@pytest.fixture
def lock(database: Database) -> Iterator[RunLock]:
    made = run_lock(database, KIND)
    assert made.take()
    yield made
    made.release()


def test_one_holds_the_lock_of_a_run_and_others_get_it_afterwards(lock: RunLock, other: Database) -> None:
    second = run_lock(other, KIND)
    assert not second.take()
    assert lock.keep()
    assert not second.take()
    lock.release()
    assert second.take()
    assert not lock.take()
    second.release()


@pytest.mark.parametrize("changed", RunKind._fields)
def test_runs_of_another_kind_go_on_beside_it(lock: RunLock, other: Database, changed: str) -> None:
    second = run_lock(other, KIND._replace(**{changed: "3" * 64}))
    assert second.take()
    second.release()


def test_a_killed_process_gives_the_lock_back(database: Database, url: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    told: list[str] = []

    def kill(sentence: str) -> None:
        told.append(sentence)
        process.send_signal(signal.SIGKILL)
        process.wait(30)

    with locked_run(database, KIND, wait=True, waiting=kill):
        assert len(told) == 1
        assert "another process is at a run over line-1" in told[0]
        assert told[0].endswith(": waiting for its end")
    process.communicate()


def test_who_is_not_to_wait_is_told_which_run_is_under_way(plant: Plant, other: Database) -> None:
    run = plant.start()
    with locked_run(plant.db, run.kind):
        with pytest.raises(RunBusy, match=r"run R000001 over line-1 .*: .*run\.when_busy to wait"):  # noqa: SIM117
            with locked_run(other, run.kind):
                pass
        finish_run(plant.db, run, actor=ACTOR, listed=0)
        with pytest.raises(RunBusy, match=r"at a run over line-1 .*: stop it"):  # noqa: SIM117
            with locked_run(other, run.kind, remedy="stop it"):
                pass


def test_an_error_gives_the_lock_back(database: Database, other: Database) -> None:
    with pytest.raises(ZeroDivisionError), locked_run(database, KIND):
        raise ZeroDivisionError
    with locked_run(other, KIND):
        pass


@pytest.mark.parametrize("backend", ["sqlite"])
def test_the_lock_file_lies_beside_the_database_while_the_run_lasts(
    lock: RunLock, database: Database, other: Database
) -> None:
    folder = Path(str(database.url.database)).parent
    (file,) = folder.glob("*.lock")
    lock.release()
    assert not list(folder.glob("*.lock"))
    file.touch()  # as a kill leaves it behind
    again = run_lock(other, KIND)
    assert again.take()
    again.release()
    assert not list(folder.glob("*.lock"))


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_lock_that_went_with_its_connection_is_taken_again(lock: RunLock, other: Database) -> None:
    _end_lock_connection(other)
    assert lock.keep()
    second = run_lock(other, KIND)
    assert not second.take()
    _end_lock_connection(other)
    assert second.take()
    assert not lock.keep()
    second.release()
    assert lock.keep()


@pytest.mark.parametrize("backend", ["postgresql"])
def test_the_open_transaction_of_a_lock_holds_up_no_vacuum(lock: RunLock, other: Database) -> None:
    with other.engine.connect() as connection:
        (held,) = connection.execute(text(f"SELECT backend_xmin, backend_xid, state {_HOLDERS}")).all()
    assert tuple(held) == (None, None, "idle in transaction")


_HOLDERS = (
    "FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid "
    "WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()"
)


def _end_lock_connection(database: Database) -> None:
    with database.engine.connect() as connection:
        ended = connection.execute(text(f"SELECT pg_terminate_backend(a.pid, 10000) {_HOLDERS}")).all()
    assert [tuple(row) for row in ended] == [(True,)]
