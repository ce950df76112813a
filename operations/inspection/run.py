"""The steps of an inspection run, without Prefect: each takes a batch and gives a batch."""

import json
import logging
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import torch

from classifiers import ModelPackage, PackageError, Predictor, load_package
from classifiers.package.package import MANIFEST_FILE
from configs.loading import require_paths
from configs.schema import Settings
from db.artifacts import ArtifactStore
from db.chain.events import Actor
from db.columns import storable
from db.engine import Database, open_database
from db.errors import RunBusy
from db.files import restrict_new_files
from db.inspection.batches import inspected_before, known_outcomes, record_batch, recorded_uris, run_uris
from db.inspection.missing_images import MissingImage, missed_before
from db.inspection.outcomes import BatchResult, ImageOutcome
from db.inspection.run_lock import RunLock, locked_run
from db.inspection.runs import (
    ModelRecord,
    RunCounts,
    RunHandle,
    finish_run,
    register_model,
    start_or_resume_run,
)
from db.queries.runs import UnreadableRecord, run_unreadable
from db.transparency.checkpoints import latest_checkpoint
from explainers import Explainer
from operations.inspection.checkpoints import SignedHead, Signer, open_signer, sign_head
from operations.inspection.decoder_process import Refusal, Work
from operations.inspection.decoders import Decoders, Shelf
from operations.inspection.engine_choice import (
    decision_of,
    interrupted_run,
    open_predictor,
    require_same_computing,
    run_kind,
)
from operations.inspection.evidence import explain_findings, explainer_for
from operations.inspection.leftovers import remove_leftovers
from operations.inspection.packages import keep_files
from operations.inspection.pictures import (
    Picture,
    decide_pictures,
    refused_picture,
    untried_picture,
    with_facts,
)
from operations.inspection.preparation import PictureFacts, Preparation
from operations.retries import retried
from sources.folder import ListedImage, Source

_log = logging.getLogger("kensa")

SYSTEM = Actor("kensa", "system")


class Batch:
    """Pictures on their way. Not a dataclass: Prefect would search one for futures, pixel by pixel."""

    def __init__(self, number: int, pictures: list[Picture], inputs: torch.Tensor) -> None:
        """`inputs`: the network's inputs (B, 3, H, W) of the pictures; those not decoded mean nothing.

        Where pictures are tiled there are none: tiles are cut from each picture's pixels.
        """
        self.number = number
        self.pictures = pictures
        self.inputs = inputs

    @property
    def flagged(self) -> list[int]:
        """Positions of the pictures with a class that becomes a finding."""
        return [i for i, p in enumerate(self.pictures) if p.decision is not None and p.decision.flagged]


@dataclass(frozen=True)
class BatchSummary:
    """What was recorded of a batch."""

    number: int
    result: BatchResult

    def sentence(self) -> str:
        """Say the batch's verdicts in a few words."""
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in self.result.verdicts.items() if count)
        carried = f" ({self.result.carried_over} carried over)" if self.result.carried_over else ""
        return f"{verdicts or 'nothing new'}{carried}"


