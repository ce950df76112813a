"""Scheduled inspections: a Prefect deployment of the inspection flow, served from this process."""

import asyncio
import logging
import multiprocessing
import os
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Thread, Timer

from prefect.runner import Runner
from prefect.schedules import Cron
from prefect.settings import get_current_settings

from configs.credentials import masked_url
from configs.loading import ConfigError
from configs.schema import Settings
from flows.environment import PrefectError, interrupted_by_signals
from flows.forked_runs import fork_runs
from flows.inspection import inspect

_log = logging.getLogger("kensa")

STOP_S = 30  # how long a run that was told to end, and Prefect that notes it, may take


def serve_inspection(settings: Settings, config: str, overrides: list[str]) -> None:
    """Serve the flow on the settings' cron schedule until interrupted.

    One run at a time: a run that is still going when the next is due makes that one wait. Stopping this
    process does not pause the schedule; runs that fell due meanwhile start when it is served again.

    Raises:
        ConfigError: no cron expression, or no Prefect server to schedule on.
    """
    if settings.schedule.cron is None:
        raise ConfigError(
            f"{config}: schedule.cron: missing; expected a cron expression such as '*/15 * * * *'"
        )
    if get_current_settings().api.url is None:
        raise ConfigError(
            "no Prefect server: schedules need one that stays. Start it with `prefect server start` and set"
            " PREFECT_API_URL (http://127.0.0.1:4200/api, say)"
        )
    runner = Runner(name=settings.name, pause_on_shutdown=False, limit=1)
    runner.add_flow(
        inspect,
        name=settings.name,
        schedule=Cron(settings.schedule.cron, timezone=settings.schedule.timezone),
        parameters={
            "config": str(Path(config).resolve()) if Path(config).is_file() else config,
            "overrides": overrides,
            "trigger": "schedule",
        },
        description=f"Inspection of {masked_url(settings.source.uri)} by {settings.model.package}",
        concurrency_limit=1,
    )
    _run_until_interrupted(runner)


def _run_until_interrupted(runner: Runner) -> None:
    """Let Prefect's runner start what falls due until Ctrl-C or SIGTERM; then end it and the run under way.

    The runner has a thread of its own: in the main thread it takes both signals for itself, and while it
    starts a run it can lose one.
    """
    ended: Future[None] = Future()

    def serve() -> None:
        try:
            ended.set_result(asyncio.run(runner.start()))
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            ended.set_exception(error)

    thread = Thread(target=serve, name="runner", daemon=True)
    with interrupted_by_signals():
        try:
            fork_runs()
            thread.start()
            ended.result()
        except KeyboardInterrupt:
            _stop(runner, ended)
        except Exception as error:
            raise PrefectError(f"Prefect's runner ended: {type(error).__name__}: {error}") from error


def _stop(runner: Runner, ended: "Future[None]") -> None:
    """Tell the runner to end its run and itself, and see that this process ends whether it does or not."""
    _log.info("stopping: a run under way goes on with the next one over its source")
    limit = Timer(STOP_S, _leave)
    limit.daemon = True
    limit.start()
    if runner.started:
        runner.execute_in_background(runner.astop)
        wait([ended])
    else:
        _leave()


def _leave() -> None:
    """End this process and its run, where Prefect waits for a server that is gone."""
    for run in multiprocessing.active_children():
        run.kill()
    logging.shutdown()
    os._exit(0)
