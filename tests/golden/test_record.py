"""Records of earlier versions: opened, migrated, verified, replayed; reports given back byte for byte."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select

from configs.loading import load_settings
from db.artifacts import ArtifactStore
from db.engine import open_database
from db.issued.reports import report_by_number
from db.schema import Report
from reports.attachments.manifest import read_attached
from sources.folder import Source

RECORDS = sorted(path.name for path in Path(__file__).parent.iterdir() if (path / "kensa.yaml").is_file())
# How the reports of a record were asked for; a model's is measured anew each time.
ASKED = {
    "run": ["R000001"],
    "period": ["--lot", "{lot}"],
    "finding": ["{finding}"],
    "part": ["{part}", "--lot", "{lot}"],
}


@pytest.fixture(params=RECORDS)
def record(request, tmp_path, monkeypatch):
    """A copy of the record, migrated, as the working folder with its kensa.yaml."""
    folder = tmp_path / "record"
    shutil.copytree(Path(__file__).parent / request.param, folder)
    monkeypatch.chdir(folder)
    with open_database("sqlite:///kensa.db") as database:
        database.migrate()
        database.check()
    return folder


def test_there_is_a_record_of_the_first_version():
    assert "0.1.0" in RECORDS


def test_the_history_is_intact(record, kensa):
    said = kensa("audit", "verify", "--checkpoints", "checkpoints", "--key", "golden-line.pub").stdout
    assert said.startswith("intact: 57 events, 213 rows")
    assert "that golden-line signed on" in said


def test_issued_reports_are_given_back_byte_for_byte_without_rendering(record, kensa, monkeypatch):
    def never(*_: object) -> bytes:
        raise AssertionError("a report of an unchanged record was rendered")

    monkeypatch.setattr("reports.pdf.render.render", never)
    with open_database("sqlite:///kensa.db") as database, database.session() as session:
        rows = session.execute(select(Report.number, Report.revision, Report.kind, Report.subject)).all()
        issued = {row.number: report_by_number(session, row.number) for row in rows}
    assert Counter(one.subject.kind for one in issued.values()) == dict.fromkeys((*ASKED, "model"), 1)
    store = ArtifactStore("artifacts")
    for one in issued.values():
        pdf = store.get(one.latest_digest)  # what the record says it is, or ArtifactError
        attached = read_attached(pdf)
        assert (attached.number, attached.revision, attached.problems) == (one.number, one.revision, ())
        if one.subject.kind == "model":
            continue
        about = one.subject.about
        asked = [word.format(**about) for word in ASKED[one.subject.kind]]
        said = kensa("report", one.subject.kind, *asked).stdout
        assert f"({one.number} revision {one.revision}, unchanged)" in " ".join(said.split())
        path = Path("reports") / f"{one.number}-{one.revision}.pdf"
        assert path.read_bytes() == pdf
        verified = json.loads(kensa("report", "verify", str(path), "--json").stdout)
        assert {check["outcome"] for check in verified["checks"]} <= {"ok", "not checked"}


def test_decisions_replay_from_the_record_alone(record, kensa):
    shutil.rmtree("package")
    shutil.rmtree("line")
    rows = kensa("replay", "R000001", "--format", "json").stdout.splitlines()
    results = Counter(json.loads(row)["result"] for row in rows)
    assert sum(results.values()) == 12
    assert set(results) <= {"identical", "equal"}


def test_a_plant_that_upgrades_inspects_nothing_twice(record, inspect_all):
    """The settings digest of the old record is that of today's settings: every outcome is carried over."""
    settings = load_settings("kensa.yaml", [])
    listed = sum(1 for _ in Source(settings.source.uri, manifest=settings.source.manifest).list())
    _, result = inspect_all("kensa.yaml")
    counts = result.counts.as_dict()
    assert counts["listed"] == counts["carried_over"] == listed == 12
