"""`kensa run` and the demo where no Prefect server is named, and where one is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from db.engine import open_database
from db.queries.runs import list_runs
from flows.environment import named_server

# Runs a command in a new interpreter and says how it ended, and whether Prefect was imported.
_COMMAND = """
import json, sys
from cli.main import main
code = 0
try:
    main()
except SystemExit as end:
    code = int(end.code or 0)
print(json.dumps([code, "prefect" in sys.modules]))
"""


def run_command(line, *arguments: str, **environment: str) -> tuple[int, bool, str]:
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, *arguments],
        capture_output=True,
        text=True,
        env={**line.environment, **environment},
        timeout=240,
    )
    *said, last = done.stdout.splitlines()
    code, imported = json.loads(last)
    return code, imported, "\n".join(said) + done.stderr


def test_a_run_needs_no_prefect_where_no_server_is_named(make_line) -> None:
    line = make_line()
    code, imported, said = run_command(line, "run", "-c", str(line.config))
    assert code == 0, said
    assert not imported
    assert "run R000001 done: 24 listed = " in said
    assert (line.folder / "reports" / "R000001-1.pdf").is_file()
    with open_database(line.database_url) as database, database.session() as session:
        (run,) = list_runs(session)
    assert (run.trigger, run.status) == ("manual", "completed")


def test_a_server_that_a_profile_names_is_asked(make_line, tmp_path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "profiles.toml").write_text(
        'active = "line"\n[profiles.line]\nPREFECT_API_URL = "http://127.0.0.1:1/api"\n'
    )
    line = make_line()
    code, imported, said = run_command(line, "run", "-c", str(line.config), PREFECT_HOME=str(home))
    assert code == 4, said
    assert imported
    assert "the Prefect server at http://127.0.0.1:1/api does not answer" in said
    assert not (line.folder / "kensa.db").exists()


@pytest.mark.parametrize(
    "place",
    [
        "PREFECT_API_URL",
        "prefect_api_url",
        "PREFECT_PROFILE",
        "home",
        ".env",
        "prefect.toml",
        "pyproject.toml",
    ],
)
def test_prefect_is_asked_where_a_server_may_be_named(monkeypatch, tmp_path, place) -> None:
    class AskedError(Exception):
        pass

    def asked(**_: object) -> None:
        raise AskedError

    monkeypatch.setattr("flows.environment.prepare_prefect", asked)
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "home" / "profiles.toml", 'active = "ephemeral"\n')
    _write(tmp_path / ".env", "EDITOR=vi\n")
    _write(tmp_path / "pyproject.toml", "[project]\n")
    assert named_server(quiet=True) is None
    url = "PREFECT_API_URL = 'http://127.0.0.1:1/api'\n"
    if place == "home":
        _write(tmp_path / "home" / "profiles.toml", f"[profiles.a]\n{url}")
    elif place == "pyproject.toml":
        _write(tmp_path / place, "[tool.prefect.api]\nurl = 'http://127.0.0.1:1/api'\n")
    elif "." in place:
        _write(tmp_path / place, url)
    else:
        monkeypatch.setenv(place, "local")
    with pytest.raises(AskedError):
        named_server(quiet=True)


def test_an_account_without_a_home_names_no_server(monkeypatch, tmp_path) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", "~nobody-of-that-name/prefect")
    monkeypatch.chdir(tmp_path)
    assert named_server(quiet=True) is None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
