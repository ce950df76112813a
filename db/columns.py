"""Column types and the canonical form of a value: one text per value, the same in every database.

What is hashed is what is stored. Times, identifiers and JSON have exactly one spelling. So any change of the
stored text changes the digest, even one that a lenient parser would overlook, such as an upper-case hex digit
or a space inside JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import rfc8785
from sqlalchemy import BigInteger, DateTime, Dialect, Integer, String, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

from db.errors import RecordError

_FLAT = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False)

# Byte order, not the server's locale: cursors and sorted listings are the same on both databases.
PlainText = String().with_variant(String(collation="C"), "postgresql")
# On SQLite only INTEGER PRIMARY KEY is the row's own key; BIGINT would cost a second index.
Sequence64 = BigInteger().with_variant(Integer(), "sqlite")


class Time(TypeDecorator[datetime]):
    """An aware UTC time with microseconds; naive times are refused.

    PostgreSQL: `timestamptz`. SQLite: text `YYYY-MM-DDTHH:MM:SS.ffffffZ`, which sorts as time does.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type: text on SQLite, `timestamptz` elsewhere."""
        return dialect.type_descriptor(String(27) if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Python to database."""
        if value is None:
            return None
        return time_text(value) if dialect.name == "sqlite" else aware(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Database to Python."""
        if value is None:
            return None
        return (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(UTC)


class CanonicalText(str):
    """JSON text that is canonical already and is stored as it stands."""

    __slots__ = ()


class Json(TypeDecorator[Any]):
    """An object or array, stored as its RFC 8785 text.

    It is text because JSON column types do not return what was hashed: PostgreSQL's `jsonb` rewrites numbers
    and refuses NUL, and SQLite's turns a lone number's text into a number.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Python to database."""
        return None if value is None else str(canonical_json(value))

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Database to Python."""
        return None if value is None else json.loads(value)


def uuid7() -> UUID:
    """Return a new RFC 9562 version 7 identifier: it sorts by creation time and ends in random bits."""
    return UUID(hex=next(uuid7_texts(1)))


def uuid7_texts(at_once: int = 256) -> Iterator[str]:
    """Yield new version 7 identifiers without end, each as 32 hex digits, which is how it is hashed."""
    while True:
        for random in memoryview(os.urandom(8 * at_once)).cast("Q"):
            milliseconds, rest = divmod(time.time_ns(), 1_000_000)
            # RFC 9562, 6.2, method 3: the fraction of the millisecond in rand_a keeps the order within it.
            fraction = (rest << 12) // 1_000_000
            yield f"{milliseconds:012x}7{fraction:03x}{random >> 2 | 1 << 63:016x}"


def utc_now() -> datetime:
    """Return the present time, aware, UTC."""
    return datetime.now(UTC)


def aware(value: datetime) -> datetime:
    """Return the same moment in UTC; RecordError for a time without a zone."""
    if value.tzinfo is UTC:
        return value
    if value.tzinfo is None or value.utcoffset() is None:
        raise RecordError(
            f"time {value.isoformat()} has no time zone: give an aware time, such as one in UTC"
        )
    return value.astimezone(UTC)


def time_text(value: datetime) -> str:
    """Return an aware time as `YYYY-MM-DDTHH:MM:SS.ffffffZ`; RecordError for a time without a zone."""
    return aware(value).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def storable(text: str) -> str:
    r"""Return a text that both databases can hold: NUL and lone surrogates spelled out (`\x00`, `\udcff`).

    Ordinary text is unchanged. Surrogates come from outside, such as from a file name that is not UTF-8.
    """
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def canonical_json(value: Any) -> CanonicalText:
    """Return the RFC 8785 text of an object or array.

    Raises:
        RecordError: for anything else, and where it holds NaN, an infinity, text that is not Unicode, or a
            type that JSON does not have.
    """
    if isinstance(value, CanonicalText):
        return value
    if not isinstance(value, (dict, list, tuple)):
        raise RecordError(f"a JSON column holds an object or an array, not {type(value).__name__}")
    try:
        return CanonicalText(rfc8785.dumps(value).decode())
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise RecordError(f"not representable as canonical JSON: {error}") from error


def digest_of(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return the SHA-256 (hex) of the value's RFC 8785 text, as for the settings digest."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def encoded(value: Any) -> str | int | None:
    """Return the one spelling of a stored value, as either driver returns it or as the column types do.

    None, int and str stay. True is 1, a float its shortest text that reads back the same, an identifier 32
    hex digits.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, bytes):  # no column is of bytes, but SQLite lets a forger store any type anywhere
        return f"bytes:{value.hex()}"
    raise RecordError(f"no column holds a {type(value).__name__}")


def flat_json(value: Any) -> bytes:
    """Return the RFC 8785 bytes of nested lists and dicts of str and int with ASCII keys, as in events.

    For those the standard library's encoder agrees with RFC 8785 (a test compares them) and is far faster.
    Text that is not Unicode can come from a damaged file only. It has bytes, and so a digest, of its own.
    """
    return _FLAT.encode(value).encode("utf-8", "surrogatepass")
