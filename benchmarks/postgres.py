"""Start a PostgreSQL server in a folder, for tests and benchmarks, and remove it afterwards."""

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

# For tests, which may lose their data when the machine loses power.
UNSAFE = ("fsync=off", "full_page_writes=off")


class ServerError(RuntimeError):
    """PostgreSQL's programs are absent, or one of them failed."""


def programs() -> Path | None:
    """Return the folder of PostgreSQL's server programs; None where they are not installed."""
    found = shutil.which("pg_ctl")
    homes = [Path(found).resolve().parent] if found else []
    homes += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((home for home in homes if (home / "initdb").exists() and (home / "pg_ctl").exists()), None)


@dataclass(frozen=True)
class Cluster:
    """A server in a folder of its own; a process that knows folder and port can stop it."""

    folder: Path
    port: int

    @property
    def address(self) -> str:
        """User, host and port."""
        return f"kensa@127.0.0.1:{self.port}"

    @classmethod
    def start(cls, settings: Sequence[str] = (), parent: Path | None = None) -> Cluster:
        """Start a server and return it.

        Args:
            settings: name=value, as in postgresql.conf.
            parent: the folder in which the server's own is made; that for temporary files when None.

        Raises:
            ServerError: it cannot be started.
        """
        folder = Path(tempfile.mkdtemp(prefix="kensa-pg-", dir=parent))
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(folder, "postgres")
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            cluster = cls(folder, probe.getsockname()[1])
        options = [f"-p {cluster.port} -k {folder}", *(f"-c {setting}" for setting in settings)]
        options.append("-c listen_addresses=127.0.0.1")
        (folder / "options").write_text(" ".join(options))
        try:
            cluster._run_program(
                "initdb", "-U", "kensa", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"
            )
            cluster.go_on()
        except BaseException:
            shutil.rmtree(folder)
            raise
        return cluster

    def halt(self) -> None:
        """Stop the server for a while, and with it whatever transaction is open; see `go_on`."""
        self._run_program("pg_ctl", "-m", "fast", "stop")

    def go_on(self) -> None:
        """Start the server, or start it again, and wait until it answers."""
        options = (self.folder / "options").read_text()
        self._run_program("pg_ctl", "-l", str(self.folder / "log"), "-w", "-o", options, "start")

    def stop(self) -> None:
        """Stop the server and remove its folder."""
        try:
            self.halt()
        finally:
            shutil.rmtree(self.folder)

    def _run_program(self, program: str, *arguments: str) -> None:
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
    """Run a server and yield its address (user, host, port), see `Cluster.start`."""
    cluster = Cluster.start(settings, parent)
    try:
        yield cluster.address
    finally:
        cluster.stop()


def new_database(address: str) -> str:
    """Create an empty database on a server and return its URL."""
    name = f"kensa_{uuid4().hex}"
    with psycopg.connect(f"postgresql://{address}/postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    return f"postgresql+psycopg://{address}/{name}"