class Inspection:
    """An open run and everything it works with. Not a dataclass, as `Batch` is none."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        source: Source,
        decoders: Decoders,
        predictor: Predictor,
        explainer: Explainer,
        store: ArtifactStore,
        signer: Signer | None,
        lock: RunLock,
        run: RunHandle,
    ) -> None:
        self.settings = settings
        self.database = database
        self.source = source
        self.decoders = decoders
        self.predictor = predictor
        self.explainer = explainer
        self.store = store
        self.signer = signer
        self.lock = lock
        self.run = run
        self.gone: set[str] = set()
        self.listed = 0
        self.inspected_before = 0
        self.unexplained = 0
        self.unrecorded: set[str] = set()  # digests of pictures that are decided

    @property
    def package(self) -> ModelPackage:
        """The model package that decides."""
        return self.predictor.package

    def listing(self) -> Iterator[ListedImage]:
        """List what is still to be done, in order; counts what is listed and what earlier runs have done.

        At its end `gone` holds what the run had recorded before and the source does not list any more.
        """
        if self.run.resumed:
            self.gone = self._recorded()
        listing = self.source.list()
        while group := list(islice(listing, 500)):
            recorded, known = self._done_before(group)
            for item in group:
                if item.uri in recorded:
                    self.gone.discard(storable(item.uri))
                    self.listed += 1
                elif (item.uri, item.version) in known:
                    self.inspected_before += 1
                else:
                    self.listed += 1
                    yield item

    @retried
    def _recorded(self) -> set[str]:
        with self.database.session() as session:
            return run_uris(session, self.run.id)

    @retried
    def _done_before(self, group: Sequence[ListedImage]) -> tuple[set[str], set[tuple[str, str]]]:
        """Return what this run has recorded of a group (uris), and what earlier runs have (uri, version)."""
        known: set[tuple[str, str]] = set()
        with self.database.session() as session:
            recorded = recorded_uris(session, self.run.id, [item.uri for item in group])
            if self.settings.source.only_new:
                known = inspected_before(session, self.run, [(i.uri, i.version) for i in group])
        return recorded, known

    def batches(self) -> Iterator[list[ListedImage]]:
        """Yield the listing in batches: as many pictures as the settings say, fewer where they are large."""
        chosen = self.settings.run
        share = chosen.held_bytes // (chosen.decode_ahead + 2)  # those ahead, the next, and the one at work
        batch: list[ListedImage] = []
        held = 0
        for item in self._measured():
            size = self.decoders.held_bytes(item)
            if batch and (len(batch) == chosen.batch_size or held + size > share):
                yield batch
                batch, held = [], 0
            batch.append(item)
            held += size
        if batch:
            yield batch

    def _measured(self) -> Iterator[ListedImage]:
        """Yield the listing; where pictures are tiled, with what each takes when it is decoded."""
        listing = self.listing()
        if self.package.tiling is None:
            yield from listing
        while group := list(islice(listing, self.settings.run.batch_size)):
            yield from self.decoders.measured(group)

    def holds(self, *batches: list[ListedImage]) -> bool:
        """Whether these batches may be held at once; a single one always may."""
        held = sum(self.decoders.held_bytes(item) for batch in batches for item in batch)
        return len(batches) == 1 or held <= self.settings.run.held_bytes


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    reference: str
    source: str
    counts: RunCounts
    inspected_before: int
    unexplained: int = 0
    gone: int = 0
    missing: tuple[MissingImage, ...] = ()
    missed_before: frozenset[MissingImage] = frozenset()
    unreadable: tuple[UnreadableRecord, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there was nothing to do: nothing was listed, and nothing missing that was not before."""
        return not self.counts.listed and self.missed_before.issuperset(self.missing)

    def sentence(self) -> str:
        """Say the counts in a few words."""
        counts = self.counts.as_dict()
        told = ", ".join(
            f"{counts[name]} {name}" for name in ("listed", "pass", "review", "reject", "unreadable")
        )
        return f"{told}; {left_out}" if (left_out := self.left_out()) else told

    def left_out(self) -> str:
        """Say how many pictures of the source `only_new` left out; empty where none."""
        before = self.inspected_before
        return f"{before} inspected by earlier runs, not listed again" if before else ""


