"""How a run and `kensa serve` end when Prefect's server is killed, they are killed, or a signal comes."""

import os
import signal
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from db.engine import open_database
from db.issued.reports import run_reports
from db.queries.runs import list_runs
from tests.flows import processes
from tests.flows.processes import KENSA, asked, processes_in, wait_until

BEGUN = {"PENDING", "RUNNING"}  # Prefect's types of state


def forks_in(home: str) -> list[int]:
    """The fork server of a `kensa serve` with this Prefect home, and the runs that it has forked."""
    found = []
    for process in processes_in(home):
        try:
            command = Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:
            continue  # ended meanwhile
        if b"multiprocessing.forkserver" in command:
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
    with processes.prefect_server(tmp_path / "server") as (url, server):
        process = start(line, tmp_path / "home", "run", PREFECT_API_URL=url)
        wait_for_line(process, "batch    1")
        os.killpg(server, signal.SIGKILL)
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
def test_no_process_is_left_behind_when_only_the_run_is_killed(make_line, tmp_path):
    home = tmp_path / "home"
    process = start(make_line(), home, "run")
    wait_for_line(process, "run R000001 started")
    process.kill()
    process.communicate()
    wait_until(lambda: not processes_in(str(home)), 60, "the decoding processes to end with their run")


@pytest.mark.slow
@pytest.mark.parametrize("with_server", [False, True])
def test_a_run_that_is_interrupted_says_so_and_goes_on(make_line, tmp_path, with_server, request):
    line = make_line()
    there = {"PREFECT_API_URL": request.getfixturevalue("prefect_server")} if with_server else {}
    for kind in (signal.SIGINT, signal.SIGTERM):
        process = start(line, tmp_path / "home", "run", **there)
        wait_for_line(process, "batch    1")
        process.send_signal(kind)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 130, out + err
        assert "interrupted; a run goes on from here with the next one" in err
        assert "Traceback" not in out + err
    process = start(line, tmp_path / "home", "run", **there)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert "run R000001 resumed" in out
    assert "run R000001 done: 24 listed = " in out
    wait_until(lambda: not processes_in(str(tmp_path / "home")), 30, "every process to end")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_serving_while_prefect_starts_a_run(make_line, prefect_server, tmp_path, kind):
    line = make_line(schedule={"cron": "* * * * *"})
    home = tmp_path / "serving"
    log = (tmp_path / "serve.log").open("w")
    before = {run["id"] for run in asked(prefect_server, "flow_runs") if run["state_type"] in BEGUN}

    def begun() -> bool:
        return any(
            run["state_type"] in BEGUN and run["id"] not in before
            for run in asked(prefect_server, "flow_runs")
        )

    serving = subprocess.Popen(
        [KENSA, "serve", "-c", line.config],
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**line.environment, "PREFECT_HOME": str(home), "PREFECT_API_URL": prefect_server},
    )
    try:
        # Besides the process that it is forked from: the run's own has just begun.
        wait_until(lambda: begun() and len(forks_in(str(home))) > 1, 240, "a run to be started")
        serving.send_signal(kind)
        assert serving.wait(60) == 0
    finally:
        serving.kill()
        serving.wait()
        log.close()
    wait_until(lambda: not processes_in(str(home)), 30, "the run's process to end")


class _HealthAlone(BaseHTTPRequestHandler):
    """Answers like a Prefect server whose health is asked, and knows nothing else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
        self.wfile.write(b"true")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.slow
def test_a_server_that_does_not_begin_the_run_is_told_in_a_sentence(make_line, tmp_path):
    line = make_line()
    with ThreadingHTTPServer(("127.0.0.1", 0), _HealthAlone) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/api"
        process = start(line, tmp_path / "home", "run", PREFECT_API_URL=url)
        out, err = process.communicate(timeout=240)
        server.shutdown()
    assert process.returncode == 4, out + err
    assert "Traceback" not in out + err
    assert "Prefect did not begin the run: " in err
    assert not (line.folder / "kensa.db").exists()
