"""Whatever model.json holds, reading it gives a package or its one error."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifiers.errors import PackageError
from classifiers.package.package import ModelPackage, load_package

# The folder is written anew by each example.
FUZZ = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([10**50, -1, 0, 1e308, "\ud800", "pad", "0001-01-01T00:00+14:00", "good"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def copy(package: ModelPackage, tmp_path: Path) -> Path:
    shutil.copytree(package.path, tmp_path / "copy")
    return tmp_path / "copy"


def outcome(folder: Path) -> None:
    try:
        loaded = load_package(folder)
    except PackageError as error:
        message = str(error)
    else:
        message = str(loaded.path)
    assert str(folder) in message
    assert len(message) < 1000


@FUZZ
@given(data=st.binary(max_size=100), place=st.integers(0, 10**6))
def test_arbitrary_bytes(package: ModelPackage, copy: Path, data: bytes, place: int) -> None:
    whole = (package.path / "model.json").read_bytes()
    place %= len(whole)
    for content in (data, whole[:place] + data, whole[:place] + data + whole[place + len(data) :]):
        (copy / "model.json").write_bytes(content)
        outcome(copy)


@FUZZ
@given(st.data())
def test_any_value_in_any_place_under_a_right_digest(
    package: ModelPackage, copy: Path, data: st.DataObject
) -> None:
    content = json.loads((package.path / "model.json").read_text())
    content["reduced"] = [
        {
            **{"precision": "float16", "engine": "torch", "device": "cuda", "flips": 1},
            **{"score_shift": 0.1, "logit_shift": 1.0},
            **{"thresholds": content["thresholds"], "parity": content["parity"]},
        }
    ]
    place: Any = content
    key = data.draw(st.sampled_from(sorted(content)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    place[key] = data.draw(VALUES)
    text = json.dumps(
        {name: value for name, value in content.items() if name != "digest"},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    )
    content["digest"] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    (copy / "model.json").write_text(json.dumps(content))
    outcome(copy)
