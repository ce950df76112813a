"""Taking a secret out of the settings that a run recorded, on record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.errors import InsufficientPrivilege
from sqlalchemy import select, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from configs.credentials import MASK, masked_url
from db import guards
from db.chain.events import Actor, Recorder, listed_rows, rows_digest
from db.chain.redactions import REDACTED, may_be_redacted, recorded_redactions
from db.chain.row_text import Record
from db.chain.stored_rows import raw_records
from db.columns import digest_of, storable
from db.engine import Database
from db.errors import RecordError
from db.schema import Base, Run

_LONGEST_REASON = 2000
_RUNS, _EVENTS = Base.metadata.tables["run"], Base.metadata.tables["audit_event"]


@dataclass(frozen=True, slots=True)
class RedactedRun:
    """A run whose settings hold a secret no longer. `paths`: where; `event`: says so, None in a dry run."""

    number: int
    paths: tuple[str, ...]
    event: int | None


def redact_settings(
    db: Database,
    *,
    actor: Actor,
    reason: str,
    run: UUID | None = None,
    path: str | None = None,
    dry_run: bool = False,
) -> list[RedactedRun]:
    """Replace secrets in the recorded settings of runs, and record each run's redaction in an event.

    The guard of the table is lifted and put back in the same transaction. Nothing but `run.settings` is
    changed, and in it nothing of what its digest is made of.

    Args:
        db: the record, opened as the owner of its tables.
        actor: who does it.
        reason: why, for the record.
        run: id of the run; all runs when absent.
        path: dotted key of a text that is replaced whatever it is, such as report.title; takes a run. When
            absent, all that `configs.credentials` takes for a secret is.
        dry_run: only say what would be replaced.

    Raises:
        RecordError: no reason is given, there is no such text, a run's row is not what was recorded (it
            would be vouched for as it is), or the account may not lift the guard.
    """
    reason = storable(reason).strip()
    if not 0 < len(reason) <= _LONGEST_REASON:
        raise RecordError(f"a reason of 1 to {_LONGEST_REASON} characters says why the settings are redacted")
    if path is not None and run is None:
        raise RecordError("a path is that of one run: name it too")
    if path is not None and not may_be_redacted(path):
        raise RecordError(f"{path}: is what the settings digest is made of, and stays")
    if dry_run:
        with db.session() as session:
            return [
                RedactedRun(row.number, tuple(changes), None) for row, changes in _found(session, run, path)
            ]
    with db.write() as recorder:
        found = list(_found(recorder.session, run, path))
        with _guard_lifted(db, recorder.session):
            done = [_redact(recorder, row, changes, actor, reason) for row, changes in found]
    if done:
        _overwrite_old_pages(db)
    return done


@contextmanager
def _guard_lifted(db: Database, session: Session) -> Iterator[None]:
    try:
        with guards.lifted(session.connection(), "run"):
            yield
    except ProgrammingError as error:
        if not isinstance(error.orig, InsufficientPrivilege):
            raise
        raise RecordError(
            f"database {db}: this account may not lift the guard: redact as the owner of the tables"
        ) from error


def _found(session: Session, run: UUID | None, path: str | None) -> Iterator[tuple[Run, dict[str, str]]]:
    """Yield runs with a secret in their settings, and what each text that holds one becomes, by its path."""
    statement = select(Run).order_by(Run.number)
    if run is not None:
        statement = statement.where(Run.id == run)
    for row in session.scalars(statement.execution_options(yield_per=500)):
        texts = {at: text for at, text in _texts(row.settings) if may_be_redacted(at)}
        if path is not None:
            if path not in texts:
                raise RecordError(
                    f"{path}: run {row.number} has no text there: give a key such as database.url"
                )
            yield row, {path: MASK}
        elif changes := {at: masked_url(text) for at, text in texts.items() if masked_url(text) != text}:
            yield row, changes


def _texts(values: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the text of each text in settings; positions in a list are keys too."""
    if isinstance(values, str):
        yield at, values
    elif isinstance(values, Mapping | list):
        for key, value in values.items() if isinstance(values, Mapping) else enumerate(values):
            yield from _texts(value, f"{at}.{key}" if at else str(key))


def _with_changes(values: Any, changes: Mapping[str, str], at: str = "") -> Any:
    if isinstance(values, Mapping):
        return {k: _with_changes(v, changes, f"{at}.{k}" if at else str(k)) for k, v in values.items()}
    if isinstance(values, list):
        return [_with_changes(v, changes, f"{at}.{k}") for k, v in enumerate(values)]
    return changes.get(at, values)


def _redact(
    recorder: Recorder, row: Run, changes: Mapping[str, str], actor: Actor, reason: str
) -> RedactedRun:
    session = recorder.session
    number, key, spoken_for = row.number, row.id, row.event_sequence
    before = rows_digest([("run", _record(session, key))])
    earlier = recorded_redactions(session).get(spoken_for)
    sound = before == (earlier.rows_digest if earlier else _recorded_digest(session, key, spoken_for))
    if not sound or row.settings_digest != digest_of(row.settings.get("decision", {})):
        raise RecordError(
            f"run {number}: its row is not what was recorded: run `kensa audit verify`; nothing is redacted"
        )
    settings, digest = _with_changes(row.settings, changes), row.settings_digest
    session.expunge(row)  # it would be written by itself
    session.execute(update(_RUNS).where(_RUNS.c.id == key).values(settings=settings))
    after = rows_digest([("run", _record(session, key))])
    head = recorder.add(
        [],
        action=REDACTED,
        actor=actor,
        entity="run",
        entity_id=key,
        run_id=key,
        settings_digest=digest,
        payload={
            "table": "run",
            "row": key.hex,
            "event": spoken_for,
            "paths": sorted({*changes, *(earlier.paths if earlier else ())}),
            "old_rows_digest": before,
            "rows_digest": after,
        },
        reason=reason,
    )
    return RedactedRun(number, tuple(changes), head.sequence)


def _record(session: Session, key: UUID) -> Record:
    (record,) = raw_records(session, _RUNS, _RUNS.c.id == key)
    return record


def _recorded_digest(session: Session, key: UUID, sequence: int) -> str | None:
    """Return the digest that a run's row was recorded with; None where its event speaks for other rows."""
    events = raw_records(session, _EVENTS, _EVENTS.c.sequence == sequence)
    if len(events) != 1 or listed_rows(events[0]) != [("run", key.hex)]:
        return None
    return str(events[0]["rows_digest"])


def _overwrite_old_pages(db: Database) -> None:
    """Take the old values off the disk as well, as far as the database itself holds them."""
    if db.sqlite:
        raw = db.engine.raw_connection()
        try:
            # What was replaced is overwritten (`guards.lifted`); the write-ahead log still has the old pages.
            raw.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]
        finally:
            raw.close()
        return
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM (FULL) run")
