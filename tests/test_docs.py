"""What the documentation lists is what the code has."""

import re
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy import inspect

from configs.schema import Settings
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
    foreign_keys = {action for action in ACTION.findall(code) if action.endswith(".id")}
    settings = {
        f"{section}.{key}"
        for section, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for key in field.annotation.model_fields
    }
    found = set(ACTION.findall(code)) - foreign_keys - settings
    assert {"run.started", "disposition.made", "artifacts.pruned", "checkpoint.failed"} <= found
    assert sorted(action for action in found if f"`{action}`" not in AUDIT) == []


def test_every_table_and_every_column_of_an_event_is_documented() -> None:
    assert [name for name in Base.metadata.tables if f"`{name}`" not in AUDIT] == []
    assert [column.key for column in inspect(AuditEvent).columns if f"`{column.key}`" not in AUDIT] == []


def test_every_file_and_name_on_the_pages_about_the_code_is_there() -> None:
    rooms = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"]
    code = "".join(path.read_text(encoding="utf-8") for room in rooms for path in room.rglob("*.py"))
    words = set(re.findall(r"\w+", code))
    for page in ("sise.md", "life-of-a-finding.md", "data-model.md"):
        named = re.findall(r"`([^`\n]+)`", (ROOT / "docs" / page).read_text(encoding="utf-8"))
        files = [name for name in named if re.fullmatch(r"\w+(/\w+)+\.py", name)]
        assert [
            name for name in files if not any((top / name).exists() for top in (ROOT, ROOT / "explainers"))
        ] == []
        names = [name.rpartition(".")[2] for name in named if re.fullmatch(r"_?[A-Za-z]\w{3,}(\.\w+)*", name)]
        assert len(names) > 20
        assert sorted({name for name in names if name not in words} - {"alpha_k"}) == [], page
