"""Which listed pictures a report is about: those of a run, or of a lot, a time, a station across runs.

Across runs a picture that was listed again counts once, with its latest outcome; docs/reports.md says what
that means. Everything can be asked as of an event of the audit log, so that what was printed then can be
derived again later.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, Select, case, func, literal, or_, select
from sqlalchemy.orm import Session

from db.errors import RecordError
from db.index_walk import NEWEST
from db.inspection.runs import find_run_id
from db.issued.reports import ReportSubject
from db.queries.filters import time_conditions
from db.schema import Part, Run, RunEnd, RunImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """One run, or what all of the other fields that are given hold of.

    `run`: id, number or R000012; `part`: a serial in the lot (empty: none) that is given with it. `since`
    inclusive, `until` exclusive, both aware: when the picture was inspected (its line recorded), not when it
    was taken.
    """

    run: UUID | int | str | None = None
    part: str | None = None
    lot: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    station: str | None = None

    def check(self) -> None:
        """Raise RecordError for a scope that names no pictures, or names them in two ways."""
        across = (self.part, self.lot, self.since, self.until, self.station)
        if self.run is not None and any(each is not None for each in across):
            raise RecordError("a report is about one run, or about pictures across runs: give one of the two")
        if self.run is None and self.lot is None and (self.since is None or self.until is None):
            raise RecordError("say which pictures: a run, a lot, or a time from and a time to")
        if self.part is not None and self.lot is None:
            raise RecordError(f"say in which lot part {self.part!r} is: an empty one where it is in none")


def scope_of(subject: ReportSubject) -> Scope:
    """Return the scope of a report about a run, a period or a part; RecordError for any other subject."""
    about = subject.about
    if subject.kind == "run":
        return Scope(run=str(about["run"]))
    if subject.kind == "part":
        return Scope(part=str(about["part"]), lot=str(about["lot"]))
    if subject.kind != "period":
        raise RecordError(f"a report about a {subject.kind} has no scope of pictures")
    since, until = (datetime.fromisoformat(about[name]) if name in about else None for name in ("from", "to"))
    return Scope(lot=about.get("lot"), since=since, until=until, station=about.get("station"))


def runs_in(scope: Scope, upto: int | None) -> Select[Any]:
    """Select the ids of runs that were under way at some time of a scope across runs."""
    ends = select(RunEnd.finished_at).where(RunEnd.run_id == Run.id).correlate(Run).scalar_subquery()
    conditions: list[ColumnElement[bool]] = [Run.event_sequence <= (upto or NEWEST)]
    if scope.until is not None:
        conditions.append(Run.started_at < scope.until)
    if scope.since is not None:
        conditions.append(or_(ends.is_(None), ends >= scope.since))
    return select(Run.id).where(*conditions)


def line_conditions(session: Session, scope: Scope, upto: int | None = None) -> list[ColumnElement[bool]]:
    """Return the conditions that a line of `RunImage` is in a scope, as of event `upto`.

    RecordError for a run that there is none of.
    """
    scope.check()
    conditions: list[ColumnElement[bool]] = [RunImage.event_sequence <= (upto or NEWEST)]
    if scope.run is not None:
        return [*conditions, RunImage.run_id == find_run_id(session, scope.run)]
    if scope.lot is not None:
        parts = select(Part.id).where(Part.lot == scope.lot)
        if scope.part is not None:
            parts = parts.where(Part.serial == scope.part)
        conditions.append(RunImage.part_id.in_(parts))
    if scope.station is not None:
        conditions.append(RunImage.station == scope.station)
    if scope.since is not None or scope.until is not None:
        conditions.append(RunImage.run_id.in_(runs_in(scope, upto)))
    return conditions + time_conditions(RunImage.created_at, scope.since, scope.until)


def lines_of(session: Session, scope: Scope, upto: int | None = None) -> CTE:
    """Select the listed pictures in a scope, as of event `upto`.

    Columns: those of `RunImage` that tell what it is and became, and `counted`: whether this is the line by
    which its picture counts.
    """
    conditions = line_conditions(session, scope, upto)
    columns = (
        RunImage.id,
        RunImage.run_id,
        RunImage.uri,
        RunImage.version,
        RunImage.part_id,
        RunImage.station,
        RunImage.captured_at,
        RunImage.image_id,
        RunImage.prediction_id,
        RunImage.verdict,
        RunImage.reason,
        RunImage.carried_over,
        RunImage.created_at,
        RunImage.event_sequence,
    )
    if scope.run is not None:  # a run accounts for every line
        return select(*columns, literal(1).label("counted")).where(*conditions).cte("lines")
    unread = RunImage.image_id.is_(None)
    latest = func.row_number().over(
        partition_by=(
            RunImage.image_id,
            RunImage.part_id,
            case((unread, RunImage.uri)),
            case((unread, RunImage.version)),
        ),
        order_by=(RunImage.event_sequence.desc(), RunImage.id.desc()),
    )
    # A line that could not read a file does not count where another line read the same file.
    read = func.count(RunImage.image_id).over(partition_by=(RunImage.uri, RunImage.version))
    ranked = select(*columns, latest.label("latest"), read.label("read")).where(*conditions).subquery()
    counts = (ranked.c.latest == 1) & (ranked.c.image_id.is_not(None) | (ranked.c.read == 0))
    chosen = [ranked.c[column.key] for column in columns]
    return select(*chosen, case((counts, 1), else_=0).label("counted")).cte("lines")
