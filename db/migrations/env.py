"""Alembic's entry: joins the transaction of `Database.migrate`, or opens its own for developers."""

from typing import Literal

from alembic import context
from sqlalchemy import Connection, inspect

from db import guards, views
from db.columns import Json, Time
from db.engine import VERSION_TABLE, open_database
from db.schema import Base


def _include(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "table" or name in Base.metadata.tables


def _render(kind: str, thing: object, _context: object) -> str | Literal[False]:
    return f"{type(thing).__name__}()" if kind == "type" and isinstance(thing, Json | Time) else False


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        include_name=_include,
        render_item=_render,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    migrating = context.get_context().get_current_revision() != context.get_head_revision()
    if migrating:
        views.drop(connection)
    context.run_migrations()
    # After every migration, not only the first: batch mode on SQLite recreates tables without their triggers.
    if inspect(connection).has_table("audit_event"):
        guards.install(connection)
        if context.get_context().get_current_revision() == context.get_head_revision():
            views.install(connection)


if context.is_offline_mode():
    raise SystemExit("kensa's migrations need the database: offline (--sql) mode is not supported")

given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    url = context.get_x_argument(as_dictionary=True).get("url")
    if not url:
        raise SystemExit("say which database: alembic -c db/alembic.ini -x url=sqlite:///kensa.db …")
    with open_database(url) as database, database.exclusive(migrating=True) as own:
        _run(own)
