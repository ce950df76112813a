"""Prefect's environment for the command line: which server, no telemetry, no noise.

Import this before `prefect`: it reads its settings once, at import.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
}


class PrefectError(RuntimeError):
    """Prefect cannot be used: its server is away or has ended."""


def prepare_prefect(*, quiet: bool) -> None:
    """Set Prefect's environment where the user has not; quiet keeps its log lines from the terminal."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if quiet:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_INTERNAL_LOGGING_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_LOGGING_TO_API_ENABLED", "false")
        logging.getLogger("EventsWorker").setLevel(
            logging.CRITICAL
        )  # no setting of Prefect's reaches this one
    else:
        os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "kensa")


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM end what is done within as Ctrl-C does.

    In a flow too, where Prefect has set a handler of its own: the exception of that one may strike in
    Prefect's bookkeeping, which then raises something else. SIGINT is set because a shell starts what runs
    in the background with it ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        each: signal.signal(each, signal.default_int_handler) for each in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def named_server(*, quiet: bool) -> str | None:
    """Return the address of the Prefect server that environment, profile or project file names, if any.

    Prefect itself is asked, prepared as by `prepare_prefect`; but its import takes longer than a small run,
    so it is left alone where none of the places in which it looks can name a server.
    """
    if not _may_be_named():
        return None
    prepare_prefect(quiet=quiet)
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


def _may_be_named() -> bool:
    if {"PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"} & {
        name.upper() for name in os.environ
    }:
        return True
    # An account without a home keeps the "~", where there is no file: `Path.expanduser` would raise.
    home = Path(os.path.expanduser(os.environ.get("PREFECT_HOME") or "~/.prefect"))  # noqa: PTH111
    words = {
        home / "profiles.toml": b"prefect_api_url",
        Path(".env"): b"prefect_",
        Path("prefect.toml"): b"",
        Path("pyproject.toml"): b"tool.prefect",
    }
    return any(file.is_file() and word in file.read_bytes().lower() for file, word in words.items())


def check_prefect_server() -> None:
    """Ask the Prefect server that is named, if one is, whether it is there.

    Raises:
        PrefectError: it does not answer.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url is None:
        return
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise PrefectError(
            f"the Prefect server at {url} does not answer ({problem}): start it, correct PREFECT_API_URL,"
            " or unset it: `kensa run` needs no server"
        )
