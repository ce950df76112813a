"""Commands that read the audit trail: log and show."""

import json
import re
from typing import Annotated, Any

import typer

from cli.console import Format, print_page, safe, when
from cli.filters import filter_text, filtered
from cli.options import Before, Config, Form, Limit, Overrides, open_record, settings_of
from configs.loading import ConfigError
from db.queries.events import EventFilter, EventRecord, find_events, get_event
from db.queries.json_values import plain


@filtered(EventFilter)
def audit_log(
    config: Config = None,
    overrides: Overrides = None,
    *,
    wanted: EventFilter,
    limit: Limit = 50,
    before: Before = None,
    form: Form = Format.table,
) -> None:
    """List audit events, newest first."""
    with open_record(settings_of(config, overrides)) as database, database.session() as session:
        wanted.require_known(session)
        rows = find_events(session, wanted, limit=limit + 1, before=_event_cursor(before))
    empty = f"no events{safe(filter_text(wanted))}"
    print_page(rows, EventRecord, EVENT_COLUMNS, form, limit, lambda e: str(e.sequence), empty=empty)


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


def audit_show(
    event: Annotated[str, typer.Argument(help="Sequence number or id of the event.")],
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Print one audit event completely, as JSON."""
    with open_record(settings_of(config, overrides)) as database, database.session() as session:
        record = get_event(session, int(event) if event.isdecimal() else event)
    print(json.dumps(plain(record), indent=2, ensure_ascii=False))
