"""The process of a served run, without Prefect's server: what it has when it begins, and how it ends."""

import subprocess
import sys

import pytest

# Prefect's own way to a process, after `fork_runs`.
_SERVING = """
import atexit, sys
from pathlib import Path
from prefect import flow_engine
from flows.forked_runs import fork_runs

def work(told):
    loaded = {"torch", "timm", "prefect", "weasyprint", "scipy.stats"} <= sys.modules.keys()
    Path(told).write_text(str(loaded))
    atexit.register(lambda: Path(told).with_suffix(".end").touch())
    sys.exit(3)

if __name__ == "__main__":
    fork_runs()
    for told in sys.argv[1:]:
        run = flow_engine.multiprocessing.get_context("spawn").Process(target=work, args=(told,))
        run.start()
        run.join()
        print(run.exitcode)
"""


@pytest.mark.slow
def test_a_run_begins_with_all_imported_and_ends_as_an_interpreter_does(tmp_path) -> None:
    (tmp_path / "serving.py").write_text(_SERVING)
    told = [tmp_path / "first", tmp_path / "second"]
    done = subprocess.run(
        [sys.executable, tmp_path / "serving.py", *told], capture_output=True, text=True, timeout=240
    )
    assert done.stdout.split() == ["3", "3"], done.stderr
    assert [each.read_text() for each in told] == ["True", "True"]
    assert all(each.with_suffix(".end").exists() for each in told)
    assert "leaked" not in done.stderr
