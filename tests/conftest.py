"""What several rooms' tests share: a real PostgreSQL server, certificates and a time-stamp authority."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from benchmarks import postgres
from tests.pki import Pki, StampServer

pytest_plugins = ["tests.line"]

# Workers share the cores: a torch that starts a thread on each only waits for the others. It reads this when
# it is imported, here and in the processes that tests start.
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")


@pytest.fixture(scope="session", autouse=True)
def torch_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let `engine: auto` take torch: OpenVINO takes seconds for a network. Its own tests ask for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("classifiers.engines.choice.openvino_installed", lambda: False)
        yield


@pytest.fixture(autouse=True)
def own_umask() -> Iterator[None]:
    """Give the process its umask back: commands run in it, and make it stricter as the settings say."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address (user, host, port) of a PostgreSQL server of our own, one for all workers of a session."""
    if postgres.programs() is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL's programs are absent: apt-get install postgresql")
        pytest.skip("PostgreSQL's programs (initdb, pg_ctl) are absent: apt-get install postgresql")
    # A time zone unlike UTC: what is recorded must not depend on it.
    settings = [*postgres.UNSAFE, "timezone=Asia/Kolkata"]
    if "PYTEST_XDIST_WORKER" not in os.environ:
        with postgres.server(settings) as address:
            yield address
        return
    # The first worker starts it, the last one stops it; a worker's own folder lies in that of the session.
    shared = tmp_path_factory.getbasetemp().parent / "postgres.json"
    lock = FileLock(shared.with_suffix(".lock"))
    with lock:
        if shared.exists():
            state = json.loads(shared.read_text())
        else:
            cluster = postgres.Cluster.start(settings)
            state = {"folder": str(cluster.folder), "port": cluster.port, "users": 0}
        shared.write_text(json.dumps(state | {"users": state["users"] + 1}))
    cluster = postgres.Cluster(Path(state["folder"]), state["port"])
    yield cluster.address
    with lock:
        state = json.loads(shared.read_text())
        if state["users"] == 1:
            shared.unlink()
            cluster.stop()
        else:
            shared.write_text(json.dumps(state | {"users": state["users"] - 1}))


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Certificates and keys under one root."""
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def stamp_server(pki: Pki) -> Iterator[StampServer]:
    """A time-stamp authority under that root."""
    with pki.stamping() as server:
        yield server
