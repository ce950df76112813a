"""Processes of kensa and Prefect, looked at from outside."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

KENSA = Path(sys.executable).with_name("kensa")
PREFECT = Path(sys.executable).with_name("prefect")


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Look at something outside this process until it is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)


def processes_in(home: str) -> list[int]:
    """The processes that were started with this Prefect home."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue  # ended meanwhile, or somebody else's
            if f"PREFECT_HOME={home}".encode() in environment:
                found.append(int(entry.name))
    return found
