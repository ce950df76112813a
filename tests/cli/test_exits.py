"""What a command ends with: one exit code for each meaning, one sentence, a traceback for `--debug` alone."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from classifiers.errors import ClassifierError
from cli.console import Exit, print_error
from configs.loading import ConfigError
from db.errors import ArtifactError, AwayError, RecordError, StorageError
from flows.environment import PrefectError
from reports.errors import ReportError
from sources.errors import SourceAwayError, SourceError

KENSA = Path(sys.executable).with_name("kensa")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a"), 2),
        (RecordError("a"), 2),
        (ReportError("a"), 2),
        (ClassifierError("a"), 2),
        (SourceError("a"), 2),
        (SourceAwayError("a"), 4),
        (StorageError("a"), 4),
        (AwayError("a"), 4),
        (PrefectError("a"), 4),
        (OSError(errno.ENOSPC, "No space left on device"), 4),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 4),
        (ArtifactError("a"), 5),
        (KeyboardInterrupt(), 130),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 1),
        (KeyError("a"), 1),
    ],
)
def test_each_kind_of_error_has_one_code(error: BaseException, code: int) -> None:
    assert print_error(error) == code


def test_the_codes_are_those_that_the_documentation_lists() -> None:
    page = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text()
    listed = [
        int(row.split("|")[1]) for row in page.splitlines() if row.startswith("| ") and row[2].isdigit()
    ]
    assert listed == [0, *Exit]
    told = subprocess.run([KENSA, "--help"], capture_output=True, text=True).stdout
    assert all(f"{code} " in told for code in listed)


def test_a_database_that_is_away_is_named_with_the_remedy(make_line) -> None:
    away = ("--set", "database.url=postgresql+psycopg://nobody:secret@127.0.0.1:1/none")
    for command in (("findings",), ("audit", "verify"), ("report", "run"), ("audit", "log")):
        done = make_line("-".join(command)).kensa(*command, *away, check=4)
        assert "database postgresql+psycopg://nobody:***@127.0.0.1:1/none does not answer" in done.stderr
        assert "start or free it" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_report_folder_without_space_is_named(inspected, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    inspected.kensa("report", "run")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        told = inspected.kensa("report", "run", check=4).stderr
    assert "R000001-1.pdf" in told
    assert "make room, then run it again" in told
    assert "unchanged" in inspected.kensa("report", "run").stdout


def test_an_artifact_store_that_cannot_be_written_is_named(inspected) -> None:
    # /sys takes no folder from anybody: read-only in a container, refused by the kernel elsewhere.
    told = inspected.kensa("report", "run", "--set", "artifacts.uri=/sys/kensa", check=4).stderr
    assert "/sys/kensa/" in told
    assert "then run it again" in told


def test_an_unexpected_error_is_one_line_and_debug_shows_where(make_line, kensa, monkeypatch) -> None:
    def breaks(_: object) -> None:
        raise RuntimeError("a fault\nof several lines")

    line = make_line()
    monkeypatch.setattr("cli.findings.open_record", breaks)
    short = kensa("findings", "-c", line.config, check=1).stderr
    assert short == "kensa: unexpected error: RuntimeError: a fault; `kensa --debug …` shows where\n"
    long = kensa("--debug", "findings", "-c", line.config, check=1).stderr
    assert "Traceback" in long
    assert "in breaks" in long
    assert (
        kensa("findings", "-c", line.config, check=1).stderr == short
    )  # --debug holds for its command alone


@pytest.mark.parametrize("command", ["run", "serve"])
def test_a_path_that_is_not_there_is_refused_before_prefect_starts(inspected, monkeypatch, command) -> None:
    def started(**_: object) -> None:
        raise AssertionError("Prefect was prepared")

    monkeypatch.setattr("flows.environment.named_server", started)
    monkeypatch.setattr("flows.environment.prepare_prefect", started)
    told = inspected.kensa(command, "--set", "model.package=/none", check=2).stderr
    assert "model.package: expected a folder with model.json and model.safetensors, got '/none'" in told
