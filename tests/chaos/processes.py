"""Commands in processes of their own, and what they leave behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.chaos.command import forked_command
from tests.chaos.faults import VARIABLE, Fault

MARK = "CHAOS_TRIAL"
ROOT = Path(__file__).parents[2]
# No command of a trial takes a quarter of it. Prefect alone may wait for minutes, where its server is gone.
LIMIT_S = 400


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Look at something outside this process until it is true; return whether that came in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Command:
    """A `kensa` command in a process, and a session, of its own.

    Usually forked from this process, which has imported all that a command imports: that saves it twelve
    seconds and nothing else. `fresh` starts a new interpreter, as a user does.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str | None],
        fault: Fault | None = None,
        fresh: bool = False,
    ) -> None:
        self._code: int | None = None
        self.log = log
        variables = {**environment, VARIABLE: fault.text() if fault else None}
        if fresh:
            with log.open("ab") as output:
                self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                    [sys.executable, "-m", "tests.chaos.command", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=changed_environment({"PYTHONPATH": str(ROOT), **variables}),
                    start_new_session=True,
                )
            self.pid = self._process.pid
        else:
            self._process = None
            self.pid = forked_command(arguments, log, variables)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it, should it still be there."""
        if self.poll() is None:
            self.kill()
            self.wait()

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        if self._process is not None:
            return self._process.poll()
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, seconds: float = LIMIT_S) -> int | None:
        """Return the exit code; None where it does not end in time."""
        wait_until(lambda: self.poll() is not None, seconds)
        return self.poll()

    def kill(self) -> None:
        """Kill its main process alone (-9)."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def changed_environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """Return this process's environment with other values; a variable of value None is absent."""
    merged = {**os.environ, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def processes_of(mark: str, sessions: Sequence[int] = ()) -> dict[int, str]:
    """Return the command lines of processes with this mark in their environment, or of these sessions."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            state, session = after_name[0], int(after_name[3])
            marked = wanted in (entry / "environ").read_bytes().split(b"\0")
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue  # ended meanwhile, or somebody else's
        if state != "Z" and (marked or session in sessions):
            found[int(entry.name)] = line.strip()
    return found


def kill_all(processes: Mapping[int, str]) -> None:
    """Kill processes that a trial left behind, so that the next one begins alone."""
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
