"""What ended runs still lack: a report, or a checkpoint, because the process ended first."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from configs.schema import ReportSettings, Settings
from db.artifacts import ArtifactStore
from db.chain.events import Actor
from db.engine import Database
from db.errors import RecordError, RunBusy
from db.inspection.run_lock import locked_run
from db.inspection.runs import RunKind
from db.issued.unreported import EndedRun, unreported_runs, unsigned_runs
from operations.inspection.checkpoints import SignedHead, Signer, sign_head
from operations.reporting.issue import IssuedReport
from operations.reporting.run_report import issue_report
from reports.errors import ReportError

_log = logging.getLogger("kensa")


@dataclass(frozen=True)
class LateReport:
    """A report that was missing: as it is issued now, or the reason why it is not."""

    run: str
    report: IssuedReport | None
    problem: str | None = None

    def sentence(self) -> str:
        """Say it in a few words."""
        if self.report is None:
            return f"report of run {self.run} is missing: {self.problem}"
        return f"report of run {self.run}, missing until now: {self.report.path}"


@dataclass(frozen=True)
class Late:
    """What ended runs lacked; `signed` is None where no checkpoint was missing."""

    signed: SignedHead | None = None
    reports: tuple[LateReport, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is missing any more."""
        return (self.signed is None or self.signed.problem is None) and all(
            each.report is not None and each.report.unsealed is None for each in self.reports
        )


def make_up(
    database: Database,
    store: ArtifactStore,
    settings: Settings,
    signer: Signer | None,
    *,
    actor: Actor,
    inspection: str | None = None,
    held: RunKind | None = None,
) -> Late:
    """Issue what ended runs lack, as these settings say; what fails is told, not raised.

    Args:
        database, store, settings: the record, its artifacts, and how reports look.
        signer: signs the checkpoint.
        actor: who issues it.
        inspection: only runs whose settings have this `name`, and reports only where the settings want them.
            Other inspections may share the database, and have reports of another look.
        held: the kind of run whose lock the caller holds.
    """
    with database.session() as session:
        unsigned, unreported = unsigned_runs(session), unreported_runs(session)
    if inspection is not None:
        unsigned = [run for run in unsigned if run.inspection == inspection]
        unreported = [run for run in unreported if run.inspection == inspection and settings.report.enabled]
    signed = None
    if unsigned and signer is not None:
        signed = sign_head(database, signer, actor=actor)
    elif unsigned and inspection is None:
        signed = SignedHead(problem="the settings name no key to sign it with (audit.signing_key)")
    return Late(signed, issue_late(database, store, settings.report, unreported, actor=actor, held=held))


def issue_late(
    database: Database,
    store: ArtifactStore,
    settings: ReportSettings,
    runs: Sequence[EndedRun],
    *,
    actor: Actor,
    held: RunKind | None = None,
) -> tuple[LateReport, ...]:
    """Issue the reports of runs, each under the lock of its run: who is still at it issues its own.

    `held`: the kind of run whose lock the caller holds.
    """
    late = []
    for run in runs:
        try:
            if run.kind == held:
                issued = issue_report(database, store, run.id, settings, actor=actor)
            else:
                with locked_run(database, run.kind, remedy="it may be rendering the report"):
                    issued = issue_report(database, store, run.id, settings, actor=actor)
        except RunBusy as busy:
            late.append(LateReport(run.reference, None, str(busy)))
        except Exception as error:  # noqa: BLE001 - a bucket, a token: each has errors of its own
            expected = isinstance(error, RecordError | ReportError)
            problem = str(error) if expected else f"{type(error).__name__}: {error}"
            _log.error("the report of run %s was not issued: %s", run.reference, problem)
            late.append(LateReport(run.reference, None, problem))
        else:
            late.append(LateReport(run.reference, issued))
    return tuple(late)
