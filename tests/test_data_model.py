"""docs/data-model.md names the tables, their references and the views as the schema has them."""

import re
from pathlib import Path

from db.schema import Base
from db.views import definitions

PAGE = (Path(__file__).parent.parent / "docs" / "data-model.md").read_text(encoding="utf-8")
TABLES = Base.metadata.tables
EDGE = re.compile(r"^    (\w+) (\|\||\|o)--(o\||o\{) (\w+) : (\w+)$", re.MULTILINE)


def test_every_table_has_one_line_and_no_other_is_named() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted([*TABLES, *definitions("sqlite")])
    assert f"There are {len(TABLES)} tables." in PAGE


def test_the_diagram_has_every_foreign_key_as_it_is() -> None:
    drawn = [
        (child, column, parent, least, most) for parent, least, most, child, column in EDGE.findall(PAGE)
    ]
    there = [
        (
            table.name,
            key.parent.name,
            key.column.table.name,
            "|o" if key.parent.nullable else "||",
            "o|" if key.parent.unique else "o{",
        )
        for table in TABLES.values()
        for key in table.foreign_keys
        if key.parent.name != "event_sequence"
    ]
    assert len(there) > 20
    assert sorted(drawn) == sorted(there)
    diagram = PAGE.split("erDiagram", 1)[1].split("```", 1)[0]
    assert set(TABLES) <= set(re.findall(r"\w+", diagram))


def test_every_other_table_refers_to_its_event_as_the_page_says() -> None:
    assert "Every table but `audit_event` refers to it by `event_sequence`" in PAGE
    referring = {
        table.name
        for table in TABLES.values()
        for key in table.foreign_keys
        if (key.parent.name, key.target_fullname) == ("event_sequence", "audit_event.sequence")
    }
    assert referring == TABLES.keys() - {"audit_event"}


def test_the_views_read_the_tables_that_the_page_names() -> None:
    rows = dict(re.findall(r"^\| `(kensa_\w+)` \| ([^|]+) \|", PAGE, re.MULTILINE))
    for name, query in definitions("sqlite").items():
        assert set(re.findall(r"`(\w+)`", rows[name])) == set(re.findall(r"(?:FROM|JOIN) (\w+)", query))
