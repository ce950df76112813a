"""What a dossier is made of: everything about one finding, or one part, for a complaint or a concession."""

from dataclasses import dataclass
from datetime import datetime

from reports.content.base import MissingPicture, Model, Report, Timed
from reports.content.finding import FindingPage
from reports.errors import ReportError


@dataclass(frozen=True)
class Entry(Timed):
    """One thing that happened, told in a sentence; `sequence` of the audit event that recorded it."""

    at: datetime
    sentence: str
    sequence: int
    evidence: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class PictureLine(Timed):
    """One listing of a picture by a run and what became of it: a verdict, or unreadable for a `reason`."""

    uri: str
    run: str
    inspected_at: datetime
    verdict: str
    score: float | None = None
    digest: str | None = None
    station: str | None = None
    captured_at: datetime | None = None
    reason: str | None = None
    carried_over: bool = False


@dataclass(frozen=True)
class Occurrence:
    """Where else a class was flagged, and on how many of how many pictures."""

    class_name: str
    where: str
    flagged: int
    pictures: int

    def __post_init__(self) -> None:
        if not 0 <= self.flagged <= self.pictures:
            raise ReportError(
                f"occurrence {self.where!r}: {self.flagged} of {self.pictures} pictures; count again"
            )


@dataclass(frozen=True)
class ReplayLine:
    """That the decision about a picture was computed again: identical, equal, different or impossible."""

    uri: str
    at: datetime
    result: str


@dataclass(frozen=True)
class DecidedBy:
    """A run that decided, with its model version and settings. `status` as in `RunReport`."""

    run: str
    status: str
    model: Model
    settings_digest: str
    software_version: str

    @property
    def complete(self) -> bool:
        """Whether the run says that it finished."""
        return self.status == "completed"


@dataclass(frozen=True, eq=False, kw_only=True)
class Dossier(Report):
    """Everything a dossier says. The same record gives the same bytes.

    It is about finding `subject`, or where that is None about all findings of `part`. `pictures`: every
    listing of a picture of the part, or of the finding's picture where no part is known, oldest first.
    `missing_pictures`: those of the part that were announced and never arrived.
    """

    findings: tuple[FindingPage, ...]
    decided_by: tuple[DecidedBy, ...]
    pictures: tuple[PictureLine, ...]
    subject: str | None = None
    part: str | None = None
    lot: str | None = None
    title: str = "Finding dossier"
    entries: tuple[Entry, ...] = ()
    occurrences: tuple[Occurrence, ...] = ()
    replays: tuple[ReplayLine, ...] = ()
    missing_pictures: tuple[MissingPicture, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subject is None and self.part is None:
            raise ReportError("dossier: give a finding, or a part")
        if self.subject is not None and [each.reference for each in self.findings] != [self.subject]:
            raise ReportError(f"dossier: one about finding {self.subject} holds that finding alone")
