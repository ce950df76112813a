"""The command line over a recorded run: findings, audit, report, settings, exit codes."""

import csv
import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader

from classifiers import load_package
from classifiers.package.tiling import Tiling
from cli.console import safe
from db.engine import open_database
from db.queries.finding_records import run_findings
from db.queries.runs import latest_run
from operations.reporting.run_report import issue_report
from tests.large_picture import scratched_surface
from tests.line import resaved

KENSA = Path(sys.executable).with_name("kensa")


@pytest.fixture
def recorded(make_line, inspect_all, once):
    """A finished run with its report, made without Prefect."""
    line = make_line()

    def make():
        inspection, _ = inspect_all(line.config)
        with open_database(line.database_url) as database:
            issue_report(
                database,
                inspection.store,
                inspection.run.id,
                inspection.settings.report,
                actor=pipeline_actor(),
            )

    once("reported", line, make)
    with open_database(line.database_url) as database, database.session() as session:
        return line, run_findings(session, latest_run(session).id)


def pipeline_actor():
    from operations.inspection.run import SYSTEM

    return SYSTEM


# Each costs the start of a command a tenth of a second to three seconds.
HEAVY = {
    "torch",
    "timm",
    "numpy",
    "prefect",
    "alembic",
    "psycopg",
    "fsspec",
    "pyhanko",
    "weasyprint",
    "scipy",
}


