"""Served runs as forks of a process that has imported what runs need; Prefect alone starts an interpreter.

To import torch, timm, WeasyPrint and Prefect takes longer than a small run itself.
"""

import atexit
import gc
import multiprocessing
import signal
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from types import SimpleNamespace

from prefect import flow_engine


class ForkedRun(ForkServerProcess):
    """The process of one run; unlike others of Python's fork server, it ends as an interpreter does."""

    def run(self) -> None:
        """Carry the run out; then let Prefect send what it has not sent yet, and temporary folders go."""
        gc.freeze()  # what was imported stays: no collection has to walk through it
        try:
            super().run()
        finally:
            atexit._run_exitfuncs()
            gc.collect()


def fork_runs() -> None:
    """Start the process from which runs are forked, and let Prefect take it for each that falls due."""
    multiprocessing.set_forkserver_preload(["__main__", "flows.preloaded"])
    # Ctrl-C in a terminal reaches it and the runs too: this process tells them what it means.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)
    flow_engine.multiprocessing = SimpleNamespace(  # type: ignore[assignment, attr-defined]
        get_context=lambda _: SimpleNamespace(Process=ForkedRun)
    )
