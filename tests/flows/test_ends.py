"""How a run and `kensa serve` end when Prefect's server is killed, they are killed, or a signal comes."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from db.engine import open_database
from db.issued.reports import run_reports
from db.queries.runs import list_runs
from tests.flows.processes import KENSA, processes_in, wait_until


def servers_in(home: str) -> list[int]:
    """The temporary Prefect servers that were started with this Prefect home."""
    found = []
    for process in processes_in(home):
        command = Path(f"/proc/{process}/cmdline")
        if command.exists() and b"prefect.server.api.server:create_app" in command.read_bytes():
            found.append(process)
    return found


def start(line, home: Path, *command: str, **environment: str) -> subprocess.Popen[str]:
    """Start `kensa` with a Prefect home of its own, where no other test's processes are."""
    return subprocess.Popen(
        [KENSA, *command, "-c", str(line.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**line.environment, "PREFECT_HOME": str(home), "PYTHONUNBUFFERED": "1", **environment},
        start_new_session=True,
    )


def wait_for_line(process: subprocess.Popen[str], beginning: str) -> None:
    """Read what a process prints until a line begins so."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().startswith(beginning):
            return
    raise AssertionError(f"it ended without {beginning!r}")


@pytest.mark.slow
def test_the_record_decides_when_the_prefect_server_is_killed_under_a_run(make_line, tmp_path):
    line = make_line()
    process = start(line, tmp_path / "home", "run")
    wait_for_line(process, "batch    1")
    (server,) = servers_in(str(tmp_path / "home"))
    os.kill(server, signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert "run R000001 done: 24 listed = " in out
    assert "Prefect was not told of this result, which the record holds: its server did not answer" in err
    assert "Traceback" not in out + err
    assert "EventsWorker" not in out + err
    with open_database(line.database_url) as database, database.session() as session:
        (run,) = list_runs(session)
        assert run.status == "completed"
        assert len(run_reports(session, run.id)) == 1
    wait_until(lambda: not processes_in(str(tmp_path / "home")), 30, "every process to end")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["forked", "migrating", "running"])
def test_no_server_is_left_behind_when_only_the_run_is_killed(make_line, tmp_path, moment):
    home = tmp_path / "home"
    process = start(make_line(), home, "run")
    if moment == "forked":
        wait_until(lambda: len(processes_in(str(home))) > 1, 120, "the server's process")
    elif moment == "migrating":
        wait_until(lambda: list(home.glob("prefect.db*")), 120, "the server's database")
    else:
        wait_for_line(process, "run R000001 started")
    process.kill()
    process.communicate()
    wait_until(lambda: not processes_in(str(home)), 60, "Prefect's server to end with its run")


@pytest.mark.slow
def test_a_run_that_is_interrupted_says_so_and_goes_on(make_line, tmp_path):
    line = make_line()
    for kind in (signal.SIGINT, signal.SIGTERM):
        process = start(line, tmp_path / "home", "run")
        wait_for_line(process, "batch    1")
        process.send_signal(kind)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 130, out + err
        assert "interrupted; a run goes on from here with the next one" in err
        assert "Traceback" not in out + err
    process = start(line, tmp_path / "home", "run")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert "run R000001 resumed" in out
    assert "run R000001 done: 24 listed = " in out


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_serving_while_prefect_starts_a_run(make_line, prefect_server, tmp_path, kind):
    line = make_line(schedule={"cron": "* * * * *"})
    home = tmp_path / "serving"
    log = (tmp_path / "serve.log").open("w")
    serving = subprocess.Popen(
        [KENSA, "serve", "-c", line.config],
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**line.environment, "PREFECT_HOME": str(home), "PREFECT_API_URL": prefect_server},
    )
    try:
        # Besides `kensa serve` itself: the run's own process has just begun.
        wait_until(lambda: len(processes_in(str(home))) > 1, 240, "a run to be started")
        serving.send_signal(kind)
        assert serving.wait(60) == 0
    finally:
        serving.kill()
        serving.wait()
        log.close()
    wait_until(lambda: not processes_in(str(home)), 30, "the run's process to end")


@pytest.mark.slow
def test_a_server_that_does_not_start_is_told_in_a_sentence(make_line, tmp_path):
    line = make_line()
    process = start(
        line,
        tmp_path / "home",
        "run",
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="5",
        PREFECT_SERVER_DATABASE_CONNECTION_URL=f"sqlite+aiosqlite:///{tmp_path}/none/prefect.db",
    )
    out, err = process.communicate(timeout=240)
    assert process.returncode == 4, out + err
    assert "Traceback" not in out + err
    assert "Prefect did not begin the run: " in err
    assert not (line.folder / "kensa.db").exists()
