"""Served runs as forks of a process that has imported what runs need; Prefect alone starts an interpreter.

To import torch, timm, WeasyPrint and Prefect takes longer than a small run itself.
"""

import atexit
import gc
import importlib.metadata
import logging
import multiprocessing
import signal
import sys
from multiprocessing import forkserver
from multiprocessing.context import BaseContext, ForkServerContext, ForkServerProcess
from typing import Any

from prefect import flow_engine

_log = logging.getLogger("kensa")


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


class _ForkContext(ForkServerContext):
    Process = ForkedRun


class _Multiprocessing:
    """Python's `multiprocessing`, but for the processes that Prefect would spawn, which are forked.

    Where another version of kensa has been installed meanwhile, they are spawned: a fork computes as the old
    version does, and the record would name the new one.
    """

    def __init__(self) -> None:
        self._version = _installed_version()

    def __getattr__(self, name: str) -> Any:
        return getattr(multiprocessing, name)

    def get_context(self, method: str | None = None) -> BaseContext:
        if method != "spawn":
            return multiprocessing.get_context(method)
        if _installed_version() != self._version:
            _log.warning("another version of kensa is installed now: start `kensa serve` again")
            return multiprocessing.get_context(method)
        return _ForkContext()


def fork_runs() -> None:
    """Start the process from which runs are forked, and let Prefect take it for each that falls due.

    Where that cannot be, a warning says so, and Prefect starts an interpreter for each run. Returns when all
    is imported.
    """
    begin = getattr(flow_engine, "run_flow_in_subprocess", None)
    names = getattr(begin, "__globals__", {})
    if names.get("multiprocessing") is not multiprocessing:
        _log.warning("each run starts an interpreter: this version of Prefect begins runs in another way")
    elif not _can_fork():
        _log.warning("each run starts an interpreter: `python -m flows.preloaded` shows what failed")
    else:
        names["multiprocessing"] = _Multiprocessing()


def _can_fork() -> bool:
    """Start the fork server; return whether a fork has all imports: of one that fails it says nothing."""
    multiprocessing.set_forkserver_preload(["__main__", "flows.preloaded"])
    trial = ForkedRun(target=_end_unless_preloaded, daemon=True)
    # Ctrl-C in a terminal reaches it and the runs too: this process tells them what it means.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    except OSError:
        return False
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        trial.start()
    except (OSError, EOFError):  # the fork server died of an import
        return False
    trial.join()
    return trial.exitcode == 0


def _end_unless_preloaded() -> None:
    if sys.modules.get("flows.preloaded") is None:
        sys.exit(1)


def _installed_version() -> str | None:
    try:
        return importlib.metadata.version("kensa")
    except importlib.metadata.PackageNotFoundError:
        return None  # a source tree
