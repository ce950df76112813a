"""The kinds of trial: each disturbs a line in its own way, runs it to its end, and has it looked at."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.chaos.bench import BATCH, DATABASES
from tests.chaos.faults import POINTS, Fault
from tests.chaos.processes import kill_all, processes_of
from tests.chaos.trial import SkippedError, Trial, deliver, remove, uris_of
from tests.flows.processes import prefect_server


@dataclass(frozen=True)
class Kind:
    """A kind of trial; `share`: how often a round of the battery does it, on each of its databases."""

    disturb: Callable[[Trial], None]
    databases: tuple[str, ...] = DATABASES
    share: int = 1


def _then_end(trial: Trial) -> None:
    trial.run_to_end()
    trial.look(uris_of(trial.source))


def _killed_at(trial: Trial, *, point: str) -> None:
    trial.killed_at(point)
    if trial.rng.random() < 0.5:  # a killed run is resumed, and the one that resumes it is killed too
        trial.killed_at_random()
    _then_end(trial)


def _killed_at_every_point(trial: Trial) -> None:
    """One line, killed at every point in turn, each time at its first call there: each hit for certain."""
    for point in POINTS:
        with trial.started(fault=Fault(point, "kill")) as command:
            code = trial.ended(command)
        trial.result.kills += code == -signal.SIGKILL
        if code != -signal.SIGKILL:
            trial.result.missed.append(point)
    _then_end(trial)


def _killed_at_random(trial: Trial) -> None:
    for _ in range(trial.rng.randint(1, 3)):
        trial.killed_at_random()
    _then_end(trial)


def _killed_without_server(trial: Trial) -> None:
    """A new interpreter each time, and no Prefect server: the run knows nothing of Prefect."""
    trial.result.fresh = True
    trial.environment |= {"PREFECT_API_URL": None, "PREFECT_HOME": str(trial.bench.folder / "nowhere")}
    trial.killed_at_random(fresh=True)
    trial.run_to_end(fresh=True)
    trial.look(uris_of(trial.source), fresh=True)


def _database_restarted(trial: Trial) -> None:
    """PostgreSQL is restarted without mercy while a transaction is open."""
    point = trial.rng.choice(("transaction", "transaction", "finish", "sign", "issue"))
    with trial.started(fault=trial.fault(point, "wait")) as command:
        if trial.waits(command):
            trial.bench.cluster._run_program("pg_ctl", "-m", "immediate", "restart")
        trial.let_go()
        trial.ended(command)
    _then_end(trial)


def _database_locked(trial: Trial) -> None:
    """Another process holds SQLite's write lock for some seconds."""
    with trial.started(fault=trial.fault("record", "wait")) as command:
        if trial.waits(command):
            other = sqlite3.connect(trial.folder / "kensa.db", isolation_level=None)
            try:
                other.execute("BEGIN IMMEDIATE")
                trial.let_go()
                command.wait(trial.rng.uniform(1, 5))
                other.execute("ROLLBACK")
            finally:
                other.close()
        trial.ended(command)
    _then_end(trial)


def _store_full(trial: Trial) -> None:
    """The file system of the artifact store fills up at any file; later it is larger."""
    # The model's files (2,800 KB) and some pictures, maps or the report.
    trial.mount("artifacts", 2_850 + trial.rng.randint(0, 1_000))
    with trial.started() as command:
        trial.ended(command)
    trial.remount("artifacts", "size=64m")
    _then_end(trial)


def _reports_full(trial: Trial) -> None:
    """There is no room for the report."""
    trial.mount("reports", 16)
    with trial.started() as command:
        trial.ended(command)
    trial.remount("reports", "size=64m")
    _then_end(trial)


def _database_full(trial: Trial) -> None:
    """The file system of the SQLite file fills up in any transaction; later it is larger."""
    trial.mount("record", trial.rng.randint(700, 2_000))
    trial.url = f"sqlite:///{trial.folder / 'record' / 'kensa.db'}"
    trial.write_settings()
    with trial.started() as command:
        trial.ended(command)
    trial.remount("record", "size=64m")
    _then_end(trial)


def _store_read_only(trial: Trial) -> None:
    """The artifact store can only be read, from a moment within the run on."""
    trial.mount("artifacts", 65_536)
    with trial.started(fault=trial.fault("explain", "wait")) as command:
        if trial.waits(command):
            trial.remount("artifacts", "ro")
        trial.let_go()
        trial.ended(command)
    trial.remount("artifacts", "rw")
    _then_end(trial)


