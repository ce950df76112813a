"""Rows as they are stored, past the column types: what is hashed, whatever somebody made of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, Table, func, select, type_coerce
from sqlalchemy.orm import Session
from sqlalchemy.types import NullType

from db.chain import record_of
from db.columns import Time
from db.spelling import Record

TIME_TEXT = 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'


def raw_rows(session: Session, table: Table) -> Select[Any]:
    """Give the statement for a table's rows as they are stored; add conditions, order and limit to it."""
    postgres = session.get_bind().dialect.name == "postgresql"
    return select(
        *(
            # to_char: the driver cannot give a time such as 'infinity', which a person could have written
            func.to_char(func.timezone("UTC", column), TIME_TEXT).label(column.name)
            if postgres and isinstance(column.type, Time)
            else type_coerce(column, NullType()).label(column.name)
            for column in table.columns
        )
    )


def raw_records(session: Session, table: Table, condition: ColumnElement[bool]) -> list[Record]:
    """Give the records, as they are hashed, of a table's rows that meet a condition."""
    return fetch_records(session, raw_rows(session, table).where(condition))


def fetch_records(session: Session, statement: Select[Any]) -> list[Record]:
    """Run a statement of `raw_rows`."""
    rows = session.execute(statement)
    names = tuple(rows.keys())
    return [record_of(names, row) for row in rows]
