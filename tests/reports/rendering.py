"""A run's report in one step, as the tests want it."""

from reports.attachments.manifest import Supplement
from reports.compose.inspection import compose_run
from reports.content.inspection import RunReport
from reports.pdf.render import render


def render_run_report(
    record: RunReport, workers: int | None = None, supplement: Supplement | None = None
) -> bytes:
    """Compose and render a run's report."""
    return render(compose_run(record, supplement), workers)
