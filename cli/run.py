"""Commands that inspect: now, or on a schedule; and what the terminal shows of a run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from cli.console import out, print_unsealed, safe
from cli.options import Config, Overrides, config_name, settings_of

if TYPE_CHECKING:
    from operations.inspection.checkpoints import SignedHead
    from operations.inspection.run import BatchSummary, Inspection, RunResult
    from operations.reporting.issue import IssuedReport


VERDICT_STYLE = {"pass": "green", "review": "yellow", "reject": "red", "unreadable": "magenta"}


class ConsoleObserver:
    """Shows a run: a spinner with the counts so far, one line per recorded batch."""

    def __init__(self) -> None:
        self._status = out.status("opening the source, the model and the record …")
        self._done = 0
        self._findings = 0

    def __enter__(self) -> "ConsoleObserver":
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def started(self, inspection: "Inspection") -> None:
        """Say which run begins, over what, with which model."""
        run, package = inspection.run, inspection.package
        out.print(
            f"[bold]run {run.reference}[/bold] {'resumed' if run.resumed else 'started'}: "
            f"{safe(run.source)} · model {safe(run.model.name)} {package.digest[:12]} · "
            f"{inspection.predictor.device} {inspection.predictor.precision}"
        )
        self._status.update("listing …")

    def batch(self, summary: "BatchSummary") -> None:
        """Print one line for a recorded batch."""
        result = summary.result
        self._done += sum(result.verdicts.values())
        self._findings += len(result.findings)
        out.print(f"  batch {summary.number:>4}  {verdicts(result.verdicts)}{_carried(result.carried_over)}")
        self._status.update(f"{self._done} images, {self._findings} findings …")

    def finished(
        self, result: "RunResult", signed: "SignedHead | None", report: "IssuedReport | None"
    ) -> None:
        """Print the counts that add up, and where the report is."""
        counts = result.counts.as_dict()
        out.print(
            f"[bold]run {result.reference} done[/bold]: {counts['listed']} listed = "
            + " + ".join(_verdict(name, counts[name]) for name in VERDICT_STYLE)
            + _carried(counts["carried_over"])
        )
        if result.inspected_before:
            out.print(f"  {result.inspected_before} inspected by earlier runs, not listed again")
        if counts["missing"]:
            out.print(f"  [magenta]{counts['missing']} named in the manifest, but not found[/magenta]")
        if signed is not None:
            style = "default" if signed.problem is None else "red"
            out.print(f"  [{style}]{safe(signed.sentence())}[/]")
        if report is not None:
            out.print(f"  report: {safe(str(report.path))}")
            print_unsealed(report)


def verdicts(counts: Mapping[str, int]) -> str:
    """Write verdict counts in their colours."""
    return " · ".join(_verdict(name, counts.get(name, 0)) for name in VERDICT_STYLE)


def _verdict(name: str, count: int) -> str:
    return f"[{VERDICT_STYLE[name] if count else 'dim'}]{count} {name}[/]"


def _carried(count: int) -> str:
    return f" [dim]({count} carried over)[/dim]" if count else ""


def run(config: Config = None, overrides: Overrides = None) -> None:
    """Inspect a source now: list, decode, classify, explain, record, report."""
    from flows.environment import check_prefect_server, prepare_prefect

    # Settings are checked before anything starts; then Prefect, which reads its environment at import.
    settings_of(config, overrides)
    prepare_prefect(quiet=True)
    check_prefect_server()
    from flows.inspection import inspect
    from flows.observers import observed_by

    with ConsoleObserver() as observer, observed_by(observer):
        summary = inspect(config_name(config), overrides, trigger="manual")
    if any(summary[what] for what in ("unreadable", "missing", "unexplained", "unsigned", "unsealed")):
        raise typer.Exit(1)


def serve(config: Config = None, overrides: Overrides = None) -> None:
    """Run the inspection on its cron schedule, against the Prefect server that PREFECT_API_URL names."""
    from flows.environment import check_prefect_server, prepare_prefect

    settings = settings_of(config, overrides)
    prepare_prefect(quiet=False)
    check_prefect_server()
    from flows.serving import serve_inspection

    serve_inspection(settings, config_name(config), overrides or [])