@contextmanager
def open_inspection(
    settings: Settings, trigger: str, *, waiting: Callable[[str], None] | None = None
) -> Iterator[Inspection]:
    """Open everything a run needs and start the run, or resume the one that was interrupted.

    `waiting` is told what is waited for, where another process is at the same run and the settings say wait.

    Raises:
        ConfigError: a path in the settings, the pinned model digest or the explainer does not fit.
        PackageError, SourceError, RecordError: the model package, source or database cannot be used.
        RunBusy: another process is at the same run, and the settings say leave.
    """
    require_paths(settings)
    restrict_new_files(settings.record.readable_by)  # here too: a worker of Prefect's runs no command of ours
    with open_database(settings.database.url) as database:
        retried(database.migrate)()
        source = open_source(settings)
        package = checked_package(settings)
        with opened_decoders(settings, package) as decoders:  # they start while the model is loaded
            store = ArtifactStore(settings.artifacts.uri)
            retried(remove_leftovers)(settings, database)
            signer = open_signer(settings)
            with _locked_model(database, settings, source.root, package, waiting) as (
                predictor,
                explainer,
                lock,
            ):
                if settings.run.when_busy == "wait":
                    source = open_source(settings)  # its manifest may have changed meanwhile
                # From here on the record knows of the run: whatever can be refused has been by now.
                run = retried(start_or_resume_run)(
                    database,
                    source=source.root,
                    settings={
                        **settings.public(),
                        "decision": decision_of(settings, predictor),
                    },
                    settings_digest=run_kind(settings, source.root, predictor).settings_digest,
                    model=retried(register_package)(database, package, store),
                    actor=SYSTEM,
                    host=platform.node(),
                    trigger=trigger,
                    computing=predictor.facts(),
                    check=lambda session: require_same_computing(session, settings, source.root, predictor),
                )
                yield Inspection(
                    settings,
                    database=database,
                    source=source,
                    decoders=decoders,
                    predictor=predictor,
                    explainer=explainer,
                    store=store,
                    signer=signer,
                    lock=lock,
                    run=run,
                )


@contextmanager
def _locked_model(
    database: Database,
    settings: Settings,
    source: str,
    package: ModelPackage,
    waiting: Callable[[str], None] | None,
) -> Iterator[tuple[Predictor, Explainer, RunLock]]:
    """Make the model ready and hold the lock of the run that it goes on with, or begins."""
    wait = settings.run.when_busy == "wait"
    while True:
        unfinished = interrupted_run(database, settings, source, package)
        predictor = open_predictor(settings, package, unfinished)
        explainer = explainer_for(predictor, settings.explainer)
        kind = run_kind(settings, source, predictor)
        with locked_run(database, kind, wait=wait, waiting=waiting) as lock:
            if unfinished is None or interrupted_run(database, settings, source, package) is not None:
                yield predictor, explainer, lock
                return
        # The run has ended in another process. A new one takes what the settings say, not what that one had.


def open_source(settings: Settings) -> Source:
    """Open the pictures that the settings name, and their manifest."""
    chosen = settings.source
    return Source(
        chosen.uri,
        include=chosen.include,
        recursive=chosen.recursive,
        manifest=chosen.manifest,
        filename_pattern=chosen.filename_pattern,
        timezone=chosen.timezone,
    )


def opened_decoders(settings: Settings, package: ModelPackage) -> Decoders:
    """Start the processes that read and decode a run's pictures."""
    source, limits = settings.source, settings.run
    work = Work(
        source.uri,
        Preparation(package.preprocessing, source.max_pixels, source.grey_range, package.tiling),
        seconds=limits.picture_seconds,
        memory=limits.picture_memory,
    )
    return Decoders(work, limits.decoders)


def checked_package(settings: Settings) -> ModelPackage:
    """Load the model package that the settings name; refuse one that is not pinned or not calibrated."""
    package = load_package(settings.model.package)
    if settings.model.digest and settings.model.digest != package.digest:
        raise PackageError(
            f"{package.path}: its digest is {package.digest}, but model.digest pins {settings.model.digest};"
            " use the package that was released, or change the pin"
        )
    if package.thresholds is None:
        raise PackageError(
            f"{package.path}: not calibrated, so it cannot decide; run `kensa calibrate` first"
        )
    return package


def register_package(database: Database, package: ModelPackage, store: ArtifactStore) -> ModelRecord:
    """Record a model package as a model version, with its card, and keep its files in the artifact store."""
    # Verified by load_package: the card in the record is the package's own word for word.
    card = json.loads((package.path / MANIFEST_FILE).read_text(encoding="utf-8"))
    return register_model(
        database,
        digest=package.digest,
        name=package.path.resolve().name,
        architecture=package.architecture,
        classes=package.classes,
        task=package.task,
        thresholds=card["thresholds"],
        card=card,
        actor=SYSTEM,
        artifacts=keep_files(database, store, package),
    )


