"""Pictures that were announced to a run and not in its source: what a run's end holds of them.

Before kensa 0.3 a run's end held their uris alone: nobody knows what part, lot or station those were of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, select, type_coerce
from sqlalchemy.orm import Session

from db.columns import storable
from db.schema import Run, RunEnd


@dataclass(frozen=True, slots=True)
class MissingImage:
    """A picture that was announced and not found; part, lot and station as far as its announcement says."""

    uri: str
    part: str | None = None
    lot: str | None = None
    station: str | None = None

    def __post_init__(self) -> None:
        for name in ("uri", "part", "lot", "station"):
            if (text := getattr(self, name)) is not None:
                object.__setattr__(self, name, storable(text))

    @classmethod
    def of(cls, entry: str | Mapping[str, Any]) -> MissingImage:
        """Return an entry of `RunEnd.missing`, of whichever version, as what it says."""
        return cls(entry) if isinstance(entry, str) else cls(**entry)

    def entry(self) -> dict[str, str | None]:
        """Return the entry of `RunEnd.missing`."""
        return asdict(self)

    @property
    def placed(self) -> bool:
        """Whether anything but its uri is known."""
        return (self.part, self.lot, self.station) != (None, None, None)

    def belongs(self, *, part: str | None, lot: str | None, station: str | None) -> bool:
        """Return whether all that is given holds of it; an empty part or lot: it has none.

        As with listed pictures, one without part and lot is in no lot, not even in the empty one.
        """
        in_lot = self.part is not None or self.lot is not None
        return (
            (part is None or (in_lot and (self.part or "") == part))
            and (lot is None or (in_lot and (self.lot or "") == lot))
            and (station is None or self.station == station)
        )


@dataclass(frozen=True, slots=True)
class Announcement:
    """A picture that a run missed; `event_sequence`: of the event that recorded the run's end."""

    image: MissingImage
    run_id: UUID
    run_number: int
    source: str
    event_sequence: int

    @property
    def told_as(self) -> tuple[PictureKey, ...]:
        """What it is known by, whichever run missed it, see `announced_as`."""
        return announced_as(self.source, self.image.uri, self.image.part, self.image.lot)


def missed_before(session: Session, source: str, number: int) -> frozenset[MissingImage]:
    """Return the pictures that the last ended run over a source missed, of the runs before that number."""
    last = session.scalar(
        select(RunEnd.missing)
        .join(Run, Run.id == RunEnd.run_id)
        .where(Run.source == source, Run.number < number)
        .order_by(Run.number.desc())
        .limit(1)
    )
    return frozenset(MissingImage.of(entry) for entry in last or ())


# Source, uri, part and lot; of a part or lot that is not given, None.
PictureKey = tuple[str, str, str | None, str | None]


def announced_as(source: str, uri: str, part: str | None, lot: str | None) -> tuple[PictureKey, ...]:
    """Return the keys under which a picture may have been announced: in full, without part, lot, or both.

    Cameras use a name again in the next lot: the same name in another lot, or of another part, is another
    picture. One of which less is said may be this one.
    """
    part, lot = part or None, lot or None
    return tuple(dict.fromkeys((source, uri, *place) for place in product((part, None), (lot, None))))


def announcements(
    session: Session,
    *conditions: ColumnElement[bool],
    part: str | None = None,
    lot: str | None = None,
    station: str | None = None,
) -> Iterator[Announcement]:
    """Yield the pictures that ended runs missed, in the order of the runs' ends.

    `conditions`: on `Run` and `RunEnd`. `part`, `lot`, `station`: those alone of which all that is given is
    known to hold.
    """
    stored = type_coerce(RunEnd.missing, Text)
    given = {"part": part, "lot": lot, "station": station}
    # Canonical JSON has one spelling of each: most ends are left out without being read.
    named = [
        stored.contains(f'"{name}":{json.dumps(storable(text), ensure_ascii=False)}', autoescape=True)
        for name, text in given.items()
        if text
    ]
    ends = (
        select(RunEnd.missing, RunEnd.event_sequence, Run.id, Run.number, Run.source)
        .join(Run, Run.id == RunEnd.run_id)
        .where(stored != "[]", *named, *conditions)
        .order_by(RunEnd.event_sequence)
    )
    for missing, sequence, run_id, number, source in session.execute(ends.execution_options(yield_per=100)):
        for entry in missing:
            image = MissingImage.of(entry)
            if image.belongs(part=part, lot=lot, station=station):
                yield Announcement(image, run_id, number, source, sequence)
