"""What the terminal shows: a run's progress, tables, CSV and JSON Lines."""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from db.queries.json_values import plain
from reports.wording import inert_cell, second

if TYPE_CHECKING:
    from operations.reporting.issue import IssuedReport

# Piped output is not cut to the 80 columns that rich takes where there is no terminal.
_WIDTH = None if sys.stdout.isatty() else 160
# Lines are not wrapped: what is copied from them (a path, a command) stays whole. Tables say so themselves.
out = Console(highlight=False, width=_WIDTH, soft_wrap=True)
err = Console(stderr=True, highlight=False, width=_WIDTH, soft_wrap=True)


class Format(StrEnum):
    """How a listing is printed."""

    table = "table"
    json = "json"
    csv = "csv"


def print_unsealed(report: "IssuedReport") -> None:
    """Say why a report does not bear the seal that it was to bear."""
    if report.unsealed is not None:
        out.print(f"  [red]report without seal: {safe(report.unsealed)}[/red]")


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


def print_rows(
    rows: Sequence[Any], columns: dict[str, Callable[[Any], str]], form: Format, *, empty: str
) -> None:
    """Print records as a table of the given columns, or completely as JSON Lines or CSV.

    Args:
        rows: dataclass instances of one type.
        columns: heading to cell text, for the table.
        form: table, json or csv.
        empty: what the table form says when there are no rows.
    """
    if form is Format.json:
        for row in rows:
            sys.stdout.write(json.dumps(plain(row), ensure_ascii=False) + "\n")
    elif form is Format.csv:
        _write_csv([plain(row) for row in rows])
    elif not rows:
        out.print(empty)
    else:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in columns:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*(safe(cell(row)) for cell in columns.values()))
        out.print(table, soft_wrap=False)


def print_page(
    rows: Sequence[Any],
    columns: dict[str, Callable[[Any], str]],
    form: Format,
    limit: int,
    cursor: Callable[[Any], str],
    *,
    empty: str,
) -> None:
    """Print a page of records, of which one more than `limit` was asked for, and where the next one begins.

    Args:
        rows, columns, form, empty: as `print_rows` has them.
        limit: how many to print.
        cursor: what `--before` takes to go on after a record. The table ends with it; beside JSON and CSV it
            goes to standard error.
    """
    print_rows(rows[:limit], columns, form, empty=empty)
    if len(rows) > limit:
        console = out if form is Format.table else err
        console.print(f"next page: --before {safe(cursor(rows[limit - 1]))}")


def _write_csv(rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    sys.stdout.write(text.getvalue())


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return inert_cell(value) if isinstance(value, str) else value


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
