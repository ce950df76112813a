"""Looking many keys up without meeting a driver's limit on parameters."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import Row, Select
from sqlalchemy.orm import Session

_AT_ONCE = 500


def those(
    session: Session, statement: Select[Any], column: Any, values: Collection[Any]
) -> Iterator[Row[Any]]:
    """Run a statement for the rows whose column is among the values, a bounded number of them at a time."""
    values = list(values)
    for start in range(0, len(values), _AT_ONCE):
        yield from session.execute(statement.where(column.in_(values[start : start + _AT_ONCE])))
