"""The process of a served run, without Prefect's server: what it has when it begins, and how it ends."""

import importlib.metadata
import logging
import multiprocessing
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from prefect import flow_engine

from flows import forked_runs
from flows.forked_runs import ForkedRun, fork_runs

# Prefect's own function begins each run; what it does is done where its parameters are unpickled.
_SERVING = """
import atexit, os, sys
from pathlib import Path

if __name__ == "__mp_main__":
    match os.environ.get("BREAK"):
        case "incomplete":
            sys.modules["flows.preloaded"] = None
        case "dead":
            raise RuntimeError("nothing can be forked from here")

from prefect import flow, flow_engine
from flows.forked_runs import fork_runs

@flow
def nothing(work):
    pass

class Work:
    def __init__(self, told):
        self.told = told

    def __reduce__(self):
        return work, (self.told,)

def work(told):
    loaded = {"torch", "timm", "prefect", "weasyprint", "scipy.stats"} <= sys.modules.keys()
    Path(told).write_text(str(loaded))
    atexit.register(lambda: Path(told).with_suffix(".end").touch())
    sys.exit(3)

if __name__ == "__main__":
    fork_runs()
    os.environ.pop("BREAK", None)
    for told in sys.argv[1:]:
        run = flow_engine.run_flow_in_subprocess(nothing, parameters={"work": Work(told)})
        run.join()
        print(type(run).__name__, run.exitcode)
"""


def serve(tmp_path, names: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "serving.py").write_text(_SERVING)
    return subprocess.run(
        [sys.executable, tmp_path / "serving.py", *(tmp_path / name for name in names)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **environment},
    )


@pytest.mark.slow
def test_a_run_begins_with_all_imported_and_ends_as_an_interpreter_does(tmp_path) -> None:
    names = ["first", "second"]
    done = serve(tmp_path, names)
    assert done.stdout.split() == ["ForkedRun", "3"] * 2, done.stderr
    assert [(tmp_path / name).read_text() for name in names] == ["True", "True"]
    assert all((tmp_path / name).with_suffix(".end").exists() for name in names)
    assert "leaked" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["incomplete", "dead"])
def test_prefect_is_left_alone_where_an_import_fails(tmp_path, kind) -> None:
    done = serve(tmp_path, ["first"], BREAK=kind)
    assert done.stdout.split() == ["SpawnProcess", "3"], done.stderr
    assert "each run starts an interpreter" in done.stderr


def test_prefect_is_left_alone_where_it_begins_runs_otherwise(monkeypatch, caplog) -> None:
    another = SimpleNamespace()
    monkeypatch.setattr(flow_engine, "multiprocessing", another)
    monkeypatch.delattr(forked_runs, "_can_fork")
    with caplog.at_level(logging.WARNING, "kensa"):
        fork_runs()
    assert "this version of Prefect" in caplog.text
    assert flow_engine.multiprocessing is another


def test_prefect_spawns_where_another_version_was_installed(monkeypatch) -> None:
    versions = ["1.0"]
    monkeypatch.setattr(importlib.metadata, "version", lambda _: versions[-1])
    monkeypatch.setattr(forked_runs, "_can_fork", lambda: True)
    monkeypatch.setattr(flow_engine, "multiprocessing", multiprocessing)  # put back afterwards
    fork_runs()
    found = flow_engine.multiprocessing
    assert found is not multiprocessing
    assert found.get_context(method="spawn").Process is ForkedRun
    assert found.get_context("fork") is multiprocessing.get_context("fork")
    assert found.cpu_count == multiprocessing.cpu_count
    versions.append("1.1")
    assert found.get_context("spawn") is multiprocessing.get_context("spawn")
