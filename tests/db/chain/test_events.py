import hashlib
import json
from typing import Any
from uuid import UUID

from sqlalchemy import select, text

from db.chain.events import GENESIS, Actor, Head, event_hash, record_of, rows_digest
from db.chain.events import head as audit_head
from db.engine import Database
from db.schema import AuditEvent, Image

ACTOR = Actor("tester", "human")


def test_the_first_event_hashes_as_documented(database: Database) -> None:
    """Worked out again from the database's own text with json and hashlib alone."""
    row = Image(id=UUID(int=7), digest="i", size=3, width=4, height=None, format="PNG", mode="L")
    run_id = UUID(int=9)
    with database.write() as recorder:
        assert recorder.head == Head(0, GENESIS)
        head = recorder.add(
            [row], action="test.done", actor=ACTOR, entity="image", entity_id=row.id, run_id=run_id,
            payload={"new": 1.5, "old": None}, model_digest="m", artifact_digests=["a", "b"],
        )  # fmt: skip
        assert recorder.head == head
    with database.session() as session:
        event = session.scalars(select(AuditEvent)).one()
        assert audit_head(session) == head == Head(1, event.hash)
    contents = {
        "sequence": 1,
        "id": event.id.hex,
        "at": event.at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "actor_id": "tester",
        "actor_kind": "human",
        "action": "test.done",
        "entity": "image",
        "entity_id": row.id.hex,
        "run_id": run_id.hex,
        "payload": '{"new":1.5,"old":null}',
        "software_version": "test 1",
        "model_digest": "m",
        "artifact_digests": '["a","b"]',
        "rows": '[["image","00000000000000000000000000000007"]]',
        "rows_digest": hashlib.sha256(
            b'[["image",{"digest":"i","event_sequence":1,"format":"PNG",'
            b'"id":"00000000000000000000000000000007","mode":"L","size":3,"width":4}]]'
        ).hexdigest(),
        "previous_hash": "0" * 64,
        "scheme": 1,
    }
    text = json.dumps(contents, sort_keys=True, separators=(",", ":"))
    assert event.hash == hashlib.sha256(text.encode()).hexdigest()


def test_events_follow_one_another_and_cover_their_rows(database: Database) -> None:
    with database.write() as recorder:
        for number in range(3):
            rows = [Image(digest=f"{number}-{n}", size=0, width=None, height=None, format=None, mode=None)
                    for n in range(number)]  # fmt: skip
            recorder.add(rows, action="t", actor=ACTOR, entity="e", entity_id=str(number))
        recorder.flush()
        recorder.add([], action="t", actor=ACTOR, entity="e", entity_id="after")
    with database.session() as session:
        events = session.scalars(select(AuditEvent).order_by(AuditEvent.sequence)).all()
        assert [event.sequence for event in events] == [1, 2, 3, 4]
        assert [len(event.rows) for event in events] == [0, 1, 2, 0]
        assert [e.previous_hash for e in events] == [GENESIS, *(e.hash for e in events[:3])]
        covered = session.execute(
            text("SELECT event_sequence, count(*) FROM image GROUP BY 1 ORDER BY 1")
        ).all()
        assert covered == [(2, 1), (3, 2)]


def test_a_null_column_is_no_part_of_a_record() -> None:
    """So that a column added by a later migration leaves the digests of older rows alone."""
    old: Any = record_of(["id", "a"], ["x", 1])
    assert old == record_of(["id", "a", "later"], ["x", 1, None])
    assert old != record_of(["id", "a", "later"], ["x", 1, 0])
    assert rows_digest([("t", old)]) != rows_digest([("u", old)])
    assert event_hash(old) == event_hash(old | {"hash": "whatever"})
