"""Whatever the bytes of a manifest are, reading it gives what can be recorded, or its one error."""

import json
from datetime import UTC

from hypothesis import given, settings
from hypothesis import strategies as st

from sources.errors import SourceError
from sources.metadata import MAX_TEXT, parse_manifest

NAMES = st.sampled_from(["m.csv", "m.jsonl"])
COLUMNS = st.sampled_from(["file", "FILE", "path", "part", " lot", "station", "captured_at", "other"])
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["a.png", "b/c.png", "P1", "2026-01-05T06:00:00", "9999-12-31T23:59:59-23:59", "\ud800"]),
)
JSON = st.recursive(
    st.one_of(TEXTS, st.integers(), st.floats(), st.booleans(), st.none()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(COLUMNS, inner, max_size=2),
    max_leaves=4,
)


def outcome(data: bytes, name: str) -> None:
    try:
        entries = parse_manifest(data, name, UTC)
    except SourceError as error:
        message = str(error)
        entries = {}
    else:
        message = name
    assert message.startswith(name)
    for uri, metadata in entries.items():
        assert not uri.startswith("/")
        assert "\0" not in uri
        for text in (metadata.part, metadata.lot, metadata.station):
            assert text is None or (0 < len(text) <= MAX_TEXT and "\0" not in text)
        # As the record stores it.
        "".join((uri, metadata.part or "", metadata.lot or "", metadata.station or "")).encode()
        assert metadata.captured_at is None or metadata.captured_at.tzinfo is UTC


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=200), name=NAMES)
def test_arbitrary_bytes(data: bytes, name: str) -> None:
    outcome(data, name)
    outcome(b"file,part\n" + data, name)


@settings(deadline=None, max_examples=300)
@given(header=st.lists(COLUMNS, max_size=4), rows=st.lists(st.lists(TEXTS, max_size=4), max_size=3))
def test_tables(header: list[str], rows: list[list[str]]) -> None:
    text = "\n".join(",".join(row) for row in [header, *rows])
    outcome(text.encode("utf-8", "surrogatepass"), "m.csv")


@settings(deadline=None, max_examples=300)
@given(rows=st.lists(st.lists(st.tuples(COLUMNS, JSON), max_size=3), max_size=3))
def test_json_lines(rows: list[list[tuple[str, object]]]) -> None:
    # By hand, for a key may occur twice.
    lines = (
        "{" + ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in row) + "}" for row in rows
    )
    outcome("\n".join(lines).encode(), "m.jsonl")
