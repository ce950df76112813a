"""`kensa report run`, `period`, `finding`, `part`: issue a report, or give the issued one back."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from cli.console import Exit, out, print_unsealed, safe
from cli.options import Config, Lot, Overrides, Station, open_record, person, settings_of
from configs.schema import Settings
from db.artifacts import ArtifactStore
from db.chain.events import Actor
from db.engine import Database
from db.issued.reports import ReportSubject
from db.queries.runs import find_run, latest_run
from operations.reporting.issue import IssuedReport

Again = Annotated[
    bool,
    typer.Option(
        "--again",
        help="Render it even where the record says nothing newer: another look makes a new revision.",
    ),
]
Issuer = Callable[[Database, ArtifactStore, Settings, Actor], IssuedReport]


def report_run(
    run: Annotated[
        str | None, typer.Argument(help="Run number, such as R000012; the latest when absent.")
    ] = None,
    again: Again = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Issue a run's report; a new revision only when the record says more of the run than before."""
    from operations.reporting.run_report import issue_report

    def made(database: Database, store: ArtifactStore, settings: Settings, actor: Actor) -> IssuedReport:
        with database.session() as session:
            summary = find_run(session, run) if run else latest_run(session)
        if summary is None:
            out.print("no run in the record yet")
            raise typer.Exit(Exit.refused)
        return issue_report(database, store, summary.id, settings.report, actor=actor, again=again)

    _issue(made, config, overrides)


def report_period(
    lot: Lot = None,
    since: Annotated[
        datetime | None, typer.Option("--from", help="Inspected from this time on, in report.timezone.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", help="Inspected before this time, in report.timezone.")
    ] = None,
    station: Station = None,
    again: Again = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Issue the report of a lot, or of a shift, day or week, across runs."""
    from operations.reporting.period_report import issue_period_report

    def made(database: Database, store: ArtifactStore, settings: Settings, actor: Actor) -> IssuedReport:
        zone = ZoneInfo(settings.report.timezone)
        first, last = (at if at is None else at.replace(tzinfo=zone) for at in (since, until))
        return issue_period_report(
            database,
            store,
            settings.report,
            actor=actor,
            lot=lot,
            since=first,
            until=last,
            station=station,
            again=again,
        )

    _issue(made, config, overrides)


def report_finding(
    finding: Annotated[str, typer.Argument(help="Reference of the finding, such as R000012-0003.")],
    again: Again = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Issue the dossier of a finding: everything about it, for a complaint or a concession."""
    from operations.reporting.dossier import issue_dossier

    def made(database: Database, store: ArtifactStore, settings: Settings, actor: Actor) -> IssuedReport:
        subject = ReportSubject.finding(finding.strip().upper())
        return issue_dossier(database, store, subject, settings.report, actor=actor, again=again)

    _issue(made, config, overrides)


def report_part(
    part: Annotated[str, typer.Argument(help="Serial of the part.")],
    lot: Lot = None,
    again: Again = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Issue the dossier of a part: its pictures, all findings on it, everything that happened."""
    from operations.reporting.dossier import issue_dossier, part_subject

    def made(database: Database, store: ArtifactStore, settings: Settings, actor: Actor) -> IssuedReport:
        with database.session() as session:
            subject = part_subject(session, part, lot)
        return issue_dossier(database, store, subject, settings.report, actor=actor, again=again)

    _issue(made, config, overrides)


def _issue(made: Issuer, config: Config, overrides: Overrides) -> None:
    settings = settings_of(config, overrides)
    store = ArtifactStore(settings.artifacts.uri)
    with open_record(settings) as database, out.status("rendering the report …"):
        issued = made(database, store, settings, person())
    state = "new revision" if issued.new else "unchanged"
    record = issued.record
    out.print(f"{safe(str(issued.path))} ({record.number} revision {record.revision}, {state})")
    print_unsealed(issued)
    if issued.unsealed is not None:
        raise typer.Exit(Exit.attention)
