"""The listing as CSV: read back whole, in bounded memory, and nothing that a spreadsheet would run."""

import csv
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.attachments.listing import COLUMNS, MISSING, ListedPicture, listing_csv
from reports.wording import inert_cell, plain_cell

AT = datetime(2026, 11, 23, 6, 0, 4, tzinfo=UTC)


def read(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(data.decode(), newline="")))


def test_a_line_a_picture():
    data = listing_csv(
        [
            ListedPicture("a.png", "reject", 0.9637, "P-1", "LOT-1", "CAM-3", AT, None, "ab" * 32, True),
            ListedPicture("b.png", "unreadable", reason="the file is empty (0 bytes)"),
            ListedPicture("c.png"),
            ListedPicture("d.png", MISSING, part="P-4", lot="LOT-1"),
        ]
    )
    lines = data.split(b"\r\n")
    assert lines[0].decode() == ",".join(f'"{name}"' for name in COLUMNS)
    assert lines[-1] == b""
    assert b"\n" not in data.replace(b"\r\n", b"")
    rows = read(data)
    assert rows[0] == {
        "uri": "a.png",
        "part": "P-1",
        "lot": "LOT-1",
        "station": "CAM-3",
        "captured_at": "2026-11-23T06:00:04Z",
        "verdict": "reject",
        "score": "0.9637",
        "reason": "",
        "image_sha256": "ab" * 32,
        "carried_over": "yes",
    }
    assert (rows[1]["verdict"], rows[1]["reason"], rows[1]["score"]) == (
        "unreadable",
        "the file is empty (0 bytes)",
        "",
    )
    assert (rows[2]["verdict"], rows[2]["carried_over"]) == ("", "no")
    assert (rows[3]["verdict"], rows[3]["part"]) == ("missing", "P-4")
    assert read(listing_csv([])) == []


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+1",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        '=HYPERLINK("http://x","y")',
        "  =1",
        "＝1+1",
        "'=1",
    ],
)
def test_no_cell_runs(cell):
    assert inert_cell(cell) == f"'{cell}"
    (row,) = read(listing_csv([ListedPicture(cell, part=cell, lot=cell, station=cell, reason=cell)]))
    assert {row[name] for name in ("uri", "part", "lot", "station", "reason")} == {f"'{cell}"}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_every_text_comes_back(value):
    (row,) = read(listing_csv([ListedPicture(value, reason=value)]))
    assert plain_cell(row["uri"]) == value
    assert not row["uri"].lstrip(" ").startswith(("=", "+", "-", "@"))


def test_a_name_that_is_no_text_is_written_readably():
    (row,) = read(listing_csv([ListedPicture("bild\udcfc.png")]))
    assert row["uri"] == "bild‹U+DCFC›.png"


def test_memory_grows_with_the_file_alone():
    def pictures() -> Iterator[ListedPicture]:
        for i in range(20_000):
            yield ListedPicture(
                f"LOT/P-{i:06d}.png", "pass", i / 20_000, f"P-{i}", "LOT", "CAM", AT, None, "a" * 64
            )

    tracemalloc.start()
    data = listing_csv(pictures())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.count(b"\r\n") == 20_001
    assert peak < 3 * len(data)
