"""Choosing which index to follow through the record, newest first, a window at a time.

A query planner must guess whether few or many rows match, and a wrong guess reads a million rows. So the
choice is made here: each filter offers the sequence numbers of the events that it could match. The smallest
offer is followed, and the other filters are checked by key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Exists, Select, TextClause, func, literal, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

FEW = 2_000  # this many candidates are sorted and checked within a few milliseconds
NEWEST = 2**63 - 1  # above every sequence number
_NARROWEST, _WIDEST = 50, 1_000  # windows: how many candidates are checked at once

T = TypeVar("T")
Column = ColumnElement[Any] | InstrumentedAttribute[Any]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Sequence numbers that could match: a statement that selects `sequence`, without order or limit.

    `sequence` is the indexed column where an index holds them in order. Where they are few and sorted
    instead, it is `unordered(column)`.
    """

    statement: Select[Any]
    sequence: Column

    def read(self, session: Session, top: int, floor: int, limit: int) -> Sequence[int]:
        """Return the highest of those not above `top` nor below `floor`, highest first."""
        page = self.statement.where(self.sequence <= top).order_by(self.sequence.desc()).limit(limit)
        return session.scalars(page.where(self.sequence >= floor) if floor else page).all()


@dataclass(frozen=True, slots=True)
class Way:
    """What one filter offers to follow, and how many events it may match, counted up to FEW + 1."""

    size: int
    candidates: tuple[Candidates, ...]


def unordered(column: Column) -> ColumnElement[Any]:
    """Return a column that no planner walks the whole table by, in the hope of an early match."""
    return column + 0


def one_by_one(*conditions: ColumnElement[bool] | TextClause) -> Exists:
    """Return EXISTS as a check made for each row by key.

    The offset keeps PostgreSQL from first gathering all rows that meet the conditions, and joining those.
    """
    return select(literal(1)).where(*conditions).offset(0).exists()


def count_upto(session: Session, statement: Select[Any], most: int = FEW) -> int:
    """Return how many rows a statement has, counted up to `most` + 1."""
    bounded = statement.limit(most + 1).subquery()
    return session.scalar(select(func.count()).select_from(bounded)) or 0


def ordered(session: Session, *pairs: tuple[Select[Any], Column]) -> Way:
    """Return the way of statements whose rows an index holds in the order of a column, however many match."""
    size = sum(count_upto(session, statement) for statement, _ in pairs)
    return Way(size, tuple(Candidates(statement, column) for statement, column in pairs))


def best(ways: Sequence[Way], everything: Candidates) -> tuple[Candidates, ...]:
    """Return the candidates to follow: those of the smallest way, or `everything` where there is no filter.

    Of several ways with more than FEW it is the first.
    """
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
    """Return the first `limit` of what `check(sequences, how many at most)` finds, newest first.

    `span` returns the lowest and highest sequence that can match at all. It is called when the first window
    did not fill the page.
    """
    found: list[T] = []
    bottom, width = 0, max(limit, _NARROWEST)
    while True:
        # A full page does not show what lies below its end. So the window ends there, and the candidates that
        # follow are read down to there only: to find a full page of their own they might read very many.
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
    """Return the condition that a text holds another, whatever the case; `%` and `_` stand for themselves.

    Both databases fold ASCII letters only. Other letters are looked for as they were typed, and in lower,
    upper and title case.
    """
    spellings = {text, text.lower(), text.upper(), text.capitalize(), text.title()}
    distinct = {
        "".join(c.lower() if c.isascii() else c for c in spelling): spelling for spelling in sorted(spellings)
    }
    return or_(*(column.icontains(spelling, autoescape=True, escape="\\") for spelling in distinct.values()))
