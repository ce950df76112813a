"""Scheduled inspections: a Prefect deployment of the inspection flow, served from this process."""

from pathlib import Path

from prefect.schedules import Cron
from prefect.settings import get_current_settings

from configs.credentials import masked_url
from configs.loading import ConfigError
from configs.schema import Settings
from flows.inspection import inspect


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
    inspect.serve(
        name=settings.name,
        schedule=Cron(settings.schedule.cron, timezone=settings.schedule.timezone),
        parameters={
            "config": str(Path(config).resolve()) if Path(config).is_file() else config,
            "overrides": overrides,
            "trigger": "schedule",
        },
        description=f"Inspection of {masked_url(settings.source.uri)} by {settings.model.package}",
        pause_on_shutdown=False,
        limit=1,
        global_limit=1,
        print_starting_message=False,
    )
