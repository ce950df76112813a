"""Sending many rows at once, in the spelling in which they were hashed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import psycopg
from sqlalchemy import Connection, Double, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from db.chain.row_text import Spelled, column_names

Row = tuple[Spelled | None, ...]

# SQLite sets the pages that a statement changes aside, once for a statement however many rows it has.
_ROWS_A_STATEMENT = 32


def put_rows(session: Session, table: Table, rows: list[Row]) -> None:
    """Insert rows that `spelled_rows` gave; what the database refuses is SQLAlchemy's DBAPIError."""
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        _insert(connection, table, rows)
    else:
        _copy(connection, table, rows)


def _insert(connection: Connection, table: Table, rows: list[Row]) -> None:
    # Numbers again: SQLite's own reading of the text may be a bit off.
    columns = [
        [None if text is None else float(text) for text in values]
        if isinstance(table.columns[name].type, Double)
        else values
        for name, values in zip(column_names(table), zip(*rows, strict=True), strict=True)
    ]
    one = f"({', '.join('?' * len(columns))})"
    into = f"INSERT INTO {_named(connection, table)} VALUES "  # noqa: S608
    for some in _pieces(list(zip(*columns, strict=True))):
        statement = into + ", ".join([one] * len(some))
        connection.exec_driver_sql(statement, tuple(chain.from_iterable(some)))


def _pieces(rows: list[Any]) -> Iterator[list[Any]]:
    """Cut rows into pieces of few sizes, so that few statements are ever compiled."""
    start, size = 0, _ROWS_A_STATEMENT
    while start < len(rows):
        while size > len(rows) - start:
            size //= 2
        yield rows[start : start + size]
        start += size


def _copy(connection: Connection, table: Table, rows: list[Row]) -> None:
    statement = f"COPY {_named(connection, table)} FROM STDIN"
    cursor: Any = connection.connection.cursor()
    try:
        with cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        wrapped = DBAPIError.instance(statement, None, error, psycopg.Error, dialect=connection.dialect)
        raise wrapped from error


def _named(connection: Connection, table: Table) -> str:
    names = connection.dialect.identifier_preparer
    columns = [names.format_column(table.columns[name]) for name in column_names(table)]
    return f"{names.format_table(table)} ({', '.join(columns)})"
