"""Commands that inspect: now, or on a schedule; and what the terminal shows of a run."""

import atexit
import gc
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from threading import Timer
from typing import TYPE_CHECKING, Annotated, Self

import typer

from cli.console import (
    Exit,
    debugging,
    err,
    out,
    print_error,
    print_late,
    print_signed,
    print_unsealed,
    safe,
)
from cli.options import Config, Overrides, config_name, open_record, person, settings_of
from configs.loading import ConfigError, require_paths
from configs.schema import Settings

if TYPE_CHECKING:
    from db.inspection.missing_images import MissingImage
    from operations.inspection.checkpoints import SignedHead
    from operations.inspection.run import BatchSummary, Inspection, RunResult
    from operations.reporting.issue import IssuedReport
    from operations.reporting.missing_reports import Late
    from operations.whole_run import EndedRun


# From a run's end on, how long Prefect may take to note it and to tell its server what is left.
REPORTING_S = 30
VERDICT_STYLE = {"pass": "green", "review": "yellow", "reject": "red", "unreadable": "magenta"}


class ConsoleObserver:
    """Shows a run: a spinner with the counts so far, one line per recorded batch."""

    def __init__(self) -> None:
        self._status = out.status("opening the source, the model and the record …")
        self._done = 0
        self._findings = 0

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def waiting(self, sentence: str) -> None:
        """Say what is waited for."""
        out.print(safe(sentence))

    def started(self, inspection: "Inspection") -> None:
        """Say which run begins, over what, with which model."""
        run, package = inspection.run, inspection.package
        out.print(
            f"[bold]run {run.reference}[/bold] {'resumed' if run.resumed else 'started'}: "
            f"{safe(run.source)} · model {safe(run.model.name)} {package.digest[:12]} · "
            f"{inspection.predictor.sentence()}"
        )
        self._status.update("listing …")

    def late(self, late: "Late") -> None:
        """Print what earlier runs lacked, and what became of it."""
        print_late(late)

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
        if left_out := result.left_out():
            out.print(f"  {left_out}")
        if result.empty and report is None:
            out.print("  nothing to do, so no report was issued")
        for unread in result.unreadable[:_NAMED]:
            out.print(f"    [magenta]unreadable[/magenta] {safe(unread.uri)}: {safe(unread.reason)}")
        if (left := len(result.unreadable) - _NAMED) > 0:
            out.print(f"    and {left} more, which the report names")
        if counts["missing"]:
            still = " still" if result.empty else ""
            out.print(f"  [magenta]{counts['missing']} named in the manifest, but{still} not found[/magenta]")
            for each in result.missing[:_NAMED]:
                out.print(f"    {safe(_missing_text(each))}")
            if (left := len(result.missing) - _NAMED) > 0:
                out.print(f"    and {left} more, which the report names")
        if result.gone:
            out.print(f"  {result.gone} recorded before an interruption and no longer in the source")
        if signed is not None:
            print_signed(signed)
        if report is not None:
            out.print(f"  report: {safe(str(report.path))}")
            print_unsealed(report)


class FlowConsole(ConsoleObserver):
    """Shows a run of Prefect's flow, and decides the exit code: Prefect may fail after it, or hang."""

    def __init__(self) -> None:
        super().__init__()
        self.code: int | None = None
        self.error: BaseException | None = None
        self._told = False

    def finished(
        self, result: "RunResult", signed: "SignedHead | None", report: "IssuedReport | None"
    ) -> None:
        """Print the end, and take note whether something in it needs a person."""
        from operations.whole_run import attention_reasons

        super().finished(result, signed, report)
        self.code = Exit.attention if attention_reasons(result, signed, report) else 0
        self._limit_prefect()

    def failed(self, error: BaseException) -> None:
        """Take note of what ended the run."""
        self.error = error
        self._limit_prefect()

    def untold(self, problem: str) -> None:
        """Say once that Prefect shows less than the record holds."""
        if not self._told:
            err.print(f"  Prefect was not told of this result, which the record holds: {safe(problem)}")
        self._told = True

    def _limit_prefect(self) -> None:
        # Prefect tries for minutes to reach a server that is gone, and when the process ends once more for
        # each event that it could not send. Nothing of the run waits for that.
        limit = Timer(REPORTING_S, self._end)
        limit.daemon = True
        limit.start()

    def _end(self) -> None:
        if self.error is not None:
            self.code = print_error(self.error)
        elif self.code in (0, Exit.attention):
            self.untold(f"its server did not answer within {REPORTING_S} s")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(self.code or 0))


def verdicts(counts: Mapping[str, int]) -> str:
    """Write verdict counts in their colours."""
    return " · ".join(_verdict(name, counts.get(name, 0)) for name in VERDICT_STYLE)


