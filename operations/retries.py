"""One way to wait for a database or a file system that is away for a moment: growing waits, two minutes."""

import logging
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from threading import Event
from typing import ParamSpec, TypeVar

from db.errors import AwayError

P = ParamSpec("P")
T = TypeVar("T")
_log = logging.getLogger("kensa")

# Seconds between attempts. A database server that is restarted, or fails over, is back within one minute.
WAITS = [1, 2, 4, 8, 15, 30, 30, 30]

# Set by who stops the threads that take steps beside the main one, which alone gets Ctrl-C.
given_up: ContextVar[Event] = ContextVar("given_up")


def retried(step: Callable[P, T]) -> Callable[P, T]:
    """Return a step that is tried again while what it needs is away; the last failure is raised.

    Only `AwayError` is waited for: what a driver or the file system says will not be otherwise next time
    (no space, no permission, a contradiction in the record) is raised at once. A step may have done its work
    before the connection was lost, so it must give the same result when it is done twice.
    """

    @wraps(step)
    def attempts(*args: P.args, **kwargs: P.kwargs) -> T:
        for wait in WAITS:
            try:
                return step(*args, **kwargs)
            except AwayError as error:
                _log.warning("%s; trying again in %d s", error, wait)
                if pause(wait):
                    raise
        return step(*args, **kwargs)

    return attempts


def pause(seconds: float) -> bool:
    """Wait for some seconds; return whether `given_up` was set meanwhile, and end then."""
    return given_up.get(Event()).wait(seconds)
