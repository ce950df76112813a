"""What reports about inspected pictures are made of: frozen records, without a database or a renderer."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from reports.content.base import Counts, MissingPicture, Model, Report
from reports.content.finding import FindingPage
from reports.content.process import Process, Review
from reports.errors import ReportError


@dataclass(frozen=True, eq=False, kw_only=True)
class InspectionReport(Report):
    """What reports about inspected pictures have in common: those of a run and those of a period.

    `class_counts` holds the findings per class of all pictures, also of findings not in `findings`; left
    empty it is counted from `findings`. At most `max_finding_pages` findings get a page, those with the
    highest scores. `unreadable` holds (uri, reason); `missing_pictures` what was announced and not found.
    """

    RECORDED: ClassVar = ("complete", "findings_by_class", "findings_total", "missing")

    counts: Counts
    title: str = "Inspection report"
    lots: tuple[str, ...] = ()
    stations: tuple[str, ...] = ()
    class_counts: tuple[tuple[str, int], ...] = ()
    findings: tuple[FindingPage, ...] = ()
    max_finding_pages: int = 200
    unreadable: tuple[tuple[str, str], ...] = ()
    missing_pictures: tuple[MissingPicture, ...] = ()
    process: Process | None = None
    review: Review | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_finding_pages < 0:
            raise ReportError(f"max_finding_pages: {self.max_finding_pages} is below zero")
        if self.class_counts and self.findings_total < len(self.findings):
            raise ReportError(
                f"class_counts add up to {self.findings_total}, but there are {len(self.findings)} findings; "
                "count all findings per class, or leave class_counts empty"
            )
        references = Counter(finding.reference for finding in self.findings)
        if repeated := [name for name, count in references.items() if count > 1]:
            raise ReportError(
                f"findings: reference {repeated[0]!r} occurs more than once; references are unique"
            )
        if len(self.unreadable) > self.counts.unreadable:
            raise ReportError(
                f"unreadable names {len(self.unreadable)} pictures, but counts.unreadable is "
                f"{self.counts.unreadable}; count again"
            )

    @property
    def findings_by_class(self) -> tuple[tuple[str, int], ...]:
        """Findings per class, most frequent first, ties by name."""
        counts = self.class_counts or tuple(Counter(finding.class_name for finding in self.findings).items())
        return tuple(sorted(((name, n) for name, n in counts if n), key=lambda item: (-item[1], item[0])))

    @property
    def findings_total(self) -> int:
        """All findings, also those without a page."""
        return sum(n for _, n in self.findings_by_class)

    @property
    def missing(self) -> tuple[str, ...]:
        """The uris of what was announced and not found."""
        return tuple(each.uri for each in self.missing_pictures)

    @property
    def printed_findings(self) -> tuple[FindingPage, ...]:
        """The findings that get a page, in the record's order."""
        if len(self.findings) <= self.max_finding_pages:
            return self.findings
        order = sorted(range(len(self.findings)), key=lambda i: (-self.findings[i].score, i))
        return tuple(self.findings[i] for i in sorted(order[: self.max_finding_pages]))


@dataclass(frozen=True, eq=False, kw_only=True)
class RunReport(InspectionReport):
    """Everything a run report says. The same record gives the same bytes.

    `number` is the run's ("R000012"); `run_id` its database id. `status` is "completed" or says what happened
    instead; anything but "completed", or counts that do not add up, is announced on every page.
    """

    source: str
    started_at: datetime
    finished_at: datetime | None
    status: str
    model: Model
    settings_digest: str
    run_id: str | None = None
    trigger: str | None = None
    host: str | None = None
    status_note: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every listed picture has an outcome and the run says it finished."""
        return self.status == "completed" and self.finished_at is not None and self.counts.unaccounted == 0
