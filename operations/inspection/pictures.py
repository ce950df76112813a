"""The steps from a picture's bytes to its verdict, which a run takes and a replay takes again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import torch

from classifiers import Decision, ModelPackage, PackageError, Predictor, decide
from classifiers.tiles import TiledPicture, TileScores
from db.inspection.outcomes import ImageOutcome
from operations.inspection.preparation import FloatInput, PictureFacts, Preparation, prepare
from sources.errors import Unreadable


@dataclass(frozen=True)
class Picture:
    """One picture on its way through a batch; `outcome` is filled in step by step."""

    outcome: ImageOutcome
    data: bytes | memoryview | None = None
    tensor: torch.Tensor | None = None
    tiled: TiledPicture | None = None
    tile_scores: TileScores | None = None
    decision: Decision | None = None
    probabilities: tuple[float, ...] = ()


def hashed_picture(outcome: ImageOutcome, data: bytes) -> Picture:
    """Return a picture whose bytes were read: known by their SHA-256, not decoded yet."""
    return Picture(replace(outcome, digest=sha256(data).hexdigest(), size=len(data)), data=data)


def decoded_picture(
    predictor: Predictor, picture: Picture, *, max_pixels: int, grey_range: tuple[int, int] | None
) -> Picture:
    """Decode a picture's bytes to the network's input; what cannot be decoded is `unreadable`, and why."""
    how = Preparation(predictor.package.preprocessing, max_pixels, grey_range)
    try:
        return with_facts(picture, *prepare(bytes(picture.data or b""), how))
    except Unreadable as error:
        return refused_picture(picture, str(error))


def with_facts(picture: Picture, facts: PictureFacts, prepared: FloatInput) -> Picture:
    """Put what decoding gave into a picture: what is recorded of it, and the network's input."""
    return replace(
        picture, outcome=replace(picture.outcome, **vars(facts)), tensor=torch.from_numpy(prepared)
    )


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
    predictor: Predictor, names: Sequence[str], inputs: torch.Tensor
) -> dict[str, tuple[Decision, tuple[float, ...]]]:
    """Return the decision and the probabilities (K,) of each picture, all together; inputs (B, 3, H, W)."""
    if not names:
        return {}
    rows = predictor.predict(inputs).probabilities
    return {
        name: (decide(predictor.package, row), tuple(row.tolist()))
        for name, row in zip(names, rows, strict=True)
    }


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
