"""The flow on a real Prefect API, through the command line: run, kill -9, resume, schedule."""

import json
import os
import platform
import shutil
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psycopg
import pytest
from pypdf import PdfReader

from benchmarks import postgres
from db.artifacts import ArtifactStore
from db.engine import open_database
from db.issued.reports import run_reports
from db.queries.events import EventFilter, find_events
from db.queries.runs import list_runs, run_images
from db.verification.walk import verify
from tests.flows.processes import KENSA, PREFECT, asked, processes_in, wait_until


def outcomes(url: str) -> tuple[dict, list]:
    """What the record says of the latest run: uri -> verdict and score; and all runs."""
    with open_database(url) as database, database.session() as session:
        runs = list_runs(session)
        images = list(run_images(session, runs[0].id))
        assert len({i.uri for i in images}) == len(images)
        return {i.uri: (i.verdict, i.score) for i in images}, runs


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(make_line):
    killed, whole = make_line("killed", run={"batch_size": 2}), make_line("whole", run={"batch_size": 2})
    process = subprocess.Popen(
        [KENSA, "run", "-c", killed.config],
        stdout=subprocess.PIPE,
        text=True,
        env={**killed.environment, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().startswith("batch    3"):
            break
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    process.stdout.close()
    home = killed.environment["PREFECT_HOME"]
    wait_until(lambda: not processes_in(home), 60, "Prefect's server to end with its run")
    partial, (run,) = outcomes(killed.database_url)
    assert run.status == "unfinished"
    assert 6 <= len(partial) < 24

    assert "resumed" in killed.kensa("run").stdout
    whole.kensa("run")
    resumed, runs = outcomes(killed.database_url)
    expected, _ = outcomes(whole.database_url)
    assert resumed == expected
    assert [r.status for r in runs] == ["completed"]
    with open_database(killed.database_url) as database:
        assert verify(database, artifacts=ArtifactStore(killed.folder / "artifacts")).problems == ()
        with database.session() as session:
            actions = [e.action for e in find_events(session, EventFilter())]
    assert actions.count("run.started") == actions.count("run.resumed") == actions.count("run.finished") == 1
    assert actions.count("image.inspected") == 24


def test_a_run_ends_with_a_report_and_tells_what_was_unreadable(make_line, tmp_path, pictures):
    source = tmp_path / "damaged"
    shutil.copytree(pictures, source)
    sorted((source / "images").rglob("*.png"))[0].write_bytes(b"")
    line = make_line(source={"uri": str(source)})
    done = line.kensa("run", check=3)
    assert "24 listed = " in done.stdout
    assert "1 unreadable" in done.stdout
    assert "unreadable images/L001/P000001.png: the file is empty" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    # Prefect's own lines are kept from the person at the terminal.
    assert "prefect" not in (done.stdout + done.stderr).lower()
    pdf = line.folder / "reports" / "R000001-1.pdf"
    text = "\n".join(page.extract_text() for page in PdfReader(pdf).pages)
    assert "R000001" in text
    assert "P000001" in text or "images/L001/P000001.png" in text
    with open_database(line.database_url) as database, database.session() as session:
        (report,) = run_reports(session, list_runs(session)[0].id)
    assert ArtifactStore(line.folder / "artifacts").get(report.artifact_digest) == pdf.read_bytes()


@pytest.mark.slow
def test_prefect_shows_what_a_run_was_about_and_whether_somebody_must_look(
    make_line, prefect_server, tmp_path, pictures
):
    there = {"PREFECT_API_URL": prefect_server, "PREFECT_HOME": str(tmp_path / "prefect")}
    both, one = tmp_path / "both", tmp_path / "one"
    for source in (both, one):
        shutil.copytree(pictures, source)
    sorted((both / "images").rglob("*.png"))[0].write_bytes(b"")
    shutil.rmtree(one / "images" / "L002")
    rows = (one / "manifest.csv").read_text().splitlines()
    (one / "manifest.csv").write_text("\n".join(row for row in rows if "L002" not in row))
    make_line("a", source={"uri": str(both)}).kensa("run", check=3, **there)
    base = "https://qa.example/line 1/reports/".replace(" ", "%20")
    line = make_line("b", source={"uri": str(one), "only_new": True}, report={"base_url": base})
    line.kensa("run", **there)
    runs = {run["name"]: run["state"] for run in asked(prefect_server, "flow_runs")}
    assert {name: (state["type"], state["name"]) for name, state in runs.items()} == {
        "R000001 · both": ("COMPLETED", "Needs attention"),
        "R000001 · L001": ("COMPLETED", "Completed"),
    }
    assert runs["R000001 · both"]["message"] == "1 unreadable"
    artifacts = asked(prefect_server, "artifacts")
    tables = [json.loads(a["data"]) for a in artifacts if a["key"] == "run-r000001-summary"]
    two_lots, one_lot = sorted(tables, key=len, reverse=True)
    assert [row["lot"] for row in two_lots] == ["L001", "L002", "all"]
    assert [row["lot"] for row in one_lot] == ["L001", "all"]
    for table in tables:
        for name in ("listed", "pass", "review", "reject", "unreadable"):
            assert sum(row[name] for row in table[:-1]) == table[-1][name]
    assert [row["unreadable"] for row in two_lots] == [1, 0, 1]
    reports = [a["data"] for a in artifacts if a["key"] == "run-r000001-report"]
    (link,) = [data for data in reports if data.startswith("[")]
    assert link == f"[R000001-1.pdf]({base}R000001-1.pdf)"
    (place,) = [data for data in reports if data != link]
    assert place == f"Report: `{tmp_path / 'a' / 'reports' / 'R000001-1.pdf'}` on {platform.node()}"

    line.kensa("run", **there)
    assert "R000002 · one" in {run["name"] for run in asked(prefect_server, "flow_runs")}
    (empty,) = [a for a in asked(prefect_server, "artifacts") if a["key"].startswith("run-r000002")]
    assert empty["key"] == "run-r000002-summary"
    assert empty["description"].endswith(
        f"of {one}; {one_lot[-1]['listed']} inspected by earlier runs, not listed again"
    )


@pytest.mark.slow
def test_a_scheduled_run_happens(make_line, prefect_server, tmp_path):
    # In two minutes, and in five where a slow machine was not ready then.
    soon = datetime.now(UTC).minute
    cron = f"{(soon + 2) % 60},{(soon + 5) % 60} * * * *"
    line = make_line(schedule={"cron": cron})
    environment = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": prefect_server,
    }
    log = (tmp_path / "serve.log").open("w")
    serving = subprocess.Popen(
        [KENSA, "serve", "-c", line.config], stdout=log, stderr=subprocess.STDOUT, env=environment
    )

    def finished() -> bool:
        assert serving.poll() is None, (tmp_path / "serve.log").read_text()
        if not (line.folder / "kensa.db").exists():
            return False
        with open_database(line.database_url) as database:
            try:
                database.check()
            except ValueError:
                return False  # the scheduled run is migrating it
            with database.session() as session:
                return any(run_reports(session, run.id) for run in list_runs(session))

    def ask(path: str) -> list[dict]:
        return asked(prefect_server, path)

    try:
        wait_until(finished, 420, "a scheduled run")
        wait_until(
            lambda: any(run["state_type"] == "COMPLETED" for run in ask("flow_runs")), 60, "Prefect to notice"
        )
        serving.send_signal(signal.SIGINT)
        assert serving.wait(60) == 0
    finally:
        serving.kill()
        serving.wait()
        log.close()
    with open_database(line.database_url) as database, database.session() as session:
        first = list_runs(session)[-1]
    assert (first.trigger, first.status) == ("schedule", "completed")
    artifacts = {a["key"]: a for a in ask("artifacts")}
    assert "run-r000001-summary" in artifacts
    assert "R000001-1.pdf" in artifacts["run-r000001-report"]["data"]
    (deployment,) = ask("deployments")
    assert deployment["name"] == "test-line"
    assert not deployment["paused"]
    assert [s["schedule"]["cron"] for s in deployment["schedules"]] == [cron]
    assert all(s["active"] for s in deployment["schedules"])


@pytest.mark.slow
def test_the_deployments_of_prefect_yaml_can_be_deployed(prefect_server, tmp_path):
    environment = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": prefect_server,
    }

    def prefect(*arguments: str) -> str:
        done = subprocess.run(
            [PREFECT, "--no-prompt", *arguments],
            cwd=Path(__file__).parents[2],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    prefect("work-pool", "create", "inspection", "--type", "process")
    assert "inspect/steel-line-1" in prefect("deploy", "--all")
    answer = httpx.post(f"{prefect_server}/deployments/filter", json={}, timeout=30)
    (deployment,) = answer.json()
    assert deployment["entrypoint"] == "flows/inspection.py:inspect"
    assert deployment["parameters"]["config"] == "configs/steel.yaml"
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert [s["schedule"]["cron"] for s in deployment["schedules"]] == ["*/15 * * * *"]


@pytest.mark.slow
def test_a_prefect_server_that_does_not_answer_is_named(make_line):
    line = make_line(schedule={"cron": "0 6 * * *"})
    nowhere = "http://127.0.0.1:1/api"
    for command in ("run", "serve"):
        message = line.kensa(command, check=4, PREFECT_API_URL=nowhere).stderr
        assert nowhere in message
        assert "PREFECT_API_URL" in message
        assert "Traceback" not in message


@pytest.mark.slow
def test_serving_needs_a_server_and_a_schedule(make_line):
    scheduled = make_line("scheduled", schedule={"cron": "0 6 * * *"})
    assert "prefect server start" in scheduled.kensa("serve", check=2).stderr
    assert "schedule.cron" in make_line("unscheduled").kensa("serve", check=2).stderr


@pytest.mark.slow
def test_a_run_on_postgresql_by_an_account_that_cannot_change_history(
    make_line, postgres_server, kensa, tmp_path
):
    owner = postgres.new_database(postgres_server)
    kensa("audit", "keygen", "line", "--out", tmp_path, "--no-passphrase")
    line = make_line(
        "pg",
        database={"url": owner},
        audit={"checkpoints": str(tmp_path / "notes"), "signing_key": str(tmp_path / "line.key")},
    )
    assert "up to date" in line.kensa("db", "migrate").stdout
    accounts = ("--writer", "line_run", "--auditor", "line_audit", "--reader", "line_read")
    script = line.kensa("db", "grants", *accounts).stdout
    with psycopg.connect(owner.replace("+psycopg", "")) as server:
        server.execute(script.encode())
    recorder, auditor = (
        ("--set", f"database.url={owner.replace('kensa@', f'{name}@')}")
        for name in ("line_run", "line_audit")
    )
    run = line.kensa("run", *recorder)
    assert "run R000001 done: 24 listed = " in run.stdout
    assert "checkpoint: 27 events signed by line, kept in " in run.stdout
    report = line.folder / "reports" / "R000001-1.pdf"
    told = line.kensa("audit", "verify", *auditor, "--report", str(report)).stdout
    assert "intact: 29 events" in told
    assert "note: proved: events 1 to 27 are those that line signed on " in told
    assert "note: R000001-1.pdf: as it was issued; it prints audit head 28" in told
    assert "account" not in told
    assert "account 'kensa' is a superuser" in line.kensa("audit", "verify").stdout
    with psycopg.connect(owner.replace("+psycopg", "").replace("kensa@", "line_run@")) as server:
        for statement in ("UPDATE finding SET score = 0", "DELETE FROM audit_event", "TRUNCATE run CASCADE"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                server.execute(statement)
            server.rollback()
    refused = line.kensa("run", *auditor, check=2).stderr
    assert "this account may not add to the record: permission denied for table audit_event" in refused
