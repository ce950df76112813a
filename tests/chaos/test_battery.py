"""The short form of the battery, and how it plans, keeps and sums up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import postgres
from tests.chaos.battery import planned, read_results, remaining, table
from tests.chaos.faults import POINTS
from tests.chaos.kinds import KINDS
from tests.chaos.processes import ROOT
from tests.chaos.trial import Result


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_fault_loses_doubles_or_changes_a_picture(tmp_path: Path) -> None:
    if postgres.programs() is None:
        pytest.skip("PostgreSQL's programs (initdb, pg_ctl) are absent: apt-get install postgresql")
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", tmp_path, "--short"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout
    results = read_results(tmp_path / "results.jsonl")
    assert [each.kind for each in results if each.skipped] == []
    assert [each.kills for each in results if each.kind == "killed at every point"] == [len(POINTS)]


def test_a_round_of_the_battery_has_every_kind_on_each_of_its_databases() -> None:
    size = sum(kind.share * len(kind.databases) for kind in KINDS.values())
    plan = planned(seed=1)
    for _ in range(2):
        one_round = [next(plan) for _ in range(size)]
        assert set(one_round) == {(name, each) for name, kind in KINDS.items() for each in kind.databases}


def test_the_battery_goes_on_where_it_stopped() -> None:
    plan = [("a", "sqlite"), ("b", "sqlite"), ("a", "sqlite"), ("a", "postgresql")]
    results = [Result(1, "b", "sqlite"), Result(2, "a", "sqlite")]
    assert list(remaining(plan, results)) == plan[2:]


def test_results_survive_a_battery_that_is_killed_while_it_writes_one(tmp_path: Path) -> None:
    kept = tmp_path / "results.jsonl"
    assert read_results(kept) == []
    first = Result(1, "growing folder", "sqlite", kills=1, verified=True)
    kept.write_text(first.line() + "\n" + first.line()[:40])
    assert read_results(kept) == [first]


def test_the_table_counts_what_was_wrong_and_says_what_was_not_tried() -> None:
    results = [
        Result(1, "growing folder", "sqlite", kills=1, verified=True),
        Result(2, "growing folder", "postgresql", kills=1, lost=["a", "b"], unreported=["R000001"]),
        Result(3, "store full", "sqlite", skipped="only root may mount a small file system"),
    ]
    assert [list(each.problems) for each in results] == [[], ["lost", "unreported", "verified"], []]
    lines = table(results).splitlines()
    assert lines[2] == "| growing folder | 2 | 2 | 2 | 0 | 0 | 1 | clean in 1 | 0 |"
    assert lines[3] == "| **all** | 2 | 2 | 2 | 0 | 0 | 1 | clean in 1 | 0 |"
    assert lines[5] == "store full: not tried: only root may mount a small file system"
    assert json.loads(results[1].line())["lost"] == ["a", "b"]
