"""What the terminal shows: progress, tables, CSV, JSON Lines, errors; and what commands end with."""

import csv
import json
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, cast, get_args, get_type_hints

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from configs.credentials import masked_text
from db.queries.json_values import plain
from reports.wording import inert_cell, second

if TYPE_CHECKING:
    from operations.inspection.checkpoints import SignedHead
    from operations.reporting.issue import IssuedReport
    from operations.reporting.missing_reports import Late

# Piped output is not cut to the 80 columns that rich takes where there is no terminal.
_WIDTH = None if sys.stdout.isatty() else 160
# Lines are not wrapped: what is copied from them (a path, a command) stays whole. Tables say so themselves.
out = Console(highlight=False, width=_WIDTH, soft_wrap=True)
err = Console(stderr=True, highlight=False, width=_WIDTH, soft_wrap=True)


# Whether `kensa --debug …` was given: tracebacks and Prefect's own lines are for whoever looks for a fault.
debugging = ContextVar("kensa_debugging", default=False)


class Exit(IntEnum):
    """What a command's exit code says; 0 is done, with nothing to look at."""

    fault = 1
    """An error that kensa did not expect: a fault of kensa."""
    refused = 2
    """Usage, settings, or what they name: correct the command."""
    attention = 3
    """Done and complete, but something in it needs a person."""
    unavailable = 4
    """Not done, for a known reason outside kensa; nothing is lost: mend the reason and run it again."""
    broken = 5
    """What was checked does not hold: a record, artifact, report, proof or decision is not as recorded."""
    busy = 6
    """Not begun: another process is at the same work."""
    redacted = 7
    """Nothing is broken, but a secret was taken out of the record: what stood there is no longer proved."""
    interrupted = 130
    """Ended by Ctrl-C or by SIGTERM; a run goes on where it was with the next one."""


def print_error(error: BaseException) -> Exit:
    """Print what ended a command, in a sentence where it was to be expected, and return its exit code."""
    # Imported when something has gone wrong, so that `kensa --version` does not wait for torch.
    from classifiers.errors import ClassifierError
    from configs.loading import ConfigError
    from db.errors import ArtifactError, RecordError, RunBusy, StorageError
    from db.failures import file_error
    from explainers import ExplainerError
    from flows.environment import PrefectError
    from reports.errors import ReportError
    from sources.errors import SourceAwayError, SourceError, Unreadable

    if isinstance(error, KeyboardInterrupt):
        err.print("[red]kensa:[/red] interrupted; a run goes on from here with the next one over its source")
        return Exit.interrupted
    if isinstance(error, OSError):
        error = file_error(error, error.filename or "a file") or error
    refused = (
        ClassifierError,
        ConfigError,
        RecordError,
        ExplainerError,
        ReportError,
        SourceError,
        Unreadable,
    )
    codes: tuple[tuple[type[Exception] | tuple[type[Exception], ...], Exit], ...] = (
        ((StorageError, SourceAwayError, PrefectError), Exit.unavailable),
        (RunBusy, Exit.busy),
        (ArtifactError, Exit.broken),
        (refused, Exit.refused),
    )
    code = next((code for kinds, code in codes if isinstance(error, kinds)), Exit.fault)
    if debugging.get():
        err.print(safe(masked_text("".join(traceback.format_exception(error)))))
    if code is Exit.fault:
        summary = masked_text(f"{type(error).__name__}: {error}".splitlines()[0])
        err.print(f"[red]kensa:[/red] unexpected error: {safe(summary)}; `kensa --debug …` shows where")
    else:
        err.print(f"[red]kensa:[/red] {safe(str(error))}")
    return code


class Format(StrEnum):
    """How a listing is printed."""

    table = "table"
    json = "json"
    csv = "csv"


def print_unsealed(report: "IssuedReport") -> None:
    """Say why a report does not bear the seal that it was to bear."""
    if report.unsealed is not None:
        out.print(f"  [red]report without seal: {safe(report.unsealed)}[/red]")


def print_signed(signed: "SignedHead") -> None:
    """Say how signing the head of the audit trail went."""
    style = "default" if signed.problem is None else "red"
    out.print(f"  [{style}]{safe(signed.sentence())}[/]")


def print_late(late: "Late") -> None:
    """Say what ended runs lacked, and what became of it."""
    if late.signed is not None:
        print_signed(late.signed)
    for each in late.reports:
        style = "default" if each.problem is None else "red"
        out.print(f"  [{style}]{safe(each.sentence())}[/]")
        if each.report is not None:
            print_unsealed(each.report)


