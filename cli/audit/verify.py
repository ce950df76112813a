"""Commands about what vouches for the audit trail: verify, checkpoint, keygen, prove, check."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import Exit, err, out, progress_bar, safe
from cli.options import Config, Overrides, open_record, person, settings_of
from cli.sign_in import PasswordStdin, new_passphrase
from configs.loading import ConfigError
from db.artifacts import ArtifactStore
from db.chain.events import Head
from db.columns import time_text
from db.errors import RecordError
from db.transparency.checkpoints import latest_checkpoint
from db.transparency.inclusion import CheckedProof, ProvedEvent, check_proof, events_of_finding, make_proof
from db.transparency.signed_notes import (
    VerifierKey,
    generate_key,
    parse_checkpoint,
    read_verifier_keys,
    write_key,
)
from db.verification.walk import verify
from db.verification.witness import ReportFile
from operations.inspection.checkpoints import open_signer, sign_head, witness_of

Checkpoints = Annotated[
    str | None,
    typer.Option(help="Folder or URL of signed checkpoints; that of the settings when absent."),
]
Keys = Annotated[
    list[Path] | None,
    typer.Option("--key", help="Public key (FILE.pub) that checkpoints must bear; may be repeated."),
]


def audit_verify(
    config: Config = None,
    overrides: Overrides = None,
    artifacts: Annotated[
        bool, typer.Option(help="Read every stored picture, map and report again as well.")
    ] = True,
    checkpoints: Checkpoints = None,
    keys: Keys = None,
    reports: Annotated[
        list[Path] | None,
        typer.Option("--report", help="A report's PDF as somebody holds it; may be repeated."),
    ] = None,
    heads: Annotated[
        list[str] | None,
        typer.Option(
            "--head", help="An audit head from a printed report, SEQUENCE:HASH; must be in the log."
        ),
    ] = None,
    incremental: Annotated[
        bool,
        typer.Option(
            "--incremental", help="Trust history up to the newest checkpoint that fits; walk the rest."
        ),
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes for a long log; one for each core when absent.")
    ] = None,
) -> None:
    """Walk the chain, derive every digest again, name the first broken place (then exit code 5).

    Exit code 7: nothing is broken, but a secret was redacted (`kensa db redact`), and what stood there is no
    longer proved.
    """
    settings = settings_of(config, overrides)
    store = ArtifactStore(settings.artifacts.uri) if artifacts else None
    witness = witness_of(settings.audit, checkpoints, keys)
    expected = [_parsed_head(text) for text in heads or []]
    files = [_report_file(path) for path in reports or []]
    with open_record(settings) as database, progress_bar("verifying") as progress:
        result = verify(
            database,
            artifacts=store,
            expected=expected,
            witness=witness,
            reports=files,
            incremental=incremental,
            jobs=jobs or os.cpu_count() or 1,
            progress=progress,
        )
    for problem in result.problems:
        err.print(f"[red]broken:[/red] {safe(str(problem))}")
    if result.truncated:
        err.print("[red]broken:[/red] and more that is not listed")
    if result.ok:
        checked = f"{result.events} events, {result.rows} rows, {result.artifacts} artifacts"
        head = "empty" if result.head is None else f"{result.head.sequence} {result.head.hash}"
        intact = "intact but for what was redacted:" if result.redacted else "intact:"
        out.print(f"[green]{intact}[/green] {checked}\nhead: {head}")
    for sentence in result.redacted:
        out.print(f"[yellow]redacted:[/yellow] {safe(sentence)}")
    for remark in result.remarks:
        out.print(f"note: {safe(remark)}")
    if not result.ok:
        raise typer.Exit(Exit.broken)
    if result.redacted:
        raise typer.Exit(Exit.redacted)


def _parsed_head(text: str) -> Head:
    sequence, _, digest = text.partition(":")
    if not sequence.isdecimal() or not re.fullmatch("[0-9a-f]{64}", digest):
        raise ConfigError(f"--head {text}: expected SEQUENCE:HASH as the report prints them")
    return Head(int(sequence), digest)


def _report_file(path: Path) -> ReportFile:
    from reports.attachments.manifest import read_attached
    from reports.errors import ReportError

    try:
        carried = read_attached(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"--report {path}: cannot be read: {error.strerror}") from None
    except ReportError as error:
        raise ConfigError(f"--report {path}: {error}") from None
    head = None if carried.head is None else Head(carried.head.sequence, carried.head.hash)
    return ReportFile(path.name, carried.digest, head, carried.checkpoint)


def audit_keygen(
    name: Annotated[str, typer.Argument(help="Who signs, such as plant-1/line-4; no spaces.")],
    folder: Annotated[Path, typer.Option("--out", help="Where NAME.key and NAME.pub go.")] = Path(),
    passphrase: Annotated[
        bool,
        typer.Option(help="Encrypt the private key; asked for, or taken from KENSA_AUDIT__PASSPHRASE."),
    ] = True,
    password_stdin: PasswordStdin = False,
) -> None:
    """Make an Ed25519 key pair for signing checkpoints."""
    if password_stdin and not passphrase:
        raise ConfigError("give --password-stdin or --no-passphrase, not both")
    secret = _new_passphrase(password_stdin) if passphrase else None
    private, public = write_key(generate_key(name), folder, secret)
    out.print(
        f"private key: {safe(str(private))} (mode 600; only the machine that runs inspections needs it)\n"
        f"public key:  {safe(str(public))}\n{safe(public.read_text(encoding='utf-8').strip())}"
    )
    out.print("Give the public key to everybody who is to check, by another way than the database.")


def _new_passphrase(from_stdin: bool) -> str:
    known = None if from_stdin else os.environ.get("KENSA_AUDIT__PASSPHRASE")
    given = known or new_passphrase("the private key", from_stdin)
    if len(given) < 12:
        raise ConfigError("passphrase: give 12 characters or more, or --no-passphrase and guard the file")
    return given


def audit_checkpoint(config: Config = None, overrides: Overrides = None) -> None:
    """Sign the present head of the audit trail and keep the note outside the database."""
    settings = settings_of(config, overrides)
    signer = open_signer(settings)
    if signer is None:
        raise ConfigError(
            "audit.checkpoints and audit.signing_key: missing; make a key with `kensa audit keygen`"
        )
    with open_record(settings) as database:
        signed = sign_head(database, signer, actor=person())
    if signed.problem is not None:
        err.print(f"[red]{safe(signed.sentence())}[/red]")
        raise typer.Exit(Exit.unavailable)
    out.print(safe(signed.sentence()))


def audit_prove(
    finding: Annotated[str, typer.Argument(help="Finding, such as R000012-0003.")],
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Print a proof, as JSON, that a finding's record is in the log that the last checkpoint signs."""
    with open_record(settings_of(config, overrides)) as database, database.session() as session:
        events = events_of_finding(session, finding)
        signed = latest_checkpoint(session)
        if signed is None:
            raise RecordError("no checkpoint has been signed yet: `kensa audit checkpoint` signs one")
        proof = make_proof(session, events, signed.note, parse_checkpoint(signed.note))
    sys.stdout.write(json.dumps(proof, indent=1, ensure_ascii=False) + "\n")


