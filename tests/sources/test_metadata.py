"""Manifests, file-name patterns and times: what is understood, and how what is not is answered."""

import json
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from sources.errors import SourceError, Unreadable
from sources.metadata import (
    Metadata,
    check_texts,
    compile_pattern,
    from_name,
    load_timezone,
    parse_manifest,
    parse_time,
)

BERLIN = ZoneInfo("Europe/Berlin")


def rejected(data: str | bytes, name: str = "manifest.csv") -> str:
    with pytest.raises(SourceError) as caught:
        parse_manifest(data.encode() if isinstance(data, str) else data, name, UTC)
    return str(caught.value)


# --- times ------------------------------------------------------------------------------------------------


def test_times_become_utc() -> None:
    six = datetime(2026, 1, 5, 6, tzinfo=UTC)
    assert parse_time("2026-01-05T06:00:00Z", BERLIN) == six
    assert parse_time("2026-01-05T08:00:00+02:00", BERLIN) == six
    assert parse_time("2026-01-05 07:00", BERLIN) == six  # winter: UTC+1
    assert parse_time("2026-07-05 08:00", BERLIN) == six.replace(month=7)  # summer: UTC+2
    assert parse_time("20260105T060000", UTC) == six
    assert parse_time("2026-01-05T08:00:00+02:00", BERLIN).tzinfo is UTC


def test_the_repeated_hour_is_its_first_pass() -> None:
    assert parse_time("2026-10-25T02:30", BERLIN) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Invalid isoformat"),
        ("yesterday", "Invalid isoformat"),
        ("05.01.2026 06:00", "Invalid isoformat"),
        ("2026-13-01T00:00", "month must be"),
        ("2026-01-05", "a date without a time"),
    ],
)
def test_what_is_no_time_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_time(text, UTC)


def test_time_zones() -> None:
    assert load_timezone("UTC") is UTC
    assert load_timezone("Europe/Berlin") == BERLIN
    for name in ("Mars/Olympus", "", "Europe", "../etc/passwd", "/etc/localtime"):
        with pytest.raises(SourceError, match="use an IANA name"):
            load_timezone(name)


# --- manifests --------------------------------------------------------------------------------------------


def test_csv() -> None:
    text = (
        "\ufeffFile, part ,lot,station,captured_at,operator\r\n"
        'a/1.png,P1,"L,1",S1,2026-01-05T07:00:00+01:00,Kim\r\n'
        "\r\n"
        "./b.png,  P2 ,,,,\r\n"
    )
    assert parse_manifest(text.encode(), "m.CSV", UTC) == {
        "a/1.png": Metadata("P1", "L,1", "S1", datetime(2026, 1, 5, 6, tzinfo=UTC)),
        "b.png": Metadata("P2"),
    }


@pytest.mark.parametrize("name", ["m.jsonl", "m.ndjson", "m.json"])
def test_json_lines(name: str) -> None:
    lines = [
        {"path": "a.png", "part": 17, "lot": "L1", "station": None, "temperature": 21.5},
        {"path": "b.png", "captured_at": "2026-01-05T06:00:00"},
    ]
    text = "\n".join(map(json.dumps, lines)) + "\n\n"
    assert parse_manifest(text.encode(), name, timezone(timedelta(hours=-1))) == {
        "a.png": Metadata("17", "L1"),
        "b.png": Metadata(captured_at=datetime(2026, 1, 5, 7, tzinfo=UTC)),
    }


def test_a_line_separator_inside_json_text_does_not_end_the_line() -> None:
    text = '{"image": "a\u2028b.png"}'
    assert list(parse_manifest(text.encode(), "m.jsonl", UTC)) == ["a\u2028b.png"]


