"""Commands about reports: what they have in common, and verifying one."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.console import Exit, err, out, safe
from cli.options import Config, Overrides, config_name, settings_of
from configs.loading import ConfigError
from configs.schema import Settings
from db.engine import open_database
from db.errors import RecordError
from operations.inspection.checkpoints import audit_keys


def report_verify(
    file: Annotated[Path, typer.Argument(help="The PDF.")],
    trust: Annotated[
        list[Path] | None,
        typer.Option(help="Root certificate (PEM) that signers' must lead to; may be repeated."),
    ] = None,
    keys: Annotated[
        list[Path] | None,
        typer.Option("--key", help="Public key (FILE.pub) of the audit log; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Check a report: signatures, content, attached files, audit log, record (exit code 5: broken).

    Works without settings and without the record, and says what that leaves open.
    """
    from operations.reporting.verify import check_log, check_record
    from reports.signatures.read import Check
    from reports.signatures.sign import read_certificates
    from reports.signatures.verify import summary, verify_file

    settings = _settings(config, overrides)
    roots = trust or ([] if settings is None else list(settings.report.signature.trust_roots))
    try:
        pdf = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    found = verify_file(file.name, pdf, read_certificates(roots))
    checks = [*found.checks, *check_log(found, audit_keys(settings.audit if settings else None, keys))]
    if settings is None:
        left = "no settings were given (-c): whether it was issued, superseded or signed since is open"
        checks.append(Check("record", "not checked", left))
    else:
        try:
            with open_database(settings.database.url) as database:
                database.check()
                checks += check_record(database, found)
        except RecordError as error:
            checks.append(Check("record", "not checked", f"it cannot be opened: {error}"))
    broken = any(check.outcome == "broken" for check in checks)
    said = summary(found, checks)
    if as_json:
        answer = {
            "summary": said,
            "sound": not broken,
            "file": found.name,
            "sha256": found.digest,
            "content_sha256": found.content_digest,
            "signatures": [asdict(each) for each in found.signatures],
            "checks": [asdict(check) for check in checks],
        }
        sys.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False, default=str) + "\n")
    else:
        (err if broken else out).print(safe(said))
        for check in checks:
            style = {"ok": "green", "not checked": "yellow", "broken": "red"}[check.outcome]
            out.print(f"[{style}]{safe(check.line())}[/{style}]")
    if broken:
        raise typer.Exit(Exit.broken)


def _settings(config: str | None, overrides: list[str] | None) -> Settings | None:
    """Load the settings; None where nobody names any, as on a stranger's machine."""
    if config is None:
        try:
            config_name(None)
        except ConfigError:
            return None
    return settings_of(config, overrides)
