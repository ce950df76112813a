"""Sound stretches of a long audit log, looked at by several processes at once.

What is recorded does not change, so that each process may read a snapshot of its own: a stretch is sound, or
it takes a closer look, which `verification` then takes from there on, in its own process and snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.chain.events import Head
from db.engine import Database, open_database
from db.schema import AuditEvent
from db.verification.sound_windows import WINDOW, FastWalk, Sound

STRETCH = 25 * WINDOW  # events that a process looks at, one window after the other


def sound_stretches(db: Database, session: Session, start: Head, last: int, jobs: int) -> Iterator[Sound]:
    """Give the sound stretches after `start`, in order, up to the first that takes a closer look.

    `last`: the log's last event; what is left over after whole stretches is not looked at. Nothing is given
    where there is too little to be worth starting processes. Each stretch begins with the head with which
    the one before was found to end.
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
            (head, pool.submit(_look, url, head, head.sequence + STRETCH)) for head in heads
        ]:
            try:
                found = future.result()
            except Exception:  # noqa: BLE001 - killed, no connection left: what it would have done is done here
                return
            if found is None or begin != at:
                return
            at = found.head
            yield found
    finally:
        pool.shutdown(cancel_futures=True)


def _look(url: str, head: Head, upto: int) -> Sound | None:
    """Look at the events after `head` up to another; None where one of them takes a closer look."""
    at, events, rows = head, 0, 0
    with open_database(url) as db, db.session() as session, FastWalk(session, upto) as fast:
        while at.sequence < upto:
            sound = fast.window(at)
            if sound is None:
                return None
            at, events, rows = sound.head, events + sound.events, rows + sound.rows
    return Sound(at, events, rows)
