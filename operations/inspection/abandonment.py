"""Ending a run that nobody will finish."""

from configs.loading import require_paths
from configs.schema import Settings
from db.chain.events import Actor
from db.engine import Database
from db.errors import RecordError
from db.inspection.run_lock import locked_run
from db.inspection.runs import RunHandle, finish_run, unfinished_run
from operations.inspection.run import checked_package, open_predictor, open_source, run_kind


def abandon_run(database: Database, settings: Settings, reason: str, *, actor: Actor) -> RunHandle:
    """End the run that these settings would resume as failed, on record.

    Raises:
        ConfigError: a path in the settings does not fit.
        PackageError, SourceError: which run it is cannot be told without the model package and the source.
        RecordError: there is no such run, or no reason. RunBusy: a process is at the run.
    """
    if not reason.strip():
        raise RecordError("abandoning a run takes a reason: give --reason TEXT")
    require_paths(settings)
    predictor = open_predictor(settings, checked_package(settings))
    kind = run_kind(settings, open_source(settings), predictor)
    with locked_run(database, kind, remedy="stop it before its run is abandoned"):
        with database.session() as session:
            run = unfinished_run(session, kind)
        if run is None:
            raise RecordError(
                f"no run over {kind.source} with this model and these settings is unfinished: there is "
                "nothing to abandon"
            )
        finish_run(
            database,
            run,
            actor=actor,
            status="failed",
            note=f"abandoned: {reason.strip()}",
            reason=reason.strip(),
        )
        return run
