"""A real Prefect server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.processes import prefect_server as running_server


@pytest.fixture
def prefect_server(tmp_path: Path) -> Iterator[str]:
    """A real Prefect server on a free port, with a home of its own; gives its API's address."""
    with running_server(tmp_path / "prefect") as (url, _):
        yield url
