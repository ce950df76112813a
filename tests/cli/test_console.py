"""What the terminal prints of records: tables, JSON Lines, CSV."""

import csv
from dataclasses import dataclass
from io import StringIO

import pytest

from cli.console import Format, print_rows


@dataclass(frozen=True)
class Row:
    name: str
    number: float = -1.0


@pytest.mark.parametrize("text", ["=1+1", "-2+3", "\n=1", "  =1", "\xa0@SUM(A1)", "＝1+1", "＠x", "'=1"])
def test_no_cell_of_a_csv_runs_in_a_spreadsheet(text, capsys):
    print_rows([Row(text), Row("P-1")], {}, Format.csv, empty="")
    rows = list(csv.DictReader(StringIO(capsys.readouterr().out, newline="")))
    assert [row["name"] for row in rows] == [f"'{text}", "P-1"]
    assert rows[0]["number"] == "-1.0"
