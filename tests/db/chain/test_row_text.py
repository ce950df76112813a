"""Many rows are spelled together: the outcome is that of each value by itself."""

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Table

from db.chain.events import Actor, Entry, NewRow
from db.chain.row_text import column_names, spelled_rows
from db.columns import canonical_json, encoded, time_text, utc_now, uuid7_texts
from db.engine import Database
from db.errors import RecordError
from db.queries.events import get_event
from db.schema import Base, Image
from db.verification.walk import verify

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize("value", [["\udcff"], {"a": ["\ud800"]}, {"\udcff": 1}, [0.5, math.nan]])
def test_json_that_is_not_unicode_or_holds_no_number_is_refused(value: Any) -> None:
    with pytest.raises(RecordError):
        canonical_json(value)


STORABLE = TEXT.filter(lambda text: "\x00" not in text)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))])
TIMES = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=ZONES)
PREDICTIONS = st.fixed_dictionaries(
    {
        "id": st.uuids() | st.uuids().map(lambda u: u.hex),
        "event_sequence": st.integers(1, 2**62),
        "verdict": STORABLE,
        "reason": st.none() | STORABLE,
        "score": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 1),
        "probabilities": st.none() | st.lists(st.floats(0, 1)),
        "created_at": TIMES,
    }
)


@given(st.lists(PREDICTIONS, min_size=1, max_size=5))
def test_rows_together_are_as_each_alone(rows: list[dict[str, Any]]) -> None:
    table = Base.metadata.tables["prediction"]
    records, tuples = spelled_rows(table, rows)
    names = column_names(table)
    for row, found, stored in zip(rows, records, tuples, strict=True):
        assert list(found) == sorted(found)
        assert found == {n: v for n, v in zip(names, stored, strict=True) if v is not None}
        plain = {
            name: value.astimezone(UTC)
            if name == "created_at"
            else canonical_json(value)
            if name == "probabilities"
            else float(value) + 0.0
            if name == "score"
            else value
            for name, value in row.items()
            if value is not None
        }
        assert found == {name: encoded(value) for name, value in plain.items()}


def test_columns_that_all_rows_share_are_given_once() -> None:
    table = Base.metadata.tables["prediction"]
    now = utc_now()
    records, _ = spelled_rows(table, [{"verdict": "pass"}, {"verdict": "reject"}], {"created_at": now})
    assert records == [{"created_at": time_text(now), "verdict": what} for what in ("pass", "reject")]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("verdict", "a\x00b"),
        ("verdict", "\udcff"),
        ("verdict", 3),
        ("id", "A" * 32),
        ("id", "a" * 31),
        ("id", 7),
        ("score", math.inf),
        ("score", "much"),
        ("created_at", datetime(2026, 1, 1)),
        ("probabilities", 0.5),
        ("event_sequence", "x"),
    ],
)
def test_a_value_that_a_column_would_not_take_is_named(column: str, value: Any) -> None:
    table: Table = Base.metadata.tables["prediction"]
    good = {
        "verdict": "pass",
        "id": "a" * 32,
        "score": 0.5,
        "created_at": utc_now(),
        "event_sequence": 1,
    }
    for rows in ([{column: value}], [good, good | {column: value}], [good | {column: value}, good]):
        with pytest.raises(RecordError, match=rf"^prediction\.{column}: "):
            spelled_rows(table, rows)


def test_identifiers_by_the_thousand_are_unlike_and_sorted() -> None:
    texts = uuid7_texts(16)
    made = [UUID(next(texts)) for _ in range(200)]
    assert len(set(made)) == 200
    assert {(u.version, u.variant) for u in made} == {(7, "specified in RFC 4122")}
    assert [u.int >> 64 for u in made] == sorted(u.int >> 64 for u in made)


def test_events_added_together_are_the_chain_that_one_by_one_makes(database: Database) -> None:
    actor = Actor("tester", role="line")

    def image(number: int) -> dict[str, Any]:
        return {"id": UUID(int=number), "digest": f"i{number}", "size": number, "width": None,
                "height": None, "format": "PNG", "mode": None}  # fmt: skip

    with database.write() as recorder:
        recorder.add([Image(**image(1))], action="t", actor=actor, entity="image", entity_id="1")
        entries = [
            Entry(
                [NewRow("image", image(n)) for n in range(100 * n, 101 * n)], "t", "image", str(n), {"n": n}
            )
            for n in range(2, 70)
        ]
        recorder.add_all(entries, actor=actor, settings_digest="s")
        head = recorder.add([], action="t", actor=actor, entity="image", entity_id="last")
    assert head.sequence == 70
    found = verify(database)
    assert (found.ok, found.events, found.rows, found.head) == (True, 70, 1 + sum(range(2, 70)), head)
    with database.session() as session:
        event = get_event(session, 3)
    assert (event.payload, event.settings_digest, event.actor_role) == ({"n": 3}, "s", "line")
    assert [UUID(identifier).int for _, identifier in event.rows] == [300, 301, 302]
