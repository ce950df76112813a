"""The command line: `kensa`. Exit codes: 0 done, 1 something broken was found, 2 wrong usage or settings."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from flows import (
    attestation_commands,
    dataset_commands,
    disposition_commands,
    issue_commands,
    model_commands,
    model_report_commands,
    people_commands,
    prune_commands,
    query_commands,
    record_commands,
    replay_commands,
    report_commands,
    schema_commands,
    sign_off_commands,
)
from flows.console import ConsoleObserver, err, out, safe
from flows.options import Config, Overrides, config_name, settings_of

app = typer.Typer(
    name="kensa",
    help="Industrial defect inspection that explains itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
config_app = typer.Typer(no_args_is_help=True, help="Settings: show what is in force, check what is wrong.")
app.add_typer(config_app, name="config")
app.add_typer(record_commands.audit_app, name="audit")
db_app = typer.Typer(no_args_is_help=True, help="The database: its schema, its accounts, its artefacts.")
app.add_typer(db_app, name="db")
db_app.command("migrate")(schema_commands.db_migrate)
db_app.command("grants")(schema_commands.db_grants)
db_app.command("prune")(prune_commands.db_prune)
record_commands.audit_app.command("verify")(attestation_commands.audit_verify)
record_commands.audit_app.command("checkpoint")(attestation_commands.audit_checkpoint)
record_commands.audit_app.command("keygen")(attestation_commands.audit_keygen)
record_commands.audit_app.command("prove")(attestation_commands.audit_prove)
record_commands.audit_app.command("check")(attestation_commands.audit_check)
app.add_typer(report_commands.report_app, name="report")
report_commands.report_app.command("run")(issue_commands.report_run)
report_commands.report_app.command("period")(issue_commands.report_period)
report_commands.report_app.command("finding")(issue_commands.report_finding)
report_commands.report_app.command("part")(issue_commands.report_part)
report_commands.report_app.command("model")(model_report_commands.report_model)
report_commands.report_app.command("sign")(sign_off_commands.report_sign)
app.add_typer(people_commands.people_app, name="people")
app.add_typer(dataset_commands.dataset_app, name="dataset")
record_commands.audit_app.command("part")(query_commands.audit_part)
record_commands.audit_app.command("trace")(query_commands.audit_trace)
app.command()(record_commands.findings)
app.command()(disposition_commands.disposition)
app.command()(replay_commands.replay)
app.command()(model_commands.train)
app.command()(model_commands.calibrate)
app.command()(model_commands.explain)
app.command()(model_commands.evaluate)
app.command()(model_commands.synth)
app.command()(model_commands.patches)


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


@app.command()
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


@app.command()
def serve(config: Config = None, overrides: Overrides = None) -> None:
    """Run the inspection on its cron schedule, against the Prefect server that PREFECT_API_URL names."""
    from flows.environment import check_prefect_server, prepare_prefect

    settings = settings_of(config, overrides)
    prepare_prefect(quiet=False)
    check_prefect_server()
    from flows.serving import serve_inspection

    serve_inspection(settings, config_name(config), overrides or [])


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo's pictures, record and report go.")] = Path(
        "demo"
    ),
) -> None:
    """Show the main job on synthetic surfaces: no network, no GPU, no server."""
    from flows.environment import prepare_prefect

    prepare_prefect(quiet=True)
    from flows.demo import run_demo

    run_demo(folder)


@config_app.command("show")
def config_show(config: Config = None, overrides: Overrides = None) -> None:
    """Print the settings in force: defaults, file, environment and --set merged; the password masked."""
    import yaml

    sys.stdout.write(
        yaml.safe_dump(settings_of(config, overrides).public(), sort_keys=False, allow_unicode=True)
    )


@config_app.command("check")
def config_check(config: Config = None, overrides: Overrides = None) -> None:
    """Check settings, paths and the model package without starting anything."""
    from classifiers import Predictor
    from configs.loading import ConfigError, check_paths
    from operations.inspection.checkpoints import open_signer
    from operations.inspection.evidence import explainer_for
    from operations.inspection.run import checked_package
    from operations.reporting.seal import check_seal

    settings = settings_of(config, overrides)
    if problems := check_paths(settings):
        raise ConfigError("\n".join(f"{config_name(config)}: {problem}" for problem in problems))
    package = checked_package(settings)
    explainer_for(Predictor(package, device=settings.model.device), settings.explainer)
    open_signer(settings)
    seal = check_seal(settings.report.signature)
    out.print(f"settings are in order; model {safe(str(package.path))} {package.digest[:12]}")
    if seal is not None:
        vouching = "itself alone" if seal.self_signed else safe(seal.issuer)
        out.print(
            f"reports are sealed by {safe(seal.subject)}, for whom {vouching} vouches until "
            f"{seal.not_after:%Y-%m-%d}",
            soft_wrap=True,
        )


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
        err.print(f"[red]kensa:[/red] {safe(str(error))}", soft_wrap=True)
        sys.exit(2)