def decode(inspection: Inspection, number: int, listed: list[ListedImage]) -> Batch:
    """Read the `number`-th batch, and decode what has no outcome yet.

    What cannot be read or decoded is `unreadable`, with the reason. A picture that the record knows by its
    SHA-256 keeps its outcome. Of equal pictures the first alone is decoded: `record_batch` links the others.
    """
    with inspection.decoders.shelf(listed) as shelf:
        pictures = [_read_picture(*found) for found in zip(listed, shelf.read(), strict=True)]
        decided = _decided_digests(inspection, pictures)
        first: dict[str, int] = {}
        for position, picture in enumerate(pictures):
            digest = picture.outcome.digest
            if digest is not None and digest not in decided:
                first.setdefault(digest, position)
        found = shelf.decode(list(first.values()))
        package = inspection.package
        for position, picture in enumerate(pictures):
            digest = picture.outcome.digest
            if digest is not None and digest in first:
                pictures[position] = _decoded_picture(package, picture, shelf, position, first[digest], found)
        return Batch(number, pictures, torch.from_numpy(shelf.network_inputs()))


def _read_picture(item: ListedImage, found: str | Refusal) -> Picture:
    outcome = ImageOutcome(
        uri=item.uri,
        version=item.version,
        size=item.size,
        part=item.metadata.part,
        lot=item.metadata.lot,
        station=item.metadata.station,
        captured_at=item.metadata.captured_at,
        digest=None if isinstance(found, Refusal) else found,
    )
    return untried_picture(outcome, found.reason) if isinstance(found, Refusal) else Picture(outcome)


def _decoded_picture(
    package: ModelPackage,
    picture: Picture,
    shelf: Shelf,
    position: int,
    first: int,
    found: dict[int, PictureFacts | Refusal],
) -> Picture:
    """Put what became of the `first` of equal pictures into the one at `position`."""
    answer = found[first]
    if isinstance(answer, Refusal) and not answer.final:
        return untried_picture(picture.outcome, answer.reason)
    if position != first:
        return picture  # the outcome of the first is all that is recorded
    picture = replace(picture, data=shelf.data(position))
    if isinstance(answer, Refusal):
        return refused_picture(picture, answer.reason)
    return with_facts(package, picture, answer, shelf.prepared(position))


@retried
def _decided_digests(inspection: Inspection, pictures: list[Picture]) -> set[str]:
    """Return the digests of those pictures that have an outcome under this run's model and settings."""
    digests = [p.outcome.digest for p in pictures if p.outcome.digest is not None]
    run = inspection.run
    with inspection.database.session() as session:
        return set(known_outcomes(session, digests, run.model.id, run.settings_digest))


def classify(inspection: Inspection, batch: Batch) -> Batch:
    """Decide about each decoded picture."""
    # Asked again: batches are decoded ahead, and an equal picture may have been decided since. In this order:
    # what is decided and not recorded at the first look may be recorded before the second.
    known = set(inspection.unrecorded)
    known |= _decided_digests(inspection, batch.pictures)
    todo = [
        position
        for position, picture in enumerate(batch.pictures)
        if picture.decoded and picture.outcome.digest not in known
    ]
    inputs = batch.inputs
    if len(todo) < len(batch.pictures) and inspection.package.tiling is None:
        inputs = batch.inputs[todo]
    pictures = list(batch.pictures)
    decided = decide_pictures(inspection.predictor, [pictures[position] for position in todo], inputs)
    for position, picture in zip(todo, decided, strict=True):
        pictures[position] = picture
    inspection.unrecorded.update(p.outcome.digest for p in decided if p.outcome.digest is not None)
    return Batch(batch.number, pictures, batch.inputs)


@retried
def explain(inspection: Inspection, batch: Batch) -> Batch:
    """Explain the findings of a batch together, and put maps and pictures into the artifact store."""
    flagged = batch.flagged
    findings = explain_findings(
        inspection.explainer,
        inspection.predictor,
        inspection.store,
        [batch.pictures[i] for i in flagged],
        max_tiles=inspection.settings.explainer.max_tiles,
    )
    pictures = list(batch.pictures)
    for position, found in zip(flagged, findings, strict=True):
        picture = pictures[position]
        inspection.unexplained += sum(f.explanation is None or not f.explanation.has_map for f in found)
        pictures[position] = replace(picture, outcome=replace(picture.outcome, findings=found))
    return Batch(batch.number, pictures, batch.inputs)


