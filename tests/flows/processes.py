"""Processes of kensa and Prefect, looked at from outside."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

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


@contextmanager
def prefect_server(home: Path) -> Iterator[tuple[str, int]]:
    """Run a Prefect server on a free port, with a home of its own; give its API's address and its process.

    It is the first of a session of its own.
    """
    home.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    log = home / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "PREFECT_HOME": str(home),
                "PREFECT_API_URL": url,
                "DO_NOT_TRACK": "1",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            },
            start_new_session=True,
        )

    def healthy() -> bool:
        assert server.poll() is None, log.read_text()
        try:
            return httpx.get(f"{url}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(healthy, 180, "the Prefect server")
        yield url, server.pid
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def asked(server: str, path: str) -> list[dict]:
    """What Prefect's API has under a path."""
    answer = httpx.post(f"{server}/{path}/filter", json={}, timeout=30)
    answer.raise_for_status()
    return answer.json()
