"""Windows of the audit log that are sound beyond doubt, told many times faster than value by value.

The database itself puts the canonical JSON of rows together, one long text for each table; here it is only
cut, hashed and compared, while a thread has the next window put together. All that is ever said here is
"sound" or "look closer": `verification` then walks the window value by value, and it alone says what is
wrong. Whatever is unexpected (a type, a text, a row too many) means looking closer.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Boolean, Column, Double, Table, Uuid
from sqlalchemy.orm import Session

from db.chain.events import SCHEME, Head
from db.chain.row_text import column_names
from db.chain.stored_rows import time_sql
from db.columns import Time
from db.schema import DOMAIN_TABLES, Base

WINDOW = 4_000  # events looked at together

_EVENTS = Base.metadata.tables["audit_event"]
_NUMBER = b'"\\u0001"'  # where a float is to be put in
# Escaped inside JSON: where it stands raw more often than it should, somebody put it there.
_SEPARATOR = b"\x1f"
_SCHEME = b"%d" % SCHEME
# NULL together in many rows, the first that fits: leaving them out in the database is cheaper than here.
_MOSTLY_NULL: dict[str, tuple[tuple[str, ...], ...]] = {
    "audit_event": (("actor_name", "actor_role", "new_value", "old_value", "reason"),),
    "prediction": (("brightness", "contrast", "reason", "sharpness"), ("reason",)),  # before 0003, and since
    "run_image": (("reason",),),
}

Floats = dict[bytes, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Sound:
    """A window in which everything is as it was recorded: its last event, its events and their rows."""

    head: Head
    events: int
    rows: int


class _Doubt(Exception):  # noqa: N818
    pass


@dataclass(frozen=True, slots=True)
class _Texts:
    """Rows of one table: how many there are, a line for each, and on SQLite their floats by rowid."""

    count: int
    lines: bytes
    floats: Floats


class FastWalk:
    """Looks at windows of one session's snapshot, each ahead of time; to be closed (a context manager).

    Between `window` and `pause` the session is in use by another thread. `upto`: the last event to look at.
    """

    def __init__(self, session: Session, upto: int | None = None) -> None:
        connection = session.connection()
        driver: Any = connection.connection.driver_connection
        self._driver = driver
        self._sqlite = connection.dialect.name == "sqlite"
        self._thread = ThreadPoolExecutor(1)
        self._ahead: tuple[int, Future[dict[str, _Texts]]] | None = None
        self._upto = upto
        if not self._sqlite:
            # With fewer digits unlike numbers could have the same text.
            driver.execute("SET LOCAL extra_float_digits = 1")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pause()
        self._thread.shutdown()

    def pause(self) -> None:
        """Wait until the session is free."""
        if self._ahead is not None:
            self._ahead[1].exception()
            self._ahead = None

    def window(self, head: Head) -> Sound | None:
        """Look at the events after this one; None where there are none, or it takes a closer look."""
        try:
            if self._ahead is not None and self._ahead[0] == head.sequence:
                ahead = self._ahead[1]
            else:
                self.pause()
                ahead = self._start(head.sequence)
            found = ahead.result()
            following = head.sequence + WINDOW
            if found[_EVENTS.name].count == WINDOW and (self._upto is None or following < self._upto):
                self._start(following)
            return _checked(head, found)
        except Exception:  # noqa: BLE001 - whatever it is: the closer look will meet it, and tell
            self.pause()
            return None

    def _start(self, above: int) -> Future[dict[str, _Texts]]:
        # From the very beginning also what no log has: an event, or a row of one, of number 0 or below.
        lower = f"> {above}" if above else "IS NOT NULL"
        end = above + WINDOW if self._upto is None else min(above + WINDOW, self._upto)
        span = {
            table: f"{key} {lower} AND {key} <= {end} ORDER BY {key}"
            for table in (_EVENTS, *DOMAIN_TABLES)
            for key in ["sequence" if table is _EVENTS else "event_sequence"]
        }
        # Python is needed for each row of these, not just at their end: they would wait for one another.
        floats = {table: self._floats(table, condition) for table, condition in span.items()}
        ahead = self._thread.submit(self._fetch, span, floats)
        self._ahead = above, ahead
        return ahead

    def _fetch(self, span: dict[Table, str], floats: dict[Table, Floats]) -> dict[str, _Texts]:
        # An error must not spoil PostgreSQL's transaction for the closer look.
        with nullcontext() if self._sqlite else self._driver.transaction():
            return {table.name: self._texts(table, where, floats[table]) for table, where in span.items()}

    def _floats(self, table: Table, condition: str) -> Floats:
        names = _float_columns(table) if self._sqlite else []
        if not names:
            return {}
        # With a column that no index has beside them: the row itself is to be read, as everywhere here.
        columns = ", ".join(["rowid", "created_at", *names])
        rows = self._driver.execute(f"SELECT {columns} FROM {table.name} WHERE {condition}").fetchall()  # noqa: S608
        return {b"%d" % row[0]: row[2:] for row in rows}

    def _texts(self, table: Table, condition: str, floats: Floats) -> _Texts:
        rows = f"SELECT {_line(table, self._sqlite)} AS line FROM {table.name} WHERE {condition}"  # noqa: S608
        if self._sqlite:
            statement = f"SELECT count(*), CAST(group_concat(line, char(10)) AS BLOB) FROM ({rows})"  # noqa: S608
        else:
            statement = f"SELECT count(*), string_agg(line, E'\\n') FROM ({rows}) AS lines"  # noqa: S608
        count, text = self._driver.execute(statement).fetchone()
        return _Texts(count, text.encode() if isinstance(text, str) else text or b"", floats)


def _checked(head: Head, found: dict[str, _Texts]) -> Sound | None:
    rows: dict[bytes, bytes] = {}
    count = 0
    for table in DOMAIN_TABLES:
        texts = found[table.name]
        if texts.count:
            rows.update([_key_and_text(line) for line in _complete(table, texts)])
            count += texts.count
    events = found[_EVENTS.name]
    if len(rows) != count:
        raise _Doubt
    if not events.count:
        if rows:
            raise _Doubt
        return None
    expected, last = head.sequence, head.hash.encode()
    for line in _complete(_EVENTS, events):
        expected += 1
        sequence, previous, own, scheme, digest, listed, text = line.split(_SEPARATOR)
        if sequence != b"%d" % expected or previous != last or scheme != _SCHEME:
            raise _Doubt
        if sha256(text).hexdigest().encode() != own:
            raise _Doubt
        if sha256(_covered(rows, sequence, listed)).hexdigest().encode() != digest:
            raise _Doubt
        last = own
    if rows or expected != head.sequence + events.count:
        raise _Doubt
    return Sound(Head(expected, last.decode()), events.count, count)


def _key_and_text(line: bytes) -> tuple[bytes, bytes]:
    key, text = line.split(_SEPARATOR)
    return key, text


def _covered(rows: dict[bytes, bytes], sequence: bytes, listed: bytes) -> bytes:
    """Take the rows that an event lists out of those found, and give what its `rows_digest` is of."""
    if listed == b"[]":
        return listed
    if listed[:3] != b'[["' or listed[-3:] != b'"]]':
        raise _Doubt
    keys = listed[3:-3].split(b'"],["')
    return b"[" + b",".join([rows.pop(sequence + b"|" + key) for key in keys]) + b"]"


def _complete(table: Table, texts: _Texts) -> list[bytes]:
    """Give the lines with their floats and without NULL columns.

    Inside a JSON text every quotation mark and line end is escaped: neither is ever a value's own.
    """
    lines = texts.lines.split(b"\n")
    if len(lines) != texts.count:
        raise _Doubt
    if texts.floats:
        lines = [_filled(line, texts.floats) for line in lines]
    return [_without_nulls(table, line) if b'":null' in line else line for line in lines]


def _filled(line: bytes, floats: Floats) -> bytes:
    row, _, line = line.partition(b" ")
    pieces = line.split(_NUMBER)
    filled = pieces[0]
    for number, piece in zip([n for n in floats.pop(row) if n is not None], pieces[1:], strict=True):
        if type(number) is not float:
            raise _Doubt
        filled += b'"%s"%s' % (repr(number).encode(), piece)
    return filled


def _without_nulls(table: Table, line: bytes) -> bytes:
    for name in column_names(table):
        line = line.replace(b',"%s":null' % name.encode(), b"")
        line = line.replace(b'{"%s":null,' % name.encode(), b"{")  # where it comes first
    return line


@cache
def _line(table: Table, sqlite: bool) -> str:
    """Give the SQL of a row's line: what it is found or judged by, and its JSON, with separators between.

    All columns but an event's hash are in the JSON, so that nothing in front of it can be another thing.
    """
    apart = "char(31)" if sqlite else "chr(31)"
    if table is not _EVENTS:
        key = f"""event_sequence || '|{table.name}","' || {_value(table.columns["id"], sqlite)}"""
        if sqlite and _float_columns(table):
            key = f"rowid || ' ' || {key}"
        return f"""{key} || {apart} || '["{table.name}",' || {_json(table, sqlite)} || ']'"""
    own = "CASE WHEN typeof(hash) = 'text' THEN hash END" if sqlite else "hash"
    parts = ("sequence", "previous_hash", own, "scheme", "rows_digest", '"rows"', _json(table, sqlite))
    return f" || {apart} || ".join(parts)


def _float_columns(table: Table) -> list[str]:
    return [name for name in column_names(table) if isinstance(table.columns[name].type, Double)]


def _json(table: Table, sqlite: bool) -> str:
    names = [name for name in column_names(table) if (table, name) != (_EVENTS, "hash")]
    cases = ""
    for absent in _MOSTLY_NULL.get(table.name, ()):
        few = _object(table, [name for name in names if name not in absent], sqlite)
        cases += f" WHEN {' AND '.join(f'{name} IS NULL' for name in absent)} THEN {few}"
    whole = _object(table, names, sqlite)
    return f"CASE{cases} ELSE {whole} END" if cases else whole


def _object(table: Table, names: list[str], sqlite: bool) -> str:
    values = {name: _value(table.columns[name], sqlite) for name in names}
    if sqlite:
        pairs = [f"'{name}', {value}" for name, value in values.items()]
        return f"json_object({', '.join(pairs)})"
    named = ", ".join(f'{value} AS "{name}"' for name, value in values.items())
    return f"(SELECT row_to_json(r)::text FROM (SELECT {named}) AS r)"  # noqa: S608


def _value(column: Column[Any], sqlite: bool) -> str:
    name = f'{column.table.name}."{column.name}"'
    if sqlite:
        # Never SQLite's own digits, which need not be those of one number alone.
        return f"CASE WHEN {name} IS NOT NULL THEN char(1) END" if isinstance(column.type, Double) else name
    if isinstance(column.type, Time):
        return time_sql(name)
    if isinstance(column.type, Uuid):
        return f"encode(uuid_send({name}), 'hex')"
    if isinstance(column.type, Boolean):
        return f"{name}::int"
    if isinstance(column.type, Double):
        return f"CASE WHEN trunc({name}) = {name} THEN {name}::text || '.0' ELSE {name}::text END"
    return name
