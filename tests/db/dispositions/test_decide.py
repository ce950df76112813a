"""Decisions about findings: what may follow what, second persons, whom and what is refused."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.columns import utc_now
from db.dispositions.decide import approve, dispose, refuse
from db.dispositions.history import (
    FOLLOWS,
    FindingState,
    finding_state,
)
from db.dispositions.signatures import check_signatures
from db.errors import RecordError
from db.people.people import TASKS, Authenticated
from db.queries.events import EventFilter, EventRecord, find_events
from db.queries.findings import FindingFilter, find_findings
from db.queries.runs import list_runs
from db.schema import DECISIONS

Plant = Any  # tests/db/conftest.py; test folders are not packages
FIRST = "R000001-0001"  # a pit on part P0001
EVERY = frozenset(DECISIONS)


@pytest.fixture
def line(plant: Plant) -> Plant:
    """A finished run with findings: pit on P0001 (-0001), scratch on P0002 (-0002)."""
    plant.finished_run(range(4))
    return plant


def state(plant: Plant, reference: str = FIRST) -> FindingState:
    with plant.db.session() as session:
        return finding_state(session, reference)


def in_effect(plant: Plant, reference: str = FIRST) -> str | None:
    now = state(plant, reference).in_effect
    return now.decision if now else None


def latest_event(plant: Plant) -> EventRecord:
    with plant.db.session() as session:
        return find_events(session, EventFilter(), limit=1)[0]


def test_a_decision_is_signed_recorded_and_superseded(line: Plant) -> None:
    first = line.decide("confirm", reason=" a pit, 2 mm ")
    made = latest_event(line)
    second = line.decide("reclassify", class_name="scratch")
    third = line.decide("rework")
    found = state(line)
    assert [(row.decision, row.state, row.supersedes_id) for row in found.history] == [
        ("confirm", "superseded", None),
        ("reclassify", "superseded", first.id),
        ("rework", "in effect", second.id),
    ]
    assert found.in_effect == third == found.history[-1]
    with line.db.session() as session:
        (run,) = list_runs(session)
    assert (found.label, found.classes) == ("scratch", ("scratch", "pit"))
    assert first.reason == "a pit, 2 mm"
    assert (made.action, made.actor_id, made.actor_kind, made.actor_name, made.actor_role) == (
        "disposition.made",
        "engineer",
        "human",
        "E. Ngineer",
        "quality-engineer",
    )
    assert (made.old_value, made.new_value, made.reason) == (
        {"decision": None, "class": "pit"},
        {"decision": "confirm", "class": None, "needs_approval": False},
        "a pit, 2 mm",
    )
    assert (made.entity, made.entity_id, made.run_id) == ("disposition", first.id.hex, run.id)
    assert (made.model_digest, made.settings_digest, made.image_digest) == (
        found.signed.model_digest,
        found.signed.settings_digest,
        found.signed.image_digest,
    )
    assert made.artifact_digests == (found.signed.map_digest,)
    assert first.signature is not None
    assert made.payload["signature"] == first.signature["digest"]
    assert line.verify().ok


def test_what_holds_is_shown_with_the_finding(line: Plant) -> None:
    def shown() -> tuple[str | None, str | None]:
        with line.db.session() as session:
            (finding,) = find_findings(session, FindingFilter(part="P0001"))
            return finding.disposition, finding.awaiting_approval

    _, manager = line.staff()
    assert shown() == (None, None)
    line.decide("confirm")
    line.decide("scrap", four_eyes=EVERY)
    assert shown() == ("confirm", "scrap")
    refuse(line.db, FIRST, reason="it can be reworked", signer=manager)
    assert shown() == ("confirm", None)
    line.decide("rework", four_eyes=EVERY)
    approve(line.db, FIRST, reason="agreed", signer=manager)
    assert shown() == ("rework", None)


def test_four_eyes(line: Plant) -> None:
    engineer, manager = line.staff()
    line.decide("confirm", four_eyes={"scrap"})
    assert in_effect(line) == "confirm"
    made = line.decide("scrap", four_eyes={"scrap"})
    assert (made.state, in_effect(line)) == ("pending", "confirm")
    with pytest.raises(RecordError, match="scrap by engineer awaits approval: approve or refuse it first"):
        line.decide("rework")
    with pytest.raises(RecordError, match="may not approve or refuse decisions: it takes a quality-manager"):
        approve(line.db, FIRST, reason="mine", signer=engineer)
    with pytest.raises(RecordError, match="needs a reason"):
        approve(line.db, FIRST, reason="\t ", signer=manager)
    approved = approve(line.db, FIRST, reason="seen it too", signer=manager)
    assert (approved.id, approved.state, in_effect(line)) == (made.id, "in effect", "scrap")
    event = latest_event(line)
    assert (event.action, event.actor_id, event.reason, event.entity_id) == (
        "disposition.approved",
        "second",
        "seen it too",
        made.id.hex,
    )
    assert event.old_value == {"decision": "confirm", "class": "pit"}
    assert event.new_value == {"decision": "scrap", "class": None}
    with pytest.raises(RecordError, match="no decision awaits approval"):
        refuse(line.db, FIRST, reason="too late", signer=manager)


def test_a_refused_decision_never_takes_effect(line: Plant) -> None:
    _, manager = line.staff()
    line.decide("confirm")
    refused = line.decide("overrule", four_eyes=EVERY)
    answer = refuse(line.db, FIRST, reason="look again", signer=manager)
    assert (answer.state, in_effect(line), state(line).label) == ("refused", "confirm", "pit")
    assert latest_event(line).action == "disposition.refused"
    assert latest_event(line).old_value == latest_event(line).new_value
    following = line.decide("rework")  # may follow confirm, and not overrule
    assert following.supersedes_id == refused.id
    assert [row.state for row in state(line).history] == ["superseded", "refused", "in effect"]


def test_nobody_approves_their_own_decision(line: Plant) -> None:
    _, manager = line.staff()
    line.decide("confirm", signer=manager, four_eyes=EVERY)
    for answer in (approve, refuse):
        with pytest.raises(RecordError, match="a second person must approve or refuse it"):
            answer(line.db, FIRST, reason="mine", signer=manager)


@pytest.mark.parametrize("role", ["auditor", "administrator"])
def test_who_may_not_decide(line: Plant, role: str) -> None:
    line.staff()
    other = _person(line, role)
    with pytest.raises(RecordError, match=f"is {role} and may not decide about findings"):
        line.decide("confirm", signer=other)
    line.decide("confirm", four_eyes=EVERY)
    with pytest.raises(RecordError, match=f"is {role} and may not approve"):
        approve(line.db, FIRST, reason="so be it", signer=other)


def _person(plant: Plant, role: str) -> Authenticated:
    from db.schema import Person, PersonRevision

    now = utc_now()
    person = Person(login="other", created_at=now)
    revision = PersonRevision(
        person_id=person.id, revision=1, name="O.", role=role, active=True, password_hash="", created_at=now
    )
    with plant.db.write() as recorder:
        recorder.add(
            [person, revision], action="test", actor=plant.actor, entity="person", entity_id=person.id
        )
    return Authenticated(person_id=person.id, login="other", name="O.", role=role, revision=1, at=now)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decision": "ignore"}, "decision 'ignore' is none of confirm, overrule"),
        ({"decision": "scrap"}, "scrap is not possible; first may come confirm, overrule, reclassify"),
        ({"decision": "confirm", "reason": " \n"}, "a decision needs a reason"),
        ({"decision": "confirm", "class_name": "pit"}, "confirm takes no class"),
        ({"decision": "reclassify"}, "reclassify needs another class of the model's: scratch"),
        ({"decision": "reclassify", "class_name": "pit"}, "needs another class"),
        ({"decision": "reclassify", "class_name": "good"}, "needs another class"),
        ({"decision": "reclassify", "class_name": "rust"}, "needs another class"),
    ],
)
def test_what_cannot_be_decided_writes_nothing(line: Plant, options: dict[str, Any], message: str) -> None:
    line.staff()
    before = latest_event(line).sequence
    with pytest.raises(RecordError, match=message):
        line.decide(**options)
    assert latest_event(line).sequence == before


def test_a_finding_there_is_none_of(line: Plant) -> None:
    engineer, _ = line.staff()
    for wrong in ("R000009-0001", "", "\x00"):
        with pytest.raises(RecordError, match="there is no finding"):
            dispose(line.db, wrong, decision="confirm", reason="x", signer=engineer)


def test_a_scrapped_part_stays_scrapped(line: Plant) -> None:
    line.decide("confirm")
    line.decide("scrap")
    with pytest.raises(RecordError, match="after scrap comes nothing: it is final"):
        line.decide("confirm")


def test_what_was_shown_is_what_is_signed(line: Plant) -> None:
    _, manager = line.staff()
    shown = state(line)
    line.decide("confirm", seen=shown)
    with pytest.raises(RecordError, match="somebody decided meanwhile and nothing was signed"):
        line.decide("overrule", seen=shown)
    line.decide("scrap", four_eyes=EVERY)
    pending = state(line)
    refuse(line.db, FIRST, reason="no", signer=manager, seen=pending)
    with pytest.raises(RecordError, match="somebody decided meanwhile"):
        line.decide("rework", seen=pending)


def test_two_people_cannot_both_supersede_the_same_decision(line: Plant) -> None:
    line.decide("confirm")
    line.staff()
    start = threading.Barrier(4)
    results: list[str] = []

    def decide() -> None:
        start.wait()
        try:
            line.decide("scrap")
            results.append("signed")
        except RecordError as error:
            results.append(str(error))

    threads = [threading.Thread(target=decide) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("signed") == 1
    assert sum("it is final" in result for result in results) == 3
    assert len(state(line).history) == 2


@pytest.mark.parametrize(
    ("decisions", "label"),
    [
        ([], "pit"),
        (["confirm"], "pit"),
        (["overrule"], None),
        ([("reclassify", "scratch")], "scratch"),
        ([("reclassify", "scratch"), "scrap"], "scratch"),
        ([("reclassify", "scratch"), "confirm"], "pit"),
        (["overrule", "confirm"], "pit"),
        (["overrule", ("reclassify", "scratch")], "scratch"),
        # the part is good now, the picture shows what it did
        (["confirm", "rework", "overrule"], "pit"),
        ([("reclassify", "scratch"), "repair", "repair", "overrule"], "scratch"),
    ],
)
def test_what_the_picture_shows(line: Plant, decisions: list[Any], label: str | None) -> None:
    for each in decisions:
        decision, class_name = each if isinstance(each, tuple) else (each, None)
        line.decide(decision, class_name=class_name)
    assert state(line).label == label


def test_the_table_is_about_every_decision() -> None:
    assert set(FOLLOWS) == {None, *DECISIONS}
    assert all(set(after) <= set(DECISIONS) for after in FOLLOWS.values())
    assert FOLLOWS["scrap"] == ()
    reached: set[str | None] = {None}
    for _ in DECISIONS:
        reached |= {after for before in reached for after in FOLLOWS[before]}
    assert reached == set(FOLLOWS)


def _table(heading: str) -> dict[str, list[str]]:
    """A table of docs/dispositions.md by its first column."""
    text = (Path(__file__).parents[3] / "docs" / "dispositions.md").read_text(encoding="utf-8")
    lines = text[text.index(heading) :].splitlines()[2:]
    rows = [line.strip("| ").split(" | ") for line in itertools.takewhile(lambda line: "|" in line, lines)]
    return {row[0].strip("` "): [cell.strip() for cell in row[1:]] for row in rows}


def test_the_document_prints_the_same_tables() -> None:
    spelled = {
        before or "nothing yet": [", ".join(after) or "nothing: it is final"]
        for before, after in FOLLOWS.items()
    }
    assert _table("| in effect | may follow |") == spelled
    text = (Path(__file__).parents[3] / "docs" / "dispositions.md").read_text(encoding="utf-8")
    for role, tasks in TASKS.items():
        cells = ["yes" if task in tasks else "" for task in ("decide", "approve", "manage")]
        assert f"| `{role}` | {' | '.join(cells)} |".replace("  ", " ") in text


Step = tuple[str, str | None, bool, str]
steps = st.lists(
    st.tuples(
        st.sampled_from(DECISIONS),
        st.sampled_from([None, "pit", "scratch", "good"]),
        st.booleans(),
        st.sampled_from(["approve", "refuse", "leave"]),
    ),
    max_size=7,
)


@pytest.fixture
def findings(plant: Plant) -> tuple[Plant, Iterator[str]]:
    """A line, and findings that nobody has decided about, one after the other."""
    run = plant.start()
    plant.record(run, *(plant.outcome(number, "review") for number in range(1, 161, 2)))
    plant.staff()
    return plant, iter([f"R000001-{number:04d}" for number in range(1, 81)])


@given(sequence=steps)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_decisions_goes_as_the_table_says(
    findings: tuple[Plant, Iterator[str]], sequence: list[Step]
) -> None:
    """A model of one finding, kept by hand, beside the record: the two agree after every step."""
    plant, references = findings
    reference = next(references)
    engineer, manager = plant.staff()
    effective: str | None = None
    label: str | None = "pit"
    pending: tuple[str, str | None] | None = None
    made = 0

    def take_effect(decision: str, class_name: str | None) -> None:
        nonlocal effective, label
        if decision == "overrule" and effective not in ("rework", "repair"):
            label = None
        elif decision in ("confirm", "reclassify"):
            label = class_name or "pit"
        effective = decision

    for decision, class_name, needs_approval, answer in sequence:
        legal = pending is None and decision in FOLLOWS[effective]
        if decision == "reclassify":
            legal = legal and class_name in {"pit", "scratch"} - {label or "pit"}
        else:
            legal = legal and class_name is None
        give = {"decision": decision, "class_name": class_name, "reason": "so", "signer": engineer}
        eyes = {decision} if needs_approval else set()
        if legal:
            dispose(plant.db, reference, four_eyes=eyes, **give)
            made += 1
            if needs_approval:
                pending = (decision, class_name)
            else:
                take_effect(decision, class_name)
        else:
            with pytest.raises(RecordError):
                dispose(plant.db, reference, four_eyes=eyes, **give)
        if answer != "leave":
            respond = approve if answer == "approve" else refuse
            if pending is None:
                with pytest.raises(RecordError, match="no decision awaits approval"):
                    respond(plant.db, reference, reason="so", signer=manager)
            else:
                respond(plant.db, reference, reason="so", signer=manager)
                if answer == "approve":
                    take_effect(*pending)
                pending = None
        now = state(plant, reference)
        assert (now.in_effect.decision if now.in_effect else None) == effective
        assert ((now.pending.decision, now.pending.class_name) if now.pending else None) == pending
        assert now.label == label
        assert len(now.history) == made
    with plant.db.session() as session:
        assert list(check_signatures(session)) == []


def test_a_disabled_person_signs_nothing_more(line: Plant) -> None:
    engineer, _ = line.staff()
    with pytest.raises(RecordError, match="sign in again"):
        line.decide("confirm", signer=replace(engineer, revision=0))
