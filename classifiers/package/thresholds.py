"""The thresholds between pass, review and reject, with the evidence for them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Thresholds:
    """Thresholds on the defect score, and what was measured when they were chosen.

    All shares are in [0, 1]. A "bound" is the one-sided upper Clopper-Pearson bound, at `confidence`, of the
    share named before it. It takes pictures for as many independent ones as their groups (parts, lots) show
    them to be worth; packages of before that was reckoned took every picture as independent.

    Attributes:
        review: scores below it pass.
        reject: scores at or above it are rejected; those between are for review.
        target_escape_rate: the largest share of defective pictures that may pass.
        escape_rate: share of defective pictures below `review`.
        escape_bound: its bound; at most the target.
        n_missed: the number of these pictures.
        overkill_rate: share of good pictures at or above `review`: what the target costs; None where there
            was no good picture, so that overkill was not measured.
        overkill_bound: its bound, or None.
        n_flagged_good: the number of these pictures.
        target_overkill: the largest share of good pictures that may be rejected automatically; None where
            none was asked for. Then nothing is, see `rejects`, and `reject` is 1.
        reject_overkill_rate: share of good pictures at or above `reject`; None where there was none.
        reject_overkill_bound: its bound, or None; at most target_overkill.
        n_rejected_good: the number of these pictures.
        reject_recall: share of defective pictures at or above `reject`.
        n_defective: defective calibration pictures.
        n_good: good calibration pictures.
        n_defective_groups: groups with at least one defective picture.
        n_good_groups: groups with at least one good picture.
        confidence: of the bounds.
        dataset_digest: digest of the calibration data.
        n_defective_effective: how many independent pictures the defective ones are worth, see
            `classifiers.measure.effective_size`; None where it was not reckoned.
        n_good_effective: the same of the good ones.
    """

    review: float
    reject: float
    target_escape_rate: float
    escape_rate: float
    escape_bound: float
    n_missed: int
    overkill_rate: float | None
    overkill_bound: float | None
    n_flagged_good: int
    target_overkill: float | None
    reject_overkill_rate: float | None
    reject_overkill_bound: float | None
    n_rejected_good: int
    reject_recall: float
    n_defective: int
    n_good: int
    n_defective_groups: int
    n_good_groups: int
    confidence: float
    dataset_digest: str
    n_defective_effective: float | None = None
    n_good_effective: float | None = None

    def verdict(self, score: float) -> str:
        """Return "pass", "review" or "reject" for a score in [0, 1]."""
        if score < self.review:
            return "pass"
        return "reject" if self.rejects(score) else "review"

    def rejects(self, score: float) -> bool:
        """Whether a picture of this score is rejected without a person.

        Without a target for overkill none is: nothing shows how often a good one would be. A score of exactly
        1, as a sure model gives it in float32, is no exception.
        """
        return self.target_overkill is not None and score >= self.reject

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.type == "float | None":
                continue
            if field.type == "int":
                if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                    raise ValueError(f"thresholds.{field.name} must be a count, got {value!r}")
            elif field.type in ("float", "float | None"):
                if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                    raise ValueError(f"thresholds.{field.name} must be a number, got {value!r}")
                sizes = {"n_defective_effective": self.n_defective, "n_good_effective": self.n_good}
                most = sizes.get(field.name, 1)
                if not 0 <= value <= most:
                    raise ValueError(f"thresholds.{field.name} must be between 0 and {most}, got {value!r}")
            elif not isinstance(value, str):
                raise ValueError(f"thresholds.{field.name} must be text, got {value!r}")
        for name in ("overkill_rate", "overkill_bound", "reject_overkill_rate", "reject_overkill_bound"):
            if (getattr(self, name) is None) != (self.n_good == 0):
                raise ValueError(
                    f"thresholds.{name} is {getattr(self, name)}, of {self.n_good} good pictures; a rate is "
                    "null exactly where there was none"
                )
        if self.review > self.reject:
            raise ValueError(
                f"thresholds.review {self.review} must not exceed thresholds.reject {self.reject}"
            )
