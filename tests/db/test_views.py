"""The views that people with tools of their own read."""

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text

from db import views
from db.engine import Database
from db.inspection.missing_images import MissingImage
from db.inspection.runs import finish_run
from db.issued.reports import ReportSubject

Plant = Any  # tests/db/conftest.py; test folders are not packages
PAGE = Path(__file__).parents[2] / "docs" / "queries.md"


def rows(plant: Plant, query: str) -> list[dict[str, Any]]:
    with plant.db.session() as session:
        return [dict(row._mapping) for row in session.execute(text(query))]


class OldEntry(str):
    """A missing picture as kensa recorded it before 0.3: its uri alone."""

    def entry(self) -> str:
        return str(self)


@pytest.fixture
def filled(plant: Plant) -> Plant:
    plant.fill()
    return plant


def test_runs_with_their_counts(filled: Plant) -> None:
    filled.start(source="line-2")
    done, unfinished = rows(filled, "SELECT * FROM kensa_runs ORDER BY run")
    counted = {name: done[name] for name in ("listed", "pass", "review", "reject", "unreadable", "findings")}
    assert counted == {
        "listed": 8, "pass": 2, "review": 2, "reject": 2, "unreadable": 2, "findings": 4,
    }  # fmt: skip
    assert (done["run"], done["status"], done["model_name"]) == ("R000001", "completed", "tiny")
    assert re.fullmatch("[0-9a-f]{32}", done["run_id"])
    assert (unfinished["status"], unfinished["listed"], unfinished["finished_at"]) == (
        "unfinished", None, None,
    )  # fmt: skip


def test_missing_pictures_of_either_version(plant: Plant) -> None:
    known = MissingImage('L9/"never".png', "P9", "L9")
    finish_run(plant.db, plant.start(), actor=plant.actor, missing=[known])
    finish_run(plant.db, plant.start(), actor=plant.actor, missing=[OldEntry('old "one".png')])
    finish_run(plant.db, plant.start(), actor=plant.actor)
    found = rows(plant, "SELECT run, uri, part, lot, station, source FROM kensa_missing ORDER BY run")
    assert [tuple(row.values()) for row in found] == [
        ("R000001", 'L9/"never".png', "P9", "L9", None, "line-1"),
        ("R000002", 'old "one".png', None, None, None, "line-1"),
    ]


def test_images_and_findings(filled: Plant) -> None:
    images = rows(filled, "SELECT * FROM kensa_images ORDER BY event")
    assert [i["verdict"] for i in images] == ["pass", "review", "reject", "unreadable"] * 2
    second = images[1]
    assert (second["run"], second["part"], second["lot"], second["station"]) == (
        "R000001", "P0001", "L1", "cam-1",
    )  # fmt: skip
    assert second["score"] == pytest.approx(0.4001)
    assert second["image_digest"] == filled.outcome(1, "review").digest
    assert second["model_digest"] == filled.model.digest
    assert images[3]["reason"] == "truncated"
    found = rows(filled, "SELECT * FROM kensa_findings ORDER BY event")
    assert [f["finding"] for f in found] == [f"R000001-000{n}" for n in (1, 2, 3, 4)]
    first = found[0]
    assert (first["class_name"], first["uri"], first["part"]) == ("pit", second["uri"], "P0001")
    assert (first["explanation_method"], first["score_drop"], bool(first["score_increase"])) == (
        "sise", 37.5, False,
    )  # fmt: skip


