"""Parts rendered by several processes; one that dies is replaced, and its work done again."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Self

from reports.parts import Job, Rendered, render_part

_log = logging.getLogger("kensa")

_TRIES = 3  # pools that may break before the rest is rendered in this process


class Workshop:
    """Renders parts in `workers` processes, or in this one where that is 1."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def render(self, jobs: Sequence[Job]) -> list[Rendered]:
        """Render parts, in the order given.

        Raises:
            ReportError: see `parts.render_part`.
        """
        done: dict[int, Rendered] = {}
        tries = _TRIES if self._workers > 1 and len(jobs) > 1 else 0
        while tries and len(done) < len(jobs):
            left = [at for at in range(len(jobs)) if at not in done]
            try:
                pool = self._open()
                futures = {at: pool.submit(render_part, jobs[at]) for at in left}
                for at, future in futures.items():
                    done[at] = future.result()
            except BrokenProcessPool:
                tries -= 1
                _log.warning("a process that rendered a report died; its pages are rendered again")
                self._close()
        return [done[at] if at in done else render_part(job) for at, job in enumerate(jobs)]

    def _open(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # spawn: neither Pango nor a caller's database connections survive a fork.
            self._pool = ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"))
        return self._pool

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def cores() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
