"""Inclusion proofs: made from the record, checked without it."""

import base64
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.event import listen

from db.chain.events import Actor
from db.columns import utc_now
from db.errors import RecordError
from db.transparency.checkpoints import CheckpointFolder, sign_checkpoint
from db.transparency.inclusion import check_proof, events_of_finding, events_of_findings, make_proof
from db.transparency.signed_notes import CheckpointNote, NoteError, SigningKey, generate_key, open_checkpoint

Plant = Any  # tests/db/conftest.py; test folders are not packages


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return generate_key("plant-1/kensa")


@pytest.fixture
def signed(plant: Plant, key: SigningKey, tmp_path: Path) -> tuple[str, CheckpointNote]:
    """A run, two decisions about its first finding, and the checkpoint over them."""
    plant.finished_run()
    plant.dispose("confirm")
    plant.dispose("scrap")
    made = sign_checkpoint(plant.db, CheckpointFolder(tmp_path / "notes"), key, actor=Actor("kensa"))
    return made.note, open_checkpoint(made.note, [key.verifier])


@pytest.fixture
def proof(plant: Plant, signed: tuple[str, CheckpointNote]) -> dict[str, Any]:
    with plant.db.session() as session:
        events = events_of_finding(session, "R000001-0001")
        made = make_proof(session, events, *signed)
    text = json.dumps(made)
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_many_findings_are_proved_with_a_bounded_number_of_questions(
    plant: Plant, signed: tuple[str, CheckpointNote], key: SigningKey
) -> None:
    asked: list[str] = []
    references = [f"R000001-000{n}" for n in (1, 2, 3, 4)]
    with plant.db.session() as session:
        alone = {reference: events_of_finding(session, reference) for reference in references}
        listen(session.connection(), "before_cursor_execute", lambda *event: asked.append(event[2]))
        found = events_of_findings(session, [*references, "R000009-0001"])
        assert found == alone
        assert events_of_findings(session, references, upto=13)[references[0]] == [2, 4, 13]
        few = len(asked)
        together = make_proof(session, sorted({n for some in found.values() for n in some}), *signed)
        one_proof = len(asked) - few
        make_proof(session, found[references[0]], *signed)
    assert one_proof == len(asked) - few - one_proof  # as many for all as for one
    proved = check_proof(together, signed[0], [key.verifier])
    assert [event.sequence for event in proved.events] == [2, 4, 5, 8, 9, 13, 14]


def test_a_proof_tells_the_whole_finding_to_a_stranger(
    proof: dict[str, Any], signed: tuple[str, CheckpointNote], key: SigningKey
) -> None:
    found = check_proof(proof, signed[0], [key.verifier])
    assert found.checkpoint == signed[1]
    # 2 run.started, 4 the picture and its finding, 13 and 14 the decisions
    assert [event.sequence for event in found.events] == [2, 4, 13, 14]
    assert [event.event["action"] for event in found.events] == [
        "run.started",
        "image.inspected",
        "disposition.made",
        "disposition.made",
    ]
    tables = [table for table, _ in found.events[1].rows]
    assert {"image", "prediction", "run_image", "finding", "explanation", "artifact", "part"} <= set(tables)
    (finding,) = (row for table, row in found.events[1].rows if table == "finding")
    assert (finding["reference"], finding["class_name"]) == ("R000001-0001", "pit")
    decided = [row for event in found.events[2:] for table, row in event.rows if table == "disposition"]
    assert [row["decision"] for row in decided] == ["confirm", "scrap"]


def test_a_path_takes_a_few_hundred_bytes(proof: dict[str, Any]) -> None:
    # Fourteen events: at most four hashes of 32 bytes each. A million would take twenty: 640 bytes.
    assert max(len(entry["path"]) for entry in proof["events"]) == 4
    assert all(len(base64.b64decode(node)) == 32 for entry in proof["events"] for node in entry["path"])


