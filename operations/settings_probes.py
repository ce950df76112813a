"""What settings name, tried before a run: the database, the source, the model, folders and buckets, keys."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import TypeVar

from fsspec.implementations.local import LocalFileSystem

from classifiers.errors import ClassifierError
from configs.credentials import masked_url
from configs.loading import ConfigError, check_paths
from configs.schema import Settings
from db.engine import open_database
from db.errors import RecordError, StorageError
from db.failures import file_error
from db.files import open_folder, probe_folder
from explainers import ExplainerError
from operations.inspection.checkpoints import open_signer
from operations.inspection.engine_choice import open_predictor
from operations.inspection.evidence import explainer_for
from operations.inspection.run import checked_package, open_source
from operations.reporting.seal import check_seal
from reports.errors import ReportError
from sources.errors import SourceAwayError, SourceError

ANSWER_S = 10.0  # a server or a disk that takes longer for one small question holds a run up as well
MODEL_S = 120.0  # torch alone takes seconds to load, and weights may have gigabytes
_MOST_LISTED = 1000  # pictures; a bucket of millions need not be listed to know that it can be

T = TypeVar("T")

_EXPECTED = (ClassifierError, ConfigError, ExplainerError, RecordError, ReportError, SourceError)


@dataclass(frozen=True)
class Probe:
    """How one thing that settings name was found.

    Attributes:
        key: of the setting.
        seconds: how long it took; None where a look at the path was enough.
        told: what was found, in a few words.
        problem: what is wrong with it, and the remedy; None where nothing is.
        away: whether the setting may be right, and something outside kensa is in the way.
    """

    key: str
    seconds: float | None = None
    told: str = ""
    problem: str | None = None
    away: bool = False


def probe_settings(settings: Settings) -> Iterator[Probe]:
    """Try everything that settings name, one after the other, each within a limit; the record stays as it is.

    Nothing is raised for what is wrong, so that all of it is told. Where a path is wrong, what needs it is
    not tried.
    """
    wrong = [Probe(key, problem=text) for key, _, text in (p.partition(": ") for p in check_paths(settings))]
    yield from wrong
    for key, seconds, work in _probes(settings):
        section = key.rpartition(".")[0] if key in _WHOLE_SECTIONS else key
        if not any(each.key == section or each.key.startswith(f"{section}.") for each in wrong):
            yield _timed(key, work, seconds)


# Keys whose probe needs all that the section names: the source takes its manifest, the signer trusted keys.
_WHOLE_SECTIONS = {"source.uri", "audit.signing_key"}


def _probes(settings: Settings) -> Iterator[tuple[str, float, Callable[[], str]]]:
    """Yield key, limit in seconds and work of each probe; the work returns what it found in words."""
    yield "database.url", ANSWER_S, lambda: _probe_database(settings)
    yield "source.uri", ANSWER_S, lambda: _probe_source(settings)
    yield "model.package", MODEL_S, lambda: _probe_model(settings)
    yield "artifacts.uri", ANSWER_S, lambda: _probe_folder(settings.artifacts.uri)
    if settings.report.enabled:
        yield "report.folder", ANSWER_S, lambda: _probe_folder(settings.report.folder)
    if (notes := settings.audit.checkpoints) is not None:
        yield "audit.checkpoints", ANSWER_S, lambda: _probe_folder(notes)
        yield "audit.signing_key", ANSWER_S, lambda: _probe_signer(settings)
    if settings.report.signature.configured:
        yield "report.signature", ANSWER_S, lambda: _probe_seal(settings)


def _timed(key: str, work: Callable[[], str], limit: float) -> Probe:
    """Do a probe's work in a thread of its own, which is left behind where it does not come back in time."""
    ended: Future[str] = Future()

    def run() -> None:
        try:
            ended.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            ended.set_exception(error)

    begun = time.perf_counter()
    thread = Thread(target=run, name=f"probe {key}", daemon=True)
    thread.start()
    thread.join(limit)
    seconds = time.perf_counter() - begun
    if not ended.done():
        problem = f"no answer within {limit:g} s: see that its server or disk is there and can be reached"
        return Probe(key, seconds, problem=problem, away=True)
    try:
        return Probe(key, seconds, told=ended.result())
    except _EXPECTED as error:
        return Probe(key, seconds, problem=str(error), away=isinstance(error, StorageError | SourceAwayError))


def _probe_database(settings: Settings) -> str:
    with open_database(settings.database.url) as database:
        file = Path(str(database.url.database)).absolute()
        if database.sqlite and not file.exists():
            probe_folder(LocalFileSystem(), str(file.parent))
            return f"{database}: no record yet: the first run begins it"
        return f"{database}: {database.state()}"


def _probe_source(settings: Settings) -> str:
    source = _reached(lambda: open_source(settings), settings.source.uri)
    listed = _reached(lambda: sum(1 for _ in islice(source.list(), _MOST_LISTED)), settings.source.uri)
    pictures = "1 picture" if listed == 1 else f"{listed} pictures"
    return f"{source.root}: {pictures}{' and more' if listed == _MOST_LISTED else ''}"


def _probe_model(settings: Settings) -> str:
    package = checked_package(settings)
    predictor = open_predictor(settings, package)
    explainer_for(predictor, settings.explainer)
    return (
        f"{package.path} {package.digest[:12]} on {predictor.sentence()}, explained by "
        f"{settings.explainer.method}"
    )


def _probe_folder(uri: str | Path) -> str:
    files, folder = open_folder(uri.absolute() if isinstance(uri, Path) else uri)
    shown = masked_url(str(uri))
    tried = _reached(lambda: probe_folder(files, folder), shown)
    if tried != folder:
        return f"{shown}: not there yet, can be made in {tried}"
    return f"{shown}: written to, read back, removed"


def _probe_signer(settings: Settings) -> str:
    signer = open_signer(settings)
    return "" if signer is None else f"checkpoints are signed by {signer.key.name}"


def _probe_seal(settings: Settings) -> str:
    seal = check_seal(settings.report.signature)
    if seal is None:
        return ""
    vouching = "itself alone" if seal.self_signed else seal.issuer
    return (
        f"reports are sealed by {seal.subject}, for whom {vouching} vouches until {seal.not_after:%Y-%m-%d}"
    )


def _reached(work: Callable[[], T], uri: str) -> T:
    """Do what asks a file system; whatever its driver raises becomes an error that names the address."""
    try:
        return work()
    except _EXPECTED:
        raise
    except Exception as error:  # a bucket's driver has errors of its own
        failure = file_error(error, masked_url(uri)) if isinstance(error, OSError) else None
        told = f"{masked_url(uri)} cannot be used ({type(error).__name__}: {error})"
        raise failure or StorageError(f"{told}: see that address and credentials are right") from error