def _prefect_killed(trial: Trial) -> None:
    """Prefect's server is killed in the middle of the run."""
    trial.result.fresh = True
    with prefect_server(trial.folder / "prefect") as (url, server):
        trial.environment |= {"PREFECT_API_URL": url, "PREFECT_HOME": str(trial.folder / "home")}
        with trial.started(fault=trial.fault("recorded", "wait"), fresh=True) as command:
            if trial.waits(command):
                os.killpg(server, signal.SIGKILL)
                trial.result.kills += 1
            trial.let_go()
            trial.ended(command)
    trial.environment |= {"PREFECT_API_URL": os.environ["PREFECT_API_URL"]}
    _then_end(trial)


def _clock_set_back(trial: Trial) -> None:
    """The clock goes back by an hour within the run, and after a kill it is right again."""
    with trial.started(fault=trial.fault("transaction", "clock")) as command:
        moment = trial.rng.uniform(0, 2 * trial.bench.undisturbed[trial.database].seconds)
        if command.wait(moment) is None:
            command.kill()
        trial.result.kills += trial.ended(command) == -signal.SIGKILL
    _then_end(trial)


def _two_at_once(trial: Trial) -> None:
    """A second run over the source begins while the first stands before a batch; perhaps the first dies."""
    with trial.started(fault=trial.fault("record", "wait")) as first:
        if trial.waits(first):
            with trial.started() as second:
                code = second.wait()
                trial.result.attempts += 1
                trial.result.codes.append(code)
            if trial.rng.random() < 0.5:
                first.kill()
                trial.result.kills += 1
        trial.let_go()
        trial.ended(first)
    _then_end(trial)


def _growing(trial: Trial) -> None:
    """Pictures are delivered while the run is under way; perhaps it is killed."""
    with trial.started(fault=trial.fault("record", "wait")) as command:
        if trial.waits(command):
            deliver(trial.source, trial.bench.late)
            if trial.rng.random() < 0.5:
                command.kill()
                trial.result.kills += 1
        trial.let_go()
        trial.ended(command)
    trial.run_to_end()
    trial.run_to_end()  # a run that had listed everything before the delivery leaves it to the next one
    trial.look(uris_of(trial.source), sometimes=trial.bench.late)


def _shrinking(trial: Trial) -> None:
    """A killed run is resumed after the line has moved pictures away: recorded ones, and ones of no run."""
    uris = uris_of(trial.source)
    call = trial.rng.randint(2, 6)
    with trial.started(fault=Fault("record", "kill", call)) as command:
        trial.result.kills += trial.ended(command) == -signal.SIGKILL
    recorded = trial.rng.sample(uris[: (call - 1) * BATCH], trial.rng.randint(1, (call - 1) * BATCH))
    never = uris[-BATCH:]
    remove(trial.source, [*recorded, *never])
    trial.run_to_end()
    trial.look(set(uris) - set(never), sometimes=recorded)


def _decoder_killed(trial: Trial) -> None:
    """A process that decodes pictures is killed, and the run goes on."""
    with trial.started(fault=trial.fault("decoded", "wait")) as command:
        if trial.waits(command):
            helpers = {
                pid: line
                for pid, line in processes_of(trial.mark).items()
                if pid != command.pid and "decoder_process" in line
            }
            if not helpers:
                raise SkippedError("this version decodes in the run's own process")
            chosen = trial.rng.choice(sorted(helpers))
            kill_all({chosen: helpers[chosen]})
            trial.result.kills += 1
        trial.let_go()
        trial.ended(command)
    _then_end(trial)


KINDS = {
    **{f"killed at {point}": Kind(partial(_killed_at, point=point)) for point in POINTS},
    "killed at every point": Kind(_killed_at_every_point),
    "killed at random": Kind(_killed_at_random, share=6),
    "killed at random, no server": Kind(_killed_without_server, ("sqlite",)),
    "database restarted": Kind(_database_restarted, ("postgresql",), share=4),
    "database locked": Kind(_database_locked, ("sqlite",), share=2),
    "database full": Kind(_database_full, ("sqlite",), share=2),
    "store full": Kind(_store_full),
    "report folder full": Kind(_reports_full),
    "store read-only": Kind(_store_read_only),
    "Prefect's server killed": Kind(_prefect_killed, ("sqlite",)),
    "clock set back": Kind(_clock_set_back),
    "two runs at once": Kind(_two_at_once),
    "growing folder": Kind(_growing),
    "shrinking folder": Kind(_shrinking),
    "decoder killed": Kind(_decoder_killed, ("sqlite",), share=2),
}
