"""People for tests of what people decide: signed in, with a cheap hash of their passwords."""

from argon2 import PasswordHasher

from db.chain.events import Actor
from db.engine import Database
from db.people.people import Authenticated, add_person
from db.people.sign_in import authenticate

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def quality_engineer(database: Database, password: str) -> Authenticated:
    """Add "boss", an administrator, and "eve", a quality engineer, and return her as signed in."""
    setup = Actor("setup", "human")
    add_person(
        database, "boss", name="B. Oss", role="administrator", by=setup, password=password, hasher=CHEAP
    )
    boss = authenticate(database, "boss", password, account=setup, hasher=CHEAP)
    add_person(
        database, "eve", name="E. Ve", role="quality-engineer", by=boss, password=password, hasher=CHEAP
    )
    return authenticate(database, "eve", password, account=setup, hasher=CHEAP)
