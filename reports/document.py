"""What every report is before it is rendered: a sequence of parts in one style, and the files it carries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from reports.errors import ReportError
from reports.finding import FindingPage, aware

Paper = Literal["A4", "Letter"]
Relationship = Literal["Data", "Source", "Alternative", "Supplement", "Unspecified"]


@dataclass(frozen=True)
class Style:
    """How a user wants reports to look.

    `templates` is a folder whose files win over kensa's own (docs/reports.md); `date_format` a strftime
    format for dates; `zone` the IANA name of the zone in which times are printed.

    Raises:
        ReportError: a zone or a paper that there is not, a date format that prints nothing.
    """

    paper: Paper = "A4"
    templates: Path | None = None
    date_format: str = "%Y-%m-%d"
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if self.paper not in ("A4", "Letter"):
            raise ReportError(f"paper: {self.paper!r} is not known; give 'A4' or 'Letter'")
        try:
            printed = datetime(2026, 1, 31, tzinfo=UTC).strftime(self.date_format)
        except ValueError as error:
            raise ReportError(f"date_format: {self.date_format!r} is no strftime format: {error}") from error
        if not printed.strip() or not any(char.isdigit() for char in printed):
            raise ReportError(f"date_format: {self.date_format!r} prints no date; give one like '%Y-%m-%d'")
        _ = self.tzinfo

    @property
    def tzinfo(self) -> tzinfo:
        """The zone itself; "UTC" needs no zone database."""
        if self.zone == "UTC":
            return UTC
        try:
            return ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ReportError(
                f"timezone: no zone {self.zone!r}; give an IANA name such as 'Europe/Berlin', and where "
                "the system has no zone database install the tzdata package"
            ) from error


@dataclass(frozen=True)
class Part:
    """Pages that begin on a new page, laid out from one template.

    `template` is the name of a file in reports/templates, or in the user's folder; it is the body of a page:
    head and foot come from the document. `context` is what it prints: plain, picklable data.
    """

    template: str
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FindingPages:
    """Findings with a page each, under the ids finding-1, finding-2, ...; cut into parts for many workers."""

    findings: tuple[FindingPage, ...]


@dataclass(frozen=True)
class AttachedFile:
    """A file to attach to a document; `at` dates it; `relationship` is the AFRelationship of PDF/A-3."""

    name: str
    description: str
    data: bytes
    at: datetime
    media_type: str
    relationship: Relationship = "Data"

    def __post_init__(self) -> None:
        aware(self, ("at",))


@dataclass(frozen=True)
class Document:
    """A report, ready to be rendered. The same document gives the same bytes.

    `title`, `author` and `subject` are its metadata; `alarm` is shown in every running head ("Incomplete
    run"); `head` are the cells of the running head, `foot` is the text beside the page number.
    """

    title: str
    reference: str
    revision: int
    author: str
    subject: str
    software_version: str
    issued_at: datetime
    parts: tuple[Part | FindingPages, ...]
    head: Sequence[str] = ()
    foot: str = ""
    style: Style = Style()
    alarm: str | None = None
    attached: tuple[AttachedFile, ...] = ()

    def __post_init__(self) -> None:
        aware(self, ("issued_at",))


def finding_anchor(index: int) -> str:
    """Give the id of a document's finding page, counted from 1 over the whole document."""
    return f"finding-{index}"
