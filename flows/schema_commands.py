"""Commands for who owns the database: the schema, and accounts that cannot change history."""

import sys
from typing import Annotated

import typer

from db.engine import open_database
from db.grants import grants_script
from flows.console import out, safe
from flows.options import Config, Overrides, settings_of
from flows.record_commands import open_record


def db_migrate(config: Config = None, overrides: Overrides = None) -> None:
    """Create the schema, or bring it to this version; guards and views included."""
    with open_database(settings_of(config, overrides).database.url) as database:
        database.migrate()
        database.check()
        out.print(f"schema is up to date: {safe(str(database))}", soft_wrap=True)


def db_grants(
    writer: Annotated[str, typer.Option(help="Account that runs inspections and signs: SELECT, INSERT.")],
    auditor: Annotated[str, typer.Option(help="Account that verifies: SELECT.")],
    reader: Annotated[str, typer.Option(help="Account of BI tools: SELECT from the views.")],
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Print the SQL, for the owner to run, of three PostgreSQL accounts that cannot change history."""
    with open_record(config, overrides) as database, database.session() as session:
        sys.stdout.write(grants_script(session.connection(), writer, auditor, reader))
