"""A PostgreSQL server of our own, for the tests and the benchmarks: started in a folder, gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import psycopg

_NUMBERS = count(1)
# What is lost when the machine loses power does not matter to a test.
UNSAFE = ("fsync=off", "full_page_writes=off")


class ServerError(RuntimeError):
    """PostgreSQL's programs are absent, or one of them failed."""


def programs() -> Path | None:
    """Give the folder of PostgreSQL's server programs, if they are installed."""
    found = shutil.which("pg_ctl")
    homes = [Path(found).resolve().parent] if found else []
    homes += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((home for home in homes if (home / "initdb").exists() and (home / "pg_ctl").exists()), None)


@contextmanager
def server(settings: Sequence[str] = (), parent: Path | None = None) -> Iterator[str]:
    """Run a server and give its address (user, host, port). `settings`: name=value, as in postgresql.conf.

    `parent`: the folder in which its own is made. ServerError where it cannot be started.
    """
    home = programs()
    if home is None:
        raise ServerError("PostgreSQL's programs (initdb, pg_ctl) are absent: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="kensa-pg-", dir=parent))
    user: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "postgres")
        user = ["runuser", "-u", "postgres", "--"]
    data = folder / "data"
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def call(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*user, str(home / program), *arguments],
            cwd=folder,
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            log = folder / "log"
            raise ServerError(f"{program}: {done.stdout}{log.read_text() if log.exists() else ''}")

    options = [f"-p {port} -k {folder}", *(f"-c {setting}" for setting in settings)]
    options.append("-c listen_addresses=127.0.0.1")
    try:
        call("initdb", "-D", str(data), "-U", "kensa", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        call("pg_ctl", "-D", str(data), "-l", str(folder / "log"), "-w", "-o", " ".join(options), "start")
        try:
            yield f"kensa@127.0.0.1:{port}"
        finally:
            call("pg_ctl", "-D", str(data), "-m", "fast", "stop")
    finally:
        shutil.rmtree(folder)


def new_database(address: str) -> str:
    """Create an empty database on a server and give its URL."""
    name = f"kensa_{next(_NUMBERS)}"
    with psycopg.connect(f"postgresql://{address}/postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    return f"postgresql+psycopg://{address}/{name}"
