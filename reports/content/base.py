"""What every report's record is made of: counts, rates, criteria, the model, its place in the audit log."""

from dataclasses import dataclass, field
from datetime import datetime

from reports.errors import ReportError
from reports.style import Style


class Timed:
    """A record whose times name their zone. ReportError for one that does not."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, datetime) and value.utcoffset() is None:
                raise ReportError(f"{name}: {value} has no time zone; give an aware datetime")


def check_thresholds(where: str, review: float, reject: float) -> None:
    """Raise `ReportError` for thresholds that are no scores, or that overlap; `where` begins its message."""
    if not 0.0 <= review <= reject <= 1.0:
        raise ReportError(
            f"{where}: thresholds must satisfy 0 <= review <= reject <= 1, got {review} and {reject}; "
            "take them from the model package"
        )


@dataclass(frozen=True)
class Revision:
    """One revision of a report: when it was issued, SHA-256 of its bytes, what changed since the one before.

    The report's own digest is not known while it is made.
    """

    number: int
    issued_at: datetime
    digest: str | None = None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SignOff:
    """A person's sign-off of an earlier revision. `capacity`: reviewed or approved."""

    revision: int
    capacity: str
    name: str
    decision: str
    reason: str
    at: datetime


@dataclass(frozen=True)
class Counts:
    """How many pictures a run listed and what became of them; `carried_over` were decided by earlier runs."""

    listed: int
    passed: int
    review: int
    reject: int
    unreadable: int
    carried_over: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise ReportError(f"counts.{name}: {value} is below zero; count again")

    @property
    def decided(self) -> int:
        """Pictures with an outcome."""
        return self.passed + self.review + self.reject + self.unreadable

    @property
    def unaccounted(self) -> int:
        """Listed pictures without an outcome: 0 in a sound, finished run."""
        return self.listed - self.decided


@dataclass(frozen=True)
class MissingPicture:
    """A picture that was announced to a run and not in its source; part, lot and station as announced."""

    uri: str
    run: str
    part: str | None = None
    lot: str | None = None
    station: str | None = None


@dataclass(frozen=True)
class Rate:
    """A rate in [0, 1] measured on `n` pictures, its one-sided upper confidence bound, the target if any."""

    measured: float
    bound: float
    n: int
    target: float | None = None


@dataclass(frozen=True)
class Criterion:
    """One score threshold in [0, 1] and the rates measured at it on the calibration set."""

    threshold: float
    escape: Rate | None = None
    overkill: Rate | None = None


@dataclass(frozen=True)
class Criteria:
    """The thresholds in force: pass below `review`, reject from `reject` on, review between the two."""

    review: Criterion
    reject: Criterion
    confidence: float = 0.95
    dataset_digest: str | None = None

    def __post_init__(self) -> None:
        check_thresholds("criteria", self.review.threshold, self.reject.threshold)

    @property
    def rejects(self) -> bool:
        """Whether anything is rejected without a person: only where overkill has a target."""
        return self.reject.overkill is not None and self.reject.overkill.target is not None

    @property
    def limits(self) -> tuple[float, float | None]:
        """The review and the reject threshold; None for one from which nothing is rejected."""
        return self.review.threshold, self.reject.threshold if self.rejects else None


@dataclass(frozen=True)
class Model:
    """The model version that decided; `task` is "single-label" or "multi-label"."""

    name: str
    architecture: str
    digest: str
    classes: tuple[str, ...]
    task: str
    criteria: Criteria
    good_class: str | None = None


@dataclass(frozen=True)
class AuditHead:
    """The last event of the audit log when the report was made."""

    sequence: int
    hash: str


@dataclass(frozen=True)
class SignedCheckpoint(Timed):
    """The last signed checkpoint of the audit log: how many events it covers, their Merkle root (hex), who
    signed when, and the signed note itself."""

    tree_size: int
    root: str
    key: str
    signed_at: datetime
    note: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Report(Timed):
    """What every report has: its number and revision, how it looks, and its place in the audit log.

    `issued_at` dates the document. `revisions`: all up to this one, oldest first; `signed`: sign-offs of
    earlier ones.
    """

    number: str
    issued_at: datetime
    software_version: str
    revision: int = 1
    title: str
    organisation: str | None = None
    style: Style = field(default_factory=Style)
    revisions: tuple[Revision, ...] = ()
    signed: tuple[SignOff, ...] = ()
    audit_head: AuditHead | None = None
    checkpoint: SignedCheckpoint | None = None
