"""Ending a run that nobody will finish."""

from configs.loading import require_paths
from configs.schema import Settings
from db.chain.events import Actor
from db.engine import Database
from db.errors import RecordError
from db.inspection.run_lock import locked_run
from db.inspection.runs import RunHandle, finish_run, unfinished_run
from operations.inspection.engine_choice import interrupted_run
from operations.inspection.run import checked_package, open_source

_NOTHING = "no run over {} with this model and these settings is unfinished: there is nothing to abandon"


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
    # By its record alone: the engine that it computes by may be absent here.
    source = open_source(settings).root
    found = interrupted_run(database, settings, source, checked_package(settings), overtaken=True)
    if found is None:
        raise RecordError(_NOTHING.format(source))
    kind = found.run.kind
    with locked_run(database, kind, remedy="stop it before its run is abandoned"):
        with database.session() as session:
            run = unfinished_run(session, kind)
        if run is None:  # it has ended while the lock was waited for
            raise RecordError(_NOTHING.format(source))
        finish_run(
            database,
            run,
            actor=actor,
            status="failed",
            note=f"abandoned: {reason.strip()}",
            reason=reason.strip(),
        )
        return run