def _scalars(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all texts and numbers in a proof."""
    if isinstance(value, dict):
        return [place for key, item in value.items() for place in _scalars(item, (*at, key))]
    if isinstance(value, list):
        return [place for key, item in enumerate(value) for place in _scalars(item, (*at, key))]
    return [at]


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_character_of_a_proof_is_refused(
    proof: dict[str, Any], signed: tuple[str, CheckpointNote], key: SigningKey, data: st.DataObject
) -> None:
    changed = copy.deepcopy(proof)
    place = data.draw(st.sampled_from(_scalars(changed)))
    holder: Any = changed
    for step in place[:-1]:
        holder = holder[step]
    old = holder[place[-1]]
    if isinstance(old, int):
        new: Any = old + data.draw(st.sampled_from([-1, 1, 1000]))
    else:
        at = data.draw(st.integers(0, len(old)))
        cut = data.draw(st.integers(0, 1)) if at < len(old) else 0
        new = old[:at] + data.draw(st.text(min_size=1 - cut, max_size=2)) + old[at + cut :]
    if new == old:
        return
    holder[place[-1]] = new
    with pytest.raises(RecordError):
        check_proof(changed, signed[0], [key.verifier])


def test_what_else_is_refused(
    plant: Plant, proof: dict[str, Any], signed: tuple[str, CheckpointNote], key: SigningKey
) -> None:
    note = signed[0]
    elsewhere = CheckpointNote("plant-1/kensa", 14, bytes(32), "0" * 64, utc_now())
    with pytest.raises(NoteError, match="no signature by a trusted key"):
        check_proof(proof, note, [generate_key("plant-1/kensa").verifier])
    with pytest.raises(RecordError, match="not a proof of this kind"):
        check_proof({}, note, [key.verifier])
    with pytest.raises(RecordError, match="holds no event"):
        check_proof({**proof, "events": []}, note, [key.verifier])
    with pytest.raises(RecordError, match="event 2: is not in the log that plant-1/kensa signed"):
        check_proof(proof, key.sign(elsewhere.text()), [key.verifier])
    swapped = copy.deepcopy(proof)
    swapped["events"][2]["rows"], swapped["events"][3]["rows"] = (
        swapped["events"][3]["rows"],
        swapped["events"][2]["rows"],
    )
    with pytest.raises(RecordError, match="event 13: the rows in the proof are not those that"):
        check_proof(swapped, note, [key.verifier])


def test_the_copies_that_a_proof_carries_are_checked_too(
    proof: dict[str, Any], signed: tuple[str, CheckpointNote], key: SigningKey
) -> None:
    other = key.sign(CheckpointNote("plant-1/kensa", 14, bytes(32), "0" * 64, utc_now()).text())
    forged = generate_key("plant-1/kensa").sign(signed[1].text())
    for changed, expected in (
        ({"root": base64.b64encode(bytes(32)).decode()}, "the root that the proof names is not the one"),
        ({"root": None}, "the root that the proof names is not the one"),
        ({"checkpoint": other}, "the checkpoint in the proof is another one than the one"),
        ({"checkpoint": forged}, "the checkpoint in the proof: no signature by a trusted key"),
        ({"checkpoint": signed[0][:-1] + "\r\n"}, "the checkpoint in the proof: .* is not a signature line"),
        ({"checkpoint": "\ud800" + signed[0]}, "the checkpoint in the proof: .*its text is not Unicode"),
        ({"checkpoint": 1}, "the checkpoint in the proof: not a signed note"),
    ):
        with pytest.raises(RecordError, match=expected):
            check_proof({**proof, **changed}, signed[0], [key.verifier])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("[" * 5000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_a_proof_is_refused_in_a_sentence(
    proof: dict[str, Any], signed: tuple[str, CheckpointNote], key: SigningKey, data: st.DataObject
) -> None:
    changed = copy.deepcopy(proof)
    holder: Any = changed
    place = data.draw(st.sampled_from(_scalars(changed)))
    place = place[: data.draw(st.integers(1, len(place)))]
    for step in place[:-1]:
        holder = holder[step]
    old, new = holder[place[-1]], data.draw(JSON)
    if new == old and type(new) is type(old):
        return
    holder[place[-1]] = new
    with pytest.raises(RecordError) as caught:
        check_proof(changed, signed[0], [key.verifier])
    assert len(str(caught.value)) < 1000


def test_a_proof_and_a_checkpoint_of_another_size(
    plant: Plant, proof: dict[str, Any], signed: tuple[str, CheckpointNote], key: SigningKey, tmp_path: Path
) -> None:
    later = sign_checkpoint(plant.db, CheckpointFolder(tmp_path / "notes"), key, actor=Actor("kensa"))
    assert later.tree_size == 14
    plant.dispose("return")
    later = sign_checkpoint(plant.db, CheckpointFolder(tmp_path / "notes"), key, actor=Actor("kensa"))
    with pytest.raises(RecordError, match="for a log of 14 events, the checkpoint for one of 16"):
        check_proof(proof, later.note, [key.verifier])
    with plant.db.session() as session:
        events = events_of_finding(session, "R000001-0001")
        assert events == [2, 4, 13, 14, 16]
        with pytest.raises(RecordError, match=r"event 16 is not covered by the checkpoint of 14 events"):
            make_proof(session, events, *signed)
        with pytest.raises(RecordError, match="there is no finding R000001-0009"):
            events_of_finding(session, "R000001-0009")


def test_a_proof_is_not_made_from_a_damaged_record(
    plant: Plant, signed: tuple[str, CheckpointNote], attack: Any
) -> None:
    attack("DELETE FROM explanation WHERE event_sequence = 4")
    with plant.db.session() as session, pytest.raises(RecordError, match="its rows are not those it lists"):
        make_proof(session, [4], *signed)
    attack("UPDATE audit_event SET hash = substr(hash, 2) || substr(hash, 1, 1) WHERE sequence = 14")
    with plant.db.session() as session, pytest.raises(RecordError, match="14 events is not one of this log"):
        make_proof(session, [4], *signed)
