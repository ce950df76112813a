"""`kensa report missing`: issue what ended runs lack."""

import typer

from cli.console import Exit, out, print_late
from cli.options import Config, Overrides, open_record, person, settings_of
from db.artifacts import ArtifactStore
from operations.inspection.checkpoints import open_signer


def report_missing(config: Config = None, overrides: Overrides = None) -> None:
    """Issue the reports and the checkpoint that ended runs lack, of all inspections in the record.

    A run that is interrupted between its end and its report has none. The next run of the same inspection
    does the same.
    """
    from operations.reporting.missing_reports import Late, make_up

    settings = settings_of(config, overrides)
    store, signer = ArtifactStore(settings.artifacts.uri), open_signer(settings)
    with open_record(settings) as database, out.status("rendering …"):
        late = make_up(database, store, settings, signer, actor=person())
    if late == Late():
        out.print("nothing is missing: every run that ended has its report and its checkpoint")
    print_late(late)
    if not late.complete:
        raise typer.Exit(Exit.attention)
