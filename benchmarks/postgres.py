"""A PostgreSQL server of our own, for the tests and the benchmarks: started in a folder, gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg

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


@dataclass(frozen=True)
class Cluster:
    """A server that runs in a folder of its own; whoever knows the folder and the port can stop it."""

    folder: Path
    port: int

    @property
    def address(self) -> str:
        """User, host and port."""
        return f"kensa@127.0.0.1:{self.port}"

    @classmethod
    def start(cls, settings: Sequence[str] = (), parent: Path | None = None) -> Cluster:
        """Start a server. `settings`: name=value, as in postgresql.conf.

        `parent`: the folder in which its own is made. ServerError where it cannot be started.
        """
        folder = Path(tempfile.mkdtemp(prefix="kensa-pg-", dir=parent))
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(folder, "postgres")
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            cluster = cls(folder, probe.getsockname()[1])
        options = [f"-p {cluster.port} -k {folder}", *(f"-c {setting}" for setting in settings)]
        options.append("-c listen_addresses=127.0.0.1")
        try:
            cluster._call("initdb", "-U", "kensa", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
            cluster._call("pg_ctl", "-l", str(folder / "log"), "-w", "-o", " ".join(options), "start")
        except BaseException:
            shutil.rmtree(folder)
            raise
        return cluster

    def stop(self) -> None:
        """Stop the server and remove its folder."""
        try:
            self._call("pg_ctl", "-m", "fast", "stop")
        finally:
            shutil.rmtree(self.folder)

    def _call(self, program: str, *arguments: str) -> None:
        home = programs()
        if home is None:
            raise ServerError("PostgreSQL's programs (initdb, pg_ctl) are absent: apt-get install postgresql")
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        done = subprocess.run(
            [*user, str(home / program), "-D", str(self.folder / "data"), *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            log = self.folder / "log"
            raise ServerError(f"{program}: {done.stdout}{log.read_text() if log.exists() else ''}")


@contextmanager
def server(settings: Sequence[str] = (), parent: Path | None = None) -> Iterator[str]:
    """Run a server and give its address (user, host, port), see `Cluster.start`."""
    cluster = Cluster.start(settings, parent)
    try:
        yield cluster.address
    finally:
        cluster.stop()


def new_database(address: str) -> str:
    """Create an empty database on a server and give its URL."""
    name = f"kensa_{uuid4().hex}"
    with psycopg.connect(f"postgresql://{address}/postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    return f"postgresql+psycopg://{address}/{name}"
