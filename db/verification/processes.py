"""Sound stretches of a long audit log, looked at by several processes at once.

What is recorded does not change, so that each process may read a snapshot of its own. From the first stretch
on that is not sound, `walk` looks at everything itself, in its own snapshot, and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.chain.events import Head
from db.engine import Database, open_database
from db.schema import AuditEvent
from db.verification.log_walk import LogWalk

STRETCH = 100_000  # events that a process looks at


@dataclass(frozen=True, slots=True)
class Sound:
    """A stretch in which everything is as it was recorded: its last event, its events and their rows."""

    head: Head
    events: int
    rows: int


def sound_stretches(db: Database, session: Session, start: Head, last: int, jobs: int) -> Iterator[Sound]:
    """Return the sound stretches after `start`, in order, up to the first in which something is wrong.

    `last`: the log's last event; what is left over after whole stretches is not looked at. A short log, for
    which starting processes takes longer than walking it, has no stretches. Each stretch begins with the head
    with which the one before was found to end.
    """
    edges = list(range(start.sequence, last + 1, STRETCH))
    if jobs < 2 or len(edges) < 3:
        return
    hashes = dict(
        session.execute(
            select(AuditEvent.sequence, AuditEvent.hash).where(AuditEvent.sequence.in_(edges[1:-1]))
        )
        .tuples()
        .all()
    )
    heads = [start, *(Head(edge, hashes[edge]) for edge in edges[1:-1] if edge in hashes)]
    url, at = db.url.render_as_string(hide_password=False), start
    # spawn: neither a database driver nor its connections survive a fork.
    pool = ProcessPoolExecutor(min(jobs, len(heads)), mp_context=get_context("spawn"))
    try:
        for begin, future in [
            (head, pool.submit(_sound_stretch, url, head, head.sequence + STRETCH)) for head in heads
        ]:
            try:
                found = future.result()
            except Exception:  # noqa: BLE001 - killed, or no connection left: `walk` does its part
                return
            if found is None or begin != at:
                return
            at = found.head
            yield found
    finally:
        pool.shutdown(cancel_futures=True)


def _sound_stretch(url: str, head: Head, upto: int) -> Sound | None:
    """Walk the events after `head` up to event `upto`; None where something is wrong with them."""
    with open_database(url) as db, db.session() as session:
        walk = LogWalk(session, head)
        while not walk.problems and walk.window(upto):
            pass
        sound = not walk.problems and walk.head.sequence == upto
        return Sound(walk.head, walk.events, walk.rows) if sound else None
