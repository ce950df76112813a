import hashlib
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from db.chain.events import Actor
from db.columns import aware, canonical_json, encoded, flat_json, storable, time_text, uuid7
from db.engine import Database
from db.errors import RecordError
from db.schema import AuditEvent, Image, ModelVersion, Prediction, Run, RunImage
from db.verification.walk import verify

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def test_uuid7_has_its_version_and_variant_and_sorts_by_time() -> None:
    made = [uuid7() for _ in range(200)]
    assert {u.version for u in made} == {7}
    assert {u.variant for u in made} == {"specified in RFC 4122"}
    assert len(set(made)) == 200
    moment = datetime.fromtimestamp((made[0].int >> 80) / 1000, UTC)
    assert abs(moment - datetime.now(UTC)) < timedelta(minutes=5)
    # rand_a holds the sub-millisecond time: everything above the random tail never goes back
    leading = [u.int >> 64 for u in made]
    assert leading == sorted(leading)


SAFE = st.integers(-(2**53) + 1, 2**53 - 1)
KEYS = st.text(st.characters(max_codepoint=127))


@given(st.recursive(SAFE | TEXT, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
def test_flat_json_is_rfc_8785(value: Any) -> None:
    assert flat_json(value) == rfc8785.dumps(value)


def test_canonical_json_is_one_text() -> None:
    assert (
        canonical_json({"b": 1.0, "a": [1e-7, True, None, "é\x00"]})
        == '{"a":[1e-7,true,null,"é\\u0000"],"b":1}'
    )


@pytest.mark.parametrize("value", [{"a": math.nan}, [math.inf], {"a": object()}, {1: 2}, [2**60], "text", 3])
def test_what_has_no_canonical_json_is_refused(value: Any) -> None:
    with pytest.raises(RecordError):
        canonical_json(value)


def test_times_are_aware_and_have_one_spelling() -> None:
    moment = datetime(2026, 11, 23, 11, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    assert time_text(moment) == "2026-11-23T10:00:00.000005Z"
    for spell in (aware, time_text):
        with pytest.raises(RecordError, match="no time zone"):
            spell(datetime(2026, 11, 23))


def test_encoded_values_of_both_drivers_agree() -> None:
    identifier = uuid7()
    assert encoded(identifier) == identifier.hex
    assert encoded(True) == 1
    assert type(encoded(True)) is int
    assert encoded(0.1) == "0.1"
    assert encoded(b"\x01") == "bytes:01"
    assert encoded(None) is None


def test_storable_spells_out_what_no_database_takes() -> None:
    assert storable("naïve/日本.png") == "naïve/日本.png"
    assert storable("a\x00b\udcff") == "a\\x00b\\udcff"
    assert storable(storable("a\x00\udcff")) == storable("a\x00\udcff")


AWKWARD_FLOATS = [
    0.1,
    1 / 3,
    1.0,
    5e-324,
    0.0,
    -0.0,
    2.2250738585072014e-308,
    1 - 2**-53,
    0.30000000000000004,
]
AWKWARD_JSON = {
    "text": 'é\u2028"\\\x00\x1f\x7f😀',
    "numbers": [1, 1.0, 1e21, 1e-7, -0.0, 123456789.125],
    "z": {},
    "": [],
}
AWKWARD_TIMES = [
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2026, 3, 29, 2, 30, 0, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
]


def test_awkward_values_come_back_as_they_were_and_verify(database: Database) -> None:
    actor = Actor("tester")
    model = ModelVersion(
        digest="d", name="né\u2028", architecture="a", classes=["x"], task="multi-label", thresholds=None,
        card=AWKWARD_JSON,
    )  # fmt: skip
    moment = AWKWARD_TIMES[2]
    run = Run(
        number=1, source="s", settings=AWKWARD_JSON, settings_digest="s", model_version_id=model.id,
        software_version="v", host="h", trigger="t", started_at=moment,
    )  # fmt: skip
    rows: list[Any] = [model, run]
    for number, score in enumerate(AWKWARD_FLOATS):
        image = Image(digest=f"i{number}", size=2**40, width=None, height=1, format="", mode=None)
        prediction = Prediction(
            image_id=image.id, model_version_id=model.id, settings_digest="s", run_id=run.id, verdict="pass",
            reason=None, score=score, review_threshold=score, reject_threshold=1, probabilities=[score],
            created_at=moment, brightness=score, contrast=None, sharpness=score, tile_count=number,
            deciding_tile=[number, 0, 4096, 256],
        )  # fmt: skip
        line = RunImage(
            run_id=run.id, uri=f"u{number}", version="", size=0, part_id=None, station=None,
            captured_at=AWKWARD_TIMES[number % len(AWKWARD_TIMES)], image_id=image.id,
            prediction_id=prediction.id, verdict="pass", reason=None, carried_over=bool(number % 2),
            created_at=moment,
        )  # fmt: skip
        rows += [image, prediction, line]
    with database.write() as recorder:
        recorder.add(rows, action="test", actor=actor, entity="e", entity_id="é", payload=AWKWARD_JSON)

    found = verify(database)
    assert found.ok, found.problems
    assert found.rows == len(rows)
    with database.session() as session:
        assert session.scalars(select(Prediction.score).order_by(Prediction.id)).all() == AWKWARD_FLOATS
        assert session.scalars(select(Run.settings)).one() == AWKWARD_JSON
        times = session.scalars(select(RunImage.captured_at).order_by(RunImage.uri)).all()
        assert times == [AWKWARD_TIMES[n % 4] for n in range(len(AWKWARD_FLOATS))]
        assert all(time is not None and time.tzinfo is UTC for time in times)
        assert session.scalars(select(Image.size)).first() == 2**40
        assert session.scalar(select(RunImage.uri).where(RunImage.captured_at < AWKWARD_TIMES[1])) is not None


def test_the_digest_of_the_same_rows_is_the_same_on_both_databases(database: Database) -> None:
    row = Image(id=UUID(int=7), digest="i", size=3, width=4, height=5, format="PNG", mode="L")
    with database.write() as recorder:
        recorder.add([row], action="test", actor=Actor("tester"), entity="image", entity_id=row.id)
    with database.session() as session:
        digest = session.scalars(select(AuditEvent.rows_digest)).one()
    text = (
        '[["image",{"digest":"i","event_sequence":1,"format":"PNG","height":5,'
        '"id":"00000000000000000000000000000007","mode":"L","size":3,"width":4}]]'
    )
    assert digest == hashlib.sha256(text.encode()).hexdigest()
