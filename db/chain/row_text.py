"""Rows to be written, in the spelling in which they are hashed and stored: a table's rows together.

A column at a time: what thousands of values have in common is looked at once, which is several times faster
than value by value. `columns.encoded` is the other direction: the spelling of what a database gives back.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Double, Integer, String, Table, Uuid
from sqlalchemy.types import TypeEngine

from db.columns import Json, Time, aware, canonical_json, storable, time_text
from db.errors import RecordError

Spelled = str | int
# A row as it is hashed: its columns that are not NULL.
Record = dict[str, Spelled]

_HEX = re.compile(r"[0-9a-f]*")


def spelled_rows(
    table: Table, rows: Sequence[Mapping[str, Any]], common: Mapping[str, Any] | None = None
) -> tuple[list[Record], list[tuple[Spelled | None, ...]]]:
    """Give the records of rows to be written, and the same as tuples in the order of `column_names`.

    A record has its columns in the order of canonical JSON. RecordError names the column that would not take
    its value. `common`: columns in which all rows have the same value.
    """
    names, common = column_names(table), common or {}
    columns = [
        _column(
            table, name, [common[name]] * len(rows) if name in common else [row.get(name) for row in rows]
        )
        for name in names
    ]
    tuples = list(zip(*columns, strict=True))
    return [{n: v for n, v in zip(names, row, strict=True) if v is not None} for row in tuples], tuples


@cache
def column_names(table: Table) -> tuple[str, ...]:
    """Give the names of a table's columns, sorted."""
    return tuple(sorted(table.columns.keys()))


def _column(table: Table, name: str, values: list[Any]) -> Sequence[Spelled | None]:
    spell, alike = _rules(table, name)
    try:
        if len(set(map(id, values))) == 1:  # one object: a run, a model, a time that the whole batch has
            first = values[0]
            return [None if first is None else spell(first)] * len(values)
        if alike is not None and (found := alike(values)) is not None:
            return found
        return [None if value is None else spell(value) for value in values]
    except (RecordError, TypeError, ValueError, OverflowError) as error:
        raise RecordError(f"{table.name}.{name}: {error}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise RecordError(f"expected text, got {type(value).__name__}")
    if storable(value) != value:
        raise RecordError(
            f"text {value!r} holds NUL or is not Unicode: pass it through db.columns.storable first"
        )
    return str(value)


def _texts(values: list[Any]) -> list[str] | None:
    if set(map(type, values)) != {str}:
        return None
    joined = "".join(values)
    return values if joined.isascii() and "\x00" not in joined else None


def _identifier(value: Any) -> str:
    if isinstance(value, UUID):
        return value.hex
    if type(value) is str and len(value) == 32 and _HEX.fullmatch(value):
        return value
    raise RecordError(f"expected an identifier, got {type(value).__name__}")


def _identifiers(values: list[Any]) -> list[str] | None:
    if set(map(type, values)) != {str} or set(map(len, values)) != {32}:
        return None
    return values if _HEX.fullmatch("".join(values)) else None


def _float(value: Any) -> str:
    number = float(value)
    if not math.isfinite(number):
        raise RecordError(f"{number} is not a number that can be recorded")
    return repr(number + 0.0)  # SQLite does not keep the sign of -0.0


def _floats(values: list[Any]) -> list[str] | None:
    if set(map(type, values)) != {float} or not all(map(math.isfinite, values)):
        return None
    return [repr(value + 0.0) for value in values]


def _integers(values: list[Any]) -> list[int] | None:
    return values if set(map(type, values)) == {int} else None


def _time(value: Any) -> str:
    return time_text(aware(value))


def _json(value: Any) -> str:
    if not value and type(value) in (list, dict):
        return "[]" if type(value) is list else "{}"
    return str(canonical_json(value))


def _boolean(value: Any) -> int:
    return 1 if value else 0


_One = Callable[[Any], Spelled]
# Of all values at once, where they are as they nearly always are; else None, and each is looked at.
_Alike = Callable[[list[Any]], Sequence[Spelled] | None]

_RULES: tuple[tuple[type[TypeEngine[Any]], _One, _Alike | None], ...] = (
    (Json, _json, None),
    (Time, _time, None),
    (Uuid, _identifier, _identifiers),
    (Boolean, _boolean, None),
    (Double, _float, _floats),
    (Integer, int, _integers),
    (String, _text, _texts),
)


@cache
def _rules(table: Table, name: str) -> tuple[_One, _Alike | None]:
    kind = table.columns[name].type
    for column_type, one, alike in _RULES:
        if isinstance(kind, column_type):
            return one, alike
    raise RecordError(f"no rule for columns of type {kind!r}")
