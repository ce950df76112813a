"""What was announced to runs and never arrived: what of it is in a scope, and what nobody can place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.figures.scopes import Scope, runs_in
from db.index_walk import NEWEST
from db.inspection.missing_images import Announcement, PictureKey, announced_as, announcements
from db.inspection.runs import find_run_id
from db.lookup import those
from db.schema import Part, Run, RunEnd, RunImage


@dataclass(frozen=True, slots=True)
class NeverArrived:
    """Pictures that were announced to runs and listed by none, each once, as the latest run has it.

    The same picture is the same name in the same source, of the part and lot that its announcement says.
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
    latest: dict[PictureKey, Announcement] = {}
    missed_by: dict[PictureKey, set[UUID]] = {}
    for each in announcements(session, runs, RunEnd.event_sequence <= (upto or NEWEST)):
        for key in each.told_as:  # what earlier runs missed, as far as they knew it
            latest.pop(key, None)
        latest[each.told_as[0]] = each
        missed_by.setdefault(each.told_as[0], set()).add(each.run_id)
    places = {key: _place(each, scope) for key, each in latest.items()}
    wanted = {key for key, place in places.items() if place != "out"}
    wanted.difference_update(_listed_pictures(session, {uri for _, uri, _, _ in wanted}, upto))
    ordered = sorted(wanted, key=lambda key: (key[1], key[0], key[3] or "", key[2] or ""))
    return NeverArrived(
        tuple(latest[key] for key in ordered if places[key] == "in"),
        tuple((latest[key], frozenset(missed_by[key])) for key in ordered if places[key] == "unknown"),
    )


def _place(announced: Announcement, scope: Scope) -> Literal["in", "out", "unknown"]:
    """Say whether a picture belongs to a scope; of one without part, lot and station nobody knows."""
    if (scope.part, scope.lot, scope.station) == (None, None, None):
        return "in"
    if not announced.image.placed:
        return "unknown"
    image = announced.image
    return "in" if image.belongs(part=scope.part, lot=scope.lot, station=scope.station) else "out"


def _listed_pictures(session: Session, uris: Collection[str], upto: int | None) -> Iterator[PictureKey]:
    """Yield what pictures of these names may have been announced as that a run listed, whenever that was."""
    listed = (
        select(Run.source, RunImage.uri, Part.serial, Part.lot)
        .join(Run, Run.id == RunImage.run_id)
        .outerjoin(Part, Part.id == RunImage.part_id)
        .where(RunImage.event_sequence <= (upto or NEWEST))
    )
    for source, uri, part, lot in those(session, listed, RunImage.uri, uris):
        yield from announced_as(source, uri, part, lot)
