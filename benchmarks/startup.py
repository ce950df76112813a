"""What a command costs before it does anything: CPU time of short commands, as multiples of what they import.

`python -m benchmarks.startup`. Each round runs all of them in turn, so that what else the machine does
touches all alike; the smallest time of each counts.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

ROUNDS = 9
_KENSA = str(Path(sys.executable).with_name("kensa"))
_LIBRARIES = "import rich.progress, rich.table, pydantic_settings, sqlalchemy.orm, typer, yaml"
_COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "python, typer, rich": [sys.executable, "-c", "import rich.console, typer"],
    "python, typer, rich, pydantic-settings, SQLAlchemy": [sys.executable, "-c", _LIBRARIES],
    "kensa --version": [_KENSA, "--version"],
    "kensa --help": [_KENSA, "--help"],
    "kensa findings --help": [_KENSA, "findings", "--help"],
    "kensa disposition --help": [_KENSA, "disposition", "--help"],
    "kensa findings -c nothing (an error)": [_KENSA, "findings", "-c", "nothing"],
}


def main() -> None:
    """Print the table."""
    times: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for _ in range(ROUNDS):
        for name, command in _COMMANDS.items():
            before = _children_seconds()
            subprocess.run(command, capture_output=True, check=False)
            times[name].append(_children_seconds() - before)
    base = min(times["python, typer, rich, pydantic-settings, SQLAlchemy"])
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| | CPU s | × the libraries |\n| --- | --- | --- |")
    for name, seconds in times.items():
        print(f"| {name} | {min(seconds):.2f} | {min(seconds) / base:.2f} |")


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
