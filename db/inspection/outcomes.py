"""What the inspection flow hands over to be recorded: one outcome for each listed picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from db.artifacts import ArtifactRef
from db.columns import storable
from db.errors import RecordError
from db.schema import VERDICTS


@dataclass(frozen=True, slots=True)
class LayerMasks:
    """How many of a layer's feature maps became masks that the model scored."""

    name: str
    kept: int
    total: int


Box = tuple[int, int, int, int]  # left, top, right, bottom, right and bottom exclusive


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedTile:
    """A tile of a picture, explained. `rectangle`, `box`: in the picture's pixels; `score`: of the class."""

    rectangle: Box
    score: float
    layers: tuple[LayerMasks, ...]
    status: str
    masked_score: float | None = None
    drop: float | None = None
    increase: bool | None = None
    map: ArtifactRef | None = None
    block_maps: tuple[tuple[str, ArtifactRef], ...] = ()
    box: Box | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", storable(self.status))

    def entry(self) -> dict[str, Any]:
        """Return JSON content: as the fields, with the digest of each artifact in its place."""
        return {
            "rectangle": list(self.rectangle),
            "score": self.score,
            "layers": [asdict(layer) for layer in self.layers],
            "status": self.status,
            "masked_score": self.masked_score,
            "score_drop": self.drop,
            "score_increase": self.increase,
            "map_digest": self.map.digest if self.map else None,
            "block_map_digests": block_map_entries(self.block_maps),
            "box": None if self.box is None else list(self.box),
        }


def block_map_entries(block_maps: Sequence[tuple[str, ArtifactRef]]) -> list[dict[str, str]]:
    """Return JSON content of layer maps: shallow to deep, each with its layer and digest."""
    return [{"layer": layer, "digest": ref.digest} for layer, ref in block_maps]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationOutcome:
    """An explanation to record. `drop` in percent; `box` in the picture's pixels.

    Of a tiled picture `tiles` are those that were explained, strongest first, with `tiles_left_out` more that
    reached the threshold; it has no map and no layers of its own then. `masked_score`, `drop` and `increase`
    are those of the first tile, `box` is merged over all.
    """

    method: str
    parameters: Mapping[str, Any]
    layers: tuple[LayerMasks, ...]
    status: str
    masked_score: float | None = None
    drop: float | None = None
    increase: bool | None = None
    map: ArtifactRef | None = None
    block_maps: tuple[tuple[str, ArtifactRef], ...] = ()
    box: Box | None = None
    tiles: tuple[ExplainedTile, ...] | None = None
    tiles_left_out: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", storable(self.status))

    @property
    def has_map(self) -> bool:
        """Whether there is a map: of the picture, or of one of its tiles."""
        return self.map is not None or any(tile.map is not None for tile in self.tiles or ())


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingOutcome:
    """One flagged class: its score in [0, 1] and the threshold that the image's score reached."""

    class_name: str
    class_score: float
    threshold: float
    explanation: ExplanationOutcome | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutcome:
    """What became of one listed picture. Its texts are spelled as the database can hold them (`storable`).

    `digest`: SHA-256 of its bytes. None where they could not be read, or decoding them took more than it may:
    the picture is unreadable in this run, has no outcome, and the next run tries it again.
    `verdict`: None carries over the outcome already recorded for this digest (`known_outcomes`).
    `picture`: the bytes in the artifact store, if they were put there. `brightness`, `contrast`, `sharpness`:
    of the picture as decoded (`sources.picture_statistics`), all three or none. `tile_count`,
    `deciding_tile`: of a tiled picture that was decided, how many tiles it has, and the rectangle of the one
    whose `probabilities` these are, in the picture's pixels.
    """

    uri: str
    version: str
    size: int
    part: str | None = None
    lot: str | None = None
    station: str | None = None
    captured_at: datetime | None = None
    digest: str | None = None
    verdict: str | None = None
    reason: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    mode: str | None = None
    score: float | None = None
    review_threshold: float | None = None
    reject_threshold: float | None = None
    probabilities: Sequence[float] | None = None
    findings: tuple[FindingOutcome, ...] = ()
    picture: ArtifactRef | None = None
    brightness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    tile_count: int | None = None
    deciding_tile: Box | None = None

    def __post_init__(self) -> None:
        for name in ("uri", "version", "part", "lot", "station", "reason"):
            if (text := getattr(self, name)) is not None:
                object.__setattr__(self, name, storable(text))

    def check(self) -> None:
        """Raise RecordError where the outcome contradicts itself."""
        if self.verdict is None:
            if self.digest is None:
                raise self._contradiction("carries over an outcome but has no digest to find it by")
            return
        if self.verdict not in VERDICTS:
            raise self._contradiction(f"verdict {self.verdict!r} is none of {', '.join(VERDICTS)}")
        unreadable = self.verdict == "unreadable"
        if unreadable != (self.reason is not None):
            raise self._contradiction("an unreadable picture needs a reason, and no other verdict takes one")
        if self.digest is None and not unreadable:
            raise self._contradiction(f"verdict {self.verdict!r} needs the digest of the picture it is about")
        thresholds = (self.review_threshold, self.reject_threshold)
        if unreadable != (self.score is None) or (not unreadable and None in thresholds):
            raise self._contradiction("score and both thresholds go with every verdict but unreadable")
        # A flagged picture without a finding would never be shown to a person.
        if bool(self.findings) != (self.verdict in ("review", "reject")):
            raise self._contradiction(f"verdict {self.verdict!r} with {len(self.findings)} findings")
        if len({finding.class_name for finding in self.findings}) != len(self.findings):
            raise self._contradiction("two findings of the same class")
        if len({x is None for x in (self.brightness, self.contrast, self.sharpness)}) != 1:
            raise self._contradiction("brightness, contrast and sharpness come together")
        if (self.tile_count is None) != (self.deciding_tile is None):
            raise self._contradiction("the number of tiles and the deciding one come together")
        if self.picture is not None and self.picture.digest != self.digest:
            raise self._contradiction("the stored picture is not the one that was inspected: digests differ")

    def _contradiction(self, what: str) -> RecordError:
        return RecordError(f"outcome of {self.uri!r}: {what}")


@dataclass(frozen=True, slots=True)
class KnownOutcome:
    """A prediction that is recorded already."""

    prediction_id: UUID
    verdict: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What `record_batch` wrote. `already_recorded`: listed pictures that the run had recorded before.

    `verdicts` counts the pictures written now, carried-over ones included. `findings` are references.
    """

    recorded: int
    carried_over: int
    already_recorded: int
    verdicts: Mapping[str, int]
    findings: tuple[str, ...]
