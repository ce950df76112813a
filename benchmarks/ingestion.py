"""Measure recording with and without the audit trail, side by side: the same rows, batches, transactions.

Without it ("bare"), there are the same tables and indexes, but no triggers, events or look-ups, and no
reference to the event. Prepared dicts go through SQLAlchemy Core's executemany.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sqlalchemy import ForeignKeyConstraint, MetaData, Table, Text, insert, select, type_coerce

from benchmarks import line
from db.chain.events import head
from db.columns import CanonicalText, Json
from db.engine import Database
from db.inspection.batches import record_batch
from db.inspection.runs import RunHandle
from db.schema import DOMAIN_TABLES, Base

Rows = dict[str, list[dict[str, Any]]]


@dataclass
class Ingestion:
    """Seconds for each group of batches, recorded and bare."""

    images: int = 0
    audited: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Images a second with the audit trail, as a share of those without it: the median over groups."""
        return statistics.median(b / a for a, b in zip(self.audited, self.bare, strict=True))


class Bare:
    """A database with the domain tables alone, without history."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.metadata = MetaData(naming_convention=Base.metadata.naming_convention)
        for table in DOMAIN_TABLES:
            copy = table.to_metadata(self.metadata)
            for key in [c for c in copy.constraints if isinstance(c, ForeignKeyConstraint)]:
                if key.column_keys == ["event_sequence"]:
                    copy.constraints.discard(key)
                    for element in key.elements:
                        copy.c.event_sequence.foreign_keys.discard(element)
                        copy.foreign_keys.discard(element)
        self.tables: list[Table] = [self.metadata.tables[table.name] for table in DOMAIN_TABLES]
        db.migrate()  # makes the folder and the file
        with db.exclusive(migrating=True) as connection:
            for name in ("audit_event", *(table.name for table in reversed(DOMAIN_TABLES))):
                connection.exec_driver_sql(f"DROP TABLE {name}" + ("" if db.sqlite else " CASCADE"))
            self.metadata.create_all(connection)

    def put(self, rows: Rows) -> None:
        """Insert the rows of a batch in one transaction."""
        with self.db.exclusive() as connection:
            for table in self.tables:
                if values := rows.get(table.name):
                    connection.execute(insert(table), values)


def rows_between(db: Database, above: int, upto: int) -> Rows:
    """Return the domain rows of these events by table, as dicts that can be inserted as they are."""
    found: Rows = {}
    with db.session() as session:
        for table in DOMAIN_TABLES:
            columns = [
                type_coerce(c, Text).label(c.name) if isinstance(c.type, Json) else c for c in table.columns
            ]
            json = [c.name for c in table.columns if isinstance(c.type, Json)]
            statement = select(*columns).where(table.c.event_sequence > above, table.c.event_sequence <= upto)
            values = [
                dict(row)
                for row in session.execute(statement.order_by(table.c.event_sequence, table.c.id)).mappings()
            ]
            for row in values:
                for name in json:
                    if row[name] is not None:
                        row[name] = CanonicalText(row[name])
            if values:
                found[table.name] = values
    return found


def measure(db: Database, bare: Bare, run: RunHandle, first: int, last: int, group: int = 8) -> Ingestion:
    """Record pictures first to last - 1 both ways, `group` batches of one and then of the other."""
    found = Ingestion(images=last - first)
    bare.put(rows_between(db, 0, _last_event(db)))  # the model and the run, to which the pictures' rows refer
    span = group * line.BATCH
    for begin in range(first, last, span):
        outcomes = list(line.batches(begin, min(begin + span, last)))
        edges = [_last_event(db)]
        started = time.perf_counter()
        for batch in outcomes:
            record_batch(db, run, batch, actor=line.INSPECTOR)
        found.audited.append(time.perf_counter() - started)
        for batch in outcomes:
            edges.append(edges[-1] + len(batch))
        assert edges[-1] == _last_event(db)
        prepared = [rows_between(db, *edge) for edge in pairwise(edges)]
        started = time.perf_counter()
        for rows in prepared:
            bare.put(rows)
        found.bare.append(time.perf_counter() - started)
    return found


def _last_event(db: Database) -> int:
    with db.session() as session:
        return head(session).sequence
