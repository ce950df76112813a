"""Commands that read the record: findings, audit log and show."""

import getpass
import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from configs.loading import ConfigError
from db.chain.events import Actor
from db.engine import Database, open_database
from db.queries.events import EventFilter, find_events, get_event
from db.queries.findings import FindingFilter, find_findings
from db.queries.json_values import plain
from flows.console import Format, print_page, when
from flows.options import Config, Overrides, settings_of

audit_app = typer.Typer(no_args_is_help=True, help="The audit trail: verify it, list it, show one event.")

Part = Annotated[str | None, typer.Option(help="Part serial.")]
Lot = Annotated[str | None, typer.Option(help="Lot.")]
Station = Annotated[str | None, typer.Option(help="Station.")]
ClassName = Annotated[str | None, typer.Option("--class", help="Defect class.")]
Model = Annotated[str | None, typer.Option(help="Model name, or the beginning of its digest.")]
Run = Annotated[str | None, typer.Option(help="Run number, such as R000012.")]
Since = Annotated[datetime | None, typer.Option(help="From this time on (UTC).")]
Until = Annotated[datetime | None, typer.Option(help="Before this time (UTC).")]
Image = Annotated[str | None, typer.Option(help="SHA-256 of the picture, or its first 6 digits or more.")]
Verdict = Annotated[str | None, typer.Option(help="pass, review, reject or unreadable.")]
MinScore = Annotated[float | None, typer.Option(help="Score of the picture, this or higher.")]
MaxScore = Annotated[float | None, typer.Option(help="Score of the picture, this or lower.")]
Person = Annotated[str | None, typer.Option(help="Who decided, approved or otherwise acted.")]
Reason = Annotated[str | None, typer.Option(help="A piece of the reason, in any case of letters.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many, newest first.")]
Before = Annotated[str | None, typer.Option(help="Go on with the page after this cursor.")]
Form = Annotated[Format, typer.Option("--format", help="How to print.")]


def person() -> Actor:
    """Return who gives the command: the account's name, as far as the machine knows it."""
    return Actor(getpass.getuser(), "human")


def utc(time: datetime | None) -> datetime | None:
    """Take a time given without a zone as UTC."""
    return None if time is None else time.replace(tzinfo=UTC) if time.tzinfo is None else time


def open_record(config: str | None, overrides: list[str] | None) -> Database:
    """Open the database of the settings and see that it holds a record of this version."""
    database = open_database(settings_of(config, overrides).database.url)
    database.check()
    return database


def findings(
    config: Config = None,
    overrides: Overrides = None,
    part: Part = None,
    lot: Lot = None,
    station: Station = None,
    image: Image = None,
    class_name: ClassName = None,
    verdict: Verdict = None,
    min_score: MinScore = None,
    max_score: MaxScore = None,
    model: Model = None,
    person: Person = None,
    reason: Reason = None,
    run: Run = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    before: Before = None,
    form: Form = Format.table,
) -> None:
    """List flagged defects, newest first."""
    wanted = FindingFilter(
        part=part,
        lot=lot,
        station=station,
        image=image,
        class_name=class_name,
        verdict=verdict,
        min_score=min_score,
        max_score=max_score,
        model=model,
        person=person,
        reason=reason,
        run=run,
        since=utc(since),
        until=utc(until),
    )
    with open_record(config, overrides) as database, database.session() as session:
        rows = find_findings(session, wanted, limit=limit + 1, before=before)
    print_page(rows, FINDING_COLUMNS, form, limit, lambda f: f.reference, empty="no findings")


FINDING_COLUMNS = {
    "finding": lambda f: f.reference,
    "image": lambda f: f.uri,
    "part": lambda f: f.part or "",
    "lot": lambda f: f.lot or "",
    "class": lambda f: f.class_name,
    "score": lambda f: f"{f.score:.3f}",
    "verdict": lambda f: f.verdict,
    "disposition": lambda f: (
        (f.disposition or "") + (f" ({f.awaiting_approval} awaits approval)" if f.awaiting_approval else "")
    ),
    "drop": lambda f: (
        "" if f.explanation is None or f.explanation.drop is None else f"{f.explanation.drop:.0f} %"
    ),
}


@audit_app.command("log")
def audit_log(
    config: Config = None,
    overrides: Overrides = None,
    part: Part = None,
    lot: Lot = None,
    station: Station = None,
    image: Image = None,
    class_name: ClassName = None,
    verdict: Verdict = None,
    min_score: MinScore = None,
    max_score: MaxScore = None,
    model: Model = None,
    person: Person = None,
    actor: Annotated[str | None, typer.Option(help="Who or what caused the event.")] = None,
    action: Annotated[str | None, typer.Option(help="What was done, such as run.started.")] = None,
    reason: Reason = None,
    run: Run = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    before: Before = None,
    form: Form = Format.table,
) -> None:
    """List audit events, newest first."""
    wanted = EventFilter(
        part=part,
        lot=lot,
        station=station,
        image=image,
        class_name=class_name,
        verdict=verdict,
        min_score=min_score,
        max_score=max_score,
        model=model,
        person=person,
        reason=reason,
        actor=actor,
        action=action,
        run=run,
        since=utc(since),
        until=utc(until),
    )
    with open_record(config, overrides) as database, database.session() as session:
        rows = find_events(session, wanted, limit=limit + 1, before=_event_cursor(before))
    print_page(rows, EVENT_COLUMNS, form, limit, lambda e: str(e.sequence), empty="no events")


def _event_cursor(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or not 0 < len(text) < 19:
        raise ConfigError(f"--before {text}: give the number of an event, as the page before printed it")
    return int(text)


EVENT_COLUMNS = {
    "event": lambda e: str(e.sequence),
    "time": lambda e: when(e.at),
    "actor": lambda e: e.actor_id,
    "action": lambda e: e.action,
    "detail": lambda e: ", ".join(f"{name} {_brief(value)}" for name, value in e.payload.items()),
    "reason": lambda e: e.reason or "",
    "hash": lambda e: e.hash[:12],
}


def _brief(value: Any) -> str:
    """Print a value of a payload in a cell: digests by their first 12 digits, as everywhere in tables."""
    if isinstance(value, list):
        return " ".join(map(_brief, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text


@audit_app.command("show")
def audit_show(
    event: Annotated[str, typer.Argument(help="Sequence number or id of the event.")],
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Print one audit event completely, as JSON."""
    with open_record(config, overrides) as database, database.session() as session:
        record = get_event(session, int(event) if event.isdecimal() else event)
    print(json.dumps(plain(record), indent=2, ensure_ascii=False))
