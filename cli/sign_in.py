"""Passwords for the command line: typed unseen, or read from standard input; never an argument."""

import sys
from typing import Annotated

import typer

from cli.console import safe
from cli.options import person
from configs.loading import ConfigError
from db.engine import Database
from db.people.people import Authenticated
from db.people.sign_in import authenticate

PasswordStdin = Annotated[
    bool,
    typer.Option(
        "--password-stdin",
        help="Read passwords from standard input, a line each: first of who signs in, then the new one, "
        "or that of a key.",
    ),
]
SignInAs = Annotated[str, typer.Option("--as", help="Login of who does this; the password is asked for.")]


def sign_in(database: Database, login: str, from_stdin: bool) -> Authenticated:
    """Ask for a person's password and prove who they are; RecordError where that fails."""
    given = _stdin_line(login) if from_stdin else _typed_password(f"Password of {login}")
    return authenticate(database, login, given, account=person())


def new_password(login: str, from_stdin: bool) -> str:
    """Ask for the password that a person shall have, twice at a terminal."""
    return _stdin_line(login) if from_stdin else _typed_password(f"New password of {login}", twice=True)


def new_passphrase(key: str, from_stdin: bool) -> str:
    """Ask for the passphrase that a key shall have, twice at a terminal."""
    return _stdin_line(key) if from_stdin else _typed_password(f"Passphrase of {key}", twice=True)


def passphrase_of(what: str, from_stdin: bool) -> str | None:
    """Ask for the passphrase or PIN of a key; None where nothing is typed."""
    given = _stdin_line(what) if from_stdin else _typed_password(f"Passphrase or PIN of {what}", needed=False)
    return given or None


def _typed_password(prompt: str, *, twice: bool = False, needed: bool = True) -> str:
    if not sys.stdin.isatty():
        # Without a terminal getpass would show what is typed.
        raise ConfigError("no terminal to type a password at: give --password-stdin")
    empty = None if needed else ""
    return str(
        typer.prompt(
            safe(prompt),
            hide_input=True,
            confirmation_prompt=twice,
            default=empty,
            show_default=False,
            err=True,
        )
    )


def _stdin_line(whose: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise ConfigError(f"--password-stdin: expected a line with the password of {whose}")
    return line.rstrip("\r\n")
