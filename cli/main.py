"""The command line: `kensa`. What its exit codes say: `cli.console.Exit`."""

import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli.console import debugging, print_error

_GROUPS = {
    "audit": "The audit trail: verify it, list it, show one event.",
    "config": "Settings: show what is in force, check what is wrong.",
    "dataset": "Training data: reviewed findings as a data set.",
    "db": "The database: its schema, its accounts, its artifacts.",
    "people": "People who decide and sign: their roles and passwords.",
    "report": "Reports: issue them, sign them off, verify them.",
}
# Of each command: where its function is, and its line in the group's help. A module is imported when one of
# its commands is called: most of them take a second or more, for torch, Prefect, pyHanko.
COMMANDS = {
    "kensa": {
        "run": ("cli.run:run", "Inspect a source now, and issue the report."),
        "serve": ("cli.run:serve", "Inspect on the cron schedule of the settings."),
        "demo": ("cli.demo:demo", "Show the main job on synthetic surfaces."),
        "findings": ("cli.findings:findings", "List flagged defects, newest first."),
        "disposition": ("cli.disposition:disposition", "Decide about a finding and sign it."),
        "replay": ("cli.replay:replay", "Compute a decision again from the record alone."),
        "train": ("cli.model.train:train", "Train a timm CNN and write a model package."),
        "calibrate": ("cli.model.calibrate:calibrate", "Fit thresholds to a target escape rate."),
        "export": ("cli.model.export:export", "Write a model for ONNX or OpenVINO, to serve it elsewhere."),
        "explain": ("cli.model.explain:explain", "Draw why the model sees a class in a picture."),
        "evaluate": ("cli.model.evaluate:evaluate", "Judge explainers by the paper's metrics."),
        "synth": ("cli.model.synth:synth", "Make synthetic rolled-metal surfaces."),
        "patches": ("cli.model.synth:patches", "Cut Severstal's steel strips into patches."),
    },
    "audit": {
        "verify": ("cli.audit.verify:audit_verify", "Walk the chain and name the first broken place."),
        "log": ("cli.audit.log:audit_log", "List audit events, newest first."),
        "show": ("cli.audit.log:audit_show", "Print one audit event completely, as JSON."),
        "part": ("cli.audit.recall:audit_part", "Tell one part's whole life in order."),
        "trace": ("cli.audit.recall:audit_trace", "List the parts that a model judged."),
        "keygen": ("cli.audit.verify:audit_keygen", "Make a key pair for signing checkpoints."),
        "checkpoint": ("cli.audit.verify:audit_checkpoint", "Sign the present head of the audit trail."),
        "prove": ("cli.audit.verify:audit_prove", "Print a proof that a finding is in the record."),
        "check": ("cli.audit.verify:audit_check", "Check a proof without the database."),
    },
    "config": {
        "show": ("cli.config:config_show", "Print the settings in force."),
        "check": ("cli.config:config_check", "Check settings, and what they name."),
    },
    "dataset": {"export": ("cli.model.dataset:dataset_export", "Export reviewed pictures with labels.")},
    "db": {
        "migrate": ("cli.db:db_migrate", "Create the schema, or bring it to this version."),
        "grants": ("cli.db:db_grants", "Print SQL for accounts that cannot change history."),
        "prune": ("cli.db:db_prune", "Remove stored evidence by policy, on record."),
        "redact": ("cli.db:db_redact", "Take secrets out of recorded settings, on record."),
    },
    "people": {
        "add": ("cli.people:people_add", "Add a person."),
        "change": ("cli.people:people_change", "Change a person's printed name or role."),
        "disable": ("cli.people:people_disable", "Take the right to sign in from a person."),
        "enable": ("cli.people:people_enable", "Let a disabled person sign in again."),
        "passwd": ("cli.people:people_passwd", "Set another password for a person."),
        "list": ("cli.people:people_list", "List everybody who can sign, or could."),
    },
    "report": {
        "run": ("cli.report.issue:report_run", "Issue a run's report."),
        "period": ("cli.report.issue:report_period", "Issue the report of a lot, a shift, a day, a week."),
        "finding": ("cli.report.issue:report_finding", "Issue the dossier of a finding."),
        "part": ("cli.report.issue:report_part", "Issue the dossier of a part."),
        "model": ("cli.report.model:report_model", "Report on a model version."),
        "sign": ("cli.report.sign:report_sign", "Sign an issued report off."),
        "verify": ("cli.report.verify:report_verify", "Check a report: seal, content, record."),
        "missing": ("cli.report.missing:report_missing", "Issue the reports that ended runs lack."),
    },
}


def load_command(group: str, name: str) -> Any:
    """Return the command, in the form that typer runs, of a name in `COMMANDS`; its module is imported."""
    home, _, function = COMMANDS[group][name][0].partition(":")
    module, alone = import_module(home), _typer(name)
    alone.command(name, cls=getattr(module, "COMMAND_CLASS", None))(getattr(module, function))
    return typer.main.get_command(alone)


class _Group(TyperGroup):
    """A group that lists its commands without importing them, and imports the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS[str(self.name)]:
            command = load_command(str(self.name), name)
        return name, command, rest


def _typer(name: str, **more: Any) -> typer.Typer:
    return typer.Typer(
        name=name, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, **more
    )


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"kensa {version('kensa')}")
        raise typer.Exit


app = _typer("kensa", no_args_is_help=True, cls=_Group)


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


def _placeholder() -> None:
    raise NotImplementedError("_Group puts the command in its place")


for _name, _commands in COMMANDS.items():
    _group = app
    if _name != "kensa":
        _group = _typer(_name, no_args_is_help=True, cls=_Group, help=_GROUPS[_name])
        app.add_typer(_group)
    for _command, (_, _help) in _commands.items():
        _group.command(_command, help=_help)(_placeholder)


def main() -> None:
    """Run the command line; an error is one message and an exit code (`Exit`), not a traceback."""
    try:
        app()
    except Exception as error:  # noqa: BLE001 - whatever it is, its user is told in a sentence
        sys.exit(print_error(error))
