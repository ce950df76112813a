"""Read and write model.json: canonical JSON with its own digest, in which nothing is trusted."""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from pathlib import Path
from typing import Any, NoReturn

from classifiers.errors import PackageError

SCHEMA = 1
LARGEST_MANIFEST = 16 * 2**20  # bytes; that of a trained model has about 10,000
DEEPEST = 50  # objects and lists in one another; a trained model has 6
LONGEST_INTEGER = 40  # digits, with the sign: every such number is a float as well

_REPR = reprlib.Repr()
_REPR.maxstring = 80  # a digest is shown whole


def canonical(content: Any) -> bytes:
    """Return canonical JSON: sorted keys, no whitespace, UTF-8, no NaN."""
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest(content: dict[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON of everything but the digest itself."""
    return hashlib.sha256(
        canonical({key: value for key, value in content.items() if key != "digest"})
    ).hexdigest()


def render(content: dict[str, Any]) -> str:
    """Return the file's text with the digest in it, indented for people.

    Raises:
        PackageError: something in the content cannot be written as JSON, such as NaN.
    """
    try:
        complete = {**content, "digest": digest(content)}
        return json.dumps(complete, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise PackageError(f"the package's content is not plain JSON: {error}") from error


def read(file: Path) -> dict[str, Any]:
    """Read model.json and check it as `parse` does."""
    if file.stat().st_size > LARGEST_MANIFEST:
        raise PackageError(f"{file}: larger than {LARGEST_MANIFEST} bytes")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PackageError(f"{file}: not UTF-8 text: {error}") from error
    return parse(text, name=str(file))


def parse(text: str, *, name: str) -> dict[str, Any]:
    """Parse model.json's text and check schema version and digest.

    Raises:
        PackageError: the text is not JSON, holds NaN, infinity, an integer of more than `LONGEST_INTEGER`
            digits, half a surrogate pair, a key twice or nesting below `DEEPEST`, or has an unknown schema or
            a wrong digest.
    """

    def refuse(constant: str) -> NoReturn:
        raise PackageError(f"{name}: {constant[:20]} is not a number a package may hold")

    def finite(literal: str) -> float:
        value = float(literal)
        return value if math.isfinite(value) else refuse(literal)

    def integer(literal: str) -> int:
        return int(literal) if len(literal) <= LONGEST_INTEGER else refuse(f"{literal[:10]}…")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise PackageError(f"{name}: a key appears twice in one object")
        return result

    try:
        content = json.loads(
            text, parse_constant=refuse, parse_float=finite, parse_int=integer, object_pairs_hook=once
        )
    except (json.JSONDecodeError, RecursionError) as error:
        raise PackageError(f"{name}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise PackageError(f"{name}: must be a JSON object")
    _check_nesting(content, name)
    schema = content.get("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        raise PackageError(
            f"{name}: schema {_REPR.repr(schema)} is unknown, this kensa reads schema {SCHEMA}"
        )
    try:
        actual = digest(content)
    except UnicodeEncodeError as error:
        raise PackageError(f"{name}: half a surrogate pair is not text a package may hold") from error
    if (stated := content.get("digest")) != actual:
        raise PackageError(
            f"{name}: digest is {actual}, the file says {_REPR.repr(stated)}; it was changed after writing"
        )
    return content


def _check_nesting(content: Any, name: str) -> None:
    """Raise PackageError where lists and objects are nested below `DEEPEST`."""
    level = [content]
    for _ in range(DEEPEST):
        containers = [value for value in level if isinstance(value, dict | list)]
        if not containers:
            return
        level = [
            inner for value in containers for inner in (value.values() if isinstance(value, dict) else value)
        ]
    raise PackageError(f"{name}: more than {DEEPEST} lists and objects in one another")
