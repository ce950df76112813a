"""Records as JSON and their schema: nothing left out but pixels, nothing let in that is not known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from reports.attachments.record_json import moment, plain, recorded, schema_of, text
from reports.content.inspection import ReportError


@dataclass(frozen=True)
class Inner:
    """What is inside."""

    pair: tuple[str, int]
    pixels: npt.NDArray[np.floating] | None = None
    maps: tuple[tuple[str, npt.NDArray[np.floating]], ...] = ()


@dataclass(frozen=True)
class Outer:
    """A record of every kind of field."""

    RECORDED: ClassVar = ("total",)

    name: str
    at: datetime
    day: date
    share: float
    word: Literal["met", "not met"] | None
    inner: tuple[Inner, ...]
    counts: Mapping[str, int]
    free: Any = None
    picture: bytes | None = None
    load: Callable[[], bytes] | None = None
    folder: Path | None = None

    @property
    def total(self) -> int:
        """A sum that the report prints."""
        return sum(self.counts.values())


TOKYO = timezone(timedelta(hours=9))
RECORD = Outer(
    "x",
    datetime(2026, 11, 23, 6, 0, 4, 5, tzinfo=TOKYO),
    date(2026, 11, 23),
    0.5,
    "met",
    (Inner(("a", 1), np.zeros((2, 2)), (("layer", np.zeros((2, 2))),)),),
    {"pit": 2, "scratch": 3},
    picture=b"png",
    load=bytes,
    folder=Path("/x"),
)
PLAIN = {
    "name": "x",
    "at": "2026-11-22T21:00:04.000005Z",
    "day": "2026-11-23",
    "share": 0.5,
    "word": "met",
    "inner": [{"pair": ["a", 1]}],
    "counts": {"pit": 2, "scratch": 3},
    "free": None,
    "total": 5,
}


def test_a_record_is_its_fields_without_pixels_functions_and_paths():
    assert plain(RECORD) == PLAIN
    assert list(recorded(Inner)) == ["pair"]


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = schema_of({"outer": Outer, "inner": Inner}, "test/1", "Tests")
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def whole(**changes: Any) -> dict[str, Any]:
    return {"format": "test/1", "kind": "outer", "verdict": None, "record": PLAIN | changes}


def test_the_schema_takes_what_the_record_gives(validator):
    validator.validate(whole())
    validator.validate(whole(word=None, free=[1], inner=[]))
    validator.validate({"format": "test/1", "kind": "inner", "verdict": None, "record": {"pair": ["a", 1]}})
    assert validator.schema["$defs"]["Outer"]["description"] == "A record of every kind of field."


@pytest.mark.parametrize(
    "wrong",
    [
        whole(extra=1),
        whole(share="0.5"),
        whole(at="2026-11-23 06:00"),
        whole(word="perhaps"),
        whole(inner=[{"pair": ["a", 1], "pixels": []}]),
        whole(inner=[{"pair": ["a"]}]),
        whole(inner=[{"pair": ["a", 1, 2]}]),
        whole(counts={"pit": "2"}),
        {key: value for key, value in whole().items() if key != "verdict"},
        whole() | {"kind": "inner"},
        whole() | {"kind": "other"},
        whole() | {"format": "test/2"},
        whole() | {"more": 1},
        whole() | {"verdict": {"word": "Pass", "sentence": "x"}},
    ],
)
def test_the_schema_refuses_everything_else(validator, wrong):
    assert not validator.is_valid(wrong)


def test_what_cannot_be_written_is_named():
    with pytest.raises(ReportError, match=r"record\.inner\[1\]\.x: nan cannot be written"):
        plain({"inner": [1, {"x": float("nan")}]})
    with pytest.raises(ReportError, match="record: a set cannot be written"):
        plain({1})
    assert plain([np.float32(0.5), np.int64(3), np.bool_(True)]) == [0.5, 3, True]


def test_two_classes_of_one_name_are_an_error():
    twin = dataclass(type("Inner", (), {"__annotations__": {"x": int}, "__module__": "elsewhere", "x": 1}))
    with pytest.raises(TypeError, match="two classes of one name"):
        schema_of({"a": Inner, "b": twin}, "test/1", "Tests")


@given(st.text(st.characters()))
def test_every_text_becomes_utf8(value):
    written = text(value)
    assert written.encode().decode() == written
    if not any(0xD800 <= ord(c) < 0xE000 for c in value):
        assert written == value


def test_moments_are_utc():
    assert moment(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00Z"
    assert text("a\udc80b") == "a‹U+DC80›b"