def print_to_sign(lines: dict[str, str]) -> None:
    """Print what is about to be signed: a name and its text on each line."""
    out.print("[bold]to be signed[/bold]")
    for name, text in lines.items():
        out.print(f"  {name:<11}  {safe(text)}")


# Terminal escape sequences and bidi controls in file names and notes would act on the reader's terminal.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def safe(text: str) -> str:
    """Make text from outside printable: rich markup escaped, control characters shown as code points."""
    return escape(_CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text))


Columns = dict[str, Callable[[Any], str]]


def print_rows(rows: Sequence[Any], record: type[Any], columns: Columns, form: Format, *, empty: str) -> None:
    """Print records as a table of the given columns, or completely as JSON Lines or CSV.

    Args:
        rows: dataclass instances of one type.
        record: that type. It gives the columns of the CSV, so that they do not hang on the rows.
        columns: heading to cell text, for the table.
        form: table, json or csv.
        empty: what the table form says when there are no rows.
    """
    if form is Format.json:
        for row in rows:
            sys.stdout.write(json.dumps(plain(row), ensure_ascii=False) + "\n")
    elif form is Format.csv:
        _write_csv(rows, record)
    else:
        print_table(rows, columns, empty=empty)


def print_table(rows: Sequence[Any], columns: Columns, *, empty: str) -> None:
    """Print things as a table, see `print_rows`; they need not be records."""
    if not rows:
        out.print(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in columns:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(safe(cell(row)) for cell in columns.values()))
    out.print(table, soft_wrap=False)


def print_page(
    rows: Sequence[Any],
    record: type[Any],
    columns: Columns,
    form: Format,
    limit: int,
    cursor: Callable[[Any], str],
    *,
    empty: str,
) -> None:
    """Print a page of records, of which one more than `limit` was asked for, and where the next one begins.

    Args:
        rows, record, columns, form, empty: as `print_rows` has them.
        limit: how many to print.
        cursor: what `--before` takes to go on after a record. The table ends with it; beside JSON and CSV it
            goes to standard error.
    """
    print_rows(rows[:limit], record, columns, form, empty=empty)
    if len(rows) > limit:
        console = out if form is Format.table else err
        console.print(f"next page: --before {safe(cursor(rows[limit - 1]))}")


def _write_csv(rows: Sequence[Any], record: type[Any]) -> None:
    """Write records as CSV without JSON in its cells, under a header even where there are no rows."""
    paths = _column_paths(record)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(map(".".join, paths))
    for row in map(plain, rows):
        writer.writerow(_cell(_value_at(row, path)) for path in paths)


def _column_paths(record: type[Any]) -> list[tuple[str, ...]]:
    """Return where the cells of a record type lie: its fields, those of records inside it in their place."""
    hints = get_type_hints(record)
    paths: list[tuple[str, ...]] = []
    for field in fields(record):
        hint = hints[field.name]
        # A record, one that may be absent, or a tuple of them.
        inner = next((each for each in (hint, *get_args(hint)) if is_dataclass(each)), None)
        below = [()] if inner is None else _column_paths(cast("type[Any]", inner))
        paths += [(field.name, *each) for each in below]
    return paths


def _value_at(value: Any, path: Sequence[str]) -> Any:
    """Return what lies at a path; of a list, what lies there in each of its items."""
    if isinstance(value, list) and path:
        return [_value_at(item, path) for item in value]
    return value if value is None or not path else _value_at(value[path[0]], path[1:])


def _cell(value: Any) -> Any:
    """Return a value as a cell: items of a list joined by semicolons, names and values by equals signs.

    Which names a mapping has differs from row to row, so that they are no columns.
    """
    if isinstance(value, dict):
        value = "; ".join(f"{name}={_item_text(item)}" for name, item in _named_values(value))
    elif isinstance(value, list):
        value = ";".join(
            ":".join(map(_item_text, item)) if isinstance(item, list) else _item_text(item) for item in value
        )
    return inert_cell(value) if isinstance(value, str) else value


def _named_values(mapping: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in mapping.items():
        if isinstance(value, dict) and value:
            yield from _named_values(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _item_text(item: Any) -> str:
    if isinstance(item, list):
        return ",".join(map(_item_text, item))
    if isinstance(item, dict):
        return " ".join(f"{name}={_item_text(value)}" for name, value in item.items())
    return "" if item is None else str(item)


def when(time: datetime | None) -> str:
    """Print a time to the second, in UTC."""
    return "" if time is None else second(time)


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar; the function it gives takes (done, total)."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
    ) as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
