"""Keys, checkpoints, reports and proofs through the command line."""

import csv
import io
import json
import sqlite3
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from configs.loading import load_settings
from db.artifacts import ArtifactStore
from db.engine import open_database
from db.queries.runs import latest_run
from operations.inspection import run as pipeline
from operations.reporting.run_report import issue_report
from reports.attachments.manifest import read_attached


@pytest.fixture(scope="module")
def key(kensa, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    out = kensa("audit", "keygen", "plant-1/line-4", "--out", folder, "--no-passphrase").stdout
    assert "plant-1-line-4.pub" in out
    return folder / "plant-1-line-4.key"


@pytest.fixture
def signed(make_line, inspect_all, once, key, tmp_path):
    """A finished run, its head signed, its report issued: as the flow does it, without Prefect."""
    line = make_line(audit={"checkpoints": str(tmp_path / "a" / "notes"), "signing_key": str(key)})
    return once("signed", line, lambda: inspect(line, inspect_all))


def inspect(line, inspect_all, *overrides):
    inspection, result = inspect_all(line.config, list(overrides))
    with open_database(line.database_url) as database:
        inspection.database = database
        outcome = pipeline.sign(inspection, result)
        issue_report(
            database, inspection.store, inspection.run.id, inspection.settings.report, actor=pipeline.SYSTEM
        )
    return outcome


def test_a_signed_run_is_proved_and_its_report_is_recognised(signed, make_line, key):
    report = signed.folder / "reports" / "R000001-1.pdf"
    told = signed.kensa("audit", "verify", "--report", str(report)).stdout
    assert "intact: " in told
    assert "note: proved: events 1 to 27 are those that plant-1/line-4 signed on " in told
    assert (
        "note: R000001-1.pdf: as it was issued; it prints audit head 28, and a checkpoint of 27 eve" in told
    )
    # Somebody else's machine: the folder and the public key are given, not found in the settings.
    store = {"uri": str(signed.folder / "artifacts")}
    elsewhere = make_line("elsewhere", database={"url": signed.database_url}, artifacts=store)
    assert "not proved: that the log's end was not cut off" in elsewhere.kensa("audit", "verify").stdout
    given = ("--checkpoints", str(signed.folder / "notes"))
    public = str(key.with_suffix(".pub"))
    assert "note: proved: " in elsewhere.kensa("audit", "verify", *given, "--key", public).stdout
    assert "--key FILE.pub" in elsewhere.kensa("audit", "verify", *given, check=2).stderr
    told = signed.kensa("audit", "verify", "--incremental").stdout
    assert "incremental: events 1 to 27 and their rows were not looked at again" in told


def test_a_report_carries_its_listing_proofs_and_what_it_supersedes(signed, kensa, key, tmp_path):
    pdf = (signed.folder / "reports" / "R000001-1.pdf").read_bytes()
    carried = read_attached(pdf)
    assert carried.problems == ()
    assert carried.manifest["supersedes"] is None
    assert (carried.number, carried.revision, carried.kind) == ("R000001", 1, "run")
    rows = list(csv.DictReader(io.StringIO(carried.files["kensa-listing.csv"].decode(), newline="")))
    content = json.loads(carried.files["kensa-record.json"])
    Draft202012Validator(json.loads(carried.files["kensa-record.schema.json"])).validate(content)
    record = content["record"]
    verdicts = Counter(row["verdict"] for row in rows)
    assert len(rows) == record["counts"]["listed"]
    assert [verdicts[name] for name in ("pass", "review", "reject", "unreadable")] == [
        record["counts"][name] for name in ("passed", "review", "reject", "unreadable")
    ]
    assert {row["uri"]: row["reason"] for row in rows if row["verdict"] == "unreadable"} == dict(
        record["unreadable"]
    )
    for name in ("kensa-proofs.json", "kensa-checkpoint.txt"):
        (tmp_path / name).write_bytes(carried.files[name])
    given = (tmp_path / "kensa-proofs.json", "--checkpoint", tmp_path / "kensa-checkpoint.txt")
    told = kensa("audit", "check", *given, "--key", key.with_suffix(".pub")).stdout
    assert told.startswith("holds: events ")
    for finding in record["findings"]:
        assert f"finding: reference {finding['reference']}, class_name {finding['class_name']}" in told

    # A revision names the one that it supersedes.
    settings = load_settings(signed.config, ["report.title=Second look"])
    with open_database(signed.database_url) as database:
        with database.session() as session:
            run = latest_run(session)
        store = ArtifactStore(settings.artifacts.uri)
        issued = issue_report(database, store, run.id, settings.report, actor=pipeline.SYSTEM, again=True)
        again = issue_report(database, store, run.id, settings.report, actor=pipeline.SYSTEM)
    assert (issued.record.revision, issued.new, again.record.revision, again.new) == (2, True, 2, False)
    assert read_attached(issued.path.read_bytes()).manifest["supersedes"] == {
        "revision": 1,
        "sha256": sha256(pdf).hexdigest(),
    }


def test_an_edited_report_and_a_cut_tail_are_broken(signed, tmp_path):
    report = signed.folder / "reports" / "R000001-1.pdf"
    edited = tmp_path / "edited.pdf"
    edited.write_bytes(report.read_bytes() + b"\n% and a little more\n")
    told = signed.kensa("audit", "verify", "--report", str(edited), check=5).stderr
    assert "broken: edited.pdf: is not a report that this record issued" in told
    with sqlite3.connect(signed.folder / "kensa.db") as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for table in ("report", "artifact", "checkpoint", "run_end"):
            connection.execute(f"DELETE FROM {table} WHERE event_sequence > 26")  # noqa: S608
        connection.execute("DELETE FROM audit_event WHERE sequence > 26")
    connection.close()
    with open_database(signed.database_url) as database:
        database.migrate()  # puts the guards back, as a forger would
    told = signed.kensa("audit", "verify", "--no-artifacts", "--report", str(report), check=5)
    assert "signed 27 events, and the log ends with event 26: its end was cut off" in told.stderr
    assert "prints audit head 28" in told.stderr
    assert "intact" not in told.stdout
    plain = tmp_path / "plain.txt"
    plain.write_text("no report")
    for path in (plain, tmp_path / "absent.pdf"):
        assert str(path) in signed.kensa("audit", "verify", "--report", str(path), check=2).stderr


def test_a_finding_is_proved_to_somebody_without_the_database(signed, kensa, key, tmp_path):
    (finding, *_) = signed.json("findings")
    proof = tmp_path / "proof.json"
    proof.write_text(signed.kensa("audit", "prove", finding["reference"]).stdout)
    (note,) = (signed.folder / "notes").glob("*.checkpoint")
    command = ("audit", "check", proof, "--checkpoint", note, "--key", key.with_suffix(".pub"))
    told = kensa(*command).stdout
    assert told.startswith("holds: events 2, ")
    assert "of the log of 27 events that plant-1/line-4 signed on " in told
    assert f"finding: reference {finding['reference']}, class_name {finding['class_name']}" in told
    assert f"image: digest {finding['image_digest']}" in told
    content = json.loads(proof.read_text())
    for entry in content["events"]:
        for table, row in entry["rows"]:
            if table == "prediction":
                row["score"] = "0.01"
    proof.write_text(json.dumps(content))
    assert "does not hold: event " in kensa(*command, check=5).stderr
    proof.write_text("[]")
    assert "expected a JSON object" in kensa(*command, check=2).stderr
    for text in ("{", "[" * 100_000, "1" * 10_000):
        proof.write_text(text)
        assert f"{proof}: expected JSON as `kensa audit prove` prints it" in kensa(*command, check=2).stderr
    assert "there is no finding" in signed.kensa("audit", "prove", "R000001-9999", check=2).stderr


def test_the_head_is_signed_by_hand(make_line, inspect_all, key, tmp_path):
    line = make_line()
    inspect_all(line.config)
    assert "audit.checkpoints" in line.kensa("audit", "checkpoint", check=2).stderr
    (finding, *_) = line.json("findings")
    assert (
        "no checkpoint has been signed" in line.kensa("audit", "prove", finding["reference"], check=2).stderr
    )
    settings = ("--set", f"audit.checkpoints={tmp_path / 'notes'}", "--set", f"audit.signing_key={key}")
    told = line.kensa("audit", "checkpoint", *settings).stdout
    assert told.startswith("checkpoint: 27 events signed by plant-1/line-4, kept in ")
    assert "in order" in line.kensa("config", "check", *settings).stdout
    assert "together, or neither" in line.kensa("config", "check", *settings[:2], check=2).stderr
    wrong = line.kensa("config", "check", *settings, "--set", "audit.signing_key=absent.key", check=2).stderr
    assert "audit.signing_key: expected a private key" in wrong
    wrong = line.kensa("config", "check", *settings, "--set", "audit.trusted_keys=[absent.pub]", check=2)
    assert "audit.trusted_keys: expected a public key, got 'absent.pub'" in wrong.stderr


def test_a_run_whose_head_cannot_be_signed_goes_on_and_says_so(make_line, inspect_all, key, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    line = make_line(audit={"checkpoints": str(blocked), "signing_key": str(key)})
    outcome = inspect(line, inspect_all)
    assert outcome.problem is not None
    assert outcome.sentence().startswith("no checkpoint: ")
    (event,) = line.json("audit", "log", "--action", "checkpoint.failed")
    assert event["reason"] == outcome.problem
    assert (line.folder / "reports" / "R000001-1.pdf").is_file()
    told = line.kensa("audit", "checkpoint", check=4).stderr
    assert "no checkpoint: " in told


def test_whatever_a_bucket_raises_is_recorded_and_told(make_line, inspect_all, key, tmp_path, monkeypatch):
    class EndpointConnectionError(Exception):
        """As botocore has one: no OSError."""

    def unreachable(*_: object) -> None:
        raise EndpointConnectionError("could not connect to the endpoint")

    line = make_line(audit={"checkpoints": str(tmp_path / "notes"), "signing_key": str(key)})
    monkeypatch.setattr("db.transparency.checkpoints.CheckpointFolder.put", unreachable)
    outcome = inspect(line, inspect_all)
    assert outcome.problem == "EndpointConnectionError: could not connect to the endpoint"
    (event,) = line.json("audit", "log", "--action", "checkpoint.failed")
    assert event["reason"] == outcome.problem
    assert (line.folder / "reports" / "R000001-1.pdf").is_file()


def test_the_passphrase_of_a_new_key_is_read_from_standard_input(kensa, make_line, tmp_path, monkeypatch):
    def keygen(given, *more, check=0):
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        return kensa("audit", "keygen", "a", "--out", tmp_path, *more, check=check)

    assert "no terminal to type a password at: give --password-stdin" in keygen("", check=2).stderr
    assert (
        "expected a line with the password of the private key"
        in keygen("", "--password-stdin", check=2).stderr
    )
    assert "not both" in keygen("x", "--password-stdin", "--no-passphrase", check=2).stderr
    assert "12 characters or more" in keygen("short\n", "--password-stdin", check=2).stderr
    keygen("correct horse battery\n", "--password-stdin")
    line = make_line(audit={"checkpoints": str(tmp_path / "notes"), "signing_key": str(tmp_path / "a.key")})
    monkeypatch.setenv("KENSA_AUDIT__PASSPHRASE", "correct horse battery")
    line.kensa("config", "check")


def test_an_encrypted_key_wants_its_passphrase(kensa, make_line, tmp_path, monkeypatch):
    monkeypatch.setenv("KENSA_AUDIT__PASSPHRASE", "short")
    assert "12 characters or more" in kensa("audit", "keygen", "a", "--out", tmp_path, check=2).stderr
    monkeypatch.setenv("KENSA_AUDIT__PASSPHRASE", "correct horse battery")
    kensa("audit", "keygen", "a", "--out", tmp_path)
    assert "is there already" in kensa("audit", "keygen", "a", "--out", tmp_path, check=2).stderr
    line = make_line(audit={"checkpoints": str(tmp_path / "notes"), "signing_key": str(tmp_path / "a.key")})
    shown = line.kensa("config", "show").stdout
    assert "battery" not in shown
    assert "passphrase: '**********'" in shown
    assert "correct horse" not in json.dumps(load_settings(line.config, []).public())
    line.kensa("config", "check")
    monkeypatch.setenv("KENSA_AUDIT__PASSPHRASE", "wrong horse battery")
    assert "the passphrase is wrong" in line.kensa("config", "check", check=2).stderr
