"""Signatures: what they say and are bound to, and which attacks on the record break them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from db import lookup
from db.columns import digest_of, time_text, utc_now
from db.dispositions import signatures
from db.dispositions.decide import approve
from db.dispositions.history import finding_state
from db.dispositions.signatures import check_signatures
from db.people.people import Authenticated, list_people
from db.queries.events import get_event
from db.queries.findings import FindingFilter, find_findings
from db.schema import AuditEvent

Plant = Any  # tests/db/conftest.py; test folders are not packages
Attack = Callable[..., None]
FIRST = "R000001-0001"


@pytest.fixture
def signed(plant: Plant) -> Plant:
    """A confirm, superseded by a scrap that a second person approved."""
    plant.finished_run(range(4))
    _, manager = plant.staff()
    plant.decide("confirm")
    plant.decide("scrap", four_eyes={"scrap"})
    approve(plant.db, FIRST, reason="agreed", signer=manager)
    assert wrong(plant) == []
    return plant


def wrong(plant: Plant) -> list[str]:
    with plant.db.session() as session:
        return [message for _, message in check_signatures(session)]


def test_the_plant_that_other_tests_fill_is_signed_as_well(plant: Plant) -> None:
    plant.fill()
    assert wrong(plant) == []


def test_a_signature_says_who_when_and_what_it_means(signed: Plant) -> None:
    with signed.db.session() as session:
        found = finding_state(session, FIRST)
    confirm, scrap = found.history
    assert confirm.signature == {
        "scheme": 1,
        "login": "engineer",
        "name": "E. Ngineer",
        "role": "quality-engineer",
        "at": time_text(confirm.created_at),
        "meaning": "responsibility",
        "digest": confirm.signature["digest"],
    }
    assert scrap.approval is not None
    assert (scrap.approval.signature["meaning"], scrap.approval.signature["name"]) == ("approval", "S. Econd")


def test_the_digest_is_that_of_what_was_signed(signed: Plant) -> None:
    """The content spelled out by hand, for whoever computes it without kensa."""
    with signed.db.session() as session:
        found = finding_state(session, FIRST)
        recorded = get_event(session, 4)
        finding = find_findings(session, FindingFilter(part="P0001"))[0]
    _, scrap = found.history
    assert finding.explanation is not None
    content = {
        "signed_by": {
            "scheme": 1,
            "login": "engineer",
            "name": "E. Ngineer",
            "role": "quality-engineer",
            "at": time_text(scrap.created_at),
            "meaning": "responsibility",
        },
        "finding": {
            "reference": FIRST,
            "recorded_by": recorded.hash,
            "image": finding.image_digest,
            "model": signed.model.digest,
            "settings": finding.settings_digest,
            "class": "pit",
            "class_score": finding.class_score,
            "score": finding.score,
            "threshold": finding.threshold,
            "review_threshold": 0.3,
            "reject_threshold": 0.7,
            "map": finding.explanation.map_digest,
        },
        "disposition": {
            "id": scrap.id.hex,
            "decision": "scrap",
            "class": None,
            "reason": "seen under the lamp",
            "needs_approval": True,
            "supersedes": found.history[0].id.hex,
        },
    }
    assert scrap.signature is not None
    assert scrap.signature["digest"] == digest_of(content)


def test_on_a_tiled_picture_the_map_of_the_strongest_tile_is_signed(plant: Plant) -> None:
    plant.record(plant.start(), plant.tiled_outcome(1))
    plant.decide("confirm")
    with plant.db.session() as session:
        (made,) = session.scalars(select(AuditEvent).where(AuditEvent.action == "disposition.made")).all()
    assert made.artifact_digests == [hashlib.sha256(b"tile map 0 of 1").hexdigest()]
    assert wrong(plant) == []


OTHER = "what was signed is not what is recorded: its signature has another digest"
ATTACKS = {
    "the decision": ("UPDATE disposition SET decision = 'rework' WHERE decision = 'scrap'", [OTHER, OTHER]),
    "the reason": ("UPDATE disposition SET reason = 'x' WHERE decision = 'confirm'", [OTHER]),
    "the second person's reason": ("UPDATE approval SET reason = 'x'", [OTHER]),
    "the finding's class": ("UPDATE finding SET class_name = 'rust' WHERE number = 1", [OTHER] * 3),
    "a score": ("UPDATE finding SET score = 0.6 WHERE number = 1", [OTHER] * 3),
    "a threshold": ("UPDATE prediction SET review_threshold = 0.2", [OTHER] * 3),
    "the settings": ("UPDATE prediction SET settings_digest = 'x'", [OTHER] * 3),
    "the model": ("UPDATE model_version SET digest = 'x'", [OTHER] * 3),
    "the map": ("UPDATE explanation SET map_digest = NULL", [OTHER] * 3),
    "the event that recorded the finding": (
        "UPDATE audit_event SET hash = 'x' WHERE sequence = 4",
        [OTHER] * 3,
    ),
    "the history": ("UPDATE disposition SET supersedes_id = NULL WHERE decision = 'scrap'", [OTHER, OTHER]),
    "a printed name": (
        "UPDATE disposition SET signature = replace(signature, 'E. Ngineer', 'N. Obody') "
        "WHERE decision = 'confirm'",
        [
            OTHER,
            "its signature says N. Obody, quality-engineer, but engineer was E. Ngineer, quality-engineer at "
            "that time",
        ],
    ),
    "what it means": (
        "UPDATE disposition SET signature = replace(signature, 'responsibility', 'approval') "
        "WHERE decision = 'confirm'",
        [OTHER, "its signature means approval, not responsibility"],
    ),
    "when": (
        'UPDATE disposition SET signature = replace(signature, \'"at":"2\', \'"at":"1\') '
        "WHERE decision = 'confirm'",
        [OTHER, "its signature names another person or time than the record"],
    ),
    "who": (
        "UPDATE disposition SET person = 'second' WHERE decision = 'confirm'",
        [
            "its signature names another person or time than the record",
            "its signature says E. Ngineer, quality-engineer, but second was S. Econd, quality-manager at "
            "that time",
        ],
    ),
    "that there was one": (
        "UPDATE disposition SET signature = NULL WHERE decision = 'confirm'",
        ["carries no signature"],
    ),
    "its scheme": (
        "UPDATE disposition SET signature = replace(signature, '\"scheme\":1', '\"scheme\":2') "
        "WHERE decision = 'confirm'",
        ["its signature follows scheme 2, not 1"],
    ),
    "that a second person was needed": (
        "UPDATE disposition SET needs_approval = (1 = 0) WHERE decision = 'scrap'",
        [OTHER, "the decision did not need a second person", OTHER],
    ),
    "that the second person came second": (
        "UPDATE approval SET event_sequence = 10",
        ["is recorded before the decision itself"],
    ),
    "that they were known then": (
        "UPDATE person_revision SET event_sequence = 13 WHERE role = 'quality-engineer'",
        ["nobody with the login engineer was known at that time"] * 2,
    ),
    "that they were active": (
        "UPDATE person_revision SET active = (1 = 0) WHERE role = 'quality-engineer'",
        ["engineer was disabled at that time"] * 2,
    ),
}


@pytest.mark.parametrize("what", ATTACKS)
def test_what_breaks_a_signature(signed: Plant, attack: Attack, what: str) -> None:
    """The audit trail tells of each of these as well; this is what is left where somebody rebuilt it."""
    statement, expected = ATTACKS[what]
    attack(statement)
    assert wrong(signed) == expected


def _forge(plant: Plant, attack: Attack, table: str, login: str) -> None:
    """Make the signature of a decision or approval anew, as one who can compute all digests."""
    with plant.db.session() as session:
        page = next(
            lookup.pages(
                session,
                signatures._approvals_statement()
                if table == "approval"
                else signatures._dispositions_statement(),
                signatures.Approval.id if table == "approval" else signatures.Disposition.id,
            )
        )
        row = page[-1]
        person = next(person for person in list_people(session) if person.login == login)
        finding = signatures._signed_finding(row)
        signer = Authenticated(person.id, login, person.name, person.role, 1, utc_now())
        if table == "approval":
            made = signatures.sign_approval(
                signer, row.Approval.created_at, finding, row.Disposition, row.Approval
            )
            key = row.Approval.id
        else:
            made = signatures.sign_disposition(signer, row.Disposition.created_at, finding, row.Disposition)
            key = row.Disposition.id
    text = json.dumps(made, sort_keys=True, separators=(",", ":"))
    shown = key.hex if plant.db.sqlite else str(key)
    attack(f"UPDATE {table} SET person = '{login}', signature = '{text}' WHERE id = '{shown}'")  # noqa: S608


def test_a_forged_approval_by_who_decided(signed: Plant, attack: Attack) -> None:
    _forge(signed, attack, "approval", "engineer")
    assert wrong(signed) == [
        "engineer decided and signed as the second person as well",
        "engineer was quality-engineer at that time, who may not approve",
    ]


def test_a_decision_by_who_may_not(signed: Plant, attack: Attack) -> None:
    attack("UPDATE person_revision SET role = 'auditor' WHERE role = 'quality-engineer'")
    _forge(signed, attack, "disposition", "engineer")
    assert "engineer was auditor at that time, who may not decide" in wrong(signed)


def test_later_changes_of_a_person_leave_signatures_alone(plant: Plant) -> None:
    from db.schema import PersonRevision

    plant.finished_run(range(4))
    engineer, _ = plant.staff()
    plant.decide("confirm")
    revision = PersonRevision(
        person_id=engineer.person_id,
        revision=2,
        name="E. Married",
        role="auditor",
        active=False,
        password_hash="",
        created_at=utc_now(),
    )
    with plant.db.write() as recorder:
        recorder.add(
            [revision], action="test", actor=plant.actor, entity="person", entity_id=engineer.person_id
        )
    assert wrong(plant) == []


def test_signatures_are_read_in_pages(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_AT_ONCE", 2)
    plant.finished_run(range(4))
    _, manager = plant.staff()
    for decision in ("confirm", "rework", "rework", "repair", "scrap"):
        plant.decide(decision, four_eyes={decision})
        approve(plant.db, FIRST, reason="agreed", signer=manager)
    assert wrong(plant) == []
    with plant.db.session() as session:
        pages = lookup.pages(
            session, signatures._dispositions_statement(), signatures.Disposition.id, of=signatures._first_id
        )
        assert [len(page) for page in pages] == [2, 2, 1]
