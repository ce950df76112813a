"""By which engine and in which precision a run computes: as the run that it resumes, where there is one."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from classifiers import ModelPackage, PackageError, Predictor
from classifiers.engines.choice import ENGINES
from classifiers.engines.engine import PRECISIONS, EngineError
from configs.schema import Settings
from db.columns import digest_of
from db.engine import Database
from db.errors import RunBusy
from db.inspection.runs import RunHandle, RunKind, latest_unfinished_run
from operations.retries import retried


@dataclass(frozen=True)
class InterruptedRun:
    """A run without an end that these settings go on with, and what it computes with."""

    run: RunHandle
    engine: str
    precision: str


@retried
def interrupted_run(
    database: Database, settings: Settings, source: str, package: ModelPackage, *, overtaken: bool = False
) -> InterruptedRun | None:
    """Return the latest unfinished run of this source, package and settings, or None.

    Where the settings leave engine or precision open ("auto"), a run with any of them counts: the first
    process of a run has chosen for all. `overtaken`: also one after which such a run was completed.
    """
    with database.session() as session:
        return _interrupted_run(session, settings, source, package, overtaken=overtaken)


def _interrupted_run(
    session: Session, settings: Settings, source: str, package: ModelPackage, *, overtaken: bool = False
) -> InterruptedRun | None:
    chosen = settings.model
    computing = {
        digest_of(settings.decision(precision, engine, tiled=package.tiling is not None)): (engine, precision)
        for engine in ENGINES
        if chosen.engine in ("auto", engine)
        for precision in PRECISIONS
        if chosen.precision in ("auto", precision)
    }
    run = latest_unfinished_run(session, source, package.digest, list(computing), overtaken=overtaken)
    return None if run is None else InterruptedRun(run, *computing[run.settings_digest])


def open_predictor(
    settings: Settings, package: ModelPackage, interrupted: InterruptedRun | None = None
) -> Predictor:
    """Make a package's network ready: device, engine and precision as the settings say.

    Args:
        settings: of the run.
        package: the model package.
        interrupted: the run to go on with: engine and precision are then its own.

    Raises:
        PackageError: see `Predictor`; or this machine cannot compute as the interrupted run did.
    """
    chosen = settings.model
    try:
        return Predictor(
            package,
            device=chosen.device,
            engine=chosen.engine if interrupted is None else interrupted.engine,
            precision=chosen.precision if interrupted is None else interrupted.precision,
            batch_size=chosen.batch_size,
        )
    except EngineError as error:
        if interrupted is None:
            raise
        other = "torch" if interrupted.engine == "openvino" else "openvino"
        raise PackageError(
            f"run {interrupted.run.reference} over {interrupted.run.source} is unfinished, and another "
            f"process may be at it; it computes by {interrupted.engine} in {interrupted.precision}, which "
            f"this machine cannot: {error}. Go on where it can be done; or, if nobody does, end it with "
            f"`kensa run --abandon --reason TEXT`; or begin another beside it with model.engine: {other}"
        ) from error


def require_same_computing(session: Session, settings: Settings, source: str, predictor: Predictor) -> None:
    """Raise an error where another process has begun the run meanwhile, and computes in another way.

    Raises:
        RunBusy: the message names both.
    """
    interrupted = _interrupted_run(session, settings, source, predictor.package)
    if interrupted is None:
        return
    theirs, ours = (interrupted.engine, interrupted.precision), (predictor.engine.name, predictor.precision)
    if theirs != ours:
        raise RunBusy(
            f"another process has begun run {interrupted.run.reference} over {interrupted.run.source} by "
            f"{theirs[0]} in {theirs[1]}, and this one would compute by {ours[0]} in {ours[1]}: start it "
            "again, or pin model.engine and model.precision on both machines"
        )


def run_kind(settings: Settings, source: str, predictor: Predictor) -> RunKind:
    """Return the kind of run that these settings start or resume over the root of a source."""
    return RunKind(source, digest_of(decision_of(settings, predictor)), predictor.package.digest)


def decision_of(settings: Settings, predictor: Predictor) -> dict[str, Any]:
    """Return `Settings.decision` with what a predictor computes."""
    tiled = predictor.package.tiling is not None
    return settings.decision(predictor.precision, predictor.engine.name, tiled=tiled)