@pytest.mark.parametrize(
    "command",
    [
        ["--version"],
        ["--help"],
        ["run", "--help"],
        ["findings", "-c", "{config}"],
        ["findings", "-c", "{config}", "--run", "R999999"],
        ["disposition", "{finding}", "--history", "-c", "{config}"],
        ["disposition", "{finding}", "-c", "{config}"],
        ["train", "nothing.csv", "--output", "x", "--sett", "y"],
    ],
)
def test_a_quick_command_loads_no_heavy_library(recorded, command):
    line, findings = recorded
    given = [word.format(config=line.config, finding=findings[0].reference) for word in command]
    code = (
        "import sys; sys.argv = ['kensa', *sys.argv[1:]]\n"
        "from cli.main import main\n"
        "try: main()\n"
        "finally: print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    loaded = set(done.stderr.split())
    assert "cli.console" in loaded
    assert loaded & HEAVY == set()


def test_findings_are_listed_filtered_and_printed_in_three_forms(recorded):
    line, findings = recorded
    rows = line.json("findings")
    assert {row["reference"] for row in rows} == {f.reference for f in findings}
    one = findings[0]
    for option, value in (("--part", one.part), ("--lot", one.lot), ("--class", one.class_name)):
        names = {row["reference"] for row in line.json("findings", option, value)}
        assert one.reference in names
    assert {r["lot"] for r in line.json("findings", "--lot", one.lot)} == {one.lot}
    assert "there is no lot 'none' in the record" in line.kensa("findings", "--lot", "none", check=2).stderr
    assert line.json("findings", "--until", "2020-01-01") == []
    table = list(csv.DictReader(io.StringIO(line.kensa("findings", "--format", "csv").stdout)))
    assert len(table) == len(findings)
    by_reference = {row["reference"]: row for row in table}
    for finding in findings:
        row, explained = by_reference[finding.reference], finding.explanation
        assert row["explanation.method"] == explained.method
        assert row["explanation.layers.name"].split(";") == [layer.name for layer in explained.layers]
        assert row["explanation.box"] == ";".join(map(str, explained.box or ()))
        assert [float(each) for each in row["probabilities"].split(";")] == list(finding.probabilities)
        assert not any(cell.startswith(("{", "[")) for cell in row.values())
    assert one.reference in line.kensa("findings").stdout


def test_the_audit_log_is_listed_filtered_and_shown(recorded):
    line, findings = recorded
    events = line.json("audit", "log", "--limit", "1000")
    assert [e["sequence"] for e in events] == list(range(len(events), 0, -1))
    assert {e["action"] for e in line.json("audit", "log", "--action", "run.started")} == {"run.started"}
    assert "no person or actor 'nobody'" in line.kensa("audit", "log", "--actor", "nobody", check=2).stderr
    assert line.json("audit", "log", "--part", findings[0].part)
    table = line.kensa("audit", "log", "--limit", "1000").stdout
    assert f"uri {findings[0].uri}, verdict {findings[0].verdict}" in table
    shown = json.loads(line.kensa("audit", "show", "1").stdout)
    assert (shown["sequence"], shown["hash"]) == (1, events[-1]["hash"])
    assert line.kensa("audit", "show", "99999", check=2).stderr.startswith("kensa: ")


def attack(line, *statements: str) -> None:
    """Write to the database file as somebody who has it may: past every trigger."""
    with sqlite3.connect(line.folder / "kensa.db") as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            assert connection.execute(statement).rowcount == 1
        for _, sql in triggers:
            connection.execute(sql)
    connection.close()


def test_verification_finds_nothing_wrong_with_an_untouched_record(recorded):
    line, _ = recorded
    assert "intact" in line.kensa("audit", "verify").stdout


def test_a_cut_tail_is_found_by_a_printed_head(recorded):
    line, _ = recorded
    (last,) = line.json("audit", "log", "--limit", "1")
    head = f"{last['sequence']}:{last['hash']}"
    line.kensa("audit", "verify", "--head", head)
    attack(
        line,
        f"DELETE FROM report WHERE event_sequence = {last['sequence']}",  # noqa: S608
        f"DELETE FROM artifact WHERE event_sequence = {last['sequence']}",  # noqa: S608
        f"DELETE FROM audit_event WHERE sequence = {last['sequence']}",  # noqa: S608
    )
    assert "intact" in line.kensa("audit", "verify").stdout  # nothing in the database can tell
    assert str(last["sequence"]) in line.kensa("audit", "verify", "--head", head, check=5).stderr
    assert "SEQUENCE:HASH" in line.kensa("audit", "verify", "--head", "7", check=2).stderr


def test_one_changed_byte_of_a_score_is_found(recorded):
    line, findings = recorded
    attack(
        line,
        "UPDATE finding SET class_score = class_score * 0.999 WHERE reference = "  # noqa: S608
        f"'{findings[0].reference}'",
    )
    message = line.kensa("audit", "verify", check=5).stderr
    assert "finding" in message
    assert "broken" in message


def test_a_deleted_event_is_found(recorded):
    line, _ = recorded
    attack(line, "DELETE FROM audit_event WHERE sequence = 7")
    assert "7" in line.kensa("audit", "verify", check=5).stderr


def test_a_swapped_artifact_is_found(recorded):
    line, findings = recorded
    one, other = (line.folder / "artifacts" / path_of(f.explanation.map_digest) for f in findings[:2])
    shutil.copy(other, one)
    message = line.kensa("audit", "verify", check=5).stderr
    assert findings[0].explanation.map_digest[:12] in message
    # The report shows the gap instead of a wrong map.
    line.kensa("report", "run")


def path_of(digest: str) -> Path:
    return Path("sha256") / digest[:2] / digest[2:4] / digest


def test_a_report_of_an_unchanged_record_is_the_same_document(recorded):
    line, _ = recorded
    before = (line.folder / "reports" / "R000001-1.pdf").read_bytes()
    (line.folder / "reports" / "R000001-1.pdf").unlink()
    assert "unchanged" in line.kensa("report", "run", "R000001").stdout
    assert (line.folder / "reports" / "R000001-1.pdf").read_bytes() == before
    assert "no run" in line.kensa("report", "run", "R000009", check=2).stderr.lower()


def test_the_report_of_an_unfinished_run_says_so(make_line, inspect_all):
    line = make_line()
    inspect_all(line.config, stop_after=2)
    line.kensa("report", "run")
    first = PdfReader(line.folder / "reports" / "R000001-1.pdf").pages[0].extract_text()
    assert "ncomplete" in first


def test_settings_are_shown_and_checked(make_line):
    line = make_line()
    assert "batch_size: 5" in line.kensa("config", "show").stdout
    wrong = line.kensa("config", "check", "--set", "explainer.options={shar: 0.1}", check=2).stderr
    assert "sise-fast has no option 'shar'" in wrong
    assert "in order" in line.kensa("config", "check").stdout
    assert (
        "run.batch_size: expected"
        in line.kensa("config", "check", "--set", "run.batch_size=x", check=2).stderr
    )
    wrong = line.kensa("config", "check", "--set", "model.package=nowhere", check=2).stderr
    # The value is not the file's, so that the file is not named.
    assert wrong.startswith("kensa: model.package: expected")
    assert line.kensa("run", "--set", "nonsense.key=1", check=2).stderr.startswith("kensa: ")


def test_wrong_usage_exits_with_2(kensa):
    assert subprocess.run([KENSA, "frobnicate"], capture_output=True).returncode == 2
    kensa("findings", "--limit", "x", check=2)
    done = subprocess.run([KENSA, "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("kensa ")


def test_a_record_that_is_not_there_is_an_error_not_an_empty_list(make_line):
    assert make_line().kensa("findings", check=2).stderr.startswith("kensa: ")


def test_one_picture_is_explained_and_drawn(kensa, package, pictures, tmp_path):
    picture = sorted(pictures.rglob("images/*/*.png"))[0]
    sheet = tmp_path / "out" / "why.png"
    command = ["explain", picture, "--model", package, "--out", sheet]
    assert kensa(*command, "--class", "pit").stdout.startswith("pit ")
    with Image.open(sheet) as drawn:
        assert min(drawn.size) > 200
    assert "expected one of" in kensa(*command, "--class", "dent", check=2).stderr


def test_a_picture_that_is_seen_in_tiles_is_explained_by_them(kensa, package, tmp_path):
    tiled = resaved(load_package(package), tmp_path / "tiled", tiling=Tiling(overlap=16))
    picture, sheet = tmp_path / "large.png", tmp_path / "why.png"
    Image.fromarray(scratched_surface(150, 700, (300, 70))).save(picture)
    said = kensa("explain", picture, "--model", tiled, "--out", sheet, "--class", "pit").stdout
    assert re.match(
        r"pit \d\.\d{3}: [1-4] of 45 tiles explained(, \d+ more at the review threshold)?: x ", said
    )
    assert "drawn in" in said
    with Image.open(sheet) as drawn:
        assert drawn.width == 720
        assert drawn.height > 150 + 320
        # The picture is there, reduced by nothing; where no tile was explained it is untouched.
        shown = np.asarray(drawn.convert("L"))[33 : 33 + 150, 10:710].astype(int)
    original = np.asarray(Image.open(picture)).astype(int)
    assert (shown == original).mean() > 0.3
    assert (
        "expected one of"
        in kensa("explain", picture, "--model", tiled, "--out", sheet, "--class", "dent", check=2).stderr
    )


def test_text_from_outside_cannot_act_on_the_terminal():
    assert safe("a\x1b[31mb\u202ec[red]") == "a\\x1b[31mb\\x202ec\\[red]"
