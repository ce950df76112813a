"""Passwords for the command line: typed unseen, or read from standard input; never an argument."""

import sys
from typing import Annotated

import typer

from configs import ConfigError
from db import Authenticated, Database, authenticate
from flows.console import safe
from flows.record_commands import person

PasswordStdin = Annotated[
    bool,
    typer.Option(
        "--password-stdin",
        help="Read passwords from standard input, a line each: first of who signs in, then the new one.",
    ),
]
SignInAs = Annotated[str, typer.Option("--as", help="Login of who does this; the password is asked for.")]


def sign_in(database: Database, login: str, from_stdin: bool) -> Authenticated:
    """Ask for a person's password and prove who they are; RecordError where that fails."""
    given = _line(login) if from_stdin else _typed(f"Password of {login}")
    return authenticate(database, login, given, account=person())


def new_password(login: str, from_stdin: bool) -> str:
    """Ask for the password that a person shall have, twice at a terminal."""
    return _line(login) if from_stdin else _typed(f"New password of {login}", twice=True)


def _typed(prompt: str, *, twice: bool = False) -> str:
    if not sys.stdin.isatty():
        # Without a terminal getpass would show what is typed.
        raise ConfigError("no terminal to type a password at: give --password-stdin")
    return str(typer.prompt(safe(prompt), hide_input=True, confirmation_prompt=twice, err=True))


def _line(login: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise ConfigError(f"--password-stdin: expected a line with the password of {login}")
    return line.rstrip("\r\n")
