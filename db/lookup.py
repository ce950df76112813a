"""Looking many keys up without meeting a driver's limit on parameters."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Row, Select, any_, func, literal, select, type_coerce
from sqlalchemy.orm import InstrumentedAttribute, Session

_AT_ONCE = 500


def those(
    session: Session, statement: Select[Any], column: InstrumentedAttribute[Any], values: Collection[Any]
) -> Iterator[Row[Any]]:
    """Run a statement for the rows whose column is among the values, a bounded number of them at a time.

    They go as one parameter: a statement with hundreds takes longer to put together than to run.
    """
    values = list(values)
    sqlite = session.get_bind().dialect.name == "sqlite"
    for start in range(0, len(values), _AT_ONCE):
        some = values[start : start + _AT_ONCE]
        if sqlite:
            texts = json.dumps([value.hex if isinstance(value, UUID) else value for value in some])
            given = func.json_each(texts).table_valued("value")
            condition: ColumnElement[bool] = column.in_(select(type_coerce(given.c.value, column.type)))
        else:
            condition = column == any_(literal(some, ARRAY(column.type)))
        yield from session.execute(statement.where(condition))
