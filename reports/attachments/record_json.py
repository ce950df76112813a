"""Records as JSON: values without pixels, and the JSON Schema of a record's type.

A field is a key of the same name. Pictures, maps, functions and paths are left out. A class may name in
`RECORDED` properties that are to be written as well: sentences and sums that the report prints.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from reports.errors import ReportError

# Pixels, maps, loaders of evidence and a user's folders: what a record holds but does not say.
_LEFT_OUT = (np.ndarray, bytes, Callable, Path)
_MOMENT = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z$"
_SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    NoneType: {"type": "null"},
    datetime: {"type": "string", "pattern": _MOMENT},
    date: {"type": "string", "format": "date"},
    Any: {},
}

# Names and types of classes that were looked up before: resolving type hints is slow.
_KNOWN: dict[type[Any], dict[str, Any]] = {}


def plain(value: Any, where: str = "record") -> Any:
    """Return a value as JSON holds it: times in UTC, tuples as lists, dataclasses as objects.

    Raises:
        ReportError: a number that is not finite, or a value of a kind that no record has; it names the field.
    """
    match value:
        case None | bool() | int():
            return value
        case str():
            return text(value)
        case float():
            if not isfinite(value):
                raise ReportError(f"{where}: {value} cannot be written; give a finite number or none")
            return float(value)
        case np.generic():
            return plain(value.item(), where)
        case datetime():
            return moment(value)
        case date():
            return value.isoformat()
        case Mapping():
            return {text(str(key)): plain(each, f"{where}.{key}") for key, each in value.items()}
        case list() | tuple():
            return [plain(each, f"{where}[{i}]") for i, each in enumerate(value)]
        case _ if is_dataclass(value):
            return {name: plain(getattr(value, name), f"{where}.{name}") for name in recorded(type(value))}
        case _:
            raise ReportError(f"{where}: a {type(value).__name__} cannot be written")


def moment(value: datetime) -> str:
    """Return a time in UTC as RFC 3339 writes it."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def text(value: str) -> str:
    """Return a text that UTF-8 can hold: a lone surrogate, as of a file name in bytes, becomes "‹U+DC80›"."""
    if value.isascii():
        return value
    return "".join(c if not 0xD800 <= ord(c) < 0xE000 else f"‹U+{ord(c):04X}›" for c in value)


def recorded(kind: type[Any]) -> dict[str, Any]:
    """Return the names that a dataclass is written with, and their types."""
    if kind in _KNOWN:
        return _KNOWN[kind]
    hints = get_type_hints(kind)
    names = {field.name: hints[field.name] for field in fields(kind) if not _is_left_out(hints[field.name])}
    for name in getattr(kind, "RECORDED", ()):
        names[name] = get_type_hints(getattr(kind, name).fget)["return"]
    return _KNOWN.setdefault(kind, names)


def _is_left_out(hint: Any) -> bool:
    """Return whether a type holds, at any depth, what is left out of records."""
    origin = get_origin(hint) or hint
    return origin in _LEFT_OUT or any(
        _is_left_out(part) for part in get_args(hint) if not isinstance(part, list)
    )


def schema_of(kinds: Mapping[str, type], name: str, title: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of files in the format `name`, whose records have these types."""
    defs: dict[str, Any] = {}
    choices = [
        {"properties": {"kind": {"const": kind}, "record": _type_schema(record, defs)}}
        for kind, record in kinds.items()
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{name.replace('/', ':')}",
        "title": title,
        "type": "object",
        "properties": {
            "format": {"const": name},
            "kind": {"enum": list(kinds)},
            "verdict": {
                "type": ["object", "null"],
                "properties": {
                    "word": {"type": "string"},
                    "sentence": {"type": "string"},
                    "reasons": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["word", "sentence", "reasons"],
                "additionalProperties": False,
            },
            "record": {"type": "object"},
        },
        "required": ["format", "kind", "verdict", "record"],
        "additionalProperties": False,
        "oneOf": choices,
        "$defs": defs,
    }


def _type_schema(hint: Any, defs: dict[str, Any]) -> dict[str, Any]:
    origin, parts = get_origin(hint), get_args(hint)
    if hint in _SCALARS:
        return dict(_SCALARS[hint])
    if origin in (Union, UnionType):
        return {"anyOf": [_type_schema(part, defs) for part in parts]}
    if origin is Literal:
        return {"enum": list(parts)}
    if origin is tuple and (len(parts) != 2 or parts[1] is not ...):
        return {
            "type": "array",
            "prefixItems": [_type_schema(part, defs) for part in parts],
            "items": False,
            "minItems": len(parts),
        }
    if origin in (tuple, list, Sequence):
        return {"type": "array", "items": _type_schema(parts[0], defs)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _type_schema(parts[1], defs)}
    if isinstance(hint, type) and is_dataclass(hint):
        return _object_schema(hint, defs)
    raise TypeError(f"{hint} has no JSON form")


def _object_schema(kind: type[Any], defs: dict[str, Any]) -> dict[str, Any]:
    said = (kind.__doc__ or "").strip().partition("\n")[0]
    owner = f"{kind.__module__}.{kind.__name__}"
    known = defs.get(kind.__name__)
    if known is None:
        defs[kind.__name__] = entry = dict[str, Any]({"$comment": owner})
        entry |= {
            "description": said,
            "type": "object",
            "properties": {name: _type_schema(hint, defs) for name, hint in recorded(kind).items()},
            "required": list(recorded(kind)),
            "additionalProperties": False,
        }
    elif known["$comment"] != owner:
        raise TypeError(f"two classes of one name: {owner} and {known['$comment']}")
    return {"$ref": f"#/$defs/{kind.__name__}"}