def audit_check(
    proof: Annotated[Path, typer.Argument(help="File from `kensa audit prove`.")],
    checkpoint: Annotated[Path, typer.Option(help="The signed checkpoint, as it came from elsewhere.")],
    keys: Annotated[
        list[Path], typer.Option("--key", help="Public key (FILE.pub) it must bear; may be repeated.")
    ],
) -> None:
    """Check a proof against a checkpoint, without a database or settings; exit code 5: it does not hold."""
    trusted = [key for path in keys for key in read_verifier_keys(path)]
    try:
        found = check_proof(_json_object(proof), _file_text(checkpoint), trusted)
    except RecordError as error:
        err.print(f"[red]does not hold:[/red] {safe(str(error))}")
        raise typer.Exit(Exit.broken) from None
    out.print(f"[green]holds:[/green] {safe(_proved_sentence(found, trusted))}")
    for event in found.events:
        out.print(safe(_event_lines(event)))


# A proof of all findings of a large report has some megabytes.
_MOST_BYTES = 64 * 1024 * 1024


def _file_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if len(content) > _MOST_BYTES:
        raise ConfigError(
            f"{path}: cannot be read: more than {_MOST_BYTES} bytes are no proof and no checkpoint"
        )
    return text


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_file_text(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: expected JSON as `kensa audit prove` prints it: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a JSON object as `kensa audit prove` prints it")
    return content


def _proved_sentence(found: CheckedProof, trusted: list[VerifierKey]) -> str:
    note = found.checkpoint
    numbers = ", ".join(str(event.sequence) for event in found.events)
    which = "event" if len(found.events) == 1 else "events"
    return (
        f"{which} {numbers} of the log of {note.tree_size} events that {', '.join(note.signed_by)} signed on "
        f"{time_text(note.at)}"
    )


def _event_lines(proved: ProvedEvent) -> str:
    """Say what an event is about, with the columns of its rows that a reader looks for."""
    event = proved.event
    lines = [f"event {proved.sequence}  {event['at']}  {event['actor_id']}  {event['action']}"]
    if proved.redaction is not None:
        paths = ", ".join(proved.redaction.paths)
        lines.append(
            f"  redacted by event {proved.redaction.sequence}: {paths}; proved is the row since then"
        )
    for table, row in proved.rows:
        told = {name: row[name] for name in _SHOWN.get(table, ()) if name in row}
        if told:
            lines.append(f"  {table}: " + ", ".join(f"{name} {value}" for name, value in told.items()))
    return "\n".join(lines)


_SHOWN = {
    "run": ("number", "source", "settings_digest", "software_version", "host"),
    "part": ("serial", "lot"),
    "image": ("digest",),
    "run_image": ("uri", "station", "captured_at", "verdict"),
    "prediction": ("verdict", "score", "review_threshold", "reject_threshold"),
    "finding": ("reference", "class_name", "class_score"),
    "explanation": ("method", "score_drop", "map_digest"),
    "disposition": ("decision", "class_name", "reason", "person"),
    "approval": ("decision", "reason", "person"),
}
