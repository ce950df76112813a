"""The command by which people sign an issued report off."""

import sys
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from cli.console import out, print_to_sign, safe
from cli.options import Config, Overrides, open_record, settings_of
from cli.sign_in import PasswordStdin, passphrase_of, sign_in
from configs.loading import ConfigError
from db.artifacts import ArtifactStore
from db.engine import Database
from db.errors import RecordError
from db.issued.reports import ReportRecord, report_by_artifact, report_by_number, reports_of
from db.issued.sign_offs import sign_report
from db.people.people import TASKS, Authenticated
from db.retention.inventory import many


class Role(StrEnum):
    """As what a person signs."""

    reviewed = "reviewed"
    approved = "approved"


class Verdict(StrEnum):
    """What a person says of a report; the values are those of the record."""

    accept = "accept"
    concession = "concession"
    reject = "reject"


_DECISIONS = {
    Verdict.accept: "accept",
    Verdict.concession: "accept with concession",
    Verdict.reject: "do not accept",
}


def report_sign(
    report: Annotated[str, typer.Argument(help="The PDF that was read, or its number, such as R000012.")],
    role: Annotated[Role, typer.Option(help="As what: reviewed, or approved as the second person.")],
    decision: Annotated[Verdict, typer.Option(help="accept, concession (accept all the same) or reject.")],
    as_login: Annotated[str, typer.Option("--as", help="Login of who signs; the password is asked for.")],
    reason: Annotated[str, typer.Option(help="Why; needed for all but accept.")] = "",
    revision: Annotated[int | None, typer.Option(help="Revision; the latest when absent.")] = None,
    pkcs12: Annotated[
        Path | None, typer.Option(help="The person's own key (.p12); the organisation's when absent.")
    ] = None,
    module: Annotated[
        Path | None, typer.Option(help="Or on the person's own token: the driver's library …")
    ] = None,
    token: Annotated[str | None, typer.Option(help="… label of the token …")] = None,
    token_key: Annotated[str | None, typer.Option(help="… label of the key on it …")] = None,
    token_certificate: Annotated[
        str | None, typer.Option(help="… and of its certificate; that of the key when absent.")
    ] = None,
    undecided: Annotated[
        bool,
        typer.Option("--undecided", help="Accept although findings were undecided; the signature says so."),
    ] = False,
    password_stdin: PasswordStdin = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Sign an issued report off: adds a signature to its PDF, and records it."""
    from operations.reporting.issue import write_report
    from operations.reporting.seal import profile_of, seal_key
    from reports.signatures.keys import Key, Pkcs12Key, TokenKey
    from reports.signatures.sign import Act, sign_off

    settings = settings_of(config, overrides)
    if pkcs12 is not None and module is not None:
        raise ConfigError("give --pkcs12 or --module, not both: one signature takes one key")
    if (module is None) != (token is None or token_key is None):
        raise ConfigError("a key on a token takes --module, --token and --token-key together")
    if decision is not Verdict.accept and not reason.strip():
        raise ConfigError(f"--decision {decision}: give --reason TEXT, a sentence that says why")
    own = pkcs12 is not None or module is not None
    if not own:
        seal_key(settings.report.signature)  # the settings name one, or it ends here
    store = ArtifactStore(settings.artifacts.uri)
    with open_record(settings) as database:
        record = _to_sign(database, report, revision)
        pdf = _unharmed(store, record)
        if decision is not Verdict.reject:
            reason = _with_undecided(database, record, reason, undecided, ask=not password_stdin)
        _print_report(record, role, decision, reason)
        signer = sign_in(database, as_login, password_stdin)
        _check_may(record, signer, role)
        key: Key
        if pkcs12 is not None:
            key = Pkcs12Key(pkcs12, passphrase_of(str(pkcs12), password_stdin))
        elif module is not None:
            secret = passphrase_of(f"token {token}", password_stdin)
            label = token_key or ""
            key = TokenKey(module, token or "", label, token_certificate or label, secret)
        else:
            key = seal_key(settings.report.signature)
        act = Act(
            _reason(role, decision, reason, signer, own), settings.report.signature.location, signer.name
        )
        signed = sign_off(pdf, key, profile_of(settings.report.signature), act)
        artifact = store.put(signed, "report", "application/pdf")
        made = sign_report(
            database,
            record,
            capacity=role.value,
            decision=_DECISIONS[decision],
            signer=signer,
            artifact=artifact,
            reason=reason,
        )
        with database.session() as session:
            path = write_report(
                settings.report, store, report_by_number(session, record.number, record.revision)
            )
    whose = "their own key" if own else "the organisation's key"
    out.print(
        f"signed by {safe(made.name)} with {whose}: {safe(made.capacity)}, {safe(made.decision)}\n"
        f"{safe(str(path))}"
    )


def _to_sign(database: Database, report: str, revision: int | None) -> ReportRecord:
    """Find the report to sign: by number, or by the file that was read, which must be its latest."""
    path = Path(report)
    with database.session() as session:
        if not path.is_file():
            record = report_by_number(session, report, revision)
        else:
            digest = sha256(path.read_bytes()).hexdigest()
            found = report_by_artifact(session, digest)
            if found is None:
                raise RecordError(f"{path}: is no report on record: changed, or from elsewhere")
            if digest != found.latest_digest:
                raise RecordError(f"{path}: is not the latest file of {_name(found)}: others signed since")
            record = found
        latest = reports_of(session, record.subject)[-1]
    if latest.revision != record.revision:
        raise RecordError(f"{_name(record)}: superseded by revision {latest.revision}: sign that one")
    return record


def _unharmed(store: ArtifactStore, record: ReportRecord) -> bytes:
    """Read the report's latest file, and see that it is sound."""
    from reports.signatures.verify import verify_file

    pdf = store.get(record.latest_digest)
    broken = [c.line() for c in verify_file(_name(record), pdf).checks if c.outcome == "broken"]
    if broken:
        raise RecordError(f"{_name(record)}: is not signed, for it is not sound: {broken[0]}")
    return pdf


def _with_undecided(database: Database, record: ReportRecord, reason: str, given: bool, *, ask: bool) -> str:
    """Return the reason, which says so where findings were undecided; refuse where that is not meant.

    `given`: it was said on the command line; `ask`: it may be asked for at a terminal.
    """
    from operations.reporting.history import undecided_of

    with database.session() as session:
        left, findings = undecided_of(session, record)
    if not left:
        return reason
    # The report stays as it was made, whatever was decided since: so does what is said of it.
    were = "was" if left == 1 else "were"
    told = f"{left} of {many(findings, 'finding')} {were} undecided when the report was made"
    if not given:
        out.print(f"[yellow]{safe(_name(record))}: {told}[/yellow]")
        if not (ask and sys.stdin.isatty() and typer.confirm("Accept it all the same?", err=True)):
            raise ConfigError(
                f"{_name(record)} is not signed: {told}; decide about them, issue the report again and sign "
                "that revision, or give --undecided to accept this one all the same"
            )
    return f"{reason.strip()} [knowing that {told}]".strip()


def _check_may(record: ReportRecord, signer: Authenticated, role: Role) -> None:
    """Refuse what the record would refuse, before a file with a signature is made."""
    task = "approve" if role is Role.approved else "decide"
    if task not in TASKS[signer.role]:
        raise RecordError(f"{signer.login} is {signer.role}, who may not sign a report as {role}")
    if any(each.person == signer.login for each in record.sign_offs):
        raise RecordError(f"{_name(record)}: {signer.login} signed it already: it takes another person")


def _reason(role: Role, decision: Verdict, reason: str, signer: Authenticated, own: bool) -> str:
    said = f"{role}: {_DECISIONS[decision]}" + (f": {reason.strip()}" if reason.strip() else "")
    if own:
        return said
    return (
        f"{said} (with the organisation's key for {signer.name}, {signer.role}, who signed in as "
        f"{signer.login} with a password)"
    )


def _print_report(record: ReportRecord, role: Role, decision: Verdict, reason: str) -> None:
    """Print what is about to be signed."""
    before = ", ".join(f"{each.name} ({each.capacity}: {each.decision})" for each in record.sign_offs)
    print_to_sign(
        {
            "report": f"{_name(record)}, SHA-256 {record.latest_digest[:12]}…",
            "signed by": before or "nobody yet",
            "as": role.value,
            "decision": _DECISIONS[decision],
            "reason": reason or "none",
        }
    )


def _name(record: ReportRecord) -> str:
    return f"report {record.number} revision {record.revision}"
