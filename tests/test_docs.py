"""What the documentation lists is what the code has."""

import re
from pathlib import Path

from sqlalchemy import inspect

from db.schema import AuditEvent, Base

ROOT = Path(__file__).parent.parent
AUDIT = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
ACTION = re.compile(
    r'"((?:model|run|image|report|checkpoint|disposition|replay|artifacts|dataset)\.[a-z_]+)"'
)


def test_every_action_of_an_audit_event_is_documented() -> None:
    code = "".join(
        path.read_text(encoding="utf-8")
        for room in ("db", "operations", "flows")
        for path in (ROOT / room).rglob("*.py")
    )
    found = {action for action in ACTION.findall(code) if not action.endswith(".id")}  # foreign keys
    assert {"run.started", "disposition.made", "artifacts.pruned", "checkpoint.failed"} <= found
    assert sorted(action for action in found if f"`{action}`" not in AUDIT) == []


def test_every_table_and_every_column_of_an_event_is_documented() -> None:
    assert [name for name in Base.metadata.tables if f"`{name}`" not in AUDIT] == []
    assert [column.key for column in inspect(AuditEvent).columns if f"`{column.key}`" not in AUDIT] == []
