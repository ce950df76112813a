"""The command line: `kensa`. What its exit codes say: `cli.console.Exit`."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from cli.audit.log import audit_app
from cli.audit.recall import audit_part, audit_trace
from cli.audit.verify import audit_check, audit_checkpoint, audit_keygen, audit_prove, audit_verify
from cli.config import config_app
from cli.console import debugging, print_error
from cli.db import db_grants, db_migrate, db_prune, db_redact
from cli.demo import demo
from cli.disposition import disposition
from cli.findings import findings
from cli.model.calibrate import calibrate
from cli.model.dataset import dataset_app
from cli.model.evaluate import evaluate
from cli.model.explain import explain
from cli.model.synth import patches, synth
from cli.model.train import train
from cli.people import people_app
from cli.replay import replay
from cli.report.issue import report_finding, report_part, report_period, report_run
from cli.report.missing import report_missing
from cli.report.model import report_model
from cli.report.sign import report_sign
from cli.report.verify import report_app
from cli.run import run, serve

app = typer.Typer(
    name="kensa",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(config_app, name="config")
app.add_typer(audit_app, name="audit")
db_app = typer.Typer(no_args_is_help=True, help="The database: its schema, its accounts, its artifacts.")
app.add_typer(db_app, name="db")
db_app.command("migrate")(db_migrate)
db_app.command("grants")(db_grants)
db_app.command("prune")(db_prune)
db_app.command("redact")(db_redact)
audit_app.command("verify")(audit_verify)
audit_app.command("checkpoint")(audit_checkpoint)
audit_app.command("keygen")(audit_keygen)
audit_app.command("prove")(audit_prove)
audit_app.command("check")(audit_check)
app.add_typer(report_app, name="report")
report_app.command("run")(report_run)
report_app.command("period")(report_period)
report_app.command("finding")(report_finding)
report_app.command("part")(report_part)
report_app.command("model")(report_model)
report_app.command("sign")(report_sign)
report_app.command("missing")(report_missing)
app.add_typer(people_app, name="people")
app.add_typer(dataset_app, name="dataset")
audit_app.command("part")(audit_part)
audit_app.command("trace")(audit_trace)
for command in (
    *(findings, disposition, replay, train, calibrate, explain, evaluate, synth, patches),
    *(run, serve, demo),
):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"kensa {version('kensa')}")
        raise typer.Exit


@app.callback()
def kensa(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print tracebacks, and what Prefect says of itself.")
    ] = False,
) -> None:
    """Industrial defect inspection that explains itself.

    Exit codes: 0 done; 1 unexpected error; 2 wrong usage or settings; 3 done, but something needs a person;
    4 not done for a reason outside kensa, nothing lost, run it again; 5 what was checked does not hold;
    6 another process is at the same work; 7 nothing broken, but redacted; 130 interrupted.
    """
    debugging.set(debug)


def main() -> None:
    """Run the command line; an error is one message and an exit code (`Exit`), not a traceback."""
    try:
        app()
    except Exception as error:  # noqa: BLE001 - whatever it is, its user is told in a sentence
        sys.exit(print_error(error))
