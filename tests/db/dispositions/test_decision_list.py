"""Many decisions under one signature: all or none, each as if it had been made alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from db.columns import digest_of, time_text
from db.dispositions import decide
from db.dispositions.decide import Decision, approve, dispose, dispose_list
from db.dispositions.history import DispositionRecord, FindingState, finding_state
from db.dispositions.signatures import check_signatures
from db.errors import RecordError
from db.queries.events import EventFilter, find_events

Plant = Any  # tests/db/conftest.py; test folders are not packages
Attack = Callable[..., None]
NAMES = [f"R000001-000{n}" for n in (3, 1, 2)]


def state(plant: Plant, reference: str) -> FindingState:
    with plant.db.session() as session:
        return finding_state(session, reference)


def decide_all(plant: Plant, decisions: Sequence[Decision], **changed: Any) -> list[DispositionRecord]:
    engineer, _ = plant.staff()
    seen = {each.finding: state(plant, each.finding) for each in decisions}
    given = {"signer": engineer, "seen": seen} | changed
    return dispose_list(plant.db, decisions, **given)


def confirm(*names: str) -> list[Decision]:
    return [Decision(name, "confirm", f"seen, {name}") for name in names]


def wrong(plant: Plant) -> list[str]:
    with plant.db.session() as session:
        return [message for _, message in check_signatures(session)]


@pytest.fixture
def listed(plant: Plant) -> list[DispositionRecord]:
    """Three findings of one run, decided about in one list."""
    plant.finished_run()
    made = decide_all(plant, confirm(*NAMES))
    assert wrong(plant) == []
    return made


def test_one_signature_is_over_all_of_them(plant: Plant, listed: list[DispositionRecord]) -> None:
    """The content spelled out by hand, for whoever computes it without kensa."""
    (signature,) = {digest_of(each.signature or {}): each.signature for each in listed}.values()
    signed_by = {
        "scheme": 2,
        "login": "engineer",
        "name": "E. Ngineer",
        "role": "quality-engineer",
        "at": time_text(listed[0].created_at),
        "meaning": "responsibility",
        "decisions": 3,
    }
    decided = [
        digest_of(
            {
                "finding": state(plant, each.finding).signed.content(),
                "disposition": {
                    "id": each.id.hex,
                    "decision": "confirm",
                    "class": None,
                    "reason": each.reason,
                    "needs_approval": False,
                    "supersedes": None,
                },
            }
        )
        for each in sorted(listed, key=lambda each: each.id)
    ]
    assert signature == signed_by | {"digest": digest_of({"signed_by": signed_by, "decided": decided})}
    assert [each.finding for each in listed] == NAMES


def test_each_of_them_stands_in_an_event_of_its_own(plant: Plant, listed: list[DispositionRecord]) -> None:
    with plant.db.session() as session:
        events = find_events(session, EventFilter(action="disposition.made"))
    assert [event.payload["finding"] for event in reversed(events)] == NAMES
    assert {event.payload["list"] for event in events} == {3}
    assert [event.reason for event in reversed(events)] == [f"seen, {name}" for name in NAMES]
    assert all(event.image_digest and event.old_value and event.run_id for event in events)


def test_they_go_on_as_if_each_had_been_made_alone(plant: Plant, listed: list[DispositionRecord]) -> None:
    _, manager = plant.staff()
    scrap = [Decision(NAMES[0], "scrap", "deep"), Decision(NAMES[1], "rework", "can be ground out")]
    made = decide_all(plant, scrap, four_eyes={"scrap"})
    assert [each.state for each in made] == ["pending", "in effect"]
    approve(plant.db, NAMES[0], reason="agreed", signer=manager)
    dispose(plant.db, NAMES[2], decision="overrule", reason="dirt", signer=plant.staff()[0])
    assert [each.decision for each in state(plant, NAMES[0]).history] == ["confirm", "scrap"]
    assert state(plant, NAMES[0]).in_effect is not None
    assert wrong(plant) == []
    assert plant.verify().ok


def test_all_or_none(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.finished_run()
    engineer, _ = plant.staff()
    seen = {name: state(plant, name) for name in NAMES}
    with pytest.raises(RecordError, match="R000001-0002: scrap is not possible; first may come"):
        decide_all(plant, [*confirm(*NAMES[:2]), Decision(NAMES[2], "scrap", "x")])
    with pytest.raises(RecordError, match="R000001-0001 occurs more than once"):
        decide_all(plant, confirm(NAMES[1], NAMES[0], NAMES[1]))
    for decisions, most in (([], 9), (confirm(*NAMES), 2)):
        monkeypatch.setattr(decide, "MOST_DECISIONS", most)
        with pytest.raises(RecordError, match=f"a list holds 1 to {most} decisions, not {len(decisions)}"):
            decide_all(plant, decisions)
    monkeypatch.undo()
    dispose(plant.db, NAMES[2], decision="confirm", reason="before the others", signer=engineer)
    with pytest.raises(RecordError, match="R000001-0002: somebody decided meanwhile and nothing was signed"):
        decide_all(plant, [*confirm(*NAMES[:2]), Decision(NAMES[2], "rework", "x")], seen=seen)
    assert [len(state(plant, name).history) for name in NAMES] == [0, 0, 1]


ATTACKS = {
    "one decision": ("UPDATE disposition SET decision = 'overrule' WHERE reason LIKE '%3'", ["a list of 3"]),
    "one reason": ("UPDATE disposition SET reason = 'x' WHERE reason LIKE '%1'", ["a list of 3"]),
    "one finding": ("UPDATE finding SET class_name = 'rust' WHERE number = 2", ["a list of 3"]),
    "that one was signed": (
        "UPDATE disposition SET signature = NULL WHERE reason LIKE '%1'",
        ["carries no signature", "is over 3 decisions, and 2 carry it"],
    ),
    "how many they are": (
        "UPDATE disposition SET signature = replace(signature, '\"decisions\":3', '\"decisions\":2')",
        ["is over 2 decisions, and 3 carry it"],
    ),
    "a printed name": (
        "UPDATE disposition SET signature = replace(signature, 'E. Ngineer', 'N. Obody')",
        ["its signature says N. Obody"] * 3 + ["a list of 3"],
    ),
    "one scheme": (
        "UPDATE disposition SET signature = replace(signature, '\"scheme\":2', '\"scheme\":1') "
        "WHERE reason LIKE '%1'",
        ["carries no signature", "is over 3 decisions, and 2 carry it"],
    ),
}


@pytest.mark.parametrize("what", ATTACKS)
def test_whoever_changes_one_breaks_the_signature(
    plant: Plant, listed: list[DispositionRecord], attack: Attack, what: str
) -> None:
    statement, expected = ATTACKS[what]
    attack(statement)
    found = wrong(plant)
    assert len(found) == len(expected)
    assert all(part in message for part, message in zip(expected, found, strict=True)), found
