"""What a command costs before it does anything, and what a small run consists of.

    python -m benchmarks.startup                           # both
    python -m benchmarks.startup --against ../kensa-main   # the same of another checkout, in turn: A B A B

* CPU time of short commands, as multiples of what they import. The smallest of the rounds counts.
* `kensa run` over ten synthetic pictures by the shipped package, in a new interpreter and under `kensa serve`
  with a Prefect server of its own: wall and CPU time, medians. A served run is timed by Prefect, from the
  state PENDING, when its process is started, to its end.
* The parts of `kensa run`, each without the parts within it. Threads beside the main one are in "the rest".

Each round runs all of them in turn, so that what else the machine does touches all alike.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

ROUNDS = 9
PICTURES = 10
ROOT = Path(__file__).parents[1]
_KENSA = str(Path(sys.executable).with_name("kensa"))
_LIBRARIES = "import rich.progress, rich.table, pydantic_settings, sqlalchemy.orm, typer, yaml"
_COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "python, typer, rich": [sys.executable, "-c", "import rich.console, typer"],
    "python, typer, rich, pydantic-settings, SQLAlchemy": [sys.executable, "-c", _LIBRARIES],
    "kensa --version": [_KENSA, "--version"],
    "kensa --help": [_KENSA, "--help"],
    "kensa findings --help": [_KENSA, "findings", "--help"],
    "kensa disposition --help": [_KENSA, "disposition", "--help"],
    "kensa findings -c nothing (an error)": [_KENSA, "findings", "-c", "nothing"],
}
# Imported in this order, each without what the ones before have imported.
_IMPORTS = ("cli.run", "torch", "timm", "operations.whole_run", "reports.pdf.render", "scipy.stats")
_FUNCTIONS = {
    "the database opened": "db.engine:Database.migrate",
    "the package read": "operations.inspection.run:checked_package",
    "the network built": "classifiers.predict:build_model",
    "the network checked (parity)": "operations.inspection.run:open_predictor",
    "the explainer": "operations.inspection.run:explainer_for",
    "the decoding processes started": "operations.inspection.run:opened_decoders",
    "waiting for decoded pictures": "concurrent.futures:Future.result",
    "classifying": "operations.inspection.run:classify",
    "explaining": "operations.inspection.run:explain",
    "the end recorded": "operations.inspection.run:finish",
    "the checkpoint signed": "operations.inspection.run:sign",
    "the report: read, recorded": "operations.whole_run:issue_report",
    "the report: templates printed": "reports.pdf.blocks:print_block",
    "the report: laid out": "reports.pdf.layout:Layout._render",
    "the report: drawn": "reports.pdf.layout:Layout._draw_pdf",
    "the report: joined": "reports.pdf.render:join",
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout, to be measured in turn with this one")
    parser.add_argument("--rounds", type=int, default=5, help="of small runs")
    parser.add_argument("--parts", metavar="SETTINGS", help=argparse.SUPPRESS)  # what `_parts` starts
    given = parser.parse_args()
    if given.parts:
        print(json.dumps(_traced_run(given.parts)))
        return
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    _print_commands()
    checkouts = [ROOT, *([given.against.resolve()] if given.against else [])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [
                *(_KENSA, "synth", folder / "line", "--kind", "inspection"),
                *("--count", str(PICTURES), "--seed", "3", "--defect-share", "0.15"),
            ],
            check=True,
            capture_output=True,
        )
        _print_runs(folder, checkouts, given.rounds)
        _print_parts(folder)


def _print_commands() -> None:
    times: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for _ in range(ROUNDS):
        for name, command in _COMMANDS.items():
            before = _children_seconds()
            subprocess.run(command, capture_output=True, check=False)
            times[name].append(_children_seconds() - before)
    base = min(times["python, typer, rich, pydantic-settings, SQLAlchemy"])
    print("| | CPU s | × the libraries |\n| --- | --- | --- |")
    for name, seconds in times.items():
        print(f"| {name} | {min(seconds):.2f} | {min(seconds) / base:.2f} |")


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _settings(folder: Path, name: str) -> Path:
    """Write settings over the pictures in a folder, with a record of their own that is not there yet."""
    own = Path(tempfile.mkdtemp(prefix=name, dir=folder))
    package = ROOT / "classifiers" / "packages" / "synthetic-surface"
    content = {
        "name": "startup",
        "source": {"uri": str(folder / "line")},
        "model": {"package": str(package)},
        "database": {"url": f"sqlite:///{own / 'kensa.db'}"},
        "artifacts": {"uri": str(own / "artifacts")},
        "report": {"folder": str(own / "reports")},
        "schedule": {"cron": "0 0 29 2 *"},
    }
    (own / "line.yaml").write_text(json.dumps(content))  # JSON is YAML
    return own / "line.yaml"


def _environment(folder: Path, checkout: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "PYTHONPATH": str(checkout), "PREFECT_HOME": str(folder / "prefect"), **more}


def _print_runs(folder: Path, checkouts: list[Path], rounds: int) -> None:
    alone: dict[Path, list[tuple[float, float]]] = {each: [] for each in checkouts}
    served: dict[Path, list[float]] = {each: [] for each in checkouts}
    for at in range(rounds + 1):
        for checkout in checkouts:
            begun, before = time.perf_counter(), _children_seconds()
            subprocess.run(
                [_KENSA, "run", "-c", _settings(folder, "run")],
                cwd=folder,
                env=_environment(folder, checkout),
                check=True,
                capture_output=True,
            )
            if at:  # the first one fills the file cache, and makes Prefect's database where there is one
                alone[checkout].append((time.perf_counter() - begun, _children_seconds() - before))
    with _prefect_server(folder) as api:
        for _ in range(rounds):
            for checkout in checkouts:
                served[checkout].append(_served_seconds(folder, checkout, api))
    print(f"\n| {PICTURES} pictures | `kensa run`: s | CPU s | under `kensa serve`: s |")
    print("| --- | --- | --- | --- |")
    for checkout in checkouts:
        wall, cpu = (statistics.median(column) for column in zip(*alone[checkout], strict=True))
        print(f"| {checkout.name} | {wall:.1f} | {cpu:.1f} | {statistics.median(served[checkout]):.1f} |")


@contextmanager
def _prefect_server(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    command = [Path(sys.executable).with_name("prefect"), "server", "start", "--port", str(port), "--no-ui"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=_environment(folder, ROOT), stdout=log, stderr=log)
    try:
        _until(lambda: _asked(f"{api}/health"), "the Prefect server")
        yield api
    finally:
        server.terminate()
        server.wait()


def _served_seconds(folder: Path, checkout: Path, api: str) -> float:
    """Serve, let one run begin when everything is there for it, and return the seconds that it took."""
    environment = _environment(folder, checkout, PREFECT_API_URL=api, PREFECT_RUNNER_POLL_FREQUENCY="1")
    settings = _settings(folder, "serve")
    with (folder / "serve.log").open("w") as log:
        serving = subprocess.Popen(
            [_KENSA, "serve", "-c", settings],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Prefect ends the group of a run that it cancels
        )
    try:
        home = f"{settings.parent}"
        deployment = _until(lambda: _deployment(api, home), "the deployment")
        _until(lambda: _idle(serving.pid), "what the serving processes import")
        run = _asked(f"{api}/deployments/{deployment}/create_flow_run", {})["id"]
        _until(lambda: _asked(f"{api}/flow_runs/{run}")["state_type"] == "COMPLETED", "the run")
        states = _asked(f"{api}/flow_run_states/?flow_run_id={run}")
        at = {each["type"]: datetime.fromisoformat(each["timestamp"]) for each in states}
        return (at["COMPLETED"] - at["PENDING"]).total_seconds()
    finally:
        serving.terminate()
        serving.wait()


def _deployment(api: str, home: str) -> str | None:
    found = _asked(f"{api}/deployments/filter", {})
    return next((each["id"] for each in found if home in str(each["parameters"])), None)


def _idle(pid: int) -> bool:
    """Return whether a process and its children use next to no processor time for a second."""

    def used() -> float:
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            if pid in (int(stat.parent.name), int(fields[1])):
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    before = used()
    time.sleep(1)
    return used() - before < 0.1


def _asked(url: str, data: dict[str, Any] | None = None) -> Any:
    answer = httpx.request("GET" if data is None else "POST", url, json=data, timeout=30)
    answer.raise_for_status()
    return answer.json()


def _until(found: Callable[[], Any], what: str, seconds: float = 300) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(httpx.TransportError):  # the server is not there yet
            if answer := found():
                return answer
        time.sleep(0.2)
    raise TimeoutError(f"waited {seconds:g} s for {what}")


def _print_parts(folder: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.startup", "--parts", _settings(folder, "parts")]
    environment = _environment(folder, ROOT)
    begun, before = time.perf_counter(), _children_seconds()
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    whole = time.perf_counter() - begun, _children_seconds() - before
    parts = json.loads(done.stdout.splitlines()[-1])
    parts["the rest, with the decoding processes"] = [
        total - sum(part[at] for part in parts.values()) for at, total in enumerate(whole)
    ]
    print("\n| part of `kensa run` | s | CPU s |\n| --- | --- | --- |")
    for name, (wall, cpu) in [*parts.items(), ("all", whole)]:
        print(f"| {name} | {wall:.2f} | {cpu:.2f} |")


def _traced_run(settings: str) -> dict[str, list[float]]:
    """Run `kensa run` here; return wall and CPU seconds of each part without the parts within it."""
    parts: dict[str, list[float]] = {}
    within = [[0.0, 0.0]]  # seconds of the parts within each part that is open

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def call(*arguments: Any, **named: Any) -> Any:
            begun = time.perf_counter(), time.thread_time()
            within.append([0.0, 0.0])
            try:
                return work(*arguments, **named)
            finally:
                used = [time.perf_counter() - begun[0], time.thread_time() - begun[1]]
                inner = within.pop()
                seconds = parts.setdefault(name, [0.0, 0.0])
                for at in range(2):
                    seconds[at] += used[at] - inner[at]
                    within[-1][at] += used[at]

        return call

    for module in _IMPORTS:
        timed(f"import {module}", importlib.import_module)(module)
    for name, place in _FUNCTIONS.items():
        module, _, path = place.partition(":")
        *owners, function = path.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        setattr(owner, function, timed(name, getattr(owner, function)))
    from cli.main import main as kensa

    sys.argv = ["kensa", "run", "-c", settings]
    try:
        kensa()
    except SystemExit as end:
        if end.code not in (None, 0, 3):
            raise
    return parts


if __name__ == "__main__":
    main()
