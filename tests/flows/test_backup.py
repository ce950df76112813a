"""The commands of the page about backups, run in the middle of a run, and what the restored record says."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import yaml
from argon2 import PasswordHasher

from benchmarks import postgres
from db.chain.events import Actor
from db.engine import open_database
from db.people.people import add_person
from db.queries.runs import list_runs, run_images

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
KENSA = Path(sys.executable).with_name("kensa")
PAGE = (Path(__file__).parents[2] / "docs" / "backup.md").read_text(encoding="utf-8")
STEPS = dict(re.findall(r"<!-- ([a-z ]+) -->\n```sh\n(.*?)```", PAGE, re.DOTALL))


def do(step: str, line, *, check: int = 0, **names: object) -> str:
    """Run the commands of a step, and give what they print."""
    audit = yaml.safe_load(line.config.read_text())["audit"]
    places = {
        "SETTINGS": line.config,
        "ARTIFACTS": line.folder / "artifacts",
        "CHECKPOINTS": audit["checkpoints"],
        **names,
    }
    programs = {"PATH": f"{KENSA.parent}:{os.environ['PATH']}", "COLUMNS": "160"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", STEPS[step]],
        env=line.environment | programs | {name: str(value) for name, value in places.items()},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == check, done.stdout + done.stderr
    return done.stdout + done.stderr


def outcomes(url: str) -> dict[str, tuple]:
    """What the record says of each picture of its first run."""
    with open_database(url) as database, database.session() as session:
        run = list_runs(session)[-1]
        return {i.uri: (i.verdict, i.score, i.digest) for i in run_images(session, run.id)}


def refuses_deletion(url: str) -> bool:
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
            try:
                file.execute("DELETE FROM audit_event")
            except sqlite3.IntegrityError as error:
                return "append-only" in str(error)
            finally:
                file.rollback()
        return False
    with psycopg.connect(url.replace("+psycopg", "")) as server:
        # As a session that replays another server's changes: a guard must hold there too.
        server.execute("SET session_replication_role = replica")
        try:
            server.execute("DELETE FROM audit_event")
        except psycopg.errors.RestrictViolation:
            return True
        finally:
            server.rollback()
    return False


def test_each_step_of_the_page_is_there() -> None:
    assert sorted(STEPS) == [
        "database of postgresql",
        "database of sqlite",
        "files",
        "go on",
        "restore files",
        "restore postgresql",
        "restore sqlite",
        "set a checkpoint aside",
        "verify",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_backup_in_the_middle_of_a_run_is_restored_and_goes_on(
    make_line, kensa, request, tmp_path, kind
) -> None:
    def new_database(name: str) -> tuple[str, str]:
        """Return where a new database is: for the settings, and for the page's commands."""
        if kind == "sqlite":
            return f"sqlite:///{tmp_path / name}.db", str(tmp_path / f"{name}.db")
        url = postgres.new_database(request.getfixturevalue("postgres_server"))
        return url, url.replace("+psycopg", "")

    def line_of(name: str, url: str):
        audit = {"checkpoints": str(tmp_path / f"{name}-notes"), "signing_key": str(tmp_path / "line.key")}
        return make_line(name, database={"url": url}, run={"batch_size": 2}, audit=audit)

    kensa("audit", "keygen", "line", "--out", tmp_path, "--no-passphrase")
    url, database = new_database("first")
    line, backup = line_of("first", url), tmp_path / "backup"
    # A checkpoint from before the run: it is one of the restored log too.
    with open_database(url) as record:
        record.migrate()
        given = {"role": "administrator", "password": "a long password", "hasher": CHEAP}
        add_person(record, "boss", name="B. Oss", by=Actor("setup", "human"), **given)
    line.kensa("audit", "checkpoint")
    running = subprocess.Popen(
        [KENSA, "run", "-c", line.config],
        stdout=subprocess.PIPE,
        text=True,
        env={**line.environment, "PYTHONUNBUFFERED": "1"},
    )
    assert running.stdout is not None
    for text in running.stdout:
        if text.strip().startswith("batch    3"):
            break
    # Stopped wherever it is, in a transaction or not: the copy is of the middle of a run on every machine.
    running.send_signal(signal.SIGSTOP)
    do(f"database of {kind}", line, DATABASE=database, BACKUP=backup)
    running.send_signal(signal.SIGCONT)
    running.stdout.read()
    assert running.wait(240) == 0
    running.stdout.close()
    undisturbed = outcomes(url)
    assert len(undisturbed) == 24
    # The files as late as can be: artifacts and a checkpoint have come since.
    do("files", line, BACKUP=backup)

    url, database = new_database("restored")
    restored = line_of("restored", url)
    do(f"restore {kind}", restored, DATABASE=database, BACKUP=backup)
    do("restore files", restored, BACKUP=backup)
    assert 6 <= len(outcomes(url)) < 24
    assert refuses_deletion(url)
    told = do("verify", restored, check=5)
    ahead = r"broken: (\d{12}\.checkpoint): on .* signed \d+ events, and the log ends"
    (note,) = re.findall(ahead, told)
    assert told.count("broken:") == 1
    assert re.search("stored files? belongs? to no record", told)
    do("set a checkpoint aside", restored, NOTE=note)
    told = do("verify", restored)
    assert "intact:" in told
    assert "note: proved: events 1 to " in told

    assert "resumed" in do("go on", restored)
    assert outcomes(url) == undisturbed
    told = do("verify", restored)
    assert "intact:" in told
    settings = yaml.safe_load(restored.config.read_text())
    settings["source"]["only_new"] = True
    restored.config.write_text(yaml.safe_dump(settings))
    assert "0 listed" in do("go on", restored)
    assert "intact:" in do("verify", restored)
