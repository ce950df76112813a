"""Proving who somebody is: login and password, failed attempts recorded, a lock after five in a row.

Whoever fails gets one message after the same amount of work, whatever was wrong: neither tells which logins
there are. The lock is no state of its own: the recorded events say whether it holds.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.chain.events import Actor
from db.columns import utc_now
from db.engine import Database
from db.errors import RecordError
from db.people.passwords import HASHER, LONGEST_PASSWORD, normal_password
from db.people.people import Authenticated, lookup
from db.schema import AuditEvent, Person

MOST_FAILURES = 5
WINDOW = LOCKED_FOR = timedelta(minutes=15)
FAILED, SIGNED_IN = "person.sign_in_failed", "person.signed_in"
_REFUSED = (
    "sign-in failed: login or password is wrong, the person is disabled, or sign-in is locked for "
    f"{LOCKED_FOR.seconds // 60} minutes after {MOST_FAILURES} failures in a row"
)
# Events that end a row of failures.
_FRESH_STARTS = (SIGNED_IN, "person.password_changed", "person.enabled")


def authenticate(
    db: Database,
    login: str,
    password: str,
    *,
    account: Actor,
    hasher: PasswordHasher = HASHER,
    now: datetime | None = None,
) -> Authenticated:
    """Return the person whose login and password these are; RecordError in every other case.

    A failure is recorded under the person whose login was given. A login that nobody has is not written down:
    it may be a password typed into the wrong field. A success is recorded where it ends a row of failures.

    Args:
        db: the record.
        login: as typed.
        password: as typed.
        account: the account from which it is tried; a failure is recorded as done by it.
        hasher: checks the password.
        now: when the attempt is made, if not now.
    """
    normal = normal_password(password)[: LONGEST_PASSWORD + 1]
    with db.session() as session:
        found = lookup(session, login)
    if found is None:
        hasher.hash(normal)  # as much work as for a login that exists
        matches = False
    else:
        matches = _password_matches(hasher, found[1].password_hash, normal, login)
    at = now or utc_now()
    with db.session() as session:  # a new snapshot: other attempts may have failed meanwhile
        failures = [] if found is None else _failure_times(session, found[0], at)
    locked = _is_locked(failures, at)
    if found is None or not matches or not found[1].active or locked:
        why = "login" if found is None else "locked" if locked else "password" if not matches else "disabled"
        with db.write() as recorder:
            recorder.add(
                [],
                action=FAILED,
                actor=account,
                entity="person",
                entity_id="unknown" if found is None else found[0].id,
                payload={"why": why} | ({} if found is None else {"login": found[0].login}),
            )
        raise RecordError(_REFUSED)
    person, revision = found
    signed_in = Authenticated(
        person_id=person.id,
        login=person.login,
        name=revision.name,
        role=revision.role,
        revision=revision.revision,
        at=at,
    )
    if failures:
        with db.write() as recorder:
            recorder.add(
                [],
                action=SIGNED_IN,
                actor=signed_in.actor,
                entity="person",
                entity_id=person.id,
                payload={"login": person.login, "after_failures": len(failures)},
            )
    return signed_in


def _password_matches(hasher: PasswordHasher, stored: str, password: str, login: str) -> bool:
    try:
        return hasher.verify(stored, password)
    except VerifyMismatchError:
        return False
    except InvalidHashError:
        raise RecordError(
            f"the stored password of {login!r} is not what was recorded: run `kensa audit verify`"
        ) from None


def _failure_times(session: Session, person: Person, now: datetime) -> list[datetime]:
    """Return when a person's latest sign-ins failed, in a row, oldest first; those under a lock left out."""
    rows = session.execute(
        select(AuditEvent.sequence, AuditEvent.action, AuditEvent.at, AuditEvent.payload).where(
            AuditEvent.action.in_((FAILED, *_FRESH_STARTS)),
            AuditEvent.entity_id == person.id.hex,
            AuditEvent.at > now - WINDOW - LOCKED_FOR,
        )
    ).all()
    failed: list[datetime] = []
    # Sorted here: with ORDER BY, SQLite may walk the whole log in that order.
    for _, action, at, payload in sorted(rows, key=lambda row: row.sequence):
        if action != FAILED:
            failed = []
        elif payload.get("why") != "locked":
            failed.append(at)
    return failed


def _is_locked(failures: list[datetime], now: datetime) -> bool:
    latest = failures[-MOST_FAILURES:]
    if len(latest) < MOST_FAILURES:
        return False
    return latest[-1] - latest[0] <= WINDOW and now < latest[-1] + LOCKED_FOR
