"""Decisions about many findings from one table: read, checked as a whole, each mistake by its line."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from configs.loading import ConfigError
from db.dispositions.decide import MOST_DECISIONS, Decision
from db.dispositions.history import FindingState, finding_state
from db.errors import RecordError

COLUMNS = ("finding", "decision", "reason")  # and, for reclassify, "class"; others are a reader's own
_MOST_BYTES = 10_000_000


@dataclass(frozen=True)
class ListedDecision:
    """A decision, the line of the file in which it ends, and the mistake in that line, if there is one."""

    line: int
    decision: Decision
    mistake: str


def read_decisions(path: Path) -> list[ListedDecision]:
    """Read decisions from a CSV file: columns finding, decision and reason, and class for a reclassify.

    Cells are separated by commas, or by semicolons where the header has no comma, as spreadsheets write
    them. Further columns are not read, and neither are empty lines.

    Raises:
        ConfigError: the file is no such table. Lines with a mistake are for `check_decisions` to name.
    """
    names, lines = _table(path)
    decisions: list[ListedDecision] = []
    first: dict[str, int] = {}
    line = 1
    try:
        for line, cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            row = {name: cell.strip() for name, cell in zip(names, cells, strict=False)}
            given = Decision(
                row.get("finding", "").upper(),
                row.get("decision", "").lower(),
                row.get("reason", ""),
                row.get("class") or None,
            )
            mistake = ""
            if any(cell.strip() for cell in cells[len(names) :]):
                mistake = "more cells than columns; put a text with separators in quotes"
            elif empty := [name for name in COLUMNS if not row.get(name)]:
                mistake = f"{' and '.join(empty)} left empty"
            elif (before := first.setdefault(given.finding, line)) != line:
                mistake = f"finding {given.finding} is in line {before} already"
            decisions.append(ListedDecision(line, given, mistake))
    except csv.Error as error:
        raise ConfigError(f"{path}: is no CSV after line {line}: {error}") from None
    if not 0 < len(decisions) <= MOST_DECISIONS:
        raise ConfigError(f"{path}: holds {len(decisions)} decisions; give 1 to {MOST_DECISIONS}")
    return decisions


def check_decisions(session: Session, path: Path, decisions: list[ListedDecision]) -> dict[str, FindingState]:
    """Return each finding's state by its reference; ConfigError names every line that cannot be decided."""
    states: dict[str, FindingState] = {}
    mistakes: list[str] = []
    for each in decisions:
        wanted = each.decision
        if each.mistake:
            mistakes.append(f"line {each.line}: {each.mistake}")
            continue
        try:
            state = finding_state(session, wanted.finding)
            state.check(wanted.decision, wanted.class_name, wanted.reason)
        except RecordError as error:
            mistakes.append(f"line {each.line}: {error}")
        else:
            states[wanted.finding] = state
    if mistakes:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise ConfigError(f"{path}: {count}, and nothing was decided:\n  " + "\n  ".join(mistakes))
    return states


def _table(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the names of a table's columns, and its cells with the number of the line that they end in."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8: save it as CSV UTF-8") from None
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{path}: has more than {_MOST_BYTES} bytes: it is no list of decisions")
    header = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="," if "," in header else ";", strict=True)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
    except csv.Error as error:
        raise ConfigError(f"{path}: is no CSV: {error}") from None
    if lacking := [name for name in COLUMNS if name not in names]:
        raise ConfigError(
            f"{path}: has no column {' and no column '.join(lacking)}; its first line names the columns "
            f"{', '.join(COLUMNS)}, and class for a reclassify"
        )
    if repeated := [name for name in (*COLUMNS, "class") if names.count(name) > 1]:
        raise ConfigError(f"{path}: has the column {repeated[0]} more than once")
    return names, ((reader.line_num, cells) for cells in reader)
