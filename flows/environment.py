"""Prefect's environment for the command line: no telemetry, no noise, no process left behind.

Import this before `prefect`: it reads its settings once, at import.
"""

import os
import subprocess
import sys

from configs.loading import ConfigError

_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # A first ephemeral server migrates its database: 10 to 35 s, where Prefect allows 20.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_CLI_PROMPT": "false",
}


# Waits for the end of its input, asks the server to stop, and after ten seconds makes it.
_GUARD = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.stdin.read()
server = int(sys.argv[1])
try:
    os.kill(server, signal.SIGTERM)
    for _ in range(50):
        time.sleep(0.2)
        os.kill(server, 0)
    os.kill(server, signal.SIGKILL)
except ProcessLookupError:
    pass
"""


def prepare_prefect(*, quiet: bool) -> None:
    """Set Prefect's environment where the user has not; quiet keeps its log lines from the terminal."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if quiet:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("PREFECT_LOGGING_TO_API_ENABLED", "false")
    else:
        os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "kensa")


def check_prefect_server() -> None:
    """Ask the Prefect server that PREFECT_API_URL names, if one is named, whether it is there.

    Raises:
        ConfigError: it does not answer.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url is None:
        return
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise ConfigError(
            f"the Prefect server at {url} does not answer ({problem}): start it, correct PREFECT_API_URL,"
            " or unset it to run with a temporary server"
        )


def guard_ephemeral_server() -> None:
    """Tie Prefect's ephemeral server, where this process has started one, to this process's life.

    Prefect stops it at exit, but a kill -9 runs no exit handler and would leave the server behind. The
    guard's standard input closes when this process ends, however it ends; then the guard ends the server.
    """
    from prefect.server.api.server import SubprocessASGIServer

    for server in SubprocessASGIServer._instances.values():
        if server.server_process is not None:
            subprocess.Popen(
                [sys.executable, "-c", _GUARD, str(server.server_process.pid)],
                stdin=subprocess.PIPE,
                close_fds=True,
            )
