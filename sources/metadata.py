"""Part, lot, station and time of capture: from a manifest, from a file-name pattern, or absent."""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, tzinfo
from pathlib import PurePosixPath
from zoneinfo import ZoneInfo

import regex

from sources.errors import SourceError, Unreadable

MAX_TEXT = 200  # characters of a part, lot or station: longer ones are not serials but accidents
# Seconds of processor time for a pattern over one name, which takes some microseconds. Far above that, for
# the processor time of other threads counts as well.
MAX_SEARCH = 1.0


@dataclass(frozen=True)
class Metadata:
    """The part, lot and station of a picture, and its time of capture (aware, in UTC), where known."""

    part: str | None = None
    lot: str | None = None
    station: str | None = None
    captured_at: datetime | None = None

    def or_else(self, other: "Metadata") -> "Metadata":
        """Return this metadata, with what is absent taken from `other`."""
        return Metadata(
            self.part or other.part,
            self.lot or other.lot,
            self.station or other.station,
            self.captured_at or other.captured_at,
        )


FIELDS = tuple(field.name for field in fields(Metadata))
TEXTS = FIELDS[:3]


def load_timezone(name: str) -> tzinfo:
    """Return the time zone of an IANA name.

    Raises:
        SourceError: this machine does not know it.
    """
    if name == "UTC":
        return UTC  # without asking for time zone data, which a bare machine may lack
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise SourceError(
            f"timezone {name!r} is not known: use an IANA name such as Europe/Berlin"
        ) from error


def parse_time(text: str, zone: tzinfo) -> datetime:
    """Return an ISO 8601 date and time as aware UTC; without an offset it is local time of `zone`.

    Of the hour that the end of summer time repeats, the first pass is meant.

    Raises:
        ValueError: any other text, or a date alone.
    """
    moment = datetime.fromisoformat(text)
    if len(text) <= len("2026-01-05"):
        raise ValueError("a date without a time")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return moment.astimezone(UTC)


# --- file names -------------------------------------------------------------------------------------------


def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """Return a file-name pattern, compiled by a library whose search, unlike that of `re`, can be ended.

    Raises:
        SourceError: no regular expression, or one without groups or with unknown ones.
    """
    try:
        compiled = regex.compile(pattern, regex.VERSION0)  # version 0 behaves as `re` does
    except regex.error as error:
        raise SourceError(f"filename_pattern {pattern!r} is not a regular expression: {error}") from error
    if not compiled.groupindex:
        raise SourceError(f"filename_pattern {pattern!r} names no group: name some of {', '.join(FIELDS)}")
    if unknown := sorted(set(compiled.groupindex) - set(FIELDS)):
        raise SourceError(
            f"filename_pattern {pattern!r}: unknown group {', '.join(unknown)};"
            f" the groups are {', '.join(FIELDS)}"
        )
    return compiled


def from_name(pattern: regex.Pattern[str], uri: str, zone: tzinfo) -> Metadata:
    """Return the metadata that `pattern` finds in `uri`: none where it does not match.

    A group captured_at that is no time is left out. Any spelling of a time with its 14 digits in order is
    understood besides ISO 8601 (2026-01-05_06-00-00). The texts are not checked, see `check_texts`.

    Raises:
        Unreadable: the search takes longer than `MAX_SEARCH`, as with nested repetitions it can.
    """
    try:
        match = pattern.search(uri, timeout=MAX_SEARCH)
    except TimeoutError as error:
        raise Unreadable(
            f"source.filename_pattern searched its name for {MAX_SEARCH:g} s without an end:"
            " write the pattern without a repetition inside a repetition"
        ) from error
    if match is None:
        return Metadata()
    found = {name: text for name, text in match.groupdict().items() if text}
    captured_at = found.pop("captured_at", None)
    return Metadata(**found, captured_at=_time_in_name(captured_at, zone) if captured_at else None)


def check_texts(metadata: Metadata) -> None:
    """Raise Unreadable where a part, lot or station is no text that a manifest could hold."""
    for name in TEXTS:
        text = getattr(metadata, name)
        if text is not None and not _is_one_line(text):
            raise Unreadable(
                f"the {name} in its name is not one line of text of at most {MAX_TEXT} characters:"
                " rename the file, or mend source.filename_pattern"
            )


def _time_in_name(text: str, zone: tzinfo) -> datetime | None:
    digits = re.sub(r"\D", "", text)
    candidates = (text, f"{digits[:8]}T{digits[8:]}") if len(digits) == 14 else (text,)
    for candidate in candidates:
        try:
            return parse_time(candidate, zone)
        except (ValueError, OverflowError):
            continue
    return None


# --- manifests --------------------------------------------------------------------------------------------


