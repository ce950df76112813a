"""The inspection flow: decode, classify, explain, record, sign, report. Each task is a batch, or a run."""

import logging
import platform
from collections.abc import Callable
from contextlib import nullcontext
from contextvars import copy_context
from functools import partial
from pathlib import PurePosixPath
from threading import Thread
from typing import Any
from urllib.parse import quote
from uuid import UUID

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Completed

from configs.loading import load_settings
from configs.schema import Settings
from db.queries.runs import run_lots
from db.schema import VERDICTS
from flows.environment import interrupted_by_signals
from flows.observers import FlowObserver, current_observer
from operations import whole_run
from operations.inspection import run
from operations.inspection.checkpoints import SignedHead
from operations.inspection.line import Steps
from operations.inspection.run import Batch, Inspection, RunResult
from operations.reporting.issue import IssuedReport
from operations.reporting.missing_reports import Late
from operations.whole_run import RunSteps
from sources.folder import ListedImage


# NO_CACHE: Prefect would hash every batch's pixels to look it up; what is done is known by the record.
@task(name="decode", cache_policy=NO_CACHE, persist_result=False)
def decode_batch(inspection: Inspection, number: int, listed: list[ListedImage]) -> Batch:
    """Read and decode a batch."""
    return run.decode(inspection, number, listed)


@task(name="classify", cache_policy=NO_CACHE, persist_result=False)
def classify_batch(inspection: Inspection, batch: Batch) -> Batch:
    """Decide about the pictures of a batch that have no outcome yet."""
    return run.classify(inspection, batch)


@task(name="explain", cache_policy=NO_CACHE, persist_result=False)
def explain_batch(inspection: Inspection, batch: Batch) -> Batch:
    """Explain a batch's findings together."""
    return run.explain(inspection, batch)


@task(name="record", cache_policy=NO_CACHE, persist_result=False)
def record_batch(inspection: Inspection, batch: Batch) -> run.BatchSummary:
    """Write a batch's outcomes in one transaction."""
    return run.record(inspection, batch)


@task(name="sign", cache_policy=NO_CACHE, persist_result=False)
def sign_head(inspection: Inspection, result: RunResult) -> SignedHead | None:
    """Sign the head of the audit trail and keep it outside the database."""
    return run.sign(inspection, result)


@task(name="missing", cache_policy=NO_CACHE, persist_result=False)
def make_up_missing(inspection: Inspection) -> Late:
    """Issue what earlier runs lack that were interrupted before their report or checkpoint."""
    return whole_run.make_up_missing(inspection)


@task(name="report", cache_policy=NO_CACHE, persist_result=False)
def render_report(inspection: Inspection) -> IssuedReport:
    """Render the run's report, seal it, and record it."""
    return whole_run.issue_run_report(inspection)


_log = logging.getLogger("kensa")
_PUBLISH_S = 10
_TASKS = RunSteps(
    Steps(decode_batch, classify_batch, explain_batch, record_batch),
    make_up_missing,
    sign_head,
    render_report,
)


@flow(name="inspect", persist_result=False)
def inspect(config: str, overrides: list[str] | None = None, trigger: str = "schedule") -> dict[str, Any]:
    """Run one inspection as the settings say, and return its summary.

    Where something in a complete run needs a person, its state in Prefect is "Needs attention" and says why;
    its type stays COMPLETED.

    Args:
        config: a YAML file, or the name of a shipped profile.
        overrides: "section.key=value" entries that win over file and environment.
        trigger: "manual" or "schedule", as the record shall say.
    """
    observer = current_observer()
    try:
        with interrupted_by_signals() if trigger == "manual" else nullcontext():
            # The summary, or a state that holds it: who calls the flow gets the summary from Prefect anyway.
            ended: dict[str, Any] = _inspected(load_settings(config, overrides or []), trigger, observer)
            return ended
    except BaseException as error:
        # Told here: with its server gone, Prefect raises an error of its own in place of this one.
        observer.failed(error)
        raise


def _inspected(settings: Settings, trigger: str, observer: FlowObserver) -> Any:
    with run.open_inspection(settings, trigger, waiting=observer.waiting) as inspection:
        observer.started(inspection)
        if (problem := _problem_telling(partial(_named, _flow_run_name(inspection)))) is not None:
            _log.warning("Prefect's run keeps the name that Prefect gave it: %s", problem)
        ended = whole_run.complete_run(inspection, observer, _TASKS)
        if (
            problem := _problem_telling(partial(_publish, inspection, ended.result, ended.report))
        ) is not None:
            observer.untold(problem)
        if reasons := ended.attention_reasons():
            return Completed(name="Needs attention", message="; ".join(reasons), data=ended.summary())
        return ended.summary()


def _named(name: str) -> None:
    """Name the flow run: what Prefect calls it says nothing to who looks for a run or a lot."""
    run_id = flow_run.id
    if run_id is not None:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(run_id), name=name)


def _problem_telling(work: Callable[[], None]) -> str | None:
    """Tell Prefect something; return why that failed, for the run is as the record has it all the same."""
    failures: list[str] = []

    def tell() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever ails Prefect's server is nothing to the run
            failures.append(f"{type(error).__name__}: {error}")

    # A thread of its own, since Prefect tries for minutes to reach a server that is gone.
    thread = Thread(target=copy_context().run, args=(tell,), name="publish", daemon=True)
    thread.start()
    thread.join(_PUBLISH_S)
    if thread.is_alive():
        return f"its server did not answer within {_PUBLISH_S} s"
    return failures[0] if failures else None


def _publish(inspection: Inspection, result: RunResult, report: IssuedReport | None) -> None:
    """Name the flow run after its lot, and show verdicts and report among Prefect's artifacts."""
    with inspection.database.session() as session:
        lots = run_lots(session, inspection.run.id)
    if len(lots) == 1 and (lot := next(iter(lots))):
        _named(_flow_run_name(inspection, lot))
    key, about = f"run-{result.reference.lower()}", f"Inspection run {result.reference} of {result.source}"
    counts = result.counts.as_dict()
    rows = [
        *({"lot": lot or "not given", "listed": sum(each.values()), **each} for lot, each in lots.items()),
        {"lot": "all", **{name: counts[name] for name in ("listed", *VERDICTS)}},
    ]
    told = [f"{counts['missing']} announced and missing"] if counts["missing"] else []
    told += [left_out] if (left_out := result.left_out()) else []
    create_table_artifact(key=f"{key}-summary", table=rows, description="; ".join([about, *told]))
    if report is None:
        return
    base = inspection.settings.report.base_url
    if base is None:
        place = f"`{report.path.absolute()}` on {platform.node()}"
        create_markdown_artifact(key=f"{key}-report", markdown=f"Report: {place}", description=about)
    else:
        link = f"{base.rstrip('/')}/{quote(report.path.name)}"
        create_link_artifact(key=f"{key}-report", link=link, link_text=report.path.name, description=about)


def _flow_run_name(inspection: Inspection, lot: str | None = None) -> str:
    """Return the run's number beside its lot, or beside its source where it is not of one lot."""
    return f"{inspection.run.reference} · {lot or PurePosixPath(inspection.source.root).name}"
