"""People: added, changed, disabled, never deleted; who may do what; signing in, and failing to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from db.chain.events import Actor
from db.columns import utc_now
from db.engine import Database
from db.errors import RecordError
from db.people.passwords import hash_password
from db.people.people import (
    TASKS,
    Authenticated,
    PersonRecord,
    add_person,
    change_password,
    change_person,
    disable_person,
    enable_person,
    list_people,
    require,
)
from db.people.sign_in import LOCKED_FOR, _is_locked, authenticate
from db.queries.events import EventFilter, EventRecord, find_events
from db.schema import ROLES, PersonRevision
from db.verification.walk import verify

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
ACCOUNT = Actor("operator", "human")
BOSS = "the boss's password"


@pytest.fixture
def boss(database: Database) -> Authenticated:
    add(database, "boss", "administrator", by=ACCOUNT, password=BOSS)
    return sign_in(database, "boss", BOSS)


def add(db: Database, login: str, role: str, *, by: Authenticated | Actor, **options: Any) -> PersonRecord:
    given = {"name": f"{login.title()} Person", "password": f"password of {login}", "hasher": CHEAP} | options
    return add_person(db, login, role=role, by=by, **given)


def sign_in(db: Database, login: str, password: str | None = None, **options: Any) -> Authenticated:
    given = f"password of {login}" if password is None else password
    return authenticate(db, login, given, account=ACCOUNT, hasher=CHEAP, **options)


def latest_event(db: Database) -> EventRecord:
    with db.session() as session:
        return find_events(session, EventFilter(), limit=1)[0]


def test_the_first_person_is_an_administrator_and_needs_no_sign_in(database: Database) -> None:
    with pytest.raises(RecordError, match="give them the role administrator"):
        add(database, "eve", "quality-engineer", by=ACCOUNT)
    boss = add(database, "boss", "administrator", by=ACCOUNT)
    event = latest_event(database)
    assert (event.action, event.actor_id, event.actor_kind, event.actor_role) == (
        "person.added",
        "operator",
        "human",
        None,
    )
    assert event.old_value is None
    assert event.new_value == {
        "login": "boss",
        "name": "Boss Person",
        "role": "administrator",
        "active": True,
        "revision": 1,
    }
    with pytest.raises(RecordError, match="an administrator must sign in"):
        add(database, "eve", "administrator", by=ACCOUNT)
    with database.session() as session:
        assert list_people(session) == [boss]
    assert verify(database).ok


def test_each_change_is_a_revision_and_an_event_without_the_hash(
    database: Database, boss: Authenticated
) -> None:
    add(database, "eve", "quality-engineer", by=boss)
    change_person(database, "eve", name=" Eve   N. Gineer ", by=boss)
    change_person(database, "eve", role="quality-manager", by=boss, reason="promoted")
    promoted = latest_event(database)
    disable_person(database, "eve", by=boss, reason="left the plant")
    left = latest_event(database)
    enable_person(database, "eve", by=boss)
    change_password(database, "eve", "another password", by=boss, hasher=CHEAP)
    changed = latest_event(database)
    with database.session() as session:
        eve = next(person for person in list_people(session) if person.login == "eve")
        rows = session.scalars(select(PersonRevision).where(PersonRevision.person_id == eve.id)).all()
        hashes = {row.password_hash for row in rows}
    assert (eve.name, eve.role, eve.active, eve.revision) == ("Eve N. Gineer", "quality-manager", True, 6)
    assert eve.created_at < eve.changed_at
    assert len(hashes) == 2
    assert (promoted.action, promoted.actor_id, promoted.actor_name, promoted.actor_role) == (
        "person.changed",
        "boss",
        "Boss Person",
        "administrator",
    )
    assert promoted.old_value is not None
    assert promoted.new_value is not None
    assert (promoted.old_value["role"], promoted.new_value["role"]) == ("quality-engineer", "quality-manager")
    assert (left.action, left.reason, left.new_value) == (
        "person.disabled",
        "left the plant",
        {"login": "eve", "name": "Eve N. Gineer", "role": "quality-manager", "active": False, "revision": 4},
    )
    assert changed.action == "person.password_changed"
    with database.session() as session:
        for event in find_events(session, EventFilter()):
            assert "$argon2" not in repr(event)
    assert verify(database).ok


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda db, by: change_person(db, "boss", role="auditor", by=by), "last active administrator"),
        (lambda db, by: disable_person(db, "boss", by=by), "last active administrator"),
        (
            lambda db, by: enable_person(db, "boss", by=by),
            "nothing to change: .* active already",
        ),
        (lambda db, by: disable_person(db, "nobody", by=by), "there is no person 'nobody'"),
        (lambda db, by: change_person(db, "boss", name="Boss Person", by=by), "nothing to change"),
        (lambda db, by: change_person(db, "boss", by=by), "nothing to change"),
        (lambda db, by: change_person(db, "boss", role="king", by=by), "role 'king' is none of"),
        (lambda db, by: add(db, "boss", "auditor", by=by), "is taken, and a login is never given"),
        (lambda db, by: add(db, "Boss", "auditor", by=by), "login 'Boss': give 1 to 63"),
        (lambda db, by: add(db, "", "auditor", by=by), "login '': give 1 to 63"),
        (lambda db, by: add(db, "eve", "auditor", by=by, name="  "), "give the name as signatures print it"),
        (lambda db, by: add(db, "eve", "auditor", by=by, name="a\x1b[2J"), "give the name as signatures"),
        (lambda db, by: add(db, "eve", "auditor", by=by, password="x" * 11), "12 characters or more"),
        (
            lambda db, by: add(db, "eve.longest", "auditor", by=by, password="x" * 1025),
            "12 characters or more",
        ),
        (
            lambda db, by: add(db, "evelyn-longname", "auditor", by=by, password="Evelyn-LongName"),  # noqa: S106
            "the password is the login",
        ),
    ],
)
def test_what_cannot_be_done_says_so_and_writes_nothing(
    database: Database, boss: Authenticated, change: Callable[..., Any], message: str
) -> None:
    before = latest_event(database).sequence
    with pytest.raises(RecordError, match=message):
        change(database, boss)
    assert latest_event(database).sequence == before


def test_the_last_administrator_may_go_once_there_is_another(database: Database, boss: Authenticated) -> None:
    add(database, "chief", "administrator", by=boss)
    disable_person(database, "boss", by=boss)
    with pytest.raises(RecordError, match="was changed since they signed in"):
        add(database, "eve", "auditor", by=boss)
    chief = sign_in(database, "chief")
    with pytest.raises(RecordError, match="last active administrator"):
        change_person(database, "chief", role="auditor", by=chief)
    with pytest.raises(RecordError, match="is taken"):
        add(database, "boss", "auditor", by=chief)


@pytest.mark.parametrize("role", [role for role in ROLES if role != "administrator"])
def test_only_administrators_manage_people_and_everybody_their_own_password(
    database: Database, boss: Authenticated, role: str
) -> None:
    add(database, "eve", role, by=boss)
    eve = sign_in(database, "eve")
    for change in (
        lambda: add(database, "pal", "auditor", by=eve),
        lambda: disable_person(database, "boss", by=eve),
        lambda: change_person(database, "eve", role="administrator", by=eve),
        lambda: change_password(database, "boss", "taken over now", by=eve, hasher=CHEAP),
    ):
        with pytest.raises(RecordError, match=f"'eve' is {role} and may not manage people"):
            change()
    change_password(database, "eve", "my own new password", by=eve, hasher=CHEAP)
    assert latest_event(database).actor_id == "eve"
    assert sign_in(database, "eve", "my own new password").revision == 2


def test_each_role_may_do_what_the_table_says_and_nobody_everything(database: Database) -> None:
    assert set(TASKS) == set(ROLES)
    assert {role for role, tasks in TASKS.items() if "decide" in tasks} == {
        "quality-engineer",
        "quality-manager",
    }
    assert {role for role, tasks in TASKS.items() if "approve" in tasks} == {"quality-manager"}
    assert {role for role, tasks in TASKS.items() if "manage" in tasks} == {"administrator"}


def test_a_sign_in_does_not_last(database: Database, boss: Authenticated) -> None:
    with database.session() as session:
        require(session, boss, "manage")
        with pytest.raises(RecordError, match="more than 5 minutes ago"):
            require(session, replace(boss, at=boss.at - timedelta(minutes=5, seconds=1)), "manage")
        with pytest.raises(RecordError, match="was changed since they signed in"):
            require(session, replace(boss, revision=2), "manage")


def refusal(db: Database, login: str, password: str, **options: Any) -> str:
    with pytest.raises(RecordError) as told:
        sign_in(db, login, password, **options)
    return str(told.value)


def test_a_failed_sign_in_is_recorded_and_tells_nothing(database: Database, boss: Authenticated) -> None:
    eve = add(database, "eve", "auditor", by=boss)
    add(database, "gone", "auditor", by=boss)
    disable_person(database, "gone", by=boss)
    told = {
        refusal(database, "eve", "wrong"),
        refusal(database, "nobody", "password of eve"),
        refusal(database, "gone", "password of gone"),
        refusal(database, "no\x00body\udcff", "\udcff"),
        refusal(database, "eve", ""),
    }
    assert len(told) == 1
    with database.session() as session:
        wanted = EventFilter(action="person.sign_in_failed")
        events = list(reversed(find_events(session, wanted)))
    assert [event.payload["why"] for event in events] == [
        "password",
        "login",
        "disabled",
        "login",
        "password",
    ]
    assert {event.actor_id for event in events} == {"operator"}
    assert (events[0].entity, events[0].entity_id, events[1].entity_id) == ("person", eve.id.hex, "unknown")
    # what was typed where a login belongs may be a password
    assert "nobody" not in repr(events[1])
    assert verify(database).ok


def test_five_failures_in_a_row_lock_sign_in_for_a_while(database: Database, boss: Authenticated) -> None:
    add(database, "eve", "auditor", by=boss)
    for _ in range(4):
        refusal(database, "eve", "wrong password")
    assert sign_in(database, "eve").login == "eve"
    success = latest_event(database)
    assert (success.action, success.actor_id, success.payload) == (
        "person.signed_in",
        "eve",
        {"login": "eve", "after_failures": 4},
    )
    sign_in(database, "eve")
    assert latest_event(database).sequence == success.sequence  # nothing to put an end to: not recorded
    for _ in range(5):
        refusal(database, "eve", "wrong password")
    told = refusal(database, "eve", "password of eve")
    assert "locked for 15 minutes" in told
    assert latest_event(database).payload["why"] == "locked"
    assert sign_in(database, "boss", BOSS)  # others are not
    later = utc_now() + LOCKED_FOR
    assert refusal(database, "eve", "password of eve", now=later - timedelta(minutes=1)) == told
    assert sign_in(database, "eve", now=later).login == "eve"


def test_an_administrator_unlocks_by_giving_a_new_password(database: Database, boss: Authenticated) -> None:
    add(database, "eve", "auditor", by=boss)
    for _ in range(5):
        refusal(database, "eve", "wrong password")
    refusal(database, "eve", "password of eve")
    change_password(database, "eve", "a fresh beginning", by=boss, hasher=CHEAP)
    assert sign_in(database, "eve", "a fresh beginning").login == "eve"


@pytest.mark.parametrize(
    ("failed_at", "now", "locked"),  # minutes
    [
        ([0, 1, 2, 3], 3, False),
        ([0, 1, 2, 3, 4], 4, True),
        ([0, 1, 2, 3, 4], 18.9, True),
        ([0, 1, 2, 3, 4], 19, False),
        ([0, 4, 8, 12, 15], 15, True),
        ([0, 4, 8, 12, 15.1], 15.1, False),
        ([0, 1, 2, 3, 4, 19], 19, False),  # the lock is over: five more would be needed
        ([0, 1, 2, 3, 4, 19, 20, 21, 22, 23], 24, True),
    ],
)
def test_when_sign_in_is_locked(failed_at: list[float], now: float, locked: bool) -> None:
    start = utc_now()
    failures = [start + timedelta(minutes=minutes) for minutes in failed_at]
    assert _is_locked(failures, start + timedelta(minutes=now)) is locked


def test_the_one_spelling_of_a_password(database: Database, boss: Authenticated) -> None:
    add(database, "eve", "auditor", by=boss, password="Grün und Straße")  # noqa: S106
    assert sign_in(database, "eve", "Gru\u0308n und Straße").login == "eve"


@given(st.text(max_size=30))
def test_any_text_of_twelve_characters_is_a_password(password: str) -> None:
    from db.people.passwords import normal_password

    if len(normal_password(password)) < 12:
        with pytest.raises(RecordError, match="12 characters"):
            hash_password("login", password, CHEAP)
    else:
        assert CHEAP.verify(hash_password("login", password, CHEAP), normal_password(password))


def test_a_damaged_hash_is_no_wrong_password(
    database: Database, boss: Authenticated, attack: Callable[..., None]
) -> None:
    attack("UPDATE person_revision SET password_hash = 'x'")
    assert "kensa audit verify" in refusal(database, "boss", BOSS)
