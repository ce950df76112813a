"""The steps from a picture's bytes to its verdict, which a run takes and a replay takes again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

import torch

from classifiers import Decision, ModelPackage, PackageError, Predictor, decide
from db.inspection.outcomes import ImageOutcome
from sources.decoding import decode
from sources.errors import Unreadable
from sources.picture_statistics import picture_statistics


@dataclass(frozen=True)
class Picture:
    """One picture on its way through a batch; `outcome` is filled in step by step."""

    outcome: ImageOutcome
    data: bytes | None = None
    tensor: torch.Tensor | None = None
    decision: Decision | None = None
    probabilities: tuple[float, ...] = ()


def hashed_picture(outcome: ImageOutcome, data: bytes) -> Picture:
    """Return a picture whose bytes were read: known by their SHA-256, not decoded yet."""
    return Picture(replace(outcome, digest=sha256(data).hexdigest(), size=len(data)), data=data)


def decoded_picture(
    predictor: Predictor, picture: Picture, *, max_pixels: int, grey_range: tuple[int, int] | None
) -> Picture:
    """Decode a picture's bytes to the network's input; what cannot be decoded is `unreadable`, and why."""
    data, outcome = picture.data or b"", picture.outcome
    try:
        decoded = decode(data, max_pixels=max_pixels, grey_range=grey_range)
    except Unreadable as error:
        return replace(picture, outcome=replace(outcome, verdict="unreadable", reason=str(error)))
    statistics = picture_statistics(decoded.pixels)
    outcome = replace(
        outcome,
        width=decoded.width,
        height=decoded.height,
        format=decoded.format,
        mode=decoded.mode,
        brightness=statistics.brightness,
        contrast=statistics.contrast,
        sharpness=statistics.sharpness,
    )
    return replace(picture, outcome=outcome, tensor=predictor.transform(decoded.pixels))


def decide_pictures(
    predictor: Predictor, tensors: Mapping[str, torch.Tensor]
) -> dict[str, tuple[Decision, tuple[float, ...]]]:
    """Return the decision and the probabilities (K,) of each picture (3, H, W), all together."""
    if not tensors:
        return {}
    prediction = predictor.predict(torch.stack(list(tensors.values())))
    return {
        name: (decide(predictor.package, row), tuple(float(p) for p in row))
        for name, row in zip(tensors, prediction.probabilities, strict=True)
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
