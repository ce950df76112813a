"""How a user wants reports to look."""

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from reports.errors import ReportError

Paper = Literal["A4", "Letter"]


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
