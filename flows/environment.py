"""Prefect's environment for the command line: no telemetry, no noise, no process left behind.

Import this before `prefect`: it reads its settings once, at import.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
from typing import Any

_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # A first ephemeral server migrates its database: 10 to 35 s, where Prefect allows 20.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_CLI_PROMPT": "false",
}


# What the temporary server runs: uvicorn, and a thread that waits for the end of its input. The input is a
# pipe that this process holds open: it ends with this process, also after a kill -9.
_TIED = """
import os, runpy, signal, sys, threading, time
def end_with_parent():
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    os._exit(1)
threading.Thread(target=end_with_parent, daemon=True).start()
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class PrefectError(RuntimeError):
    """Prefect cannot be used: its server is away, does not start, or has ended."""


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


def interrupt_on_signals() -> None:
    """Let SIGTERM end a run as Ctrl-C does. Called in the flow: Prefect sets a handler of its own before.

    The exception of Prefect's handler may strike in its own bookkeeping, which then raises something else.
    SIGINT is set too: a shell starts what runs in the background with it ignored.
    """
    if threading.current_thread() is threading.main_thread():
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.default_int_handler)


def check_prefect_server(*, quiet: bool) -> None:
    """Ask the Prefect server that PREFECT_API_URL names whether it is there; without one, prepare one.

    Args:
        quiet: whether what a temporary server prints is kept from the terminal.

    Raises:
        PrefectError: it does not answer.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url is None:
        _tie_temporary_server(quiet)
        return
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise PrefectError(
            f"the Prefect server at {url} does not answer ({problem}): start it, correct PREFECT_API_URL,"
            " or unset it to run with a temporary server"
        )


def _tie_temporary_server(quiet: bool) -> None:
    """Let Prefect's temporary server, which it starts with the first flow, end when this process does."""
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import get_current_settings

    def start_tied(server: SubprocessASGIServer) -> subprocess.Popen[Any]:
        # Prefect's own command and environment, but for `_TIED`, its input and a session of its own: Ctrl-C
        # would end the server together with the run, which then could not tell it so.
        return subprocess.Popen(
            [
                *(sys.executable, "-c", _TIED, "uvicorn"),
                *("--factory", "prefect.server.api.server:create_app"),
                *("--host", "127.0.0.1", "--port", str(server.port)),
                *("--log-level", "error", "--lifespan", "on"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL if quiet else None,
            stderr=subprocess.DEVNULL if quiet else None,
            start_new_session=True,
            env={
                **os.environ,
                "PREFECT_UI_ENABLED": "0",
                "PREFECT__SERVER_EPHEMERAL": "1",
                "PREFECT__SERVER_FINAL": "1",
                **get_current_settings().to_environment_variables(exclude_unset=True),
            },
        )

    SubprocessASGIServer._run_uvicorn_command = start_tied  # type: ignore[assignment, method-assign]
