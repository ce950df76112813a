"""Rows as they are stored, read past the column types: what is hashed, even where it was tampered with."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, Select, Table, Uuid, literal_column, select, type_coerce
from sqlalchemy.orm import Session
from sqlalchemy.types import NullType

from db.chain.events import record_of
from db.chain.row_text import Record
from db.columns import Time

_TIME_TEXT = 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'


def time_sql(column: str) -> str:
    """Return the SQL of a time's text on PostgreSQL: one text for each time that its type can hold.

    It uses to_char because the driver cannot return every time that a forger could write, such as 'infinity'.
    It adds the era because to_char leaves it out, and years before Christ would look like ours.
    """
    return (
        f"to_char(timezone('UTC', {column}), '{_TIME_TEXT}')"
        f" || CASE WHEN {column} < '0001-01-01 00:00:00+00' THEN ' BC' ELSE '' END"
    )


def raw_rows(session: Session, table: Table) -> Select[Any]:
    """Return a statement that selects a table's rows as stored; add conditions, order and limit to it."""
    postgres = session.get_bind().dialect.name == "postgresql"
    return select(*(_raw(column, postgres) for column in table.columns))


def _raw(column: Column[Any], postgres: bool) -> ColumnElement[Any]:
    name = f'{column.table.name}."{column.name}"'
    if postgres and isinstance(column.type, Time):
        return literal_column(time_sql(name)).label(column.name)
    if postgres and isinstance(column.type, Uuid):
        # Its text, which is hashed: the driver would take longer to make an object than all the rest.
        return literal_column(f"encode(uuid_send({name}), 'hex')").label(column.name)
    return type_coerce(column, NullType()).label(column.name)


def raw_records(session: Session, table: Table, condition: ColumnElement[bool]) -> list[Record]:
    """Return the records, as they are hashed, of a table's rows that meet a condition."""
    return fetch_records(session, raw_rows(session, table).where(condition))


def fetch_records(session: Session, statement: Select[Any]) -> list[Record]:
    """Run a statement of `raw_rows` and return the records."""
    rows = session.execute(statement)
    names = tuple(rows.keys())
    return [record_of(names, row) for row in rows]
