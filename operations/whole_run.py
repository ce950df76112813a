"""A run from its start to its report: what a command does by itself, and Prefect's flow as tasks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from configs.schema import Settings
from operations.inspection import run
from operations.inspection.checkpoints import SignedHead
from operations.inspection.line import Steps, inspect_line
from operations.inspection.run import BatchSummary, Inspection, RunResult
from operations.reporting.issue import IssuedReport
from operations.reporting.missing_reports import Late, make_up
from operations.reporting.run_report import issue_report
from operations.retries import retried


class Observer(Protocol):
    """Told of a run's start, of each recorded batch, and of its end."""

    def waiting(self, sentence: str) -> None:
        """Take note of what is waited for before the run starts."""

    def started(self, inspection: Inspection) -> None:
        """Take note of the run that begins or goes on."""

    def late(self, late: Late) -> None:
        """Take note of what earlier runs lacked."""

    def batch(self, summary: BatchSummary) -> None:
        """Take note of a recorded batch."""

    def finished(self, result: RunResult, signed: SignedHead | None, report: IssuedReport | None) -> None:
        """Take note of the end."""


def make_up_missing(inspection: Inspection) -> Late:
    """Issue what earlier runs lack that were interrupted before their report or checkpoint."""
    return make_up(
        inspection.database,
        inspection.store,
        inspection.settings,
        inspection.signer,
        actor=run.SYSTEM,
        inspection=inspection.settings.name,
        held=inspection.run.kind,
    )


def issue_run_report(inspection: Inspection) -> IssuedReport:
    """Render the run's report, seal it, and record it."""
    return retried(issue_report)(
        inspection.database,
        inspection.store,
        inspection.run.id,
        inspection.settings.report,
        actor=run.SYSTEM,
    )


@dataclass(frozen=True)
class RunSteps:
    """What a run does, step by step. The flow gives Prefect's tasks."""

    line: Steps = field(default_factory=Steps)
    missing: Callable[[Inspection], Late] = make_up_missing
    sign: Callable[[Inspection, RunResult], SignedHead | None] = run.sign
    report: Callable[[Inspection], IssuedReport] = issue_run_report


@dataclass(frozen=True)
class EndedRun:
    """A run that has come to its end, its checkpoint and its report, where the settings want them."""

    result: RunResult
    signed: SignedHead | None
    report: IssuedReport | None

    def attention_reasons(self) -> list[str]:
        """Return what in a complete run needs a person, in a few words each: what exit code 3 says."""
        return attention_reasons(self.result, self.signed, self.report)

    def summary(self) -> dict[str, Any]:
        """Return counts, checkpoint and report as JSON content."""
        signed, report = self.signed, self.report
        return {
            "run": self.result.reference,
            **self.result.counts.as_dict(),
            "inspected_before": self.result.inspected_before,
            "unexplained": self.result.unexplained,
            "checkpoint": signed.sentence() if signed else None,
            "unsigned": signed is not None and signed.problem is not None,
            "report": str(report.path) if report else None,
            "unsealed": report is not None and report.unsealed is not None,
        }


def inspect_source(settings: Settings, trigger: str, observer: Observer) -> EndedRun:
    """Inspect what the settings say: start the run or resume the interrupted one, and bring it to its report.

    Raises:
        ConfigError, PackageError, SourceError, RecordError, RunBusy: see `operations.inspection.run`.
    """
    with run.open_inspection(settings, trigger, waiting=observer.waiting) as inspection:
        observer.started(inspection)
        return complete_run(inspection, observer)


def complete_run(inspection: Inspection, observer: Observer, steps: RunSteps | None = None) -> EndedRun:
    """Bring an open run to its end: its pictures, its checkpoint, its report; and what earlier runs lack."""
    steps = steps or RunSteps()
    observer.late(steps.missing(inspection))
    inspect_line(inspection, observer.batch, steps.line)
    result = run.finish(inspection)
    signed = steps.sign(inspection, result) if inspection.signer else None
    report = steps.report(inspection) if run.wants_report(inspection, result) else None
    observer.finished(result, signed, report)
    return EndedRun(result, signed, report)


def attention_reasons(result: RunResult, signed: SignedHead | None, report: IssuedReport | None) -> list[str]:
    """Return what in a complete run needs a person, in a few words each: what exit code 3 says."""
    counts = result.counts
    findings = "1 finding" if result.unexplained == 1 else f"{result.unexplained} findings"
    told = {
        f"{counts.unreadable} unreadable": counts.unreadable,
        f"{counts.missing} announced and missing": counts.missing,
        f"{findings} without an explanation": result.unexplained,
        "no checkpoint signed": signed is not None and signed.problem is not None,
        "report without its seal": report is not None and report.unsealed is not None,
    }
    return [reason for reason, holds in told.items() if holds]
