"""What a period report is made of: the inspection of a lot, or of a stretch of time, across runs."""

from dataclasses import dataclass
from datetime import datetime

from reports.content.base import MissingPicture, Model, Timed
from reports.content.inspection import InspectionReport
from reports.errors import ReportError


@dataclass(frozen=True)
class Scope(Timed):
    """Which pictures a period report speaks for: a lot, or a time from `since` to before `until`; a station.

    The time is when a picture was inspected. Every field given must match.
    """

    lot: str | None = None
    station: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lot is None and (self.since is None or self.until is None):
            raise ReportError("scope: give a lot, or when the period begins and when it ends")


@dataclass(frozen=True)
class RunLine(Timed):
    """A run that inspected pictures of the period: it listed that many of them, and `pictures` count by it.

    `status` as in `RunReport`; `model`: digest of the model version that decided.
    """

    number: str
    started_at: datetime
    finished_at: datetime | None
    status: str
    model: str
    listed: int
    pictures: int

    @property
    def complete(self) -> bool:
        """Whether the run says that it finished; then every picture that it listed has an outcome."""
        return self.status == "completed" and self.finished_at is not None


@dataclass(frozen=True)
class ModelInForce:
    """A model version and settings under which pictures of the period were decided, and how many."""

    model: Model
    settings_digest: str
    pictures: int


@dataclass(frozen=True, eq=False, kw_only=True)
class PeriodReport(InspectionReport):
    """Everything a period report says. The same record gives the same bytes.

    `counts`: each picture of the scope once, with its latest outcome; `repeated` says how many further times
    runs listed one of them. `parts` counts the parts that they show, where they are known. `in_force`: the
    models that decided, most pictures first. `missing_unplaced`: pictures that never arrived, of runs of the
    period, of which nobody knows whether they belong to it.
    """

    scope: Scope
    runs: tuple[RunLine, ...]
    in_force: tuple[ModelInForce, ...]
    repeated: int = 0
    parts: int = 0
    missing_unplaced: tuple[MissingPicture, ...] = ()
    title: str = "Period report"

    @property
    def broken_runs(self) -> tuple[RunLine, ...]:
        """Runs that did not finish."""
        return tuple(run for run in self.runs if not run.complete)

    @property
    def complete(self) -> bool:
        """Whether every run of the period finished and accounted for its pictures."""
        return not self.broken_runs and self.counts.unaccounted == 0
