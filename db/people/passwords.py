"""Passwords: what is accepted, and how it is kept (argon2id)."""

from __future__ import annotations

import unicodedata

from argon2 import PasswordHasher

from db.columns import storable
from db.errors import RecordError

HASHER = PasswordHasher()  # argon2id with the library's parameters (RFC 9106, low memory)
SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 1024


def hash_password(login: str, password: str, hasher: PasswordHasher) -> str:
    """Give the argon2 hash; RecordError for a password shorter than 12 characters, or the login itself.

    Length alone counts, as NIST SP 800-63B has it: no rules about digits and signs.
    """
    normal = normal_password(password)
    if not SHORTEST_PASSWORD <= len(normal) <= LONGEST_PASSWORD:
        raise RecordError(
            f"a password has {SHORTEST_PASSWORD} characters or more (at most {LONGEST_PASSWORD}): "
            "several words are easiest to remember"
        )
    if normal.casefold() == login.casefold():
        raise RecordError("the password is the login: choose another")
    return hasher.hash(normal)


def normal_password(password: str) -> str:
    """Give one spelling (NFKC) of a password, however the keyboard composed its characters."""
    return unicodedata.normalize("NFKC", storable(password))
