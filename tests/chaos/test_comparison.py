"""The battery's own eyes: it sees a lost, a doubled and a changed picture, and whatever else may be wrong."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.comparison import Differences, differences
from tests.chaos.processes import MARK, changed_environment, processes_of
from tests.chaos.record import Outcome, Record, RecordedRun
from tests.chaos.trial import stray_files

GOOD = Outcome("pass", 0.1, None, "aa", "P1", (0.9, 0.1), ())
BAD = Outcome("reject", 0.9, None, "bb", "P2", (0.1, 0.9), ('{"map_digest": "cc"}',))
BROKEN = Outcome("unreadable", None, "empty file", "dd", "P3", (), ())
EXPECTED = {"1.png": GOOD, "2.png": BAD, "3.png": BROKEN}
COUNTS = {"listed": 3, "pass": 1, "review": 0, "reject": 1, "unreadable": 1, "findings": 1}
RUN = RecordedRun("R000001", "completed", COUNTS, tuple(EXPECTED.items()), reported=True, signed=True)


def seen(run: RecordedRun, **other: object) -> dict[str, list[str]]:
    """The kinds of difference that one run has, with what is said of each."""
    found = differences(EXPECTED, Record((run,), ()), **other)
    return {name: said for name, said in vars(found).items() if said}


def test_a_record_as_it_should_be_has_no_difference() -> None:
    assert differences(EXPECTED, Record((RUN, replace(RUN, reference="R000002")), ())) == Differences()


def test_a_lost_picture_is_seen() -> None:
    found = seen(replace(RUN, pictures=RUN.pictures[:2], counts=COUNTS | {"listed": 2, "unreadable": 0}))
    assert found == {"lost": ["3.png: in no run", "R000001 3.png: not in it"]}


def test_a_doubled_picture_is_seen() -> None:
    twice = (*RUN.pictures, ("1.png", GOOD))
    found = seen(replace(RUN, pictures=twice, counts=COUNTS | {"listed": 4, "pass": 2}))
    assert found == {"doubled": ["R000001 1.png: 2 times"]}


def test_a_picture_that_was_decided_twice_is_seen() -> None:
    assert differences(EXPECTED, Record((RUN,), ("bb",))).doubled == ["bb: decided twice"]


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "review"},
        {"score": 0.9000000001},
        {"reason": "another"},
        {"digest": "b0"},
        {"part": None},
        {"probabilities": (0.1, 0.9000000001)},
        {"findings": ()},
        {"findings": ('{"map_digest": "c0"}',)},
    ],
    ids=str,
)
def test_a_changed_outcome_is_seen(change: dict[str, object]) -> None:
    changed = replace(BAD, **change)
    found = seen(replace(RUN, pictures=(("1.png", GOOD), ("2.png", changed), ("3.png", BROKEN))))
    assert "wrong" in found
    assert found["wrong"][0].startswith("R000001 2.png: ")


def test_a_picture_that_nobody_delivered_is_seen() -> None:
    more = (*RUN.pictures, ("4.png", GOOD))
    found = seen(replace(RUN, pictures=more, counts=COUNTS | {"listed": 4, "pass": 2}))
    assert list(found) == ["wrong"]


def test_counts_that_do_not_add_up_are_seen() -> None:
    assert list(seen(replace(RUN, counts=COUNTS | {"pass": 2}))) == ["wrong"]


def test_a_run_without_end_report_or_checkpoint_is_seen() -> None:
    assert seen(replace(RUN, status="unfinished", counts=None)) == {"unfinished": ["R000001: unfinished"]}
    assert seen(replace(RUN, status="failed")) == {"unfinished": ["R000001: failed"]}
    assert seen(replace(RUN, reported=False)) == {"unreported": ["R000001"]}
    assert seen(replace(RUN, signed=False)) == {"unsigned": ["R000001"]}


def test_a_picture_that_was_moved_away_may_be_absent_from_a_run_but_not_from_all() -> None:
    short = replace(RUN, pictures=RUN.pictures[:2], counts=COUNTS | {"listed": 2, "unreadable": 0})
    later = replace(short, reference="R000002")
    assert differences(EXPECTED, Record((RUN, later), ()), sometimes=["3.png"]) == Differences()
    assert seen(short, sometimes=["3.png"]) == {"lost": ["3.png: in no run"]}


def test_a_process_that_is_left_behind_is_seen() -> None:
    mark = "of-this-test"
    orphan = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=changed_environment({MARK: mark})
    )
    try:
        assert list(processes_of(mark)) == [orphan.pid]
    finally:
        orphan.communicate(b"\n", timeout=60)
    assert processes_of(mark) == {}


def test_stray_files_are_seen(tmp_path: Path) -> None:
    digest = "ab" * 32
    wanted = [
        "kensa.db",
        f"artifacts/sha256/ab/ab/{digest}",
        "reports/R000001-1.pdf",
        "notes/000000000027.checkpoint",
    ]
    stray = [
        f"artifacts/sha256/ab/ab/.{digest}.0123.part",
        "reports/R000001-1.pdf.part",
        "notes/.000000000027.checkpoint.0123.part",
        "tmp/kensa-report-x/page.html",
    ]
    for name in wanted + stray:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert stray_files(tmp_path) == sorted(stray)
