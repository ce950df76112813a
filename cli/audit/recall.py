"""Commands that tell a story from the record: one part's life, and what a model touched."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from cli.console import Format, err, out, print_page, print_rows, safe, when
from cli.options import (
    Before,
    Config,
    Form,
    Limit,
    Lot,
    Overrides,
    Since,
    Until,
    Verdict,
    open_record,
    settings_of,
    utc,
)
from db.inspection.known_names import require_known
from db.queries.part_history import LifeEntry, PartHistory, part_history
from db.queries.recall import TracedPart, TraceFilter, TraceSummary, trace_parts, trace_summary
from db.queries.sentences import evidence_line, sentence
from db.retention.inventory import many


class Telling(StrEnum):
    """How a story is printed."""

    text = "text"
    json = "json"
    csv = "csv"


@dataclass(frozen=True, slots=True)
class ToldEntry:
    """A line of a part's life as JSON and CSV have it; `evidence`: what and its SHA-256, in full."""

    part: str
    lot: str | None
    at: datetime
    kind: str
    sentence: str
    event: int
    hash: str
    evidence: tuple[tuple[str, str], ...]
    facts: dict[str, Any]

    @classmethod
    def of(cls, part: PartHistory, entry: LifeEntry) -> "ToldEntry":
        """Put an entry into words."""
        return cls(
            part.serial,
            part.lot,
            entry.at,
            entry.kind,
            sentence(entry),
            entry.sequence,
            entry.hash,
            entry.evidence,
            dict(entry.facts),
        )


def audit_part(
    serial: Annotated[str, typer.Argument(help="Serial of the part.")],
    config: Config = None,
    overrides: Overrides = None,
    lot: Annotated[str | None, typer.Option(help="Its lot, where several have such a part.")] = None,
    form: Annotated[Telling, typer.Option("--format", help="How to print.")] = Telling.text,
) -> None:
    """Tell one part's whole life in order, with the evidence behind each sentence."""
    with open_record(settings_of(config, overrides)) as database, database.session() as session:
        parts = part_history(session, serial, lot)
    if form is not Telling.text:
        told = [ToldEntry.of(part, entry) for part in parts for entry in part.entries]
        print_rows(told, ToldEntry, {}, Format(form.value), empty="")
        return
    for number, part in enumerate(parts):
        heading = f"part {safe(part.serial)}, {f'lot {safe(part.lot)}' if part.lot else 'no lot'}"
        out.print(("\n" if number else "") + f"[bold]{heading}[/bold]")
        for entry in part.entries:
            out.print(f"{when(entry.at)}  {safe(sentence(entry))}")
            out.print(f"[dim]                      {safe(evidence_line(entry))}[/dim]")


def audit_trace(
    model: Annotated[str, typer.Option(help="Model name, or the beginning of its digest.")],
    config: Config = None,
    overrides: Overrides = None,
    lot: Lot = None,
    verdict: Verdict = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    before: Before = None,
    form: Form = Format.table,
) -> None:
    """List the parts that a model judged, those it let pass included: what to recall when it was bad."""
    wanted = TraceFilter(model=model, lot=lot, verdict=verdict, since=utc(since), until=utc(until))
    with open_record(settings_of(config, overrides)) as database, database.session() as session:
        require_known(session, lot=lot)
        parts = trace_parts(session, wanted, limit=limit + 1, before=before)
        if before is None:
            console = out if form is Format.table else err
            console.print(safe(_summary_sentence(trace_summary(session, wanted))))
    print_page(parts, TracedPart, PART_COLUMNS, form, limit, lambda part: part.cursor, empty="no parts")


def _summary_sentence(summary: TraceSummary) -> str:
    digests = ", ".join(digest[:12] for digest in summary.models)
    without = f"; {summary.without_part} of them name no part" if summary.without_part else ""
    pictures = f"{many(summary.pictures, 'picture')} ({summary.passes} passed){without}"
    return (
        f"model {digests}: {many(summary.parts, 'part')} of {many(summary.lots, 'lot')} in "
        f"{many(summary.runs, 'run')}, {pictures}"
    )


def _findings(part: TracedPart) -> str:
    return ", ".join(
        f"{found.reference} {found.class_name}" + (f" ({found.disposition})" if found.disposition else "")
        for found in part.findings
    )


PART_COLUMNS = {
    "part": lambda p: p.part or "",
    "lot": lambda p: p.lot or "",
    "stations": lambda p: ", ".join(p.stations),
    "pictures": lambda p: str(len(p.pictures)),
    "verdicts": lambda p: ", ".join(f"{count} {verdict}" for verdict, count in p.verdicts),
    "findings": _findings,
    "last": lambda p: when(p.last_at),
}
