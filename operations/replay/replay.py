"""A decision computed again from the record alone: stored picture, model and settings, on this machine."""

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from classifiers import ModelPackage, PackageError, Predictor
from classifiers.engines.engine import EngineError
from classifiers.predict import resolve_device
from configs.schema import ExplainerSettings
from db.artifacts import ArtifactStore
from db.chain.events import Actor
from db.columns import digest_of
from db.engine import Database
from db.errors import ArtifactError
from db.files import workspace
from db.inspection.outcomes import ImageOutcome
from db.queries.replays import (
    RecordedPrediction,
    ReplayOutcome,
    find_predictions,
    record_replays,
    recorded_predictions,
)
from explainers import Explainer, ExplainerError
from operations.inspection.evidence import Memory, explain_findings, explainer_for
from operations.inspection.packages import find_package
from operations.inspection.pictures import (
    Picture,
    decide_pictures,
    decoded_picture,
    hashed_picture,
    with_tile_scores,
)
from operations.replay.compare import TOLERANCES, Comparison, Tolerance, compare


@dataclass(frozen=True)
class _Machine:
    """What the decisions of one run are computed with."""

    predictor: Predictor
    explainer: Explainer
    max_tiles: int
    max_pixels: int
    grey_range: tuple[int, int] | None
    origin: str
    tolerance: Tolerance
    instead: str | None


class _ImpossibleError(Exception):
    """Why there is nothing to compute or compare."""


class Replayer:
    """Computes recorded predictions again; models are loaded once.

    Args:
        database: the record.
        store: the artifact store.
        beside: the model package of the settings, used where the store has not the model.
        device: "auto" or a torch device.
        folder: an empty folder for models from the store.
    """

    def __init__(
        self, database: Database, store: ArtifactStore, beside: Path, device: str, folder: Path
    ) -> None:
        self._database = database
        self._store = store
        self._beside = beside
        self._device = device
        self._folder = folder
        self._packages: dict[str, tuple[ModelPackage, str] | str] = {}
        self._machine: tuple[tuple[str, str], _Machine | str] | None = None

    def replay(self, together: Sequence[RecordedPrediction]) -> list[ReplayOutcome]:
        """Compute predictions of one run again, in the batch in which they are given."""
        machine = self._machine_of(together[0])
        if isinstance(machine, str):
            return [ReplayOutcome.impossible(one, machine) for one in together]
        memory = Memory()
        pictures: dict[str, Picture] = {}
        reasons: dict[str, str] = {}
        for one in together:
            try:
                read = hashed_picture(
                    ImageOutcome(uri=str(one.id), version="", size=0), self._picture_bytes(one)
                )
                pictures[str(one.id)] = decoded_picture(
                    machine.predictor, read, max_pixels=machine.max_pixels, grey_range=machine.grey_range
                )
            except _ImpossibleError as error:
                reasons[str(one.id)] = str(error)
        pictures = self._decided_pictures(machine, together, pictures, memory)
        return [
            ReplayOutcome.impossible(one, reasons[str(one.id)])
            if str(one.id) in reasons
            else self._outcome(one, machine, pictures[str(one.id)], memory)
            for one in together
        ]

    def _decided_pictures(
        self,
        machine: _Machine,
        together: Sequence[RecordedPrediction],
        pictures: dict[str, Picture],
        memory: Memory,
    ) -> dict[str, Picture]:
        """Take the steps of a run: decide all, then explain what is flagged."""
        decoded = [picture for picture in pictures.values() if picture.decoded]
        recorded = {str(one.id): one for one in together}
        for picture in decide_pictures(machine.predictor, decoded):
            name = picture.outcome.uri
            pictures[name] = _decided_as_recorded(machine, recorded[name], picture)
        flagged = [p for p in pictures.values() if p.decision is not None and p.decision.flagged]
        if flagged:
            explained = explain_findings(
                machine.explainer, machine.predictor, memory, flagged, max_tiles=machine.max_tiles
            )
            for picture, findings in zip(flagged, explained, strict=True):
                outcome = replace(picture.outcome, findings=findings)
                pictures[outcome.uri] = replace(picture, outcome=outcome)
        return pictures

    def _outcome(
        self, one: RecordedPrediction, machine: _Machine, picture: Picture, memory: Memory
    ) -> ReplayOutcome:
        def stored(digest: str) -> bytes:
            try:
                return self._bytes(one, digest, "the recorded map")
            except _ImpossibleError as error:
                raise LookupError(str(error)) from error

        found = compare(one, picture.outcome, memory.maps, stored, machine.tolerance)
        details = {
            **_figures(found),
            "differences": [asdict(difference) for difference in found.differences],
            "tolerance": asdict(machine.tolerance),
            "model_from": machine.origin,
            **machine.predictor.facts(),
        }
        if machine.instead is not None:
            details["note"] = machine.instead
        if found.unknown:
            details["reason"] = "; ".join(found.unknown)
        return ReplayOutcome(one, found.result, details)

    def _picture_bytes(self, one: RecordedPrediction) -> bytes:
        if not one.picture_kept:
            kept = one.settings["artifacts"]["pictures"]
            raise _ImpossibleError(f"the picture was not kept (artifacts.pictures: {kept})")
        return self._bytes(one, one.image_digest, "the picture")

    def _bytes(self, one: RecordedPrediction, digest: str, what: str) -> bytes:
        said = one.retention.get(digest)
        if said is not None and said.pruned:
            raise _ImpossibleError(f"{what} was {said}")
        try:
            return self._store.get(digest)
        except ArtifactError as error:
            raise _ImpossibleError(f"{what} is not to be had: {error}") from error

    def _machine_of(self, one: RecordedPrediction) -> _Machine | str:
        """Return what a prediction is computed with, or why there is none; kept for the next ones."""
        key = (one.run_id.hex, one.model.digest)
        if self._machine is None or self._machine[0] != key:
            try:
                self._machine = key, self._new_machine(one)
            except (_ImpossibleError, PackageError, ExplainerError) as error:
                self._machine = key, str(error)
        return self._machine[1]

    def _new_machine(self, one: RecordedPrediction) -> _Machine:
        settings, decision = one.settings, one.settings.get("decision")
        if decision is None or digest_of(decision) != one.settings_digest:
            raise _ImpossibleError(
                "the run's settings are not those that its digest names: run `kensa audit verify`"
            )
        package, origin = self._package(one.model.digest)
        try:
            predictor, instead = self._predictor(
                package,
                decision.get("engine", "torch"),
                decision["precision"],
                settings["model"]["batch_size"],
            )
            chosen = ExplainerSettings(
                **decision["explainer"], batch_size=settings["explainer"]["batch_size"]
            )
            limits: dict[str, Any] = decision["decoding"]
            grey = limits["grey_range"]
            return _Machine(
                predictor=predictor,
                explainer=explainer_for(predictor, chosen),
                max_tiles=chosen.max_tiles,
                max_pixels=limits["max_pixels"],
                grey_range=None if grey is None else (grey[0], grey[1]),
                origin=origin,
                tolerance=TOLERANCES[decision["precision"]],
                instead=instead,
            )
        except (KeyError, ValidationError) as error:
            raise _ImpossibleError(
                f"the run's settings are not those of this version of kensa: {error}"
            ) from error

    def _predictor(
        self, package: ModelPackage, engine: str, precision: str, batch_size: int
    ) -> tuple[Predictor, str | None]:
        """Return a predictor, and why it computes by torch where another engine was recorded.

        torch is the reference that every engine was held against, and float32 the precision: what they
        compute tells as much, within the tolerance of the recorded precision. They decide by the recorded
        thresholds. Nothing shows that torch rounds as the recorded engine does in a reduced precision.
        """
        # OpenVINO computes on the CPU alone, which "auto" is not where there is a GPU.
        device = "cpu" if engine == "openvino" and self._device == "auto" else self._device
        opened = partial(Predictor, package, batch_size=batch_size)
        try:
            return opened(device=device, engine=engine, precision=precision), None
        except EngineError as error:
            if engine == "torch":
                raise
            note = f"computed by torch, and recorded by {engine}: {error}"
        predictor = opened(device=self._device, engine="torch", precision="float32")
        if (recorded := package.reduced_to(engine, precision)) is not None:
            predictor.package = replace(package, thresholds=recorded.thresholds)
        return predictor, note

    def _package(self, digest: str) -> tuple[ModelPackage, str]:
        if digest not in self._packages:
            try:
                self._packages[digest] = find_package(
                    self._database, self._store, digest, self._beside, self._folder / digest
                )
            except PackageError as error:
                self._packages[digest] = str(error)
        found = self._packages[digest]
        if isinstance(found, str):
            raise _ImpossibleError(found)
        return found


