"""Reports through the command line: sealed when issued, signed off by people, verified by anybody."""

import io
import json
import sqlite3
import sys
from contextlib import closing
from hashlib import sha256

import pytest
from argon2 import PasswordHasher

from configs.loading import ConfigError
from configs.schema import SignatureSettings
from db.chain.events import Actor
from db.engine import open_database
from db.issued.reports import report_by_number
from db.people.people import add_person
from db.people.sign_in import authenticate
from db.queries.events import EventFilter, find_events
from db.transparency.signed_notes import generate_key, write_key
from operations.inspection import run as pipeline
from operations.reporting.run_report import issue_report
from operations.reporting.seal import seal_key
from reports.signatures.keys import TokenKey
from tests.pki import PASSPHRASE

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORDS = {"boss": "boss-password", "eve": "engineer-password", "max": "manager-password"}
ROLES = {"boss": "administrator", "eve": "quality-engineer", "max": "quality-manager"}


@pytest.fixture(scope="module")
def audit_key(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return write_key(generate_key("plant-1/line-4"), folder, None)[0]


@pytest.fixture
def line(make_line, inspect_all, once, audit_key, pki, tmp_path):
    """A run whose head is signed and whose report is sealed, and three people."""
    line = make_line(
        audit={"checkpoints": str(tmp_path / "a" / "notes"), "signing_key": str(audit_key)},
        report={
            "signature": {
                "pkcs12": str(pki.seal),
                "passphrase": PASSPHRASE,
                "trust_roots": [str(pki.root_pem)],
                "location": "Plant 1",
            }
        },
    )

    def make():
        inspection, result = inspect_all(line.config)
        with open_database(line.database_url) as database:
            inspection.database = database
            assert pipeline.sign(inspection, result).problem is None
            issued = issue_report(
                database,
                inspection.store,
                inspection.run.id,
                inspection.settings.report,
                actor=pipeline.SYSTEM,
            )
            assert issued.unsealed is None
            who = Actor("setup", "human")
            for login, role in ROLES.items():
                given = {"name": f"{login.title()} Person", "role": role, "password": PASSWORDS[login]}
                add_person(database, login, by=who, hasher=CHEAP, **given)
                if login == "boss":
                    who = authenticate(database, "boss", PASSWORDS["boss"], account=who, hasher=CHEAP)

    return once("sealed", line, make)


@pytest.fixture
def report(line):
    return line.folder / "reports" / "R000001-1.pdf"


@pytest.fixture
def sign(line, monkeypatch):
    """Sign the report off as somebody; `typed`: what they type after their password.

    Nobody has decided about its findings: that is meant, unless `knowing` says otherwise.
    """

    def run(login, role, decision, *more, what="R000001", typed=(), knowing=True, check=0):
        lines = (PASSWORDS[login], *typed)
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{each}\n" for each in lines)))
        return line.kensa(
            *("report", "sign", str(what), "--role", role, "--decision", decision),
            *(*more, "--as", login, "--password-stdin"),
            *(["--undecided"] if knowing else []),
            check=check,
        )

    return run


def checks(line, path, *options, check=0):
    """What `kensa report verify` says: its sentence, and outcome and message by what was checked."""
    answer = json.loads(line.kensa("report", "verify", str(path), "--json", *options, check=check).stdout)
    return answer["summary"], {c["what"]: (c["outcome"], c["message"]) for c in answer["checks"]}


def test_a_sealed_report_is_verified_with_its_record(line, report):
    said, found = checks(line, report)
    assert said.startswith(
        "R000001-1.pdf is report R000001 revision 1, unchanged since 'Plant 1 seal' signed it"
    )
    assert found["certificate of seal kensa-seal"][0] == "ok"
    assert found["checkpoint of the audit log"][1].startswith("plant-1/line-4 signed 27 events on 20")
    assert found["record"][0] == "ok"
    assert found["revision"] == ("ok", "it is the latest")
    assert found["content"] == ("ok", "the bytes before the signatures are those on record")
    assert found["audit head"][0] == found["checkpoint and the log"][0] == "ok"
    assert {outcome for outcome, _ in found.values()} == {"ok", "not checked"}
    lines = line.kensa("report", "verify", str(report)).stdout.splitlines()
    assert lines[0] == said
    assert lines[1].startswith("ok: seal kensa-seal: by 'Plant 1 seal'")


def test_a_stranger_verifies_without_settings_and_says_what_that_leaves_open(
    line, report, pki, audit_key, kensa, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KENSA_CONFIG", raising=False)
    told = kensa("report", "verify", report).stdout
    assert "Whether that name is true is not proved" in told
    assert "not checked: record, because no settings were given (-c)" in told
    assert "not checked: checkpoint of the audit log, because no public key" in told
    trusting = ("--trust", pki.root_pem, "--key", audit_key.with_suffix(".pub"))
    told = kensa("report", "verify", report, *trusting).stdout
    assert "ok: certificate of seal kensa-seal: 'Test root' vouches for 'Plant 1 seal'" in told
    assert "ok: checkpoint of the audit log: plant-1/line-4 signed 27 events" in told
    assert "cannot be read" in kensa("report", "verify", tmp_path / "none.pdf", check=2).stderr


def test_a_report_is_issued_again_with_the_signatures_that_it_bears(line, report, sign):
    before = report.read_bytes()
    report.unlink()
    assert "unchanged" in line.kensa("report", "run").stdout
    assert report.read_bytes() == before, "signing again would give other bytes"
    sign("eve", "reviewed", "accept")
    signed = report.read_bytes()
    assert signed.startswith(before)
    report.unlink()
    assert "unchanged" in line.kensa("report", "run", "R000001").stdout
    assert report.read_bytes() == signed


def test_people_sign_off_with_the_organisations_key_and_with_their_own(line, report, sign, pki):
    shown = sign("eve", "reviewed", "accept", "--reason", "as seen on the parts", what=report).stdout
    assert "signed by    nobody yet" in shown or "signed by  nobody yet" in shown
    assert "signed by Eve Person with the organisation's key: reviewed, accept" in shown
    own = ("--pkcs12", str(pki.person), "--reason", "for this customer alone")
    shown = sign("max", "approved", "concession", *own, typed=[PASSPHRASE]).stdout
    assert "signed by Max Person with their own key: approved, accept with concession" in shown
    _, found = checks(line, report)
    assert found["sign-off 1"][1].startswith("Eve Person, quality-engineer, reviewed: accept, on 20")
    assert (
        ": for this customer alone [knowing that 12 of 12 findings were undecided when the report was made]"
        in found["sign-off 2"][1]
    )
    assert {outcome for outcome, _ in found.values()} == {"ok", "not checked"}
    answer = json.loads(line.kensa("report", "verify", str(report), "--json").stdout)
    seal, eve, max_ = answer["signatures"]
    assert [each["certificate"]["subject"] for each in (seal, eve, max_)] == [
        "Plant 1 seal",
        "Plant 1 seal",
        "Jane Doe",
    ]
    assert eve["name"] == "Eve Person"
    assert "with the organisation's key for Eve Person" in eve["reason"]
    said = "approved: accept with concession: for this customer alone"
    assert (
        max_["reason"] == f"{said} [knowing that 12 of 12 findings were undecided when the report was made]"
    )
    with open_database(line.database_url) as database, database.session() as session:
        kept = report_by_number(session, "R000001")
    assert [each.capacity for each in kept.sign_offs] == ["reviewed", "approved"]
    assert kept.latest_digest == sha256(report.read_bytes()).hexdigest()
    assert "intact" in line.kensa("audit", "verify").stdout


def test_a_report_with_undecided_findings_is_accepted_knowingly_or_not_at_all(
    line, report, sign, monkeypatch
):
    before = report.read_bytes()
    for decision, *reason in (("accept",), ("concession", "--reason", "agreed")):
        told = sign("eve", "reviewed", decision, *reason, knowing=False, check=2)
        assert "12 of 12 findings were undecided when the report was made" in told.stdout
        assert (
            "decide about them, issue the report again and sign that revision, or give --undecided to accept "
            "this one all the same" in told.stderr
        )
    # At a terminal it is asked for.
    asked = []
    monkeypatch.setattr("typer.confirm", lambda text, **_: asked.append(text))
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    eve = ("report", "sign", "R000001", "--role", "reviewed", "--decision", "accept", "--as", "eve")
    assert "is not signed: 12 of 12 findings" in line.kensa(*eve, check=2).stderr
    assert asked == ["Accept it all the same?"]
    assert report.read_bytes() == before
    # Who does not accept need say nothing of it; what was said is in what is signed.
    sign("eve", "reviewed", "reject", "--reason", "scratched", knowing=False)
    sign("max", "approved", "accept")
    _, found = checks(line, report)
    assert found["sign-off 1"][1].endswith(": scratched")
    assert found["sign-off 2"][1].endswith(
        ": [knowing that 12 of 12 findings were undecided when the report was made]"
    )
    signed = next(each for each in line.json("audit", "log", "--action", "report.signed"))
    assert signed["reason"] == "[knowing that 12 of 12 findings were undecided when the report was made]"
    assert "intact" in line.kensa("audit", "verify").stdout


def test_what_was_decided_after_a_report_was_made_is_in_its_next_revision(line, report, sign, monkeypatch):
    def decide(*findings):
        table = line.folder / "decisions.csv"
        rows = [f"{each},confirm,seen on the part" for each in findings]
        table.write_text("\n".join(["finding,decision,reason", *rows]))
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PASSWORDS['eve']}\n"))
        line.kensa("disposition", "--from", str(table), "--as", "eve", "--password-stdin")

    first, *others = (each["reference"] for each in line.json("findings"))
    decide(first)
    # The report that is signed says nothing of it.
    told = sign("eve", "reviewed", "accept", knowing=False, check=2).stderr
    assert "12 of 12 findings were undecided when the report was made" in told
    line.kensa("report", "run")
    told = sign("eve", "reviewed", "accept", knowing=False, check=2).stderr
    assert "revision 2 is not signed: 11 of 12 findings were undecided when the report was made" in told
    decide(*others[:-1])
    line.kensa("report", "run")
    told = sign("eve", "reviewed", "accept", knowing=False, check=2).stderr
    assert "revision 3 is not signed: 1 of 12 findings was undecided when the report was made" in told
    decide(others[-1])
    line.kensa("report", "run")
    sign("eve", "reviewed", "accept", knowing=False)
    signed = next(each for each in line.json("audit", "log", "--action", "report.signed"))
    assert (signed["payload"]["revision"], signed["reason"]) == (4, None)


def test_who_may_not_sign_and_what_is_not_signed(line, report, sign, pki, tmp_path):
    before = report.read_bytes()
    stale, changed = tmp_path / "stale.pdf", tmp_path / "changed.pdf"
    stale.write_bytes(before)
    changed.write_bytes(before.replace(b"Plant 1", b"Plant 2"))
    for told, expected in {
        sign("eve", "approved", "accept", check=2).stderr: "may not sign a report as approved",
        sign("boss", "reviewed", "accept", check=2).stderr: "may not sign a report as reviewed",
        sign("eve", "reviewed", "reject", check=2).stderr: "give --reason TEXT",
        sign("eve", "reviewed", "accept", what=changed, check=2).stderr: "is no report on record",
        sign("eve", "reviewed", "accept", what="R000009", check=2).stderr: "no run R000009",
        sign(
            "eve", "reviewed", "accept", "--pkcs12", str(pki.person), typed=["wrong"], check=2
        ).stderr: "passphrase is wrong",
        sign("eve", "reviewed", "accept", "--module", "x.so", check=2).stderr: "takes --module, --token",
    }.items():
        assert expected in told
    assert report.read_bytes() == before
    sign("eve", "reviewed", "accept")
    assert "signed it already" in sign("eve", "reviewed", "accept", check=2).stderr
    assert "is not the latest file" in sign("max", "approved", "accept", what=stale, check=2).stderr
    with open_database(line.database_url) as database, database.session() as session:
        assert len(report_by_number(session, "R000001").sign_offs) == 1


def test_the_record_tells_files_that_are_not_the_latest_or_not_its_own(line, report, sign, tmp_path):
    sealed = report.read_bytes()
    sign("eve", "reviewed", "accept")
    with open_database(line.database_url) as database, database.session() as session:
        kept = report_by_number(session, "R000001")
    end = next(
        end for end in range(len(sealed), 0, -1) if sha256(sealed[:end]).hexdigest() == kept.content_digest
    )
    copy = tmp_path / "copy.pdf"
    copy.write_bytes(sealed)
    assert checks(line, copy)[1]["record"][1].endswith(
        "not the latest file, signed since by Eve Person (reviewed: accept)"
    )
    for harmed, where, expected in (
        (sealed[:end], "record", "with its seal cut off"),
        (report.read_bytes() + b"\n", "record", "these signatures are not on record"),
        (sealed.replace(b"Plant 1", b"Plant 2"), "seal kensa-seal", "are not those that were signed"),
    ):
        copy.write_bytes(harmed)
        said, found = checks(line, copy, check=5)
        assert said.startswith("Do not rely on copy.pdf")
        assert found[where][0] == "broken"
        assert expected in found[where][1]


def test_a_record_that_was_changed_contradicts_its_report(line, report):
    with closing(sqlite3.connect(line.folder / "kensa.db")) as raw, raw:
        names = raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in names:
            raw.execute(f'DROP TRIGGER "{name}"')
        raw.execute("UPDATE audit_event SET hash = ? WHERE sequence = 27", ["0" * 64])
        raw.execute("UPDATE audit_event SET hash = ? WHERE sequence = 28", ["1" * 64])
    _, found = checks(line, report, check=5)
    assert found["audit head"][0] == "broken"
    assert found["checkpoint and the log"][0] == "broken"
    assert found["seal kensa-seal"][0] == "ok", "the file itself is what it was"


@pytest.mark.slow
def test_a_report_that_cannot_be_sealed_is_kept_and_that_is_told(line):
    wrong = ("--set", "report.signature.passphrase=other", "--set", "report.title=Another")
    told = line.kensa("report", "run", "--again", *wrong, check=3).stdout
    assert "report without seal: " in told
    assert "the passphrase is wrong" in told
    assert "other" not in told.replace("another", "")
    plain = line.folder / "reports" / "R000001-2.pdf"
    said, found = checks(line, plain)
    assert "it bears no signature" in said
    assert found["record"][0] == "ok"
    with open_database(line.database_url) as database, database.session() as session:
        (event,) = find_events(session, EventFilter(action="report.unsealed"))
    assert "passphrase is wrong" in (event.reason or "")
    # Again without success: no revision more. With the key: one that bears the seal.
    assert "revision 2, unchanged)" in line.kensa("report", "run", *wrong, check=3).stdout
    assert "revision 3, new revision)" in line.kensa("report", "run", *wrong[2:]).stdout
    assert checks(line, plain)[1]["revision"][1].startswith("superseded by revision 3, issued on 20")


def test_settings_about_the_seal_are_checked(line, pki):
    told = line.kensa("config", "check").stdout
    assert "reports are sealed by Plant 1 seal, for whom Common Name: Test root" in told
    shown = line.kensa("config", "show").stdout
    assert PASSPHRASE not in shown
    for override, expected in {
        "passphrase=wrong": "the passphrase is wrong",
        "pkcs12=none.p12": "report.signature.pkcs12: expected a PKCS#12 file",
        "level=B-T": "level B-T takes a time-stamp authority",
        "level=B-X": "report.signature.level",
        "timestamp_url=ftp://x": "report.signature.timestamp_url",
        "trust_roots=[none.pem]": "report.signature.trust_roots: expected certificates",
        "crls=[none.crl]": "report.signature.crls: expected revocation lists",
        "pkcs11={module: x.so, token: a, key: b, certificate: c}": "pkcs12 or pkcs11, not both",
    }.items():
        told = line.kensa("config", "check", "--set", f"report.signature.{override}", check=2).stderr
        assert expected in told, override


@pytest.mark.slow
def test_a_run_seals_its_report_or_says_why_not(make_line, pki, stamp_server):
    """In Prefect's flow, with an authority that answers and with one that does not."""
    signature = {"pkcs12": str(pki.seal), "level": "B-T", "timestamp_url": stamp_server.url}
    line = make_line(report={"signature": signature})
    secret = {"KENSA_REPORT__SIGNATURE__PASSPHRASE": PASSPHRASE}
    assert "without seal" not in line.kensa("run", check=None, **secret).stdout
    report = line.folder / "reports" / "R000001-1.pdf"
    assert checks(line, report)[1]["time of seal kensa-seal"][1].endswith("stamped by 'Test time stamps'")
    refused = ("--set", f"report.signature.timestamp_url={stamp_server.url}refuse")
    told = line.kensa("run", *refused, check=3, **secret).stdout
    assert "report without seal: the time-stamp authority" in told
    assert "it bears no signature" in checks(line, line.folder / "reports" / "R000002-1.pdf")[0]


def test_a_seal_on_a_token_as_the_settings_name_it(tmp_path):
    token = {"module": tmp_path / "driver.so", "token": "plant", "key": "seal", "certificate": "seal-2026"}
    pin = "1234"
    settings = SignatureSettings(pkcs11=token, passphrase=pin)
    assert seal_key(settings) == TokenKey(tmp_path / "driver.so", "plant", "seal", "seal-2026", pin)
    with pytest.raises(ConfigError, match="names no key"):
        seal_key(SignatureSettings())
    assert pin not in str(settings)
