"""`kensa db redact` on the record of an earlier version: what is said, and what still works."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import text

from cli.console import Exit
from db.engine import open_database

RECORD = Path(__file__).parent.parent / "golden" / "0.1.0"
VERIFY = ("audit", "verify", "--checkpoints", "checkpoints", "--key", "golden-line.pub")
REDACT = ("db", "redact", "--reason", "names a customer", "--run", "R000001", "--path", "report.organisation")


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A copy of the record, migrated, as the working folder."""
    folder = tmp_path / "record"
    shutil.copytree(RECORD, folder)
    monkeypatch.chdir(folder)
    with open_database("sqlite:///kensa.db") as database:
        database.migrate()
    return folder


def test_a_record_without_a_secret_is_left_alone(record, kensa):
    assert kensa("db", "redact", "--reason", "to be sure").stdout == "no recorded settings hold a secret\n"
    assert kensa(*VERIFY).stdout.startswith("intact: 57 events")


def test_what_was_redacted_is_no_longer_proved_and_all_else_is(record, kensa):
    told = kensa(*REDACT, "--dry-run").stdout
    assert told == "would redact R000001: report.organisation\n"
    told = kensa(*REDACT).stdout
    assert told.startswith("redacted R000001: report.organisation (audit event 58)\nSign the head now: ")
    verified = kensa(*VERIFY, check=Exit.redacted).stdout
    assert verified.startswith("intact but for what was redacted: 58 events, 213 rows")
    assert "redacted: run R000001, report.organisation: content no longer proved; redacted by " in verified
    assert "(event 58): names a customer" in verified
    assert "proved: events 1 to 56 are those that golden-line signed on" in verified
    assert "run.redacted" in kensa("audit", "log", "--action", "run.redacted").stdout
    # What the settings digest is of stayed: the decisions can be computed again, the report is given back.
    assert "unchanged" in " ".join(kensa("report", "run", "R000001").stdout.split())
    assert "different" not in kensa("replay", "R000001", "--format", "json").stdout
    with open_database("sqlite:///kensa.db") as database, database.session() as session:
        assert session.scalar(text("SELECT count(*) FROM run WHERE settings LIKE '%Golden works%'")) == 1


def test_a_mistake_changes_nothing(record, kensa):
    for given, expected in (
        (("--reason", "x", "--run", "R000009"), "there is no run R000009"),
        (("--reason", "x", "--path", "report.title"), "a path is that of one run"),
        (("--reason", "x", "--run", "1", "--path", "decision.precision"), "and stays"),
        (("--reason", ""), "a reason of 1 to 2000 characters"),
    ):
        assert expected in kensa("db", "redact", *given, check=2).stderr
    assert kensa(*VERIFY).stdout.startswith("intact: 57 events")
