"""Accounts on PostgreSQL: the account that records can add to history and cannot change it."""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text
from sqlalchemy.dialects.postgresql import dialect

from db.engine import VERSION_TABLE
from db.errors import RecordError
from db.schema import Base

_QUOTE = dialect().identifier_preparer.quote_identifier  # type: ignore[no-untyped-call]
_TABLES = tuple(table.name for table in Base.metadata.sorted_tables)


def grants_script(connection: Connection, writer: str, auditor: str, reader: str) -> str:
    """Return the SQL with which the tables' owner sets up three accounts; running it twice changes nothing.

    Args:
        connection: to the database with the tables.
        writer: for `kensa run` and everybody who signs; may SELECT and INSERT.
        auditor: who verifies; may SELECT, password hashes included.
        reader: for BI tools; may SELECT from the views.

    Raises:
        RecordError: on SQLite, without tables, or for one name twice.
    """
    if connection.dialect.name != "postgresql":
        raise RecordError("SQLite knows no accounts: whoever can write the file can write all of it")
    inspector = inspect(connection)
    there = set(inspector.get_table_names())
    if not set(_TABLES) <= there:
        raise RecordError("the tables are not there yet: run `kensa db migrate` as their owner first")
    given = (writer, auditor, reader)
    if len(set(given)) != len(given):
        raise RecordError(
            f"accounts {', '.join(given)}: who writes, who verifies, who reads are three accounts"
        )
    schema = _QUOTE(inspector.default_schema_name or "public")
    database = _QUOTE(str(connection.engine.url.database))

    def names(given: tuple[str, ...]) -> str:
        return ", ".join(f"{schema}.{_QUOTE(name)}" for name in given)

    views = tuple(name for name in inspector.get_view_names() if name.startswith("kensa_"))
    everything = names((*_TABLES, VERSION_TABLE, *views))
    accounts = ", ".join(_QUOTE(name) for name in given)
    return "\n".join(
        [
            "-- Run as the owner of kensa's tables: psql -v ON_ERROR_STOP=1 -f THIS-FILE DATABASE",
            "-- The accounts have no password: set one with \\password, or use peer or certificates.",
            "BEGIN;",
            *(_account(name) for name in given),
            f"GRANT CONNECT ON DATABASE {database} TO {accounts};",
            f"GRANT USAGE ON SCHEMA {schema} TO {accounts};",
            f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC, {accounts};",
            f"REVOKE ALL ON {everything} FROM PUBLIC, {accounts};",
            f"GRANT SELECT ON {everything} TO {_QUOTE(writer)}, {_QUOTE(auditor)};",
            f"GRANT INSERT ON {names(_TABLES)} TO {_QUOTE(writer)};",
            *([f"GRANT SELECT ON {names(views)} TO {_QUOTE(reader)};"] if views else []),
            "COMMIT;",
            "",
        ]
    )


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _account(name: str) -> str:
    """Return SQL that makes an account that is not there, and refuses one that no grant could hold back."""
    role, listed = _literal(name), ", ".join(_literal(table) for table in _TABLES)
    body = (
        "BEGIN\n"  # noqa: S608 - every name in it is quoted
        f"    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {role}) THEN\n"
        f"        CREATE ROLE {_QUOTE(name)} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;\n"
        f"    ELSIF (SELECT rolsuper FROM pg_roles WHERE rolname = {role})\n"
        f"        OR EXISTS (SELECT FROM pg_class WHERE relname IN ({listed})\n"
        f"            AND pg_table_is_visible(oid) AND pg_has_role({role}, relowner, 'MEMBER')) THEN\n"
        f"        RAISE EXCEPTION 'account % owns the tables or is a superuser: give another', {role};\n"
        "    END IF;\n"
        "END"
    )
    # A quoted literal rather than $$: the name may hold any dollar quote.
    return f"DO {_literal(body)};"


def excess_rights(connection: Connection) -> str | None:
    """Return a sentence that says how the connected account could change history; None where it could not.

    None on SQLite too, which knows no accounts.
    """
    if connection.dialect.name != "postgresql":
        return None
    account, superuser = connection.execute(
        text("SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user")
    ).one()
    if superuser:
        return f"account {account!r} is a superuser of the database server and could take the guards off"
    for excess, sentence in (
        ("pg_has_role(relowner, 'MEMBER')", "owns table {} and could take the guards off"),
        ("has_table_privilege(oid, 'UPDATE, DELETE, TRUNCATE')", "has the right to change rows of {}"),
    ):
        table = connection.scalar(
            text(
                "SELECT min(relname) FROM pg_class "  # noqa: S608 - one of the two conditions above
                f"WHERE relname = ANY(:tables) AND pg_table_is_visible(oid) AND {excess}"
            ),
            {"tables": list(_TABLES)},
        )
        if table is not None:
            return f"account {account!r} {sentence.format(table)}"
    return None
