"""What was announced to runs and never arrived: what of it is in a scope, and what nobody can place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.figures.scopes import Scope, runs_in
from db.index_walk import NEWEST
from db.inspection.missing_images import Announcement, announcements
from db.inspection.runs import find_run_id
from db.lookup import those
from db.schema import Run, RunEnd, RunImage


@dataclass(frozen=True, slots=True)
class NeverArrived:
    """Pictures that were announced to runs and listed by none, each once, as the latest run has it.

    `unplaced`: of which the record knows neither part nor lot nor station, by the runs that missed them.
    """

    in_scope: tuple[Announcement, ...]
    unplaced: tuple[tuple[Announcement, frozenset[UUID]], ...]

    def unplaced_of(self, runs: Iterable[UUID]) -> tuple[Announcement, ...]:
        """Return the pictures without a place that one of these runs missed."""
        wanted = frozenset(runs)
        return tuple(each for each, missed_by in self.unplaced if missed_by & wanted)


def never_arrived(session: Session, scope: Scope, upto: int | None = None) -> NeverArrived:
    """Return what never arrived of a scope, as of event `upto`. Reads the ends of all runs of its time."""
    scope.check()
    runs = (
        Run.id == find_run_id(session, scope.run)
        if scope.run is not None
        else Run.id.in_(runs_in(scope, upto))
    )
    latest: dict[tuple[str, str], Announcement] = {}
    missed_by: dict[tuple[str, str], set[UUID]] = {}
    for each in announcements(session, runs, RunEnd.event_sequence <= (upto or NEWEST)):
        latest[each.file] = each
        missed_by.setdefault(each.file, set()).add(each.run_id)
    for file in _listed_files(session, latest, upto):
        latest.pop(file, None)
    ordered = sorted(latest.values(), key=lambda each: (each.image.uri, each.source))
    places = [(each, _place(each, scope)) for each in ordered]
    return NeverArrived(
        tuple(each for each, place in places if place == "in"),
        tuple((each, frozenset(missed_by[each.file])) for each, place in places if place == "unknown"),
    )


def _place(announced: Announcement, scope: Scope) -> Literal["in", "out", "unknown"]:
    """Say whether a picture belongs to a scope; of one without part, lot and station nobody knows."""
    if (scope.part, scope.lot, scope.station) == (None, None, None):
        return "in"
    if not announced.image.placed:
        return "unknown"
    image = announced.image
    return "in" if image.belongs(part=scope.part, lot=scope.lot, station=scope.station) else "out"


def _listed_files(
    session: Session, announced: Mapping[tuple[str, str], Announcement], upto: int | None
) -> list[tuple[str, str]]:
    """Return those of the files that a run listed after all, wherever and whenever that was."""
    listed = (
        select(Run.source, RunImage.uri)
        .join(Run, Run.id == RunImage.run_id)
        .where(RunImage.event_sequence <= (upto or NEWEST))
    )
    uris = {uri for _, uri in announced}
    return [(source, uri) for source, uri in those(session, listed, RunImage.uri, uris)]
