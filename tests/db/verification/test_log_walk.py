"""Whatever is in a row, its digest comes out; and what only looks like what was recorded does not pass."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.chain.events import Actor, NewRow
from db.columns import uuid7
from db.engine import Database
from db.schema import ModelVersion, Prediction, Run
from db.verification.log_walk import LogWalk

Plant = Any  # tests/db/conftest.py; test folders are not packages
Attack = Any


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
FLOATS = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 5e-324, 1e-5, 1e-4, 1 / 3, 1 - 2**-53])
ANY_FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, -12.0, 1e-7, 123456789.125, 1e15]
)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))])
TIMES = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=ZONES)
JSON = st.dictionaries(TEXT, TEXT | st.floats(-1e9, 1e9) | st.booleans() | st.none(), max_size=3)
ROWS = st.fixed_dictionaries(
    {
        "name": TEXT, "task": st.sampled_from(["single-label", "multi-label"]), "card": JSON,
        "thresholds": st.none() | JSON, "reason": st.none() | TEXT, "score": FLOATS,
        "size": st.integers(0, 2**63 - 1),
        "width": st.none() | st.integers(-(2**31), 2**31 - 1), "format": st.none() | TEXT,
        "carried_over": st.booleans(), "at": TIMES, "captured_at": st.none() | TIMES,
        "drop": st.none() | ANY_FLOATS, "increase": st.none() | st.booleans(),
    }
)  # fmt: skip


@given(row=ROWS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_database_gives_back_is_what_was_hashed(database: Database, row: dict[str, Any]) -> None:
    mark = uuid7().hex
    model = ModelVersion(
        digest=mark, name=row["name"], architecture="a", classes=[row["name"]], task=row["task"],
        thresholds=row["thresholds"], card=row["card"],
    )  # fmt: skip
    with database.write() as recorder:
        before = recorder.head
        number = before.sequence + 1
        run = Run(
            number=number, source=row["name"], settings=row["card"], settings_digest="s", host="h",
            model_version_id=model.id, software_version="v", trigger="t", started_at=row["at"],
        )  # fmt: skip
        image = NewRow("image", {"id": uuid7(), "digest": mark, "size": row["size"],
                                 "width": row["width"], "format": row["format"]})  # fmt: skip
        prediction = Prediction(
            image_id=image.values["id"], model_version_id=model.id, settings_digest="s", run_id=run.id,
            verdict="pass", reason=None, score=row["score"], review_threshold=1 - row["score"],
            reject_threshold=row["score"] / 3, probabilities=[row["score"]], created_at=row["at"],
            brightness=row["drop"], contrast=row["score"], sharpness=row["drop"],
            tile_count=row["width"], deciding_tile=None,
        )  # fmt: skip
        finding = NewRow("finding", {"id": uuid7(), "reference": mark, "run_id": run.id, "number": 1,
                                     "prediction_id": prediction.id, "class_name": row["name"],
                                     "class_score": row["score"], "score": row["score"], "threshold": 0.5,
                                     "created_at": row["at"]})  # fmt: skip
        explanation = NewRow("explanation", {"id": uuid7(), "finding_id": finding.values["id"],
                                             "method": "m", "parameters": row["card"], "layers": [],
                                             "status": row["name"], "score_drop": row["drop"],
                                             "score_increase": row["increase"], "block_map_digests": [],
                                             "created_at": row["at"]})  # fmt: skip
        line = NewRow("run_image", {"id": uuid7(), "run_id": run.id, "uri": row["name"], "version": "",
                                    "size": row["size"], "image_id": image.values["id"],
                                    "prediction_id": prediction.id, "verdict": "pass",
                                    "created_at": row["at"], "carried_over": row["carried_over"],
                                    "station": row["format"],
                                    "captured_at": row["captured_at"]})  # fmt: skip
        recorder.add(
            [model, run, image, prediction, finding, explanation, line], action="t",
            actor=Actor("a", role=row["format"]), entity="e", entity_id=row["name"], payload=row["card"],
            old=row["thresholds"], new=row["thresholds"], reason=row["reason"],
        )  # fmt: skip
    with database.session() as session:
        walk = LogWalk(session, before)
        assert walk.window()
    assert (walk.problems, walk.events, walk.rows) == ([], 1, 7)


@contextmanager
def file(database: Database) -> Iterator[sqlite3.Connection]:
    database.close()
    with closing(sqlite3.connect(Path(str(database.url.database)))) as raw:
        raw.execute("PRAGMA ignore_check_constraints = ON")
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {name}")
        yield raw
        raw.commit()


# What only SQLite would store: a value of another type that prints the same.
LOOKALIKES = {
    "a hash of bytes": "UPDATE audit_event SET hash = CAST(hash AS BLOB) WHERE sequence = 5",
    "a previous hash of bytes": (
        "UPDATE audit_event SET previous_hash = CAST(previous_hash AS BLOB) WHERE sequence = 5"
    ),
    "a digest of bytes": "UPDATE audit_event SET rows_digest = CAST(rows_digest AS BLOB) WHERE sequence = 5",
    "a list of bytes": 'UPDATE audit_event SET "rows" = CAST("rows" AS BLOB) WHERE sequence = 5',
    "a verdict of bytes": "UPDATE prediction SET verdict = CAST(verdict AS BLOB) WHERE event_sequence = 5",
    "an identifier of bytes": "UPDATE prediction SET id = CAST(id AS BLOB) WHERE event_sequence = 5",
    "a number of text": "UPDATE image SET size = CAST(size AS BLOB) WHERE event_sequence = 5",
    "a sequence of bytes": (
        "UPDATE image SET event_sequence = CAST(event_sequence AS BLOB) WHERE event_sequence = 5"
    ),
    "a score of bytes": "UPDATE prediction SET score = CAST(score AS BLOB) WHERE event_sequence = 5",
    "a hash with what follows it": (
        "UPDATE audit_event SET hash = hash || ' ' || scheme WHERE sequence = 5"
    ),
    "a line end in a hash": "UPDATE audit_event SET hash = hash || char(10) WHERE sequence = 5",
    "a mark in place of a number": (
        "UPDATE prediction SET verdict = char(1), score = NULL WHERE event_sequence = 5"
    ),
    "a text that closes its quotation": (
        "UPDATE image SET format = 'PNG\",\"height\":48,\"mode\":\"L', height = NULL, mode = NULL "
        "WHERE event_sequence = 5"
    ),
}  # fmt: skip


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("edit", LOOKALIKES)
def test_what_prints_the_same_is_not_the_same(plant: Plant, edit: str) -> None:
    plant.fill()
    with file(plant.db) as raw:
        assert raw.execute(LOOKALIKES[edit]).rowcount
    assert {problem.kind for problem in plant.verify().problems} - {"guard"}


@pytest.mark.parametrize("number", [5, 0, -1, 15, 16, 4_000, 10**6])
def test_a_row_more_is_never_passed_over(plant: Plant, attack: Attack, number: int) -> None:
    plant.fill()
    attack(f"INSERT INTO part (id, event_sequence, serial, lot) VALUES ('{'7' * 32}', {number}, 'P', 'L')")  # noqa: S608
    assert [problem.kind for problem in plant.verify().problems] == ["uncovered"]


def test_an_event_that_lists_a_row_twice_is_not_sound(plant: Plant, attack: Attack) -> None:
    plant.fill()
    attack(
        """UPDATE audit_event SET "rows" = replace("rows", ']]', '],' || substr("rows", 2)) """
        "WHERE sequence = 1"
    )
    problems = plant.verify().problems
    assert {(problem.kind, problem.where) for problem in problems} == {
        ("event", "event 1"),
        ("row", "event 1"),
    }
