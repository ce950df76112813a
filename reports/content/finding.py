"""A finding as a page prints it: light records, and the heavy evidence that is loaded where it is drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import numpy.typing as npt

from reports.content.base import Timed
from reports.errors import ReportError

Verdict = Literal["pass", "review", "reject"]
DecisionState = Literal["in force", "awaiting approval", "refused", "superseded"]
Map = npt.NDArray[np.floating]


@dataclass(frozen=True)
class LayerMasks:
    """How many of a layer's feature maps became masks."""

    layer: str
    kept: int
    total: int


Box = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom exclusive


@dataclass(frozen=True)
class ExplainedTile:
    """A tile of a large picture that was explained: its place, its class score, what is known of its map.

    `rectangle` and `box` are in pixels of the upright picture; the other fields are those of `Explanation`.
    """

    rectangle: Box
    score: float
    status: str = "ok"
    masked_score: float | None = None
    drop: float | None = None
    increase: bool | None = None
    map_digest: str | None = None
    box: Box | None = None

    @property
    def has_map(self) -> bool:
        """Whether there is a map to draw."""
        return _drawable(self.map_digest, self.status)


@dataclass(frozen=True)
class Explanation:
    """What is known of an attribution map, with everything needed to make it again; not the map itself.

    `status` is the explainer's: "ok", "partial: ..." or "undefined: ..." with the reason; any other says why
    the map is not to be had. `masked_score` in [0, 1] is the class's score with only the top `kept_share` of
    the map's pixels left, `drop` the percentage lost by that in [0, 100], `increase` whether the score rose
    instead. `box` is (left, top, right, bottom) in pixels of the upright picture.

    Of a tiled picture `tiles` are those that were explained, strongest first, and hold the maps; `masks`,
    `masked_score`, `drop` and `increase` are the first one's. `tiles_left_out` more reached the threshold.
    """

    method: str
    status: str = "ok"
    masks: tuple[LayerMasks, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    masked_score: float | None = None
    drop: float | None = None
    increase: bool | None = None
    map_digest: str | None = None
    box: tuple[int, int, int, int] | None = None
    kept_share: float = 0.15
    outline_share: float = 0.2
    tiles: tuple[ExplainedTile, ...] = ()
    tiles_left_out: int = 0

    @property
    def has_map(self) -> bool:
        """Whether there is a map to draw: none where it is undefined (the explainer's map is all 0 then)."""
        return _drawable(self.map_digest, self.status) or any(tile.has_map for tile in self.tiles)


def _drawable(map_digest: str | None, status: str) -> bool:
    return map_digest is not None and (status == "ok" or status.startswith("partial"))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a finding page draws.

    `picture` holds the bytes of any picture that `sources.decoding` reads. `map` and the maps of `block_maps`
    (layer name and map, shallow to deep) are (h, w) floats in [0, 1] at any resolution; each covers the whole
    upright picture. `picture_gap` and `map_gap` say in a sentence why there is no picture or map.

    Of a tiled picture `tiles` holds the maps, each with the tile's rectangle in pixels of the upright
    picture, and `block_maps` are those of the strongest tile.

    Raises:
        ReportError: a map of another shape or outside [0, 1].
    """

    picture: bytes | None = None
    picture_gap: str | None = None
    map: Map | None = None
    map_gap: str | None = None
    block_maps: tuple[tuple[str, Map], ...] = ()
    tiles: tuple[tuple[Box, Map], ...] = ()

    def __post_init__(self) -> None:
        maps = [("fused map", self.map)] if self.map is not None else []
        maps += [(f"map of tile {rectangle}", values) for rectangle, values in self.tiles]
        for name, values in (*maps, *self.block_maps):
            if values.ndim != 2 or values.size == 0:
                raise ReportError(f"{name}: expected an (h, w) array, got shape {values.shape}")
            if not (np.isfinite(values).all() and values.min() >= 0.0 and values.max() <= 1.0):
                raise ReportError(
                    f"{name}: values must lie in [0, 1]; store the map as the explainer returned it"
                )


@dataclass(frozen=True, eq=False)
class Held:
    """Evidence that is in memory already, as a finding page loads it."""

    evidence: Evidence = Evidence()

    def __call__(self) -> Evidence:
        """Return the evidence."""
        return self.evidence


@dataclass(frozen=True)
class Decided(Timed):
    """A disposition: what a person decided on a finding, why, and whether it counts.

    `decision` is confirm, overrule, reclassify, use as is, rework, repair, scrap or return; `class_name` the
    class that a reclassification gave. `approved_by` and `approved_at` tell who approved or refused it.
    """

    decision: str
    person: str
    role: str
    at: datetime
    state: DecisionState = "in force"
    reason: str = ""
    class_name: str | None = None
    approved_by: str | None = None
    approved_at: datetime | None = None


@dataclass(frozen=True)
class Labelled:
    """What is known of a picture on which a model was examined: its label, the model's most probable class.

    `group`: the part or lot, None where it is not named.
    """

    label: str
    predicted: str
    group: str | None = None


@dataclass(frozen=True)
class FindingPage(Timed):
    """One flagged class on one picture.

    `uri` is the file, `also` names further ones with the same bytes that were listed as well. `score` in
    [0, 1] is the picture's defect score, on which the verdict rests; `class_score` in [0, 1] the flagged
    class's own. `decisions` are its dispositions, newest last. `labelled` makes it the page of a
    model's mistake: the picture may have passed, and there is nothing to dispose of. `tile_count`: of a tiled
    picture. `pixel_size`: millimetres that a pixel shows, where that is known. `load` gives the
    evidence; it is called where the page is drawn, in another process perhaps: it must be picklable, from a
    module that imports little, and turn what cannot be had into a gap.
    """

    reference: str
    uri: str
    class_name: str
    class_score: float
    score: float
    review_threshold: float
    reject_threshold: float
    verdict: Verdict
    image_digest: str
    explanation: Explanation
    load: Callable[[], Evidence] = Held()
    part: str | None = None
    lot: str | None = None
    station: str | None = None
    captured_at: datetime | None = None
    carried_over: bool = False
    grey_range: tuple[int, int] | None = None
    decisions: tuple[Decided, ...] = ()
    also: tuple[str, ...] = ()
    labelled: Labelled | None = None
    tile_count: int | None = None
    pixel_size: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("score", "class_score", "review_threshold", "reject_threshold"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ReportError(f"finding {self.reference}: {name} {getattr(self, name)} is outside [0, 1]")
