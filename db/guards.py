"""Triggers that keep history append-only in the database itself, whoever is connected.

SQLite: triggers before UPDATE, before DELETE, and before an INSERT whose key is there already (the hidden
rowid included). The last is needed because `INSERT OR REPLACE` deletes without firing DELETE triggers.

PostgreSQL: row triggers for UPDATE and DELETE and a statement trigger for TRUNCATE. They are ENABLE ALWAYS,
because a session in replication mode fires no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Inspector, inspect, text

from db.schema import Base

_BODY = """
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
        MESSAGE = 'kensa: ' || TG_TABLE_NAME || ' is append-only: ' || TG_OP || ' refused';
END """
_FUNCTION = f"CREATE OR REPLACE FUNCTION kensa_append_only() RETURNS trigger LANGUAGE plpgsql AS $${_BODY}$$"
# pg_trigger.tgtype: ROW 1, BEFORE 2, DELETE 8, UPDATE 16, TRUNCATE 32.
_POSTGRES_KINDS = {
    "row": ("UPDATE OR DELETE", "ROW", 1 | 2 | 8 | 16),
    "truncate": ("TRUNCATE", "STATEMENT", 2 | 32),
}


def install(connection: Connection) -> None:
    """Create the guards of every kensa table that is there, where they are missing or differ."""
    postgres = connection.dialect.name == "postgresql"
    if postgres:
        connection.exec_driver_sql(_FUNCTION)
    for name, (table, statement) in _absent_guards(connection).items():
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}" + (f" ON {table}" if postgres else ""))
        connection.exec_driver_sql(statement)
        if postgres:
            connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


@contextmanager
def lifted(connection: Connection, table: str) -> Iterator[None]:
    """Let rows of a table be updated, until the end of the block; after an error, roll the transaction back.

    For `db.retention.redaction` alone, which records what it changes in the same transaction.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER guard_{table}_row")
        yield
        connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER guard_{table}_row")
    else:
        connection.exec_driver_sql("PRAGMA secure_delete = ON")  # what is replaced is overwritten in the file
        connection.exec_driver_sql(f"DROP TRIGGER guard_{table}_update")
        yield
        install(connection)


def missing(connection: Connection) -> list[str]:
    """Return the names of guards that are not there as they should be."""
    return list(_absent_guards(connection))


def remove(connection: Connection) -> None:
    """Remove what is left once the tables, and with them their triggers, are dropped."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("DROP FUNCTION IF EXISTS kensa_append_only()")


def _absent_guards(connection: Connection) -> dict[str, tuple[str, str]]:
    """Return the table and statement of each guard that is not there as it should be, by its name."""
    inspector = inspect(connection)
    there = set(inspector.get_table_names())
    # Only kensa's own tables: other programs may keep theirs in the same database.
    tables = [table.name for table in Base.metadata.sorted_tables if table.name in there]
    if connection.dialect.name == "sqlite":
        present = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
        statements = {row.name: row.sql for row in present}
        guards = _sqlite_guards(inspector, tables)
        return {name: guard for name, guard in guards.items() if statements.get(name) != guard[1]}
    standing = _postgres_triggers(connection)
    return {name: guard for name, guard in _postgres_guards(tables).items() if name not in standing}


def _sqlite_guards(inspector: Inspector, tables: list[str]) -> dict[str, tuple[str, str]]:
    guards = {}
    for table in tables:
        keys = [["rowid"], inspector.get_pk_constraint(table)["constrained_columns"]]
        keys += [constraint["column_names"] for constraint in inspector.get_unique_constraints(table)]
        taken = " OR ".join(
            f"EXISTS (SELECT 1 FROM {table} WHERE {' AND '.join(f'{c} = NEW.{c}' for c in key)})"  # noqa: S608
            for key in keys
        )
        for operation, condition in (("UPDATE", ""), ("DELETE", ""), ("INSERT", f" WHEN {taken}")):
            name = f"guard_{table}_{operation.lower()}"
            what = "another row has this key" if condition else f"{operation} refused"
            guards[name] = (
                table,
                f"CREATE TRIGGER {name} BEFORE {operation} ON {table}{condition} "
                f"BEGIN SELECT RAISE(ABORT, 'kensa: {table} is append-only: {what}'); END",
            )
    return guards


def _postgres_guards(tables: list[str]) -> dict[str, tuple[str, str]]:
    guards = {}
    for table in tables:
        for suffix, (when, level, _) in _POSTGRES_KINDS.items():
            name = f"guard_{table}_{suffix}"
            guards[name] = (
                table,
                f"CREATE TRIGGER {name} BEFORE {when} ON {table} "
                f"FOR EACH {level} EXECUTE FUNCTION kensa_append_only()",
            )
    return guards


def _postgres_triggers(connection: Connection) -> set[str]:
    """Return the names of those triggers that are ours: same table and kind, always on, unconditional.

    They call our function with our body: a replaced function would refuse nothing.
    """
    rows = connection.execute(
        text(
            "SELECT t.tgname, t.tgtype, c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
            "JOIN pg_proc p ON p.oid = t.tgfoid "
            "WHERE NOT t.tgisinternal AND t.tgenabled = 'A' AND t.tgqual IS NULL AND t.tgattr::text = '' "
            "AND p.proname = 'kensa_append_only' AND p.prosrc = :body AND pg_table_is_visible(c.oid)"
        ),
        {"body": _BODY},
    )
    kinds = {suffix: kind for suffix, (_, _, kind) in _POSTGRES_KINDS.items()}
    return {
        row.tgname
        for row in rows
        for suffix, kind in kinds.items()
        if row.tgname == f"guard_{row.relname}_{suffix}" and row.tgtype == kind
    }
