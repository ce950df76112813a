"""What several rooms' tests share: a real PostgreSQL server, certificates and a time-stamp authority."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from benchmarks import postgres
from tests.pki import Pki, StampServer

pytest_plugins = ["tests.line"]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address (user, host, port) of a PostgreSQL server of our own."""
    if postgres.programs() is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL's programs are absent: apt-get install postgresql")
        pytest.skip("PostgreSQL's programs (initdb, pg_ctl) are absent: apt-get install postgresql")
    # A time zone unlike UTC: what is recorded must not depend on it.
    with postgres.server([*postgres.UNSAFE, "timezone=Asia/Kolkata"]) as address:
        yield address


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Certificates and keys under one root."""
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def stamp_server(pki: Pki) -> Iterator[StampServer]:
    """A time-stamp authority under that root."""
    with pki.stamping() as server:
        yield server
