"""Commands about settings: show what is in force, check what is wrong."""

import sys

import typer

from cli.console import Exit, err, out, safe
from cli.options import Config, Overrides, settings_of


def config_show(config: Config = None, overrides: Overrides = None) -> None:
    """Print the settings in force: defaults, file, environment and --set merged; the password masked."""
    import yaml

    sys.stdout.write(
        yaml.safe_dump(settings_of(config, overrides).public(), sort_keys=False, allow_unicode=True)
    )


def config_check(config: Config = None, overrides: Overrides = None) -> None:
    """Try everything that the settings name: database, source, model package, folders and buckets, keys.

    All mistakes are told at once. Each try has a limit of time, and writes nothing into the record. Exit code
    2: a setting is wrong; 4: the settings may be right, and something that they name is away.
    """
    from operations.settings_probes import Probe, probe_settings

    settings = settings_of(config, overrides)
    wrong: list[Probe] = []
    with out.status("trying what the settings name …"):
        for probe in probe_settings(settings):
            took = "" if probe.seconds is None else f"{probe.seconds:.2f} s"
            if probe.problem is None:
                out.print(f"  [green]ok[/green]     {probe.key:<17} {took:>8}  {safe(probe.told)}")
            else:
                out.print(f"  [red]no[/red]     {probe.key:<17} {took:>8}")
                wrong.append(probe)
    for probe in wrong:
        err.print(f"[red]kensa:[/red] {probe.key}: {safe(probe.problem or '')}")
    if wrong:
        raise typer.Exit(Exit.unavailable if all(probe.away for probe in wrong) else Exit.refused)
    out.print("settings are in order")
