"""PDF audit reports: records in, bytes out. Same record, same bytes; nothing is ever fetched."""

from reports.attached import Attached, Superseded, Supplement, read_attached
from reports.document import AttachedFile, Document, FindingPages, Part, Style
from reports.errors import ReportError
from reports.finding import Decided, Evidence, Explanation, FindingPage, Held, Labelled, LayerMasks
from reports.listing import ListedPicture
from reports.record import (
    AuditHead,
    Counts,
    Criteria,
    Criterion,
    Model,
    Rate,
    RunReport,
    SignedCheckpoint,
)


def render_run_report(
    record: RunReport, workers: int | None = None, supplement: Supplement | None = None
) -> bytes:
    """Render a run's report as PDF, see `reports.render`; loads WeasyPrint and Pango on the first call."""
    from reports.inspection_composing import compose_run
    from reports.render import render

    return render(compose_run(record, supplement), workers)


__all__ = [
    "Attached",
    "AttachedFile",
    "AuditHead",
    "Counts",
    "Criteria",
    "Criterion",
    "Decided",
    "Document",
    "Evidence",
    "Explanation",
    "FindingPage",
    "FindingPages",
    "Held",
    "Labelled",
    "LayerMasks",
    "ListedPicture",
    "Model",
    "Part",
    "Rate",
    "ReportError",
    "RunReport",
    "SignedCheckpoint",
    "Style",
    "Superseded",
    "Supplement",
    "read_attached",
    "render_run_report",
]
