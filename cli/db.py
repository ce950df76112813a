"""Commands for who owns the database: the schema, and accounts that cannot change history."""

import sys
from typing import Annotated

import typer

from cli.console import out, safe
from cli.options import Config, Overrides, open_record, person, settings_of
from db.artifacts import ArtifactStore
from db.columns import utc_now
from db.engine import open_database
from db.errors import RecordError
from db.grants import grants_script
from db.inspection.runs import find_run_id, run_reference
from db.retention.policy import PRUNABLE, PrunePolicy, age_before
from db.retention.prune import Pruned, clear, prune
from db.retention.redaction import redact_settings


def db_migrate(config: Config = None, overrides: Overrides = None) -> None:
    """Create the schema, or bring it to this version; guards and views included."""
    with open_database(settings_of(config, overrides).database.url) as database:
        database.migrate()
        database.check()
        out.print(f"schema is up to date: {safe(str(database))}")


def db_grants(
    writer: Annotated[str, typer.Option(help="Account that runs inspections and signs: SELECT, INSERT.")],
    auditor: Annotated[str, typer.Option(help="Account that verifies: SELECT.")],
    reader: Annotated[str, typer.Option(help="Account of BI tools: SELECT from the views.")],
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Print the SQL, for the owner to run, of three PostgreSQL accounts that cannot change history."""
    with open_record(settings_of(config, overrides)) as database, database.session() as session:
        sys.stdout.write(grants_script(session.connection(), writer, auditor, reader))


def db_prune(
    config: Config = None,
    overrides: Overrides = None,
    older_than: Annotated[
        str | None, typer.Option(help="Age from which evidence goes: 90d, 6w, 18m (months) or 2y.")
    ] = None,
    kinds: Annotated[str, typer.Option(help="What goes, separated by commas.")] = ",".join(PRUNABLE),
    keep_findings: Annotated[
        bool, typer.Option("--keep-findings", help="Keep the evidence of every flagged picture.")
    ] = False,
    undecided_too: Annotated[
        bool,
        typer.Option("--undecided-too", help="Also evidence of findings that nobody has decided about."),
    ] = False,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Also stored files older than a day that no record knows.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove stored evidence by policy, on record; and bytes that an interrupted prune left behind.

    Reports and models stay. So does evidence of findings without a disposition in effect, unless
    --undecided-too. Verification then says "pruned by policy", not "missing".
    """
    settings = settings_of(config, overrides)
    store = ArtifactStore(settings.artifacts.uri)
    policy = None
    if older_than is not None:
        policy = PrunePolicy(
            older_than=older_than.strip(),
            before=age_before(older_than, utc_now()),
            kinds=tuple(kind for name in kinds.split(",") if (kind := name.strip())),
            keep_findings=keep_findings,
            undecided_too=undecided_too,
        )
    elif keep_findings or undecided_too:
        raise RecordError("--keep-findings and --undecided-too go with --older-than: give an age such as 2y")
    with open_record(settings) as database, out.status("pruning …"):
        cleared = clear(database, store, orphans=orphans, actor=person(), reason=reason, dry_run=dry_run)
        pruned = Pruned()
        if policy is not None:
            pruned = prune(database, store, policy, actor=person(), reason=reason, dry_run=dry_run)
    did = "would remove" if dry_run else "removed"
    if policy is not None:
        for kind in policy.kinds:
            out.print(f"{did} {pruned.counts[kind]} of kind {kind}, {pruned.sizes[kind]} bytes")
        out.print(f"policy: {safe(str(policy))}")
    if pruned.fresh:
        out.print(f"left {pruned.fresh}: stored again less than a day ago")
    if pruned.missing:
        out.print(f"left {pruned.missing}: their bytes are missing; run `kensa audit verify`")
    if cleared.leftovers or policy is None:
        out.print(f"{did} {cleared.leftovers} left behind by an interrupted prune")
    if orphans:
        out.print(f"{did} {cleared.orphans} of no record")


def db_redact(
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    config: Config = None,
    overrides: Overrides = None,
    run: Annotated[str | None, typer.Option(help="Only this run, such as R000012.")] = None,
    path: Annotated[
        str | None,
        typer.Option(
            help="Also no secret by its looks: the text at this key, such as report.title; takes --run."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be replaced.")] = False,
) -> None:
    """Replace secrets in the settings that runs recorded, on record; change the secret itself first.

    For the owner of the tables. What is replaced is no longer proved: `kensa audit verify` says so from then
    on, with exit code 7. The old digest, backups and reports that were issued remain.
    """
    with open_record(settings_of(config, overrides)) as database:
        with database.session() as session:
            which = None if run is None else find_run_id(session, run)
        redacted = redact_settings(
            database, actor=person(), reason=reason, run=which, path=path, dry_run=dry_run
        )
    for one in redacted:
        did = "would redact" if one.event is None else "redacted"
        event = "" if one.event is None else f" (audit event {one.event})"
        out.print(f"{did} {run_reference(one.number)}: {safe(', '.join(one.paths))}{event}")
    if not redacted:
        out.print("no recorded settings hold a secret")
    elif not dry_run:
        out.print(
            "Sign the head now: `kensa audit checkpoint`. Backups, and the server's own log, hold it still."
        )
