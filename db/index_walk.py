"""Choosing a way through the record: which index to follow, newest first, a window at a time.

Left to itself a planner must guess whether few or many rows match, and a wrong guess reads a million rows.
Each filter offers the sequence numbers of the events it could match; the smallest offer is followed and the
other filters are checked by key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Exists, Select, TextClause, func, literal, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

FEW = 2_000  # so many candidates are sorted and checked within a few milliseconds
NEWEST = 2**63 - 1  # above every sequence number
_NARROWEST, _WIDEST = 50, 1_000  # windows: how many candidates are checked at once

T = TypeVar("T")
Column = ColumnElement[Any] | InstrumentedAttribute[Any]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Sequence numbers that could match: a statement that selects `sequence`, without order or limit.

    Where an index gives them in order, `sequence` is the indexed column; where they must be sorted because
    they are few, `unordered(column)`.
    """

    statement: Select[Any]
    sequence: Column

    def read(self, session: Session, top: int, floor: int, limit: int) -> Sequence[int]:
        """Give the highest of those not above `top` nor below `floor`, highest first."""
        page = self.statement.where(self.sequence <= top).order_by(self.sequence.desc()).limit(limit)
        return session.scalars(page.where(self.sequence >= floor) if floor else page).all()


@dataclass(frozen=True, slots=True)
class Way:
    """What one filter offers to follow, and how many it may match, not counted beyond FEW + 1."""

    size: int
    candidates: tuple[Candidates, ...]


def unordered(column: Column) -> ColumnElement[Any]:
    """Keep planners from walking the whole table in this column's order in the hope of an early match."""
    return column + 0


def one_by_one(*conditions: ColumnElement[bool] | TextClause) -> Exists:
    """Give EXISTS as a check made for each row by key.

    The offset keeps PostgreSQL from gathering everything that meets it first, and joining that.
    """
    return select(literal(1)).where(*conditions).offset(0).exists()


def count_upto(session: Session, statement: Select[Any], most: int = FEW) -> int:
    """Count a statement's rows, but not beyond `most` + 1."""
    bounded = statement.limit(most + 1).subquery()
    return session.scalar(select(func.count()).select_from(bounded)) or 0


def ordered(session: Session, *pairs: tuple[Select[Any], Column]) -> Way:
    """Give the way of statements that an index answers in the order of a column, however many match."""
    size = sum(count_upto(session, statement) for statement, _ in pairs)
    return Way(size, tuple(Candidates(statement, column) for statement, column in pairs))


def best(ways: Sequence[Way], everything: Candidates) -> tuple[Candidates, ...]:
    """Give what to follow: the fewest, of several with many the first, without a filter everything."""
    return min(ways, key=lambda way: min(way.size, FEW + 1)).candidates if ways else (everything,)


def walk(
    session: Session,
    candidates: Sequence[Candidates],
    check: Callable[[Sequence[int], int], Sequence[T]],
    *,
    top: int,
    limit: int,
    span: Callable[[], tuple[int, int]] | None = None,
) -> list[T]:
    """Give the first `limit` of what `check(sequences, how many at most)` finds, newest first.

    `span`: gives the lowest and highest sequence that can match at all; asked for when the first window did
    not fill the page.
    """
    found: list[T] = []
    bottom, width = 0, max(limit, _NARROWEST)
    while True:
        # What lies below the end of a page that is full is not known in full yet: nor need the others look
        # there, which may have to look at very many to find a page of their own.
        floor, seen = 0, set[int]()
        for each in candidates:
            page = each.read(session, top, floor, width)
            floor = page[-1] if len(page) == width else floor
            seen.update(page)
        window = sorted((sequence for sequence in seen if sequence >= floor), reverse=True)
        if window:
            found += check(window, limit - len(found))
        if len(found) >= limit or floor <= max(bottom, 1):
            return found[:limit]
        top, width = floor - 1, min(2 * width, _WIDEST)
        if span is not None:
            bottom, highest = span()
            top, span = min(top, highest), None


def any_case(column: Column, text: str) -> ColumnElement[bool]:
    """Give the condition that a text holds another, whatever the case; `%` and `_` stand for themselves.

    Both databases fold ASCII letters only, so that other letters are looked for as they were typed, in
    lower, upper and title case.
    """
    spellings = {text, text.lower(), text.upper(), text.capitalize(), text.title()}
    distinct = {
        "".join(c.lower() if c.isascii() else c for c in spelling): spelling for spelling in sorted(spellings)
    }
    return or_(*(column.icontains(spelling, autoescape=True, escape="\\") for spelling in distinct.values()))