def test_a_header_alone_lists_nothing() -> None:
    assert parse_manifest(b"file,part\n", "m.csv", UTC) == {}
    assert parse_manifest(b"", "m.jsonl", UTC) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected one column file"),
        ("name,part\na.png,P1\n", "found name, part"),
        ("file;part\na.png;P1\n", "separated by commas"),
        ("file,path\na.png,b.png\n", "expected one column file (or path, or image), found file, path"),
        ("file,part,Part\na.png,P1,P2\n", "line 1: column 'part' occurs twice (upper and lower case"),
        ("FILE,file\na.png,b.png\n", "line 1: column 'file' occurs twice"),
        ("file\na\0.png\n", "line 2, column file: 'a\\x00.png' holds a NUL"),
        ("file,part\na.png,P\x001\n", "line 2, column part: 'P\\x001' is not one line of text"),
        ("file,part\na.png\n", "line 2: 1 values for 2 columns"),
        ("file,part\na.png,P1,x\n", "line 2: 3 values for 2 columns"),
        ("file\na.png\nb.png\na.png\n", "line 4: 'a.png' is listed already on line 2"),
        ("file\na.png\n./a.png\n", "listed already on line 2"),
        (
            "file,captured_at\na.png,noon\n",
            "line 2, column captured_at: 'noon' is not an ISO 8601 date and time",
        ),
        ("file,captured_at\na.png,2026-01-05\n", "column captured_at: '2026-01-05' is not"),
        ("file,captured_at\na.png,0001-01-01T00:00+14:00\n", "is not an ISO 8601 date and time"),
        ("file\n/etc/passwd.png\n", "line 2, column file: '/etc/passwd.png' is not a path relative"),
        ("file\n../up.png\n", "'../up.png' is not a path relative"),
        ("file\na\\b.png\n", "forward slashes"),
        ("file,part\n,P1\n", "column file: '' is not a path"),
        ('file,part\na.png,"P\n1"\n', "column part: 'P\\n1' is not one line of text"),
        (f"file,lot\na.png,{'x' * 201}\n", "column lot"),
        ('file,part\na.png,"P1\n', "not CSV"),
    ],
)
def test_a_bad_csv_is_answered_with_file_line_and_column(text: str, message: str) -> None:
    answer = rejected(text)
    assert answer.startswith("manifest.csv")
    assert message in answer


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file": "a.png"}\n{"file": ', "line 2: not JSON"),
        ('[{"file": "a.png"}]', "line 1: expected an object"),
        ('{"part": "P1"}', "line 1: expected one column file (or path, or image), found part"),
        ('{"file": 5}', "column file: 5 is not a path"),
        ('{"file": "a.png", "part": true}', "column part: 'True' is not one line of text"),
        ('{"file": "a.png", "lot": ["L1"]}', "column lot"),
        ('{"file": "a.png", "captured_at": 1767592800}', "column captured_at: '1767592800' is not an ISO"),
        ("[" * 100_000, "line 1: not JSON"),
        ('{"file": "a.png", "FILE": "b.png"}', "line 1: column 'file' occurs twice"),
        ('{"file": "a.png", "file": "b.png"}', "line 1: column 'file' occurs twice"),
        ('{"file": "a.png", "part": "P1", " Part": "P2"}', "column 'part' occurs twice"),
        ('{"file": "a\\u0000.png"}', "line 1, column file: 'a\\x00.png' holds a NUL"),
        ('{"file": "a\\ud800.png"}', "column file: 'a\\ud800.png' holds a NUL or half a surrogate pair"),
        ('{"file": "a.png", "lot": "L\\udfff"}', "column lot: 'L\\udfff' is not one line of text"),
        ('{"file": "a.png", "part": ' + "9" * 10_000 + "}", "line 1: not JSON"),
        ('{"file": "a.png", "part": {"file": "b.png"}}', "column part"),
    ],
)
def test_a_bad_json_line_is_answered_with_file_line_and_column(text: str, message: str) -> None:
    answer = rejected(text, "parts.jsonl")
    assert answer.startswith("parts.jsonl")
    assert message in answer


def test_encoding_and_kind() -> None:
    assert "byte 5 is not UTF-8" in rejected(b"file\n\xff.png\n")
    assert "a manifest is a .csv" in rejected("file\n", "manifest.xlsx")


# --- file names -------------------------------------------------------------------------------------------


def test_named_groups_in_the_uri() -> None:
    pattern = compile_pattern(r"(?P<lot>L\d+)/(?P<station>[^_/]+)_(?P<part>P\d+)_(?P<captured_at>.+)\.png$")
    expected = Metadata("P7", "L12", "cam1", datetime(2026, 1, 5, 5, tzinfo=UTC))
    for time in ("2026-01-05T06:00:00", "20260105T060000", "2026-01-05_06-00-00", "20260105060000"):
        assert from_name(pattern, f"x/L12/cam1_P7_{time}.png", BERLIN) == expected
    assert from_name(pattern, "x/L12/cam1_P7_sometime.png", UTC) == Metadata("P7", "L12", "cam1")
    assert from_name(pattern, "x/L12/cam1_P7_20269905060000.png", UTC) == Metadata("P7", "L12", "cam1")
    assert from_name(pattern, "x/other.png", UTC) == Metadata()


def test_a_group_that_took_no_part_is_absent() -> None:
    pattern = compile_pattern(r"(?P<lot>L\d+)?-(?P<part>P\d*)")
    assert from_name(pattern, "-P", UTC) == Metadata(part="P")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "is not a regular expression"),
        (r"\d+", "names no group: name some of part, lot, station, captured_at"),
        (r"(?P<part>\d+)(?P<batch>x)(?P<camera>y)", "unknown group batch, camera"),
    ],
)
def test_bad_patterns(pattern: str, message: str) -> None:
    with pytest.raises(SourceError, match="filename_pattern") as caught:
        compile_pattern(pattern)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "pattern", [r"(?P<part>(a+)+)$", r"(?P<part>(a|aa)+)$", r"^(?P<part>(.|\w)*)$(?<!!)"]
)
def test_a_search_that_does_not_end_is_ended(pattern: str) -> None:
    with pytest.raises(Unreadable, match="without a repetition inside a repetition"):
        from_name(compile_pattern(pattern), "a" * 4000 + "!", UTC)
    assert from_name(compile_pattern(pattern), "aaa", UTC) == Metadata(part="aaa")


@pytest.mark.parametrize("text", ["P\n1", "P\x001", "P\x7f", "P\ud800", "x" * 201])
def test_a_name_gives_no_text_that_a_manifest_could_not(text: str) -> None:
    assert "is not one line of text" in rejected(json.dumps({"file": "a.png", "lot": text}), "m.jsonl")
    with pytest.raises(Unreadable, match="the lot in its name is not one line of text"):
        check_texts(Metadata("P1", text))
    check_texts(Metadata("x" * 200, None, "S 1"))
