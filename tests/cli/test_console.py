"""What the terminal prints of records: tables, JSON Lines, CSV."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest

from cli.console import Format, print_rows


@dataclass(frozen=True)
class Row:
    name: str
    number: float = -1.0


@dataclass(frozen=True)
class Layer:
    name: str
    kept: int | None = None


@dataclass(frozen=True)
class Inner:
    layers: tuple[Layer, ...]
    row: Row | None
    box: tuple[int, int] | None = None


@dataclass(frozen=True)
class Whole:
    part: str
    inner: Inner | None
    pairs: tuple[tuple[str, str | None], ...] = ()
    facts: Mapping[str, Any] | None = None
    at: datetime | None = None


HEADER = "part,inner.layers.name,inner.layers.kept,inner.row.name,inner.row.number,inner.box,pairs,facts,at"


@pytest.mark.parametrize("text", ["=1+1", "-2+3", "\n=1", "  =1", "\xa0@SUM(A1)", "＝1+1", "＠x", "'=1"])
def test_no_cell_of_a_csv_runs_in_a_spreadsheet(text, capsys):
    print_rows([Row(text), Row("P-1")], Row, {}, Format.csv, empty="")
    rows = list(csv.DictReader(StringIO(capsys.readouterr().out, newline="")))
    assert [row["name"] for row in rows] == [f"'{text}", "P-1"]
    assert rows[0]["number"] == "-1.0"
    print_rows([Whole("P", None, facts={"=1+1": 2})], Whole, {}, Format.csv, empty="")
    assert capsys.readouterr().out.endswith("P,,,,,,,'=1+1=2,\n")


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [Whole("a", None)],
        [Whole("a", Inner((), None)), Whole("b", None)],
        [Whole("a", None), Whole("b", Inner((Layer("x"),), Row("=2")), facts={"any": {"name": 1}})],
    ],
)
def test_the_columns_of_a_csv_are_those_of_its_records_whatever_a_page_holds(rows, capsys):
    print_rows(rows, Whole, {}, Format.csv, empty="nothing")
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == HEADER
    assert len(lines) == len(rows)


def test_a_csv_has_no_json_in_its_cells(capsys):
    full = Whole(
        "b",
        Inner((Layer("one", 2), Layer("two")), Row("=2", 0.5), (3, 4)),
        (("k", "v"), ("l", None)),
        {"count": 2, "labels": {"pit": 1, "none": None}, "lots": ["L1", "L2"], "done": True, "empty": {}},
        datetime(2026, 11, 24, tzinfo=UTC),
    )
    print_rows([Whole("a", None), full], Whole, {}, Format.csv, empty="")
    _, first, second = csv.reader(StringIO(capsys.readouterr().out))
    assert first == ["a", *[""] * 8]
    assert second == [
        "b", "one;two", "2;", "'=2", "0.5", "3;4", "k:v;l:",
        "count=2; labels.pit=1; labels.none=; lots=L1,L2; done=True; empty=", "2026-11-24T00:00:00+00:00",
    ]  # fmt: skip


def test_json_lines_hold_each_record_as_it_is(capsys):
    print_rows([Whole("a", Inner((Layer("x"),), None))], Whole, {}, Format.json, empty="nothing")
    assert json.loads(capsys.readouterr().out) == {
        "part": "a",
        "inner": {"layers": [{"name": "x", "kept": None}], "row": None, "box": None},
        "pairs": [],
        "facts": None,
        "at": None,
    }
    print_rows([], Whole, {}, Format.json, empty="nothing")
    assert capsys.readouterr().out == ""
    print_rows([], Whole, {}, Format.table, empty="nothing")
    assert capsys.readouterr().out == "nothing\n"
