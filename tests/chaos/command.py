"""The command line in a process, with a fault planted in it.

`python -m tests.chaos.command ARGUMENTS` is `kensa ARGUMENTS`, with the fault that the environment names.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.chaos.faults import VARIABLE, planted_fault

# Everything heavy that a run and `audit verify` import, also what they import only when they need it.
_IMPORTED = (
    *("cli.main", "flows.inspection", "operations.reporting.seal", "reports.pdf.render"),
    *("torch", "timm", "classifiers.predict", "explainers.registry", "explainers.sise.sise_fast"),
)


def import_command_line() -> None:
    """Import what a run imports, once for all commands that are forked from this process."""
    from flows.environment import prepare_prefect

    prepare_prefect(quiet=True)
    for module in _IMPORTED:
        importlib.import_module(module)
    if threading.active_count() != 1:
        raise RuntimeError(f"a process with threads cannot be forked: {threading.enumerate()}")


def forked_command(arguments: Sequence[str], log: Path, environment: Mapping[str, str | None]) -> int:
    """Run a command in a fork of this process, in a session of its own; return the process's number.

    A variable of value None is taken out of its environment.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for standard in (1, 2):
            os.dup2(output, standard)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        tempfile.tempdir = None  # found out, and kept, by the process that this one is a copy of
        code = command_code(arguments)
    finally:
        # What the interpreter does at its end, without unwinding the process that this one is a copy of.
        try:
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            gc.collect()  # WeasyPrint's temporary folders go with their owners
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def command_code(arguments: Sequence[str]) -> int:
    """Run a command in this process; return its exit code."""
    from cli.main import main

    sys.argv = ["kensa", *arguments]
    try:
        planted_fault(os.environ.get(VARIABLE))
        main()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(command_code(sys.argv[1:]))