def test_a_disposition_is_in_effect_when_it_needs_no_approval_or_has_got_it(filled: Plant) -> None:
    """Plant.fill: confirm, superseded by scrap, which is approved; then another scrap, which still waits."""
    filled.dispose("scrap")
    made = rows(filled, "SELECT * FROM kensa_dispositions ORDER BY event")
    assert [(d["decision"], d["approval"], bool(d["in_effect"])) for d in made] == [
        ("confirm", "not needed", False),
        ("scrap", "approved", True),
        ("scrap", "awaiting", False),
    ]
    assert (made[1]["person"], made[1]["approval_reason"], made[0]["approval_person"]) == (
        "engineer", "agreed", None,
    )  # fmt: skip
    assert (made[0]["signed_name"], made[1]["approval_signed_meaning"]) == ("E. Ngineer", "approval")
    assert made[1]["supersedes_id"] == made[0]["disposition_id"]
    assert made[1]["signature_digest"] is not None
    found = rows(filled, "SELECT disposition FROM kensa_findings ORDER BY event")
    assert [f["disposition"] for f in found] == ["scrap", None, None, None]


def test_reports_and_who_signed_them(filled: Plant) -> None:
    subject = ReportSubject.period(lot="L1")
    period = filled.issue(subject, b"a lot", record_digest="d" * 64)
    found = {row["report"]: row for row in rows(filled, "SELECT * FROM kensa_reports")}
    assert sorted(found) == ["P000001", "R000001"]
    assert (found["R000001"]["run"], found["P000001"]["run"]) == ("R000001", None)
    assert (found["P000001"]["kind"], found["P000001"]["subject"]) == ("period", '{"lot":"L1"}')
    assert found["P000001"]["artifact_digest"] == period.artifact_digest
    assert not found["P000001"]["superseded"]
    filled.issue(subject, b"a lot, again")
    states = rows(filled, "SELECT superseded FROM kensa_reports WHERE report = 'P000001' ORDER BY revision")
    assert [bool(row["superseded"]) for row in states] == [True, False]
    (signed,) = rows(filled, "SELECT * FROM kensa_report_signatures")
    assert (signed["report"], signed["signature"], signed["capacity"], signed["decision"]) == (
        "R000001", 1, "approved", "accept",
    )  # fmt: skip
    assert (signed["signed_name"], signed["signed_meaning"]) == ("S. Econd", "approval")


def test_events_and_artifacts(filled: Plant) -> None:
    events = rows(filled, "SELECT * FROM kensa_events ORDER BY event")
    assert [e["event"] for e in events] == list(range(1, len(events) + 1))
    assert (events[0]["action"], events[0]["run"]) == ("model.registered", None)
    assert events[1]["run"] == "R000001"
    artifacts = {a["digest"]: a for a in rows(filled, "SELECT * FROM kensa_artifacts")}
    pruned = [a for a in artifacts.values() if a["state"] == "pruned"]
    (one,) = pruned
    assert (one["kind"], one["policy"]) == ("picture", "older than 1 d")
    assert len(artifacts) == len(rows(filled, "SELECT id FROM artifact"))


def test_the_page_describes_the_columns_that_there_are(database: Database) -> None:
    described = {
        name: re.findall("`([a-z_]+)`", body)
        for name, body in re.findall(r"^### `(kensa_\w+)`\n(.*?)(?=^#|\Z)", PAGE.read_text(), re.M | re.S)
    }
    with database.exclusive() as connection:
        inspector = inspect(connection)
        there = {
            name: [c["name"] for c in inspector.get_columns(name)] for name in inspector.get_view_names()
        }
    assert described == there


def test_views_are_made_once_and_again_when_they_differ(database: Database) -> None:
    with database.exclusive(migrating=True) as connection:
        before = views._present_marks(connection)
        assert set(before) == set(views.definitions(connection.dialect.name))
        connection.exec_driver_sql("DROP VIEW kensa_runs")
        connection.exec_driver_sql("CREATE VIEW kensa_runs AS SELECT 1 AS one")
    database.migrate()
    with database.exclusive() as connection:
        assert views._present_marks(connection) == before
        assert views.missing(connection) == []
        assert "number" not in {c["name"] for c in inspect(connection).get_columns("kensa_runs")}
        assert not {name for name in inspect(connection).get_table_names() if name.startswith("kensa_r")}
