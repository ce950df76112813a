"""Names that the record knows, so that a slip of the keyboard is not taken for a lot without findings."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Any, Literal

from sqlalchemy import Select, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from db.columns import storable
from db.errors import RecordError
from db.inspection.missing_images import announcements
from db.schema import AuditEvent, Finding, ModelVersion, Part, Person, RunImage

_NEIGHBOURS = 20
_NAMED = 3


def require_known(
    session: Session,
    *,
    part: str | None = None,
    lot: str | None = None,
    station: str | None = None,
    class_name: str | None = None,
    people: Iterable[str | None] = (),
) -> None:
    """Raise RecordError where one of these is in no record and was never announced; it names the nearest.

    `class_name`: known is each class of each model. `people`: logins, and whoever caused an event.
    """
    columns: tuple[tuple[Literal["lot", "part", "station"], str | None, InstrumentedAttribute[Any]], ...] = (
        ("lot", lot, Part.lot),
        ("part", part, Part.serial),
        ("station", station, RunImage.station),
    )
    for what, name, column in columns:
        if name is None or _is_there(session, column, name) or any(announcements(session, **{what: name})):
            continue
        # Parts are too many to be compared one by one.
        known = neighbours(session, column, name) if what == "part" else _values(session, column)
        announced = {getattr(each.image, what) for each in announcements(session)}
        raise RecordError(_unknown(what, name, {*known, *announced}))
    if class_name is not None:
        classes = {name for each in session.scalars(select(ModelVersion.classes)) for name in each}
        if class_name not in classes:
            raise RecordError(_unknown("class", class_name, classes))
    for person in people:
        if person is None or _is_there(session, AuditEvent.actor_id, person):
            continue
        if not _is_there(session, Person.login, person):
            logins = {*_values(session, Person.login), *_values(session, AuditEvent.actor_id)}
            raise RecordError(_unknown("person or actor", person, logins))


def unknown_finding(session: Session, reference: str) -> RecordError:
    """Return the error that there is no such finding, with the nearest that there are."""
    near = neighbours(session, Finding.reference, reference.strip().upper())
    hint = (
        nearest_text(reference.strip().upper(), near, every=False) or "give a reference such as R000012-0003"
    )
    return RecordError(f"there is no finding {reference!r}: {hint}")


def nearest_text(name: str, known: Collection[Any], *, every: bool = True) -> str:
    """Return in words which known names are the closest, else a few of them; empty where there are none.

    `every`: the names are all that there are. Of some of them the closest alone are told.
    """
    names = sorted({str(each) for each in known if each})
    if close := get_close_matches(name, names, n=_NAMED, cutoff=0.5):
        return f"the closest {'is' if len(close) == 1 else 'are'} {', '.join(close)}"
    if not every:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"there {'is' if len(names) == 1 else 'are'} {', '.join(names[:_NAMED])}{more}" if names else ""


def neighbours(session: Session, column: InstrumentedAttribute[str], name: str) -> set[str]:
    """Return the names beside this one in the order of a column's index: those that begin alike."""
    stored = storable(name)
    below = select(column).where(column < stored).order_by(column.desc()).limit(_NEIGHBOURS)
    above = select(column).where(column > stored).order_by(column).limit(_NEIGHBOURS)
    return {found for statement in (below, above) for found in session.scalars(statement) if found}


def _unknown(what: str, name: str, known: Collection[Any]) -> str:
    hint = nearest_text(name, known, every=what != "part")
    return f"there is no {what} {name!r} in the record" + (f"; {hint}" if hint else "")


def _is_there(session: Session, column: InstrumentedAttribute[Any], name: str) -> bool:
    found: Select[Any] = select(column).where(column == storable(name)).limit(1)
    return session.scalar(found) is not None


def _values(session: Session, column: InstrumentedAttribute[Any]) -> set[Any]:
    return set(session.scalars(select(column).distinct()))
