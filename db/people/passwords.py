"""Passwords: which are accepted, and how they are kept (argon2id)."""

from __future__ import annotations

import unicodedata

from argon2 import PasswordHasher

from db.columns import storable
from db.errors import RecordError

HASHER = PasswordHasher()  # argon2id with the library's parameters (RFC 9106, low memory)
SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 1024


def hash_password(login: str, password: str, hasher: PasswordHasher) -> str:
    """Return the argon2 hash; RecordError for fewer than 12 characters, too many, or the login itself.

    Only length counts, as NIST SP 800-63B recommends: there are no rules about digits and signs.
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
    """Return a password's NFKC spelling, which is the same however a keyboard composes its characters."""
    return unicodedata.normalize("NFKC", storable(password))
