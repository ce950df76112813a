"""Rows to be written, in the spelling in which they are hashed and stored: a table's rows together.

`columns.encoded` is the other direction: the spelling of what a database gives back.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Double, Integer, String, Table, Uuid
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from db.columns import Json, Time, canonical_json, storable, time_text
from db.errors import RecordError

Spelled = str | int
# A row as it is hashed: its columns that are not NULL.
Record = dict[str, Spelled]
# A row as it is stored, in the order of `column_names`.
Row = tuple[Spelled | None, ...]

_IDENTIFIER = re.compile(r"[0-9a-f]{32}")


def spelled_rows(
    table: Table, rows: Sequence[Mapping[str, Any]], common: Mapping[str, Any] | None = None
) -> tuple[list[Record], list[Row]]:
    """Return the records of rows to be written, and the rows as tuples in the order of `column_names`.

    A record has its columns in the order of canonical JSON.

    Args:
        table: whose rows they are.
        rows: values by column; a column that is left out is NULL.
        common: columns in which all rows have the same value.

    Raises:
        RecordError: a column does not take a value; the message names the column.
    """
    names, common = column_names(table), common or {}
    columns = [
        _spelled_column(
            table, name, [common[name]] * len(rows) if name in common else [row.get(name) for row in rows]
        )
        for name in names
    ]
    tuples = list(zip(*columns, strict=True))
    return [{n: v for n, v in zip(names, row, strict=True) if v is not None} for row in tuples], tuples


def insert_rows(session: Session, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows that `spelled_rows` gave, in one way on both databases.

    Ways of their own were measured on batches of 200 pictures: 32 rows a statement on SQLite takes 0.9, COPY
    on PostgreSQL 0.6 of the CPU time of recording.
    """
    connection = session.connection()
    names, sqlite = column_names(table), connection.dialect.name == "sqlite"
    spelling = connection.dialect.identifier_preparer
    listed = ", ".join(spelling.format_column(table.columns[name]) for name in names)
    places = ", ".join(["?" if sqlite else "%s"] * len(names))
    numbers = [isinstance(table.columns[name].type, Double) for name in names]
    if sqlite:
        # Numbers again: SQLite's own reading of the text may be a bit off.
        given = [
            tuple(float(v) if number and v is not None else v for v, number in zip(row, numbers, strict=True))
            for row in rows
        ]
    else:
        # As text without a type, which PostgreSQL reads by that of the column.
        given = [tuple(None if value is None else str(value) for value in row) for row in rows]
    statement = f"INSERT INTO {spelling.format_table(table)} ({listed}) VALUES ({places})"  # noqa: S608
    connection.exec_driver_sql(statement, given)


@cache
def column_names(table: Table) -> tuple[str, ...]:
    """Return the names of a table's columns, sorted."""
    return tuple(sorted(table.columns.keys()))


def _spelled_column(table: Table, name: str, values: list[Any]) -> Sequence[Spelled | None]:
    spell = _column_rule(table, name)
    try:
        if len(set(map(id, values))) == 1:  # one object: a run, a model, a time that the whole batch has
            first = values[0]
            return [None if first is None else spell(first)] * len(values)
        return [None if value is None else spell(value) for value in values]
    except (RecordError, TypeError, ValueError, OverflowError) as error:
        raise RecordError(f"{table.name}.{name}: {error}") from error


def _storable_text(value: Any) -> str:
    if not isinstance(value, str):
        raise RecordError(f"expected text, got {type(value).__name__}")
    if storable(value) != value:
        raise RecordError(
            f"text {value!r} holds NUL or is not Unicode: pass it through db.columns.storable first"
        )
    return str(value)


def _identifier_digits(value: Any) -> str:
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, str) and _IDENTIFIER.fullmatch(value):
        return value
    raise RecordError(f"expected an identifier, got {type(value).__name__}")


def _float_text(value: Any) -> str:
    number = float(value)
    if not math.isfinite(number):
        raise RecordError(f"{number} is not a number that can be recorded")
    return repr(number + 0.0)  # SQLite does not keep the sign of -0.0


def _json_text(value: Any) -> str:
    if not value and type(value) in (list, dict):
        return "[]" if type(value) is list else "{}"
    return str(canonical_json(value))


def _boolean_number(value: Any) -> int:
    return 1 if value else 0


# The first that fits: Json, Time and Uuid columns are made of other types.
_RULES: tuple[tuple[type[TypeEngine[Any]], Callable[[Any], Spelled]], ...] = (
    (Json, _json_text),
    (Time, time_text),
    (Uuid, _identifier_digits),
    (Boolean, _boolean_number),
    (Double, _float_text),
    (Integer, int),
    (String, _storable_text),
)


@cache
def _column_rule(table: Table, name: str) -> Callable[[Any], Spelled]:
    kind = table.columns[name].type
    for column_type, spell in _RULES:
        if isinstance(kind, column_type):
            return spell
    raise RecordError(f"no rule for columns of type {kind!r}")
