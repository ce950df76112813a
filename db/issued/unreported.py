"""Runs that ended and were interrupted before their report or their checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from db.inspection.missing_images import MissingImage, missed_before
from db.inspection.runs import RunKind, run_reference
from db.schema import ModelVersion, Report, Run, RunEnd
from db.transparency.checkpoints import latest_checkpoint


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that has ended. `inspection`: the name that its settings give to the inspection."""

    id: UUID
    number: int
    inspection: str
    source: str
    settings_digest: str
    model_digest: str

    @property
    def reference(self) -> str:
        """The run's printed number, such as R000012."""
        return run_reference(self.number)

    @property
    def kind(self) -> RunKind:
        """What it has in common with the run that would have resumed it."""
        return RunKind(self.source, self.settings_digest, self.model_digest)


def unreported_runs(session: Session) -> list[EndedRun]:
    """Return the ended runs without the report that their settings wanted, oldest first.

    A run that had nothing to do is not among them, unless its settings want a report of it all the same.
    """
    without = select(Report.id).where(Report.run_id == Run.id).exists()
    return [run for run, settings in _ended_runs(session, ~without) if _wanted(settings, "report", "enabled")]


def unsigned_runs(session: Session) -> list[EndedRun]:
    """Return the ended runs whose settings wanted a checkpoint and whose end none covers, oldest first.

    A run that had nothing to do is not among them, unless its settings want a report of it all the same.
    """
    last = latest_checkpoint(session)
    later = RunEnd.event_sequence > (0 if last is None else last.tree_size)
    return [run for run, settings in _ended_runs(session, later) if _wanted(settings, "audit", "checkpoints")]


def _ended_runs(
    session: Session, condition: ColumnElement[bool]
) -> Iterator[tuple[EndedRun, Mapping[str, Any]]]:
    statement = (
        select(Run.id, Run.number, Run.source, Run.settings, Run.settings_digest, ModelVersion.digest)
        .add_columns(RunEnd.counts, RunEnd.missing)
        .join(RunEnd, RunEnd.run_id == Run.id)
        .join(ModelVersion, ModelVersion.id == Run.model_version_id)
        .where(condition)
        .order_by(Run.number)
    )
    for identifier, number, source, settings, digest, model, counts, missing in session.execute(statement):
        missed = {MissingImage.of(entry) for entry in missing}
        busy = counts["listed"] or (missed and not missed <= missed_before(session, source, number))
        if busy or _wanted(settings, "report", "empty_runs"):
            name = str(settings.get("name", ""))
            yield EndedRun(identifier, number, name, source, digest, model), settings


def _wanted(settings: Mapping[str, Any], section: str, key: str) -> bool:
    given = settings.get(section)
    return isinstance(given, Mapping) and bool(given.get(key))
