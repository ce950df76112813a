"""The real command line, killed with -9, started twice, and started again."""

import contextlib
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from benchmarks import postgres
from db.artifacts import ArtifactStore
from db.engine import open_database
from db.issued.reports import run_reports
from db.queries.events import EventFilter, find_events
from db.queries.runs import list_runs, run_gone, run_images
from db.verification.walk import verify
from tests.flows.test_inspection import KENSA, processes_in, wait_until
from tests.line import Line

pytestmark = pytest.mark.slow


@pytest.fixture(params=["sqlite", "postgresql"])
def line(
    request: pytest.FixtureRequest, make_line: Callable[..., Line], tmp_path: Path, pictures: Path
) -> Iterator[Line]:
    """A line over an inbox of its own, in small batches."""
    source = shutil.copytree(pictures, tmp_path / "inbox")
    sections: dict = {"source": {"uri": str(source)}, "run": {"batch_size": 2}}
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        sections["database"] = {"url": postgres.new_database(server)}
    made = make_line(**sections)
    home = tmp_path / "prefect"
    yield Line(made.folder, made.config, made.environment | {"PREFECT_HOME": str(home)})
    wait_until(lambda: not processes_in(str(home)), 60, "Prefect's servers to end with their runs")


def url_of(line: Line) -> str:
    from configs.loading import load_settings

    return load_settings(str(line.config), []).database.url


@contextlib.contextmanager
def started(line: Line, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`kensa run` as a process of its own, killed at the end of the block if it still runs."""
    process = subprocess.Popen(
        [KENSA, "run", "-c", line.config, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**line.environment, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)


def read_until(process: subprocess.Popen[str], beginning: str) -> None:
    """Read what a process prints up to a line that begins so."""
    assert process.stdout is not None
    seen = []
    for text in process.stdout:
        seen.append(text)
        if text.strip().startswith(beginning):
            return
    pytest.fail(f"ended without {beginning!r}: {''.join(seen)}")


def verified(line: Line) -> None:
    with open_database(url_of(line)) as database:
        found = verify(database, artifacts=ArtifactStore(line.folder / "artifacts"))
    assert found.problems == ()
    assert not any("ended without" in remark for remark in found.remarks)


def test_a_killed_run_whose_recorded_picture_was_moved_away_ends_with_its_report(line, tmp_path):
    with started(line) as process:
        read_until(process, "batch    3")
    with open_database(url_of(line)) as database, database.session() as session:
        (run,) = list_runs(session)
        gone, *_ = (image.uri for image in run_images(session, run.id))
    assert run.status == "unfinished"
    (tmp_path / "inbox" / gone).rename(tmp_path / "moved.png")
    said = line.kensa("run").stdout
    assert "run R000001 resumed" in said
    assert "run R000001 done: 24 listed = " in said
    assert "1 recorded before an interruption and no longer in the source" in said
    with open_database(url_of(line)) as database, database.session() as session:
        (run,) = list_runs(session)
        assert run_gone(session, run.id) == (gone,)
        assert len(run_reports(session, run.id)) == 1
    assert (run.status, run.counts.listed, run.counts.missing) == ("completed", 24, 0)
    verified(line)


@contextlib.contextmanager
def recording_stopped(url: str) -> Iterator[None]:
    """Let nobody record anything meanwhile."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            yield
    else:
        with psycopg.connect(url.replace("+psycopg", "")) as server:
            server.execute("LOCK TABLE report IN EXCLUSIVE MODE")
            yield


def test_a_run_that_is_killed_while_it_renders_gets_its_report_at_the_next_start(line):
    url = url_of(line)

    def ended() -> bool:
        with open_database(url) as database, database.session() as session:
            return [run.status for run in list_runs(session)] == ["completed"]

    with started(line) as process:
        read_until(process, "batch   11")  # so that the database is there
        wait_until(ended, 120, "the end of the run")
        with recording_stopped(url):
            with open_database(url) as database, database.session() as session:
                assert run_reports(session, list_runs(session)[0].id) == []
            process.send_signal(signal.SIGKILL)
            process.wait(60)
    assert "note: ended without its report: R000001" in line.kensa("audit", "verify").stdout
    said = line.kensa("run").stdout
    assert "report of run R000001, missing until now: " in said
    with open_database(url) as database, database.session() as session:
        runs = list_runs(session)
        assert [run.reference for run in runs] == ["R000002", "R000001"]
        assert [len(run_reports(session, run.id)) for run in runs] == [1, 1]
    assert (line.folder / "reports" / "R000001-1.pdf").is_file()
    verified(line)


def test_of_two_runs_at_once_the_second_leaves_or_waits(line):
    with started(line) as first:
        read_until(first, "batch    1")
        first.send_signal(signal.SIGSTOP)  # so that it holds the run for as long as this takes
        refused = line.kensa("run", check=None)
        assert refused.returncode != 0
        told = " ".join((refused.stdout + refused.stderr).split())
        assert "another process is at run R000001 over" in told
        assert "run.when_busy" in told
        with started(line, "--set", "run.when_busy=wait") as second:
            read_until(second, "another process is at run R000001")
            first.send_signal(signal.SIGCONT)
            output, _ = first.communicate(timeout=240)
            assert first.returncode == 0, output
            output, _ = second.communicate(timeout=240)
            assert second.returncode == 0, output
    with open_database(url_of(line)) as database, database.session() as session:
        second_run, first_run = list_runs(session)
        actions = [event.action for event in find_events(session, EventFilter(), limit=500)]
    assert (first_run.counts.listed, first_run.counts.carried_over) == (24, 0)
    assert (second_run.counts.listed, second_run.counts.carried_over) == (24, 24)
    assert "run.resumed" not in actions
    verified(line)
    assert not list(line.folder.glob("*.lock"))