def _verdict(name: str, count: int) -> str:
    return f"[{VERDICT_STYLE[name] if count else 'dim'}]{count} {name}[/]"


_NAMED = 10  # missing or unreadable pictures named one by one


def _missing_text(image: "MissingImage") -> str:
    known = [(name, getattr(image, name)) for name in ("part", "lot", "station")]
    said = ", ".join(f"{name} {value}" for name, value in known if value)
    return f"{image.uri} ({said})" if said else image.uri


def _carried(count: int) -> str:
    return f" [dim]({count} carried over)[/dim]" if count else ""


def run(
    config: Config = None,
    overrides: Overrides = None,
    abandon: Annotated[
        bool,
        typer.Option(
            "--abandon",
            help="Inspect nothing: end the interrupted run of these settings as failed.",
        ),
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why it is abandoned, for the record.")] = None,
) -> None:
    """Inspect a source now: list, decode, classify, explain, record, report.

    Exit code 3: the run is complete; something was unreadable, missing, unexplained, unsigned or unsealed.
    """
    if abandon:
        _abandon(settings_of(config, overrides), reason)
        return
    if reason is not None:
        raise ConfigError("--reason goes with --abandon")
    # Settings are checked before anything starts.
    settings = _checked_settings(config, overrides)
    from flows.environment import named_server

    if named_server(quiet=not debugging.get()) is None:
        ended = inspect_here(settings)
        raise typer.Exit(Exit.attention if ended.attention_reasons() else 0)
    raise typer.Exit(_inspect_as_flow(config_name(config), overrides))


def inspect_here(settings: Settings) -> "EndedRun":
    """Inspect in this process, without Prefect, and show it; end the command where it is interrupted."""
    from flows.environment import interrupted_by_signals

    with ConsoleObserver() as observer:
        try:
            with interrupted_by_signals():
                _import_operations()
                from operations.whole_run import inspect_source

                return inspect_source(settings, "manual", observer)
        except KeyboardInterrupt as error:
            raise typer.Exit(print_error(error)) from error


def _import_operations() -> None:
    """Import what a run needs without the garbage collector, which walks through it again and again.

    All of it stays to the end: a tenth of the import's time, and later half a second for each collection.
    """
    if "torch" in sys.modules:
        return
    gc.disable()
    try:
        import_module("operations.whole_run")
        import_module("reports.pdf.render")
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # libraries look for leaks when the interpreter ends
        gc.enable()


def _inspect_as_flow(config: str, overrides: list[str] | None) -> int:
    """Inspect as a run of Prefect's flow, which Prefect's server shows; return the exit code."""
    from flows.environment import PrefectError, check_prefect_server

    check_prefect_server()
    from flows.inspection import inspect
    from flows.observers import observed_by

    with FlowConsole() as observer, observed_by(observer):
        try:
            inspect(config, overrides, trigger="manual")
        except BaseException as error:
            if observer.error is not None:
                observer.code, observer.error = print_error(observer.error), None
            elif not isinstance(error, Exception):
                raise
            elif observer.code is None:  # not one line of the run was carried out
                raise PrefectError(f"Prefect did not begin the run: {error}") from error
            else:
                observer.untold(f"{type(error).__name__}: {error}")
    return observer.code or 0


def _checked_settings(config: str | None, overrides: list[str] | None) -> Settings:
    """Load the settings; ConfigError where they, or the paths that they name, cannot be used."""
    settings = settings_of(config, overrides)
    require_paths(settings)
    return settings


def _abandon(settings: Settings, reason: str | None) -> None:
    from db.artifacts import ArtifactStore
    from operations.inspection.abandonment import abandon_run
    from operations.inspection.checkpoints import open_signer
    from operations.reporting.missing_reports import make_up

    with open_record(settings) as database, out.status("ending the run …"):
        signer, store = open_signer(settings), ArtifactStore(settings.artifacts.uri)
        ended = abandon_run(database, settings, reason or "", actor=person())
        out.print(f"[bold]run {ended.reference} ended as failed[/bold]: {safe(ended.source)}")
        late = make_up(database, store, settings, signer, actor=person(), inspection=settings.name)
    print_late(late)
    if not late.complete:
        raise typer.Exit(Exit.attention)


def serve(config: Config = None, overrides: Overrides = None) -> None:
    """Run the inspection on its cron schedule, against the Prefect server that PREFECT_API_URL names."""
    from flows.environment import check_prefect_server, prepare_prefect

    settings = _checked_settings(config, overrides)
    prepare_prefect(quiet=False)
    check_prefect_server()
    from flows.serving import serve_inspection

    serve_inspection(settings, config_name(config), overrides or [])