@retried
def record(inspection: Inspection, batch: Batch) -> BatchSummary:
    """Store the pictures to keep, then write the batch's outcomes in one transaction.

    Raises:
        RunBusy: the run's lock was lost with the connection to the database, and another process took it.
    """
    if not inspection.lock.keep():
        raise RunBusy(
            f"run {inspection.run.reference}: the connection to the database was lost, and another process "
            "took the run over meanwhile; nothing is lost, it goes on there"
        )
    keep_all = inspection.settings.artifacts.pictures == "all"
    outcomes = []
    for picture in batch.pictures:
        outcome = picture.outcome
        wanted = bool(outcome.findings) or (keep_all and outcome.verdict is not None)
        if wanted and picture.data is not None:
            media_type = _MEDIA_TYPES.get(outcome.format or "", "application/octet-stream")
            kept = inspection.store.put(bytes(picture.data), "picture", media_type)
            outcome = replace(outcome, picture=kept)
        outcomes.append(outcome)
    result = record_batch(inspection.database, inspection.run, outcomes, actor=SYSTEM, store=inspection.store)
    inspection.unrecorded.difference_update(o.digest for o in outcomes if o.digest is not None)
    return BatchSummary(batch.number, result)


_MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "WEBP": "image/webp",
}


def finish(inspection: Inspection) -> RunResult:
    """Close the run: every listed picture has an outcome, or this raises."""
    gone, before = inspection.gone, inspection.inspected_before
    # What the manifest names and the run has recorded was listed, though it is not there any more.
    missing = tuple(
        MissingImage(each.uri, each.metadata.part, each.metadata.lot, each.metadata.station)
        for each in inspection.source.missing_from_listing()
        if storable(each.uri) not in gone
    )
    notes = []
    if before:
        pictures = "1 picture" if before == 1 else f"{before} pictures"
        left = "was" if before == 1 else "were"
        notes.append(f"{pictures} inspected by earlier runs {left} not listed again")
    if gone:
        pictures = "1 recorded picture was" if len(gone) == 1 else f"{len(gone)} recorded pictures were"
        notes.append(f"{pictures} no longer in the source at the end")
    with inspection.database.session() as session:
        told = missed_before(session, inspection.run.source, inspection.run.number)
    counts = retried(finish_run)(
        inspection.database,
        inspection.run,
        actor=SYSTEM,
        listed=inspection.listed,
        missing=missing,
        gone=sorted(gone),
        inspected_before=before,
        note="; ".join(notes),
    )
    return RunResult(
        inspection.run.reference,
        inspection.source.root,
        counts,
        inspected_before=before,
        unexplained=inspection.unexplained,
        gone=len(gone),
        missing=missing,
        missed_before=told,
        unreadable=retried(_unreadable)(inspection) if counts.unreadable else (),
    )


def _unreadable(inspection: Inspection) -> tuple[UnreadableRecord, ...]:
    """Return what the run could not read, before an interruption too."""
    with inspection.database.session() as session:
        return tuple(run_unreadable(session, inspection.run.id))


def wants_report(inspection: Inspection, result: RunResult) -> bool:
    """Return whether the settings want a report of a run that ended so."""
    return inspection.settings.report.enabled and _documented(inspection, result)


def _documented(inspection: Inspection, result: RunResult) -> bool:
    # A schedule finds nothing new most of the time.
    return inspection.settings.report.empty_runs or not result.empty


def sign(inspection: Inspection, result: RunResult) -> SignedHead | None:
    """Sign the head of the audit trail, where the settings want it.

    The events of a run that had nothing to do wait for the next checkpoint, unless there is none yet.
    """
    if inspection.signer is None:
        return None
    if not _documented(inspection, result):
        with inspection.database.session() as session:
            if latest_checkpoint(session) is not None:
                return None
    return sign_head(inspection.database, inspection.signer, actor=SYSTEM)
