"""Looking up many keys within a driver's limit on parameters; reading many rows in flat memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Row, Select, any_, func, literal, select, type_coerce
from sqlalchemy.orm import InstrumentedAttribute, Session

_AT_ONCE = 500


def those(
    session: Session, statement: Select[Any], column: InstrumentedAttribute[Any], values: Collection[Any]
) -> Iterator[Row[Any]]:
    """Run a statement for the rows whose column is among the values, 500 values at a time.

    The values go as one parameter: a statement with hundreds of them takes longer to compile than to run.
    """
    values = list(values)
    for start in range(0, len(values), _AT_ONCE):
        some = values[start : start + _AT_ONCE]
        yield from session.execute(statement.where(among(session, column, some)))


def among(
    session: Session, column: InstrumentedAttribute[Any], values: Collection[Any]
) -> ColumnElement[bool]:
    """Return the condition that a column is among the values, which go as one parameter."""
    if session.get_bind().dialect.name == "sqlite":
        texts = json.dumps([value.hex if isinstance(value, UUID) else value for value in values])
        given = func.json_each(texts).table_valued("value")
        return column.in_(select(type_coerce(given.c.value, column.type)))
    return column == any_(literal(list(values), ARRAY(column.type)))


def pages(
    session: Session, statement: Select[Any], key: Any, *, of: Callable[[Row[Any]], Any] = lambda row: row[0]
) -> Iterator[Sequence[Row[Any]]]:
    """Yield a statement's rows a page at a time, in the order of its unique key; `of` returns a row's key.

    The session forgets each page's objects before the next: memory does not grow with the rows.
    """
    above = None
    while True:
        later = statement if above is None else statement.where(key > above)
        page = session.execute(later.order_by(key).limit(_AT_ONCE)).all()
        if page:
            yield page
        if len(page) < _AT_ONCE:
            return
        above = of(page[-1])
        session.expunge_all()
