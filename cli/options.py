"""Options that several commands share."""

import getpass
import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.console import Format
from configs.loading import ConfigError, load_settings
from configs.schema import Settings
from db.chain.events import Actor
from db.engine import Database, open_database
from db.files import restrict_new_files

Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        help="YAML file, or a shipped profile by name; $KENSA_CONFIG or ./kensa.yaml when absent.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting that wins over file and environment: section.key=value."),
]


def config_name(config: str | None) -> str:
    """Return the configuration to use: the option, else $KENSA_CONFIG, else ./kensa.yaml.

    Raises:
        ConfigError: none of them is there.
    """
    if config is not None:
        return config
    if named := os.environ.get("KENSA_CONFIG"):
        return named
    if Path("kensa.yaml").is_file():
        return "kensa.yaml"
    raise ConfigError("no settings: give --config FILE, set KENSA_CONFIG, or put a kensa.yaml here")


def settings_of(config: str | None, overrides: list[str] | None) -> Settings:
    """Load the settings that the options name; from here on files are created as they say."""
    settings = load_settings(config_name(config), overrides or [])
    restrict_new_files(settings.record.readable_by)
    return settings


Part = Annotated[str | None, typer.Option(help="Part serial.")]
Lot = Annotated[str | None, typer.Option(help="Lot.")]
Station = Annotated[str | None, typer.Option(help="Station.")]
ClassName = Annotated[str | None, typer.Option("--class", help="Defect class.")]
Model = Annotated[str | None, typer.Option(help="Model name, or the beginning of its digest.")]
Run = Annotated[str | None, typer.Option(help="Run number, such as R000012.")]
Since = Annotated[datetime | None, typer.Option(help="From this time on (UTC).")]
Until = Annotated[datetime | None, typer.Option(help="Before this time (UTC).")]
Verdict = Annotated[str | None, typer.Option(help="pass, review, reject or unreadable.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many, newest first.")]
Before = Annotated[str | None, typer.Option(help="Go on with the page after this cursor.")]
Form = Annotated[Format, typer.Option("--format", help="How to print.")]


def person() -> Actor:
    """Return who gives the command: the account's name, as far as the machine knows it."""
    return Actor(getpass.getuser(), "human")


def utc(time: datetime | None) -> datetime | None:
    """Take a time given without a zone as UTC."""
    return None if time is None else time.replace(tzinfo=UTC) if time.tzinfo is None else time


def open_record(settings: Settings) -> Database:
    """Open the database of the settings and see that it holds a record of this version."""
    database = open_database(settings.database.url)
    database.check()
    return database


GoodClass = Annotated[
    str | None, typer.Option(help="The class that means 'no defect'.", rich_help_panel="Data")
]
LabelColumn = Annotated[str, typer.Option(help="CSV column with the label.", rich_help_panel="Data")]
ImageColumn = Annotated[
    str,
    typer.Option(help="CSV column with the picture's path, relative to the CSV.", rich_help_panel="Data"),
]
DataFormat = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="LAYOUT",
        help="How labelled pictures lie there: auto, folders, csv, mvtec, visa, kolektor, voc, coco, yolo or "
        "severstal.",
        rich_help_panel="Data",
    ),
]
GroupColumn = Annotated[
    str | None,
    typer.Option(
        help="CSV column with the lot or part: one is never on both sides of a split.",
        rich_help_panel="Data",
    ),
]
MultiLabel = Annotated[
    bool,
    typer.Option(
        "--multi-label", help="A picture may have several labels, joined by ';'.", rich_help_panel="Data"
    ),
]


def command_line() -> str:
    """Return the command that was given, as a shell would read it."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