def parse_manifest(data: bytes, name: str, zone: tzinfo) -> Mapping[str, Metadata]:
    """Return the metadata of each uri in a manifest: CSV with a header, or JSON Lines.

    It has one column file (or path, or image): relative to the source, with forward slashes. Any of part,
    lot, station and captured_at may be beside it. Other columns are not read; empty values are absent.

    Args:
        data: the bytes of the manifest, UTF-8.
        name: of the manifest. It ends in .csv, or in .jsonl, .ndjson or .json.
        zone: of times without an offset.

    Raises:
        SourceError: with file, line, column and what was expected.
    """
    try:
        text = data.decode("utf-8-sig")  # spreadsheets put a byte order mark first
    except UnicodeDecodeError as error:
        raise SourceError(f"{name}: byte {error.start} is not UTF-8; save the manifest as UTF-8") from error
    suffix = PurePosixPath(name).suffix.lower()
    readers: dict[str, Callable[[str, str], Iterator[tuple[int, dict[str, object]]]]] = {
        ".csv": _csv_rows,
        ".jsonl": _json_rows,
        ".ndjson": _json_rows,
        ".json": _json_rows,
    }
    if suffix not in readers:
        raise SourceError(f"{name}: a manifest is a .csv, or JSON Lines in a .jsonl, .ndjson or .json")
    entries: dict[str, Metadata] = {}
    first_line: dict[str, int] = {}
    for line, row in readers[suffix](text, name):
        uri, metadata = _uri_and_metadata(row, f"{name}, line {line}", zone)
        if uri in entries:
            raise SourceError(f"{name}, line {line}: {uri!r} is listed already on line {first_line[uri]}")
        entries[uri], first_line[uri] = metadata, line
    return entries


def _csv_rows(text: str, name: str) -> Iterator[tuple[int, dict[str, object]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [column.strip().lower() for column in next(reader, [])]
        _check_columns(header, f"{name}, line 1")
        _file_column(header, f"{name}, line 1")
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise SourceError(
                    f"{name}, line {reader.line_num}: {len(values)} values for {len(header)} columns"
                )
            yield reader.line_num, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise SourceError(f"{name}, line {reader.line_num}: not CSV ({error})") from error


def _json_rows(text: str, name: str) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            # An object as its pairs, in which nothing has been overwritten yet.
            row = json.loads(line, object_pairs_hook=tuple)
        except (ValueError, RecursionError) as error:
            raise SourceError(
                f"{name}, line {number}: not JSON ({error}); one object a line is expected"
            ) from error
        if not isinstance(row, tuple):
            raise SourceError(f'{name}, line {number}: expected an object such as {{"file": "a.png"}}')
        columns = [key.strip().lower() for key, _ in row]
        _check_columns(columns, f"{name}, line {number}")
        yield number, dict(zip(columns, (value for _, value in row), strict=True))


def _check_columns(columns: list[str], where: str) -> None:
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        named = ", ".join(map(repr, twice))
        raise SourceError(f"{where}: column {named} occurs twice (upper and lower case are alike): keep one")


def _file_column(columns: list[str], where: str) -> str:
    found = [name for name in ("file", "path", "image") if name in columns]
    if len(found) != 1:
        raise SourceError(
            f"{where}: expected one column file (or path, or image), found {', '.join(columns) or 'none'}"
            " (a CSV manifest is separated by commas)"
        )
    return found[0]


def _uri_and_metadata(row: dict[str, object], where: str, zone: tzinfo) -> tuple[str, Metadata]:
    column = _file_column(list(row), where)
    file = row[column]
    path = PurePosixPath(file.strip()) if isinstance(file, str) else PurePosixPath()
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in str(path):
        raise SourceError(
            f"{where}, column {column}: {file!r} is not a path relative to the source, with forward slashes"
        )
    if "\0" in str(path) or any(unicodedata.category(character) == "Cs" for character in str(path)):
        raise SourceError(
            f"{where}, column {column}: {file!r} holds a NUL or half a surrogate pair, as no file name does:"
            " write the name as the source lists it"
        )
    texts = {name: _checked_text(row.get(name), f"{where}, column {name}") for name in FIELDS}
    captured_at, moment = texts.pop("captured_at"), None
    if captured_at is not None:
        try:
            moment = parse_time(captured_at, zone)
        except (ValueError, OverflowError) as error:
            raise SourceError(
                f"{where}, column captured_at: {captured_at!r} is not an ISO 8601 date and time"
                " such as 2026-01-05T06:00:00+01:00"
            ) from error
    return str(path), Metadata(**texts, captured_at=moment)


def _checked_text(value: object, where: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # JSON serials are often written as numbers
    if not isinstance(value, str) or not _is_one_line(value):
        raise SourceError(
            f"{where}: {str(value)[:40]!r} is not one line of text of at most {MAX_TEXT} characters"
        )
    return value.strip() or None


def _is_one_line(text: str) -> bool:
    """Return whether a text is short enough, without control characters and halves of surrogate pairs."""
    return len(text) <= MAX_TEXT and not any(unicodedata.category(char) in ("Cc", "Cs") for char in text)
