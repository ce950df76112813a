"""A database that is away for a moment costs no run, wherever that strikes."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from benchmarks import postgres
from benchmarks.postgres import Cluster
from db import engine
from db.artifacts import ArtifactStore
from db.chain.events import Recorder
from db.engine import open_database
from db.errors import AwayError, RecordError, StorageError
from db.queries.events import EventFilter, find_events
from db.queries.runs import list_runs, run_images
from db.verification.walk import verify
from operations import retries
from operations.inspection import checkpoints
from operations.inspection import run as pipeline
from operations.reporting import issue
from operations.reporting.run_report import issue_report

ONCE = ("run.started", "run.finished", "checkpoint.signed", "report.issued")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server of the test's own, which it may stop."""
    if postgres.programs() is None:
        pytest.skip("PostgreSQL's programs (initdb, pg_ctl) are absent: apt-get install postgresql")
    cluster = Cluster.start(postgres.UNSAFE)
    yield cluster
    cluster.stop()


@pytest.fixture
def signed(kensa, tmp_path) -> dict[str, str]:
    kensa("audit", "keygen", "line", "--out", tmp_path, "--no-passphrase")
    return {"checkpoints": str(tmp_path / "notes"), "signing_key": str(tmp_path / "line.key")}


def inspect(line, inspect_all) -> pipeline.Inspection:
    """All of a run, as the flow has it, without Prefect."""
    inspection, result = inspect_all(line.config)
    with inspection.database as database:  # opened again
        assert pipeline.sign(inspection, result).problem is None
        retries.retried(issue_report)(
            database, inspection.store, inspection.run.id, inspection.settings.report, actor=pipeline.SYSTEM
        )
    return inspection


def outcomes(inspection: pipeline.Inspection) -> dict[str, tuple]:
    """Uri -> what was decided, of the only run; its audit trail is sound and says everything once."""
    with open_database(inspection.settings.database.url) as database:
        assert verify(database, artifacts=ArtifactStore(inspection.settings.artifacts.uri)).problems == ()
        with database.session() as session:
            (run,) = list_runs(session)
            assert run.status == "completed"
            actions = Counter(event.action for event in find_events(session, EventFilter()))
            assert [actions[action] for action in ONCE] == [1] * len(ONCE)
            assert actions["image.inspected"] == 24
            return {i.uri: (i.verdict, i.score) for i in run_images(session, run.id)}


def once_before(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, strike: Callable[[], None]) -> None:
    """Let something happen as a function is called for the first time."""
    real, struck = getattr(where, name), []

    def struck_once(*args: Any, **kwargs: Any) -> Any:
        if not struck:
            struck.append(name)
            strike()
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, struck_once)


def test_a_postgresql_server_that_stops_at_each_place_costs_no_run(
    make_line, inspect_all, signed, cluster, monkeypatch
):
    down: list[str] = []
    waits: list[int] = []

    def wait(seconds: int) -> None:
        waits.append(seconds)
        if seconds >= 2:  # the second attempt finds it away as well
            cluster.go_on()
            down.append("up again")

    monkeypatch.setattr(retries, "pause", wait)
    places = [
        (pipeline, "register_package"),
        (pipeline, "start_or_resume_run"),
        (pipeline, "recorded_uris"),
        (pipeline, "known_outcomes"),
        (pipeline, "record_batch"),
        (Recorder, "add_all"),  # inside the transaction
        (pipeline, "finish_run"),
        (checkpoints, "sign_checkpoint"),
        (issue, "next_report"),
        (issue, "record_report"),
    ]
    line = make_line("away", database={"url": postgres.new_database(cluster.address)}, audit=signed)
    for where, name in places:
        once_before(monkeypatch, where, name, cluster.halt)
    inspection = inspect(line, inspect_all)
    assert len(down) == len(places)
    assert set(waits) == {1, 2, 4}  # two places are struck in one step: its waits go on growing
    undisturbed = make_line("whole")
    whole, _ = inspect_all(undisturbed.config)
    with open_database(undisturbed.database_url) as database, database.session() as session:
        expected = {i.uri: (i.verdict, i.score) for i in run_images(session, whole.run.id)}
    assert outcomes(inspection) == expected


def test_work_whose_confirmation_was_lost_is_not_done_twice(make_line, inspect_all, signed, monkeypatch):
    monkeypatch.setattr(retries, "WAITS", [0])

    def unconfirmed(where: Any, name: str) -> None:
        real, struck = getattr(where, name), []

        def lost(*args: Any, **kwargs: Any) -> Any:
            result = real(*args, **kwargs)
            if not struck:
                struck.append(name)
                raise AwayError("the connection was lost after the commit")
            return result

        monkeypatch.setattr(where, name, lost)

    for where, name in (
        (pipeline, "register_package"),
        (pipeline, "record_batch"),
        (pipeline, "finish_run"),
        (checkpoints, "sign_checkpoint"),
        (issue, "record_report"),
    ):
        unconfirmed(where, name)
    assert len(outcomes(inspect(make_line(audit=signed), inspect_all))) == 24


def test_a_lock_that_another_process_holds_is_waited_for(make_line, inspect_all, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 0.05)
    line = make_line()
    with closing(sqlite3.connect(line.folder / "kensa.db", isolation_level=None)) as other:

        def unlock(_: float) -> None:
            other.execute("ROLLBACK")

        monkeypatch.setattr(retries, "pause", unlock)
        for name in ("record_batch", "finish_run"):
            once_before(monkeypatch, pipeline, name, lambda: other.execute("BEGIN IMMEDIATE"))
        _, result = inspect_all(line.config)
    assert result.counts.listed == 24


def test_only_what_may_pass_is_tried_again(monkeypatch):
    waits: list[int] = []
    monkeypatch.setattr(retries, "pause", waits.append)
    for final in (StorageError("the disk is full"), RecordError("it contradicts itself"), ValueError("no")):

        def fails(error: Exception = final) -> None:
            raise error

        with pytest.raises(type(final), match=str(final)):
            retries.retried(fails)()
    assert waits == []

    def away() -> None:
        raise AwayError("away")

    with pytest.raises(AwayError):
        retries.retried(away)()
    assert waits == retries.WAITS == sorted(waits)
    assert sum(waits) >= 120
