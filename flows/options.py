"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from configs.loading import ConfigError, load_settings
from configs.schema import Settings

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
    """Load the settings that the options name."""
    return load_settings(config_name(config), overrides or [])