@contextmanager
def open_replayer(database: Database, store: ArtifactStore, beside: Path, device: str) -> Iterator[Replayer]:
    """Open a replayer with a folder for models that is gone afterwards; PackageError for no such device."""
    resolve_device(device)  # a wrong device is no finding about the record
    with workspace("replay") as folder:
        yield Replayer(database, store, beside, device, folder)


def replay(
    database: Database, replayer: Replayer, which: str, *, actor: Actor, reason: str | None = None
) -> Iterator[ReplayOutcome]:
    """Compute again what `which` names (see `find_predictions`), recording each batch as it is done."""
    with database.session() as session:
        batches = find_predictions(session, which)
    for ids in batches:
        with database.session() as session:
            together = recorded_predictions(session, ids)
        outcomes = replayer.replay(together)
        record_replays(database, outcomes, actor=actor, host=platform.node(), reason=reason)
        yield from outcomes


def _decided_as_recorded(machine: _Machine, one: RecordedPrediction, picture: Picture) -> Picture:
    """Return a picture decided by the recorded tile, where that scores as high as the highest or nearly so.

    Which of several tiles with a score of almost 1 comes first hangs on the last digits, and with it the
    probabilities and the class.
    """
    tiled, scored = picture.tiled, picture.tile_scores
    if tiled is None or scored is None or picture.outcome.deciding_tile == one.deciding_tile:
        return picture
    least = scored.scores.max() - machine.tolerance.probability
    for index in np.flatnonzero(scored.scores >= least).tolist():
        if tiled.grid.rectangle(index) == one.deciding_tile:
            scored = replace(scored, preferred=index)
            return with_tile_scores(machine.predictor.package, picture, scored)
    return picture


def _figures(found: Comparison) -> dict[str, float | None]:
    return {"probability": found.probability, "map": found.map, "rank_correlation": found.rank}
