"""Asking the record on the command line: filters, pages, one part's life, what a model touched."""

import csv
import io

import pytest

from db.engine import open_database
from db.queries.finding_records import run_findings
from db.queries.runs import latest_run


@pytest.fixture
def recorded(inspected):
    """A finished run, made without Prefect, and its findings."""
    with open_database(inspected.database_url) as database, database.session() as session:
        return inspected, run_findings(session, latest_run(session).id)


def test_filters_of_events_and_findings(recorded):
    line, findings = recorded
    one = findings[0]
    assert {e["image_digest"] for e in line.json("audit", "log", "--image", one.image_digest[:8])} == {
        one.image_digest
    }
    assert {f["uri"] for f in line.json("findings", "--image", one.image_digest)} == {one.uri}
    rejected = line.json("audit", "log", "--verdict", "reject", "--limit", "1000")
    assert {e["payload"]["verdict"] for e in rejected} == {"reject"}
    score = repr(one.score)
    exact = line.json("findings", "--min-score", score, "--max-score", score)
    assert one.reference in {f["reference"] for f in exact}
    assert {f["score"] for f in exact} == {one.score}
    assert (
        "there is no person or actor 'nobody'"
        in line.kensa("audit", "log", "--person", "nobody", check=2).stderr
    )
    assert line.json("findings", "--reason", "nobody wrote this") == []
    wrong = line.kensa("findings", "--verdict", "good", check=2).stderr
    assert "verdict 'good' is none of" in wrong


def test_pages_end_with_the_cursor_of_the_next(recorded):
    line, _ = recorded
    every = line.json("audit", "log", "--limit", "1000")
    first = line.kensa("audit", "log", "--limit", "4")
    last = first.stdout.splitlines()[-1]
    assert last == f"next page: --before {every[3]['sequence']}"
    rest = line.json("audit", "log", "--limit", "1000", "--before", last.split()[-1])
    assert rest == every[4:]
    whole = line.kensa("audit", "log", "--limit", "1000", "--format", "csv")
    assert "next page" not in whole.stdout + whole.stderr
    page = line.kensa("findings", "--limit", "2", "--format", "json")
    assert len(page.stdout.splitlines()) == 2
    cursor = page.stderr.strip().removeprefix("next page: --before ")
    references = [f["reference"] for f in line.json("findings", "--limit", "1000")]
    assert cursor == references[1]
    assert [
        f["reference"] for f in line.json("findings", "--before", cursor, "--limit", "1000")
    ] == references[2:]
    assert "--before x" in line.kensa("audit", "log", "--before", "x", check=2).stderr


def test_each_page_of_a_csv_has_the_same_columns(recorded):
    line, findings = recorded

    def header(*command):
        return line.kensa(*command, "--format", "csv").stdout.splitlines()[0]

    without = header("findings", "--until", "2020-01-01")  # a page without findings
    assert header("findings") == without
    assert without.endswith(
        "probabilities,explanation.method,explanation.parameters,explanation.layers.name,"
        "explanation.layers.kept,explanation.layers.total,explanation.status,explanation.masked_score,"
        "explanation.drop,explanation.increase,explanation.map_digest,explanation.block_maps,explanation.box,"
        "explanation.tiles,explanation.tiles_left_out,disposition,awaiting_approval,tile_count,deciding_tile"
    )
    every = line.json("audit", "log", "--limit", "1000")
    pages = [str(event["sequence"] + 1) for event in every]
    headers = {header("audit", "log", "--limit", "1", "--before", page) for page in pages}
    assert headers == {header("audit", "log")}
    started = ("audit", "log", "--action", "run.started")
    (row,) = csv.DictReader(io.StringIO(line.kensa(*started, "--format", "csv").stdout))
    (event,) = line.json(*started)
    # As text with names, in their order, and no JSON.
    assert row["payload"] == "; ".join(f"{name}={value}" for name, value in sorted(event["payload"].items()))
    trace = ("audit", "trace", "--model", findings[0].model_name)
    assert header(*trace) == header(*trace, "--until", "2020-01-01")
    assert header("people", "list") == "id,login,name,role,active,revision,created_at,changed_at"
    history = header("disposition", findings[0].reference, "--history")
    assert history.startswith("id,finding,decision,class_name,reason,person,created_at,needs_approval,")
    assert history.endswith(",approval.created_at,approval.signature,approval.event_sequence")


def test_one_parts_life(recorded):
    line, findings = recorded
    one = findings[0]
    story = line.kensa("audit", "part", one.part).stdout
    assert f"part {one.part}, lot {one.lot}" in story
    assert f"kensa inspected {one.uri}" in story
    assert f"finding {one.reference}: {one.class_name}" in story
    assert f"; map {one.explanation.map_digest[:12]}" in story
    told = line.json("audit", "part", one.part, "--lot", one.lot)
    assert {entry["part"] for entry in told} == {one.part}
    assert [entry["at"] for entry in told] == sorted(entry["at"] for entry in told)
    assert all(entry["sentence"].split(".")[0] in story for entry in told)
    printed = line.kensa("audit", "part", one.part, "--format", "csv").stdout
    assert [row["sentence"] for row in csv.DictReader(io.StringIO(printed))] == [e["sentence"] for e in told]
    assert one.part in line.kensa("audit", "part", one.part + "x", check=2).stderr
    assert "is not in lot 'none'" in line.kensa("audit", "part", one.part, "--lot", "none", check=2).stderr


def test_what_a_model_touched(recorded):
    line, findings = recorded
    one = findings[0]
    table = line.kensa("audit", "trace", "--model", one.model_digest[:12], "--limit", "3")
    lines = table.stdout.splitlines()
    assert lines[0].startswith(f"model {one.model_digest[:12]}: ")
    assert "24 pictures" in lines[0]
    cursor = lines[-1].removeprefix("next page: --before ")
    model = ("audit", "trace", "--model", one.model_name, "--limit", "1000")
    parts = line.json(*model)
    assert sum(len(part["pictures"]) for part in parts) == 24
    assert {v for part in parts for v, _ in part["verdicts"]} == {"pass", "review", "reject"}
    assert line.json(*model, "--before", cursor) == parts[3:]
    only = line.json(*model, "--verdict", "pass")
    assert {p["verdict"] for part in only for p in part["pictures"]} == {"pass"}
    assert "there is no model" in line.kensa("audit", "trace", "--model", "nobody", check=2).stderr
