"""Reading and writing model.json: canonical, digested, and trusted with nothing."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from classifiers.errors import PackageError

SCHEMA = 1
FIELDS = frozenset(
    {
        "schema",
        "architecture",
        "model_args",
        "classes",
        "good_class",
        "task",
        "preprocessing",
        "temperature",
        "thresholds",
        "training",
        "parity",
        "created_at",
        "weights_sha256",
        "digest",
    }
)
LARGEST_MANIFEST = 16 * 2**20


def canonical(content: Any) -> bytes:
    """Canonical JSON: sorted keys, no whitespace, UTF-8, no NaN."""
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest(content: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of everything but the digest itself."""
    return hashlib.sha256(
        canonical({key: value for key, value in content.items() if key != "digest"})
    ).hexdigest()


def render(content: dict[str, Any]) -> str:
    """The file's text, with the digest put in, indented for people.

    Raises:
        PackageError: something in the content is not JSON (NaN among it).
    """
    try:
        complete = {**content, "digest": digest(content)}
        return json.dumps(complete, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise PackageError(f"the package's content is not plain JSON: {error}") from error


def read(file: Path) -> dict[str, Any]:
    """Read and check model.json; see `parse`."""
    if file.stat().st_size > LARGEST_MANIFEST:
        raise PackageError(f"{file}: larger than {LARGEST_MANIFEST} bytes")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PackageError(f"{file}: not UTF-8 text: {error}") from error
    return parse(text, name=str(file))


def parse(text: str, *, name: str) -> dict[str, Any]:
    """Parse model.json's text and check schema version, fields and digest.

    Raises:
        PackageError: not JSON, NaN or infinite numbers, a key twice, unknown schema or fields, wrong digest.
    """

    def refuse(constant: str) -> NoReturn:
        raise PackageError(f"{name}: {constant} is not a number a package may hold")

    def finite(literal: str) -> float:
        value = float(literal)
        return value if math.isfinite(value) else refuse(literal)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise PackageError(f"{name}: a key appears twice in one object")
        return result

    try:
        content = json.loads(text, parse_constant=refuse, parse_float=finite, object_pairs_hook=once)
    except (json.JSONDecodeError, RecursionError) as error:
        raise PackageError(f"{name}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise PackageError(f"{name}: must be a JSON object")
    schema = content.get("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        raise PackageError(f"{name}: schema {schema!r} is unknown, this kensa reads schema {SCHEMA}")
    if wrong := FIELDS ^ set(content):
        raise PackageError(f"{name}: fields missing or unknown: {', '.join(sorted(wrong))}")
    if content["digest"] != (actual := digest(content)):
        raise PackageError(
            f"{name}: digest is {actual}, the file says {content['digest']!r}; it was changed after writing"
        )
    return content


class Reader:
    """Takes typed fields out of parsed JSON, or says what is wrong and where."""

    def __init__(self, content: dict[str, Any], name: str) -> None:
        self.content = content
        self.name = name

    def error(self, key: str, expected: str) -> PackageError:
        """The error for one field."""
        return PackageError(f"{self.name}: {key} {expected}, got {self.content[key]!r}")

    def string(self, key: str) -> str:
        """A non-empty text."""
        value = self.content[key]
        if not isinstance(value, str) or not value:
            raise self.error(key, "must be text")
        return value

    def optional_string(self, key: str) -> str | None:
        """A text or null."""
        return None if self.content[key] is None else self.string(key)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """One of the given texts."""
        value = self.string(key)
        if value not in choices:
            raise self.error(key, f"must be one of {choices}")
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        """A non-empty list of texts."""
        value = self.content[key]
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            raise self.error(key, "must be a list of texts")
        return tuple(value)

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.content[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, "must be a number")
        return float(value)

    def number_rows(self, key: str, *, columns: int) -> list[list[float]]:
        """A list of rows of numbers, each with so many columns."""
        rows = self.content[key]
        if not isinstance(rows, list) or not rows:
            raise self.error(key, "must be a list of rows")
        for row in rows:
            if not isinstance(row, list) or len(row) != columns or not all(_is_number(item) for item in row):
                raise self.error(key, f"must hold rows of {columns} numbers")
        return [[float(item) for item in row] for row in rows]

    def mapping(self, key: str) -> dict[str, Any]:
        """A JSON object."""
        value = self.content[key]
        if not isinstance(value, dict):
            raise self.error(key, "must be an object")
        return value

    def optional_mapping(self, key: str) -> dict[str, Any] | None:
        """A JSON object or null."""
        return None if self.content[key] is None else self.mapping(key)

    def time(self, key: str) -> datetime:
        """An ISO 8601 time with its zone, as aware UTC."""
        try:
            value = datetime.fromisoformat(self.string(key))
        except ValueError as error:
            raise self.error(key, "must be an ISO 8601 time") from error
        if value.tzinfo is None:
            raise self.error(key, "must have a time zone")
        return value.astimezone(UTC)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
