"""The steps from a picture's bytes to its verdict, which a run takes and a replay takes again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import torch

from classifiers import Decision, ModelPackage, PackageError, Predictor, decide
from classifiers.tiles import TiledPicture, TileScores, decide_tiles, scored_tiles
from db.inspection.outcomes import ImageOutcome
from operations.inspection.preparation import FloatInput, PictureFacts, Pixels, Preparation, prepare
from sources.errors import Unreadable


@dataclass(frozen=True)
class Picture:
    """One picture on its way through a batch; `outcome` is filled in step by step.

    What was decoded is the network's input, `tensor`, or where pictures are tiled `tiled`; `tile_scores` come
    with the decision then.
    """

    outcome: ImageOutcome
    data: bytes | memoryview | None = None
    tensor: torch.Tensor | None = None
    tiled: TiledPicture | None = None
    tile_scores: TileScores | None = None
    decision: Decision | None = None
    probabilities: tuple[float, ...] = ()

    @property
    def decoded(self) -> bool:
        """Whether the model can be asked about it."""
        return self.tensor is not None or self.tiled is not None


def hashed_picture(outcome: ImageOutcome, data: bytes) -> Picture:
    """Return a picture whose bytes were read: known by their SHA-256, not decoded yet."""
    return Picture(replace(outcome, digest=sha256(data).hexdigest(), size=len(data)), data=data)


def decoded_picture(
    predictor: Predictor, picture: Picture, *, max_pixels: int, grey_range: tuple[int, int] | None
) -> Picture:
    """Decode a picture's bytes to the network's input; what cannot be decoded is `unreadable`, and why."""
    package = predictor.package
    how = Preparation(package.preprocessing, max_pixels, grey_range, package.tiling)
    try:
        return with_facts(package, picture, *prepare(bytes(picture.data or b""), how))
    except Unreadable as error:
        return refused_picture(picture, str(error))


def with_facts(
    package: ModelPackage, picture: Picture, facts: PictureFacts, prepared: FloatInput | Pixels
) -> Picture:
    """Put what decoding gave into a picture: what is recorded of it, and what the model is given."""
    picture = replace(picture, outcome=replace(picture.outcome, **vars(facts)))
    if package.tiling is None:
        return replace(picture, tensor=torch.from_numpy(prepared))
    grid = package.tiling.grid((facts.height, facts.width), package.preprocessing.input_size)
    return replace(picture, tiled=TiledPicture(grid, np.asarray(prepared, np.uint8)))


def refused_picture(picture: Picture, reason: str) -> Picture:
    """Put into a picture that it is unreadable, wherever and however often it is tried."""
    return replace(picture, outcome=replace(picture.outcome, verdict="unreadable", reason=reason))


def untried_picture(outcome: ImageOutcome, reason: str) -> Picture:
    """Return a picture about which nothing is known, so that the next run tries it again.

    What kept it from being read or decoded may pass: a store that was away, a limit of time or memory. So it
    has no digest, to which an outcome would be bound for good.
    """
    return Picture(replace(outcome, digest=None, verdict="unreadable", reason=reason))


def decide_pictures(
    predictor: Predictor, pictures: Sequence[Picture], inputs: torch.Tensor | None = None
) -> list[Picture]:
    """Decide about decoded pictures, all together.

    Args:
        predictor: with a calibrated package.
        pictures: decoded for it.
        inputs: their network inputs (B, 3, H, W), where they lie in one piece already.

    Raises:
        PackageError: the package is not calibrated, or as of `Predictor.predict`.
    """
    if not pictures:
        return []
    package = predictor.package
    if package.tiling is not None:
        tiled = [picture.tiled for picture in pictures if picture.tiled is not None]
        return [
            with_tile_scores(package, *one)
            for one in zip(pictures, scored_tiles(predictor, tiled), strict=True)
        ]
    if inputs is None:
        inputs = torch.stack([picture.tensor for picture in pictures if picture.tensor is not None])
    rows = predictor.predict(inputs).probabilities
    return [
        with_decision(package, picture, decide(package, row), tuple(row.tolist()))
        for picture, row in zip(pictures, rows, strict=True)
    ]


def with_tile_scores(package: ModelPackage, picture: Picture, scored: TileScores) -> Picture:
    """Put what the tiles' scores decide into a tiled picture and its outcome.

    Raises:
        PackageError: the package has no tiling, or is not calibrated.
    """
    if picture.tiled is None:
        raise ValueError(f"{picture.outcome.uri}: not tiled; decode it first")
    grid = picture.tiled.grid
    row = scored.probabilities[scored.deciding]
    decided = with_decision(package, picture, decide_tiles(package, scored), tuple(row.tolist()))
    outcome = replace(decided.outcome, tile_count=len(grid), deciding_tile=grid.rectangle(scored.deciding))
    return replace(decided, outcome=outcome, tile_scores=scored)


def with_decision(
    package: ModelPackage, picture: Picture, decision: Decision, probabilities: tuple[float, ...]
) -> Picture:
    """Put a decision into a picture's outcome.

    Raises:
        PackageError: the package is not calibrated.
    """
    thresholds = package.thresholds
    if thresholds is None:
        raise PackageError(f"{package.path}: not calibrated; run `kensa calibrate` first")
    outcome = replace(
        picture.outcome,
        verdict=decision.verdict,
        score=decision.score,
        review_threshold=thresholds.review,
        reject_threshold=thresholds.reject,
        probabilities=probabilities,
    )
    return replace(picture, decision=decision, outcome=outcome)
