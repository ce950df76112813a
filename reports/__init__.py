"""PDF audit reports: records in, bytes out. Same record, same bytes; nothing is ever fetched."""

from reports.carried import Carried, read_carried
from reports.record import (
    AuditHead,
    Counts,
    Criteria,
    Criterion,
    Explanation,
    FindingPage,
    LayerMasks,
    Model,
    Rate,
    ReportError,
    RunReport,
    SignedCheckpoint,
)


def render_run_report(record: RunReport) -> bytes:
    """Render a run's report as PDF, see `reports.render`; loads WeasyPrint and Pango on the first call."""
    from reports.render import render_run_report as render

    return render(record)


__all__ = [
    "AuditHead",
    "Carried",
    "Counts",
    "Criteria",
    "Criterion",
    "Explanation",
    "FindingPage",
    "LayerMasks",
    "Model",
    "Rate",
    "ReportError",
    "RunReport",
    "SignedCheckpoint",
    "read_carried",
    "render_run_report",
]
