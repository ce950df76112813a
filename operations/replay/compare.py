"""A recorded decision against the same one computed again: what differs, by how much, and is that much."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from db.columns import digest_of
from db.inspection.outcomes import ExplainedTile, ExplanationOutcome, FindingOutcome, ImageOutcome, LayerMasks
from db.queries.finding_records import ExplanationRecord, TileRecord
from db.queries.replays import RecordedFinding, RecordedPrediction
from explainers.metrics.sanity import rank_correlation
from operations.inspection.map_files import FloatMap, decode_map


@dataclass(frozen=True)
class Tolerance:
    """How far figures of a replay may lie from the recorded ones and still count as equal.

    Attributes:
        probability: of a class, and the scores made of them.
        map: of a map's pixel, on its scale from 0 to 1.
        rank: least rank correlation of two maps, where single pixels differ by more than `map`.
        judged: of the score that is left when only the map's best pixels are: which pixels those are
            hangs on the last digits of the map.
        masks: share of a layer's masks by which the number kept may differ.
        box: of the box's edges, as a share of the longer side of the picture, or of a tile.
    """

    probability: float
    map: float
    rank: float
    judged: float
    masks: float = 0.02
    box: float = 0.05


# The same numbers are added in another order on another processor, library or batch size: rounding differs.
# Probabilities: float32 has 24 bits of mantissa; 2e-7 was seen between batches of 1 and 16 and between oneDNN
# and PyTorch's own convolutions (the demo's model), and 1e-4 leaves room for deeper networks with a wider
# spread of logits. float16 has 13 bits fewer and bfloat16 16; `classifiers.package.parity` allows logits as
# much. Maps: methods choose by comparing (Otsu's threshold, the masks that sise-fast scores, its kernel), and
# a choice that hangs on the last bit can fall the other way: between those libraries 3 of 21 findings had a
# layer whose map moved by up to 0.21 in a pixel, yet its rank correlation stayed at 0.98, in bfloat16 too.
# Any two different findings of that model had 0.94 at most (their deepest layers), 0.92 for the whole map.
TOLERANCES = {
    "float32": Tolerance(probability=1e-4, map=1e-3, rank=0.95, judged=1e-2),
    "float16": Tolerance(probability=1e-2, map=1e-2, rank=0.95, judged=3e-2),
    "bfloat16": Tolerance(probability=5e-2, map=5e-2, rank=0.95, judged=1e-1),
}


@dataclass(frozen=True)
class Difference:
    """One field that is not what was recorded; `within`: by no more than is tolerated."""

    field: str
    recorded: Any
    replayed: Any
    within: bool


@dataclass
class Comparison:
    """What differs, and the largest differences seen (0 and 1 where all is the same).

    Attributes:
        differences: every field that is not the same.
        unknown: what could not be compared, and why.
        probability: largest difference of a probability; None where there are none.
        map: largest difference of a pixel over all maps; None where no map was compared.
        rank: least rank correlation over all maps; likewise.
    """

    differences: list[Difference] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    probability: float | None = None
    map: float | None = None
    rank: float | None = None

    @property
    def result(self) -> str:
        """Sum up: "identical", "equal", "different"; "impossible" where it hangs on what is unknown."""
        if not all(difference.within for difference in self.differences):
            return "different"
        if self.unknown:
            return "impossible"
        return "equal" if self.differences else "identical"

    def same(self, name: str, recorded: Any, replayed: Any) -> None:
        """Compare what must be the same."""
        if recorded != replayed:
            self.differences.append(Difference(name, recorded, replayed, within=False))

    def near(self, name: str, recorded: float | None, replayed: float | None, tolerance: float) -> None:
        """Compare figures."""
        if recorded != replayed:
            within = recorded is not None and replayed is not None and abs(recorded - replayed) <= tolerance
            self.differences.append(Difference(name, recorded, replayed, within))


def compare(
    recorded: RecordedPrediction,
    replayed: ImageOutcome,
    maps: Mapping[str, bytes],
    stored: Callable[[str], bytes],
    tolerance: Tolerance,
) -> Comparison:
    """Compare a recorded prediction with the outcome of computing it again.

    Args:
        recorded: what the record says.
        replayed: the outcome, findings and their explanations included.
        maps: bytes of the replayed maps by their digest.
        stored: gives the recorded bytes of a digest; LookupError with the reason where there are none.
        tolerance: for figures; everything else must be the same.
    """
    found = Comparison()
    found.same("picture digest", recorded.image_digest, replayed.digest)
    found.same("picture size", recorded.size, replayed.size)
    found.same("verdict", recorded.verdict, replayed.verdict)
    found.same("reason", recorded.reason, replayed.reason)
    for name in ("width", "height", "format", "mode"):
        before, now = getattr(recorded, name), getattr(replayed, name)
        # An image is recorded once: other settings may have been able, or unable, to decode it.
        if before is not None and now is not None:
            found.same(name, before, now)
    for name in ("review_threshold", "reject_threshold"):
        found.same(name.replace("_", " "), getattr(recorded, name), getattr(replayed, name))
    found.near("score", recorded.score, replayed.score, tolerance.probability)
    _compare_probabilities(found, recorded, replayed, tolerance)
    found.same("number of tiles", recorded.tile_count, replayed.tile_count)
    found.same("deciding tile", _edges(recorded.deciding_tile), _edges(replayed.deciding_tile))
    again = {finding.class_name: finding for finding in replayed.findings}
    found.same("flagged classes", [finding.class_name for finding in recorded.findings], list(again))
    for finding in recorded.findings:
        if finding.class_name in again:
            _compare_finding(found, recorded, finding, replayed.score, again[finding.class_name], tolerance)
            before, now = finding.explanation, again[finding.class_name].explanation
            if before is not None and now is not None:
                read = _Reading(maps, stored)
                _compare_maps(found, finding.reference, before, now, read, tolerance)
                _compare_tiles(found, recorded, finding, (before, now), read, tolerance)
    return found


@dataclass(frozen=True)
class _Reading:
    """Where maps are read: those of the replay by their digest, and the recorded ones."""

    maps: Mapping[str, bytes]
    stored: Callable[[str], bytes]


def _edges(box: tuple[int, int, int, int] | None) -> list[int] | None:
    return None if box is None else list(box)


def _compare_probabilities(
    found: Comparison, recorded: RecordedPrediction, replayed: ImageOutcome, tolerance: Tolerance
) -> None:
    before, now = recorded.probabilities, replayed.probabilities
    if before is None or now is None or len(before) != len(now):
        found.same("probabilities", before and list(before), now and list(now))
        return
    found.probability = max((abs(a - b) for a, b in zip(before, now, strict=True)), default=0.0)
    if list(before) != list(now):
        within = found.probability <= tolerance.probability
        found.differences.append(Difference("probabilities", list(before), list(now), within))


def _compare_finding(
    found: Comparison,
    recorded: RecordedPrediction,
    finding: RecordedFinding,
    score: float | None,
    again: FindingOutcome,
    tolerance: Tolerance,
) -> None:
    name = finding.reference
    found.near(f"{name} class score", finding.class_score, again.class_score, tolerance.probability)
    found.near(f"{name} score", finding.score, score, tolerance.probability)
    found.same(f"{name} threshold", finding.threshold, again.threshold)
    before, now = finding.explanation, again.explanation
    if before is None or now is None:
        found.same(f"{name} explanation", before is None, now is None)
        return
    found.same(f"{name} method", before.method, now.method)
    if digest_of(before.parameters) != digest_of(now.parameters):
        found.same(f"{name} parameters", dict(before.parameters), dict(now.parameters))
    _compare_explained(found, recorded, (name, finding.class_score), before, now, tolerance)


def _compare_explained(
    found: Comparison,
    recorded: RecordedPrediction,
    named: tuple[str, float],
    before: ExplanationRecord | TileRecord,
    now: ExplanationOutcome | ExplainedTile,
    tolerance: Tolerance,
) -> None:
    """Compare what is said of a map; `named`: whose it is, and the score of its class."""
    name, class_score = named
    found.same(f"{name} status", before.status, now.status)
    _compare_layers(found, name, before.layers, now.layers, tolerance)
    found.near(f"{name} masked score", before.masked_score, now.masked_score, tolerance.judged)
    # The drop is a share of the class's score: where that is small, so is what the drop can be told by.
    share = tolerance.judged / max(class_score, tolerance.judged)
    found.near(f"{name} drop", before.drop, now.drop, 100 * share)
    _compare_increase(found, named, before, now, tolerance)
    _compare_box(found, recorded, name, before.box, now.box, tolerance)


def _compare_tiles(
    found: Comparison,
    recorded: RecordedPrediction,
    finding: RecordedFinding,
    explanations: tuple[ExplanationRecord, ExplanationOutcome],
    read: _Reading,
    tolerance: Tolerance,
) -> None:
    """Compare the tiles of a picture that were explained, each with the one at the same place."""
    name, (before, now) = finding.reference, explanations
    if before.tiles is None or now.tiles is None:
        found.same(f"{name} explained tiles", before.tiles is None, now.tiles is None)
        return
    # Rounding may lift a tile over the threshold, or put it below.
    room = max(1.0, tolerance.masks * (recorded.tile_count or 0))
    found.near(f"{name} tiles left out", before.tiles_left_out, now.tiles_left_out, room)
    old = {tile.rectangle: tile for tile in before.tiles}
    new = {tile.rectangle: tile for tile in now.tiles}
    if old.keys() != new.keys():
        # One of two tiles that are as strong as each other is explained, where no more are to be.
        scores = ([tile.score for tile in before.tiles], [tile.score for tile in now.tiles])
        weakest = [min(each, default=1.0) for each in scores]
        others = [each.score for at, each in old.items() if at not in new]
        others += [each.score for at, each in new.items() if at not in old]
        within = all(abs(score - least) <= tolerance.probability for score in others for least in weakest)
        found.differences.append(
            Difference(f"{name} explained tiles", sorted(map(list, old)), sorted(map(list, new)), within)
        )
    for at, tile in old.items():
        if at in new:
            what = f"{name} tile {at[0]},{at[1]}"
            found.near(f"{what} score", tile.score, new[at].score, tolerance.probability)
            _compare_explained(found, recorded, (what, tile.score), tile, new[at], tolerance)
            _compare_maps(found, what, tile, new[at], read, tolerance)


def _compare_layers(
    found: Comparison,
    name: str,
    before: tuple[LayerMasks, ...],
    now: tuple[LayerMasks, ...],
    tolerance: Tolerance,
) -> None:
    found.same(f"{name} layers", [(x.name, x.total) for x in before], [(x.name, x.total) for x in now])
    for old, new in zip(before, now, strict=False):
        if old.name == new.name:
            found.near(f"{name} masks of {old.name}", old.kept, new.kept, tolerance.masks * old.total)


def _compare_increase(
    found: Comparison,
    named: tuple[str, float],
    before: ExplanationRecord | TileRecord,
    now: ExplanationOutcome | ExplainedTile,
    tolerance: Tolerance,
) -> None:
    name, class_score = named
    if before.increase != now.increase:
        # Whether the score rose is a matter of rounding where it hardly changed.
        scores = (before.masked_score, now.masked_score)
        close = all(s is not None and abs(s - class_score) <= tolerance.judged for s in scores)
        difference = Difference(f"{name} increase", before.increase, now.increase, close)
        found.differences.append(difference)


def _compare_box(
    found: Comparison,
    recorded: RecordedPrediction,
    name: str,
    before: tuple[int, int, int, int] | None,
    now: tuple[int, int, int, int] | None,
    tolerance: Tolerance,
) -> None:
    if before != now:
        left, top, right, bottom = recorded.deciding_tile or (0, 0, recorded.width or 0, recorded.height or 0)
        room = tolerance.box * max(right - left, bottom - top)
        within = (
            before is not None
            and now is not None
            and all(abs(a - b) <= room for a, b in zip(before, now, strict=True))
        )
        difference = Difference(f"{name} box", before and list(before), now and list(now), within)
        found.differences.append(difference)


def _compare_maps(
    found: Comparison,
    name: str,
    before: ExplanationRecord | TileRecord,
    now: ExplanationOutcome | ExplainedTile,
    read: _Reading,
    tolerance: Tolerance,
) -> None:
    pairs = [(f"{name} map", before.map_digest, now.map.digest if now.map else None)]
    old, new = dict(before.block_maps), {layer: ref.digest for layer, ref in now.block_maps}
    found.same(f"{name} block maps", list(old), list(new))
    pairs += [(f"{name} block map of {layer}", old[layer], new[layer]) for layer in old if layer in new]
    for what, recorded, replayed in pairs:
        if recorded is None or replayed is None:
            found.same(what, recorded, replayed)
            continue
        if recorded == replayed:
            _widen(found, 0.0, 1.0)
            continue
        try:
            kept = decode_map(read.stored(recorded))
        except LookupError as why:
            found.unknown.append(f"{what} has another digest, and {why.args[0]}")
            continue
        _pixels(found, what, (recorded, kept), (replayed, decode_map(read.maps[replayed])), tolerance)


def _pixels(
    found: Comparison,
    what: str,
    recorded: tuple[str, FloatMap],
    replayed: tuple[str, FloatMap],
    tolerance: Tolerance,
) -> None:
    """Compare maps whose files differ: the pixels count, not how another library packed them."""
    (before, old), (now, new) = recorded, replayed
    if old.shape != new.shape:
        found.same(f"{what} size", list(old.shape), list(new.shape))
        return
    if np.array_equal(old, new):
        _widen(found, 0.0, 1.0)
        return
    apart = float(np.abs(old - new).max())
    rank = float(rank_correlation(torch.from_numpy(old)[None], torch.from_numpy(new)[None])[0])
    _widen(found, apart, rank)
    found.differences.append(
        Difference(what, before, now, within=apart <= tolerance.map or rank >= tolerance.rank)
    )


def _widen(found: Comparison, apart: float, rank: float) -> None:
    found.map = max(apart, found.map or 0.0)
    if not np.isnan(rank):
        found.rank = rank if found.rank is None else min(rank, found.rank)
