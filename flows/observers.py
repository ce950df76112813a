"""Who is told how a flow's run gets on: the terminal of `kensa run`, or the log of a scheduled one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from operations.inspection.checkpoints import SignedHead
from operations.inspection.run import BatchSummary, Inspection, RunResult
from operations.reporting.issue import IssuedReport
from operations.reporting.missing_reports import Late
from operations.whole_run import Observer

_log = logging.getLogger("kensa")


class FlowObserver(Observer, Protocol):
    """Told of a run, and of what Prefect could not be told of it."""

    def failed(self, error: BaseException) -> None:
        """Take note of what ended the run before its end."""

    def untold(self, problem: str) -> None:
        """Take note of what Prefect could not be told; the run is as the record has it."""


class LogObserver:
    """Writes one log line per event."""

    def waiting(self, sentence: str) -> None:
        """Log what is waited for."""
        _log.info("%s", sentence)

    def started(self, inspection: Inspection) -> None:
        """Log the run's number, whether it is resumed, and what computes it."""
        verb = "resumed" if inspection.run.resumed else "started"
        run, computing = inspection.run, inspection.predictor.sentence()
        _log.info("run %s %s: %s, computed on %s", run.reference, verb, run.source, computing)

    def late(self, late: Late) -> None:
        """Log what was issued for earlier runs; what went wrong has been logged as an error."""
        if late.signed is not None and late.signed.problem is None:
            _log.info("%s", late.signed.sentence())
        for report in late.reports:
            if report.problem is None:
                _log.info("%s", report.sentence())

    def batch(self, summary: BatchSummary) -> None:
        """Log a batch's verdicts."""
        _log.info("batch %d: %s", summary.number, summary.sentence())

    def finished(self, result: RunResult, signed: SignedHead | None, report: IssuedReport | None) -> None:
        """Log the counts, the checkpoint and where the report is."""
        _log.info("run %s finished: %s", result.reference, result.sentence())
        if signed is not None and signed.problem is None:
            _log.info("%s", signed.sentence())
        if report is not None:
            _log.info("report %s", report.path)
        elif result.empty:
            _log.info("run %s had nothing to do, so no report was issued", result.reference)

    def failed(self, error: BaseException) -> None:
        """Log what ended the run."""
        _log.error("the run did not come to its end: %s: %s", type(error).__name__, error)

    def untold(self, problem: str) -> None:
        """Log what Prefect could not be told."""
        _log.warning("Prefect was not told of the run's result: %s", problem)


_observer: ContextVar[FlowObserver] = ContextVar("kensa_observer")


def current_observer() -> FlowObserver:
    """Return the observer set by `observed_by`, else one that logs."""
    return _observer.get(LogObserver())


@contextmanager
def observed_by(observer: FlowObserver) -> Iterator[None]:
    """Let `observer` be told of the runs within."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)
