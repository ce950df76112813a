"""People who can sign: added, changed, disabled. Each change is a new revision, and nobody is ever deleted.

A role says what a person may do. Nobody may do everything: whoever manages people decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from argon2 import PasswordHasher
from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from db.chain.events import Actor
from db.columns import storable, utc_now
from db.engine import Database
from db.errors import RecordError
from db.people.passwords import HASHER, hash_password
from db.schema import ROLES, Person, PersonRevision

Task = Literal["decide", "approve", "manage"]

# Who may do what; docs/dispositions.md prints this table.
TASKS: Mapping[str, frozenset[Task]] = {
    "quality-engineer": frozenset({"decide"}),
    "quality-manager": frozenset({"decide", "approve"}),
    "auditor": frozenset(),
    "administrator": frozenset({"manage"}),
}
# How long after sign-in a signature may be made: 21 CFR 11.200 wants the identity proved at signing.
FRESH = timedelta(minutes=5)
_LOGIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class PersonRecord:
    """A person as they are now. `changed_at`: when their name, role, password or state last changed."""

    id: UUID
    login: str
    name: str
    role: str
    active: bool
    revision: int
    created_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Authenticated:
    """A person whose identity was proved (`sign_in.authenticate`), as of one revision of their record."""

    person_id: UUID
    login: str
    name: str
    role: str
    revision: int
    at: datetime

    @property
    def actor(self) -> Actor:
        """Who acts, as audit events name them."""
        return Actor(self.login, "human", self.name, self.role)


def list_people(session: Session) -> list[PersonRecord]:
    """Return everybody, disabled people included, in the order of their logins."""
    rows = session.execute(_people_query().order_by(Person.login))
    return [_person_record(person, revision) for person, revision in rows]


def add_person(
    db: Database,
    login: str,
    *,
    name: str,
    role: str,
    password: str,
    by: Authenticated | Actor,
    hasher: PasswordHasher = HASHER,
) -> PersonRecord:
    """Add a person; `by` an administrator or, for the first person only, the account that sets kensa up.

    Raises:
        RecordError: somebody has or had the login, the name cannot be printed, the role is unknown, the
            password is weak, the first person is no administrator, or `by` may not add people.
    """
    if not _LOGIN.fullmatch(login):
        raise RecordError(
            f"login {login!r}: give 1 to 63 of a-z, 0-9, dot, hyphen and underscore, a letter or digit first"
        )
    name, role = _printable_name(name), _known_role(role)
    hashed = hash_password(login, password, hasher)
    with db.write() as recorder:
        session = recorder.session
        actor = _managing_actor(session, by)
        if isinstance(by, Actor) and role != "administrator":
            raise RecordError("the first person manages the others: give them the role administrator")
        if session.scalar(select(Person.id).where(Person.login == login)) is not None:
            raise RecordError(
                f"login {login!r} is taken, and a login is never given away again: choose another"
            )
        person = Person(login=login, created_at=utc_now())
        revision = PersonRevision(
            person_id=person.id,
            revision=1,
            name=name,
            role=role,
            active=True,
            password_hash=hashed,
            created_at=person.created_at,
        )
        recorder.add(
            [person, revision],
            action="person.added",
            actor=actor,
            entity="person",
            entity_id=person.id,
            payload={"login": login},
            new=_public_fields(person, revision),
        )
        return _person_record(person, revision)


def disable_person(db: Database, login: str, *, by: Authenticated, reason: str | None = None) -> PersonRecord:
    """Take from a person the right to sign in; what they signed stands.

    RecordError for the last active administrator.
    """
    return _add_revision(db, login, "person.disabled", {"active": False}, by=by, reason=reason)


def enable_person(db: Database, login: str, *, by: Authenticated, reason: str | None = None) -> PersonRecord:
    """Let a disabled person sign in again, with the password they had."""
    return _add_revision(db, login, "person.enabled", {"active": True}, by=by, reason=reason)


def change_person(
    db: Database,
    login: str,
    *,
    by: Authenticated,
    name: str | None = None,
    role: str | None = None,
    reason: str | None = None,
) -> PersonRecord:
    """Give a person another printed name or role from now on; RecordError where nothing would change."""
    changes = {} if name is None else {"name": _printable_name(name)}
    if role is not None:
        changes["role"] = _known_role(role)
    return _add_revision(db, login, "person.changed", changes, by=by, reason=reason)


def change_password(
    db: Database, login: str, password: str, *, by: Authenticated, hasher: PasswordHasher = HASHER
) -> PersonRecord:
    """Give a person another password, by themselves or an administrator; RecordError for a weak one."""
    hashed = hash_password(login, password, hasher)
    own = by.login == login
    return _add_revision(db, login, "person.password_changed", {"password_hash": hashed}, by=by, own=own)


def require(session: Session, signer: Authenticated, task: Task | None) -> None:
    """Raise RecordError unless the sign-in still holds and the person's role allows the task (if any).

    Call it inside the transaction that writes what they do: the role cannot change in between.
    """
    person, now = current(session, signer.login)
    if (person.id, now.revision) != (signer.person_id, signer.revision) or not now.active:
        raise RecordError(f"the record of {signer.login!r} was changed since they signed in: sign in again")
    if utc_now() - signer.at > FRESH:
        raise RecordError(
            f"{signer.login!r} signed in more than {FRESH.seconds // 60} minutes ago: sign in again"
        )
    if task is not None and task not in TASKS[now.role]:
        able = " or ".join(role for role in ROLES if task in TASKS[role])
        raise RecordError(f"{signer.login!r} is {now.role} and may not {_SPELLED[task]}: it takes a {able}")


_SPELLED: Mapping[Task, str] = {
    "decide": "decide about findings",
    "approve": "approve or refuse decisions",
    "manage": "manage people",
}


def current(session: Session, login: str) -> tuple[Person, PersonRevision]:
    """Return a person and their latest revision; RecordError if there is no such login."""
    found = lookup(session, login)
    if found is None:
        raise RecordError(f"there is no person {login!r}: `kensa people list` shows who there is")
    return found


def lookup(session: Session, login: str) -> tuple[Person, PersonRevision] | None:
    """Return a person and their latest revision, if there is such a login."""
    row = session.execute(_people_query(Person.login == storable(login))).one_or_none()
    return None if row is None else (row[0], row[1])


def _people_query(*conditions: ColumnElement[bool]) -> Select[tuple[Person, PersonRevision]]:
    """Return the statement for people and their latest revisions."""
    latest = (
        select(func.max(PersonRevision.revision))
        .where(PersonRevision.person_id == Person.id)
        .correlate(Person)
        .scalar_subquery()
    )
    joined = select(Person, PersonRevision).join(
        PersonRevision, (PersonRevision.person_id == Person.id) & (PersonRevision.revision == latest)
    )
    return joined.where(*conditions)


def _add_revision(
    db: Database,
    login: str,
    action: str,
    changes: Mapping[str, Any],
    *,
    by: Authenticated,
    own: bool = False,
    reason: str | None = None,
) -> PersonRecord:
    """Record a new revision that differs in `changes`; RecordError where it would not differ.

    `own`: whether the person may do it themselves, whatever their role.
    """
    with db.write() as recorder:
        session = recorder.session
        if own:
            require(session, by, None)
        actor = by.actor if own else _managing_actor(session, by)
        person, now = current(session, login)
        if all(getattr(now, name) == value for name, value in changes.items()):
            state = "active" if now.active else "disabled"
            raise RecordError(f"nothing to change: {login!r} is {now.name}, {now.role}, {state} already")
        names = ("name", "role", "active", "password_hash")
        values = {name: getattr(now, name) for name in names} | dict(changes)
        manages = now.active and now.role == "administrator"
        if manages and not (values["active"] and values["role"] == "administrator"):
            others = _people_query(
                PersonRevision.active.is_(True), PersonRevision.role == "administrator", Person.login != login
            )
            if session.execute(others.limit(1)).first() is None:
                raise RecordError(
                    f"{login!r} is the last active administrator: nobody could manage people. "
                    "Add another administrator first"
                )
        revision = PersonRevision(
            person_id=person.id, revision=now.revision + 1, created_at=utc_now(), **values
        )
        recorder.add(
            [revision],
            action=action,
            actor=actor,
            entity="person",
            entity_id=person.id,
            payload={"login": login},
            old=_public_fields(person, now),
            new=_public_fields(person, revision),
            reason=(reason or "").strip() or None,
        )
        return _person_record(person, revision)


def _managing_actor(session: Session, by: Authenticated | Actor) -> Actor:
    """Return who manages people: an administrator or, while there is nobody yet, an account."""
    if isinstance(by, Authenticated):
        require(session, by, "manage")
        return by.actor
    if session.scalar(select(Person.id).limit(1)) is not None:
        raise RecordError("there are people already: an administrator must sign in to manage them")
    return by


def _printable_name(name: str) -> str:
    name = " ".join(storable(name).split())
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise RecordError(
            f"name {name!r}: give the name as signatures print it, 1 to {_LONGEST_NAME} characters"
        )
    return name


def _known_role(role: str) -> str:
    if role not in ROLES:
        raise RecordError(f"role {role!r} is none of {', '.join(ROLES)}")
    return role


def _public_fields(person: Person, revision: PersonRevision) -> dict[str, Any]:
    """Return what an event says of a person: everything but the password's hash."""
    record = asdict(_person_record(person, revision))
    return {name: record[name] for name in ("login", "name", "role", "active", "revision")}


def _person_record(person: Person, revision: PersonRevision) -> PersonRecord:
    return PersonRecord(
        id=person.id,
        login=person.login,
        name=revision.name,
        role=revision.role,
        active=revision.active,
        revision=revision.revision,
        created_at=person.created_at,
        changed_at=revision.created_at,
    )
