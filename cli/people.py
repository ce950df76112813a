"""Commands about people: add, change, disable, enable, passwd, list."""

from typing import Annotated

import typer

from cli.console import Format, out, print_rows, safe, when
from cli.options import Config, Form, Overrides, open_record, person, settings_of
from cli.sign_in import PasswordStdin, SignInAs, new_password, sign_in
from configs.loading import ConfigError
from db.people.people import (
    PersonRecord,
    add_person,
    change_password,
    change_person,
    disable_person,
    enable_person,
    list_people,
)

Login = Annotated[str, typer.Argument(help="The person's login.")]
Reason = Annotated[str | None, typer.Option(help="Why; kept in the audit trail.")]
_ROLES = "quality-engineer, quality-manager, auditor or administrator."


def people_add(
    login: Login,
    name: Annotated[str, typer.Option(help="Name as signatures print it.")],
    role: Annotated[str, typer.Option(help=_ROLES)],
    as_login: Annotated[
        str | None, typer.Option("--as", help="The administrator who adds; not for the very first person.")
    ] = None,
    password_stdin: PasswordStdin = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Add a person; the first one needs no sign-in and must be an administrator."""
    with open_record(settings_of(config, overrides)) as database:
        with database.session() as session:
            first = not list_people(session)
        if as_login is None and not first:
            raise ConfigError("there are people already: say with --as LOGIN which administrator adds one")
        by = person() if as_login is None else sign_in(database, as_login, password_stdin)
        password = new_password(login, password_stdin)
        added = add_person(database, login, name=name, role=role, password=password, by=by)
    _print_person("added", added)


def people_change(
    login: Login,
    as_login: SignInAs,
    name: Annotated[str | None, typer.Option(help="Another name as signatures print it.")] = None,
    role: Annotated[str | None, typer.Option(help=_ROLES)] = None,
    reason: Reason = None,
    password_stdin: PasswordStdin = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Change a person's printed name or role from now on."""
    with open_record(settings_of(config, overrides)) as database:
        by = sign_in(database, as_login, password_stdin)
        changed = change_person(database, login, name=name, role=role, by=by, reason=reason)
    _print_person("changed", changed)


def people_disable(
    login: Login,
    as_login: SignInAs,
    reason: Reason = None,
    password_stdin: PasswordStdin = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Take from a person the right to sign in; what they signed stands."""
    with open_record(settings_of(config, overrides)) as database:
        by = sign_in(database, as_login, password_stdin)
        _print_person("disabled", disable_person(database, login, by=by, reason=reason))


def people_enable(
    login: Login,
    as_login: SignInAs,
    reason: Reason = None,
    password_stdin: PasswordStdin = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Let a disabled person sign in again."""
    with open_record(settings_of(config, overrides)) as database:
        by = sign_in(database, as_login, password_stdin)
        _print_person("enabled", enable_person(database, login, by=by, reason=reason))


def people_passwd(
    login: Login,
    as_login: Annotated[
        str | None, typer.Option("--as", help="The administrator who does it; the person when absent.")
    ] = None,
    password_stdin: PasswordStdin = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Set another password for a person; this also ends a lock after failed sign-ins."""
    with open_record(settings_of(config, overrides)) as database:
        by = sign_in(database, as_login or login, password_stdin)
        password = new_password(login, password_stdin)
        _print_person("has a new password", change_password(database, login, password, by=by))


def people_list(config: Config = None, overrides: Overrides = None, form: Form = Format.table) -> None:
    """List everybody who can sign, or could."""
    with open_record(settings_of(config, overrides)) as database, database.session() as session:
        rows = list_people(session)
    print_rows(
        rows,
        PersonRecord,
        PEOPLE_COLUMNS,
        form,
        empty="nobody yet: kensa people add LOGIN --role administrator …",
    )


PEOPLE_COLUMNS = {
    "login": lambda p: p.login,
    "name": lambda p: p.name,
    "role": lambda p: p.role,
    "state": lambda p: "active" if p.active else "disabled",
    "since": lambda p: when(p.changed_at),
}


def _print_person(what: str, record: PersonRecord) -> None:
    out.print(f"{safe(record.login)} ({safe(record.name)}, {record.role}): {what}")
