"""The command line: `kensa`. Exit codes: 0 done, 1 something broken was found, 2 wrong usage or settings."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from cli.audit.log import audit_app
from cli.audit.recall import audit_part, audit_trace
from cli.audit.verify import audit_check, audit_checkpoint, audit_keygen, audit_prove, audit_verify
from cli.config import config_app
from cli.console import err, safe
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
from cli.report.model import report_model
from cli.report.sign import report_sign
from cli.report.verify import report_app
from cli.run import run, serve

app = typer.Typer(
    name="kensa",
    help="Industrial defect inspection that explains itself.",
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
) -> None:
    """Industrial defect inspection that explains itself."""


def _expected_errors() -> tuple[type[Exception], ...]:
    # Imported when something has gone wrong, so that `kensa --version` does not wait for torch.
    from classifiers.errors import ClassifierError
    from configs.loading import ConfigError
    from db.errors import RecordError
    from explainers import ExplainerError
    from reports.errors import ReportError
    from sources.errors import SourceError, Unreadable

    return (ClassifierError, ConfigError, RecordError, ExplainerError, ReportError, SourceError, Unreadable)


def main() -> None:
    """Run the command line; an expected error is one message, not a traceback, and exit code 2."""
    try:
        app()
    except Exception as error:
        if not isinstance(error, _expected_errors()):
            raise
        err.print(f"[red]kensa:[/red] {safe(str(error))}")
        sys.exit(2)
