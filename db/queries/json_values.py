"""Records of queries as values that JSON can hold."""

from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


def plain(value: Any) -> Any:
    """Turn a record into JSON-ready values: dataclasses to objects, times to ISO 8601, ids to text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value
