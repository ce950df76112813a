"""The line without Prefect: three stages at once, and what was recorded when something ends it early."""

import shutil
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier, Event, current_thread
from typing import Any
from weakref import finalize

import numpy as np
import pytest
from PIL import Image

from configs.loading import load_settings
from db.engine import open_database
from db.errors import AwayError, RecordError
from db.queries.finding_records import run_findings
from db.queries.runs import list_runs, run_images
from db.verification.walk import verify
from operations import retries
from operations.inspection import run as pipeline
from operations.inspection.line import Steps, inspect_line
from operations.inspection.run import Batch, BatchSummary, Inspection

PATIENCE = 60.0  # seconds until a test that would hang fails


@contextmanager
def opened(line, *overrides: str):
    with pipeline.open_inspection(load_settings(line.config, list(overrides)), "manual") as inspection:
        yield inspection


def verdicts(inspection: Inspection) -> dict[str, tuple]:
    with open_database(inspection.settings.database.url) as database:
        assert verify(database, artifacts=inspection.store).problems == ()
        with database.session() as session:
            return {i.uri: (i.verdict, i.score) for i in run_images(session, inspection.run.id)}


def test_the_line_decides_what_one_step_after_the_other_decides(make_line, inspect_all):
    apart, _ = inspect_all(make_line("apart").config)
    told: list[int] = []
    with opened(make_line("line")) as inspection:
        inspect_line(inspection, lambda summary: told.append(summary.number))
        result = pipeline.finish(inspection)
    assert told == [1, 2, 3, 4, 5]
    assert result.counts.listed == 24
    assert verdicts(inspection) == verdicts(apart)
    assert inspection.unrecorded == set()
    with open_database(inspection.settings.database.url) as database, database.session() as session:
        references = [finding.reference for finding in run_findings(session, inspection.run.id)]
    assert references == [f"R000001-{number:04d}" for number in range(1, len(references) + 1)]


def test_three_stages_work_at_once(make_line):
    """The third batch is decoded, the second decided and the first recorded, each waiting for the others."""
    meeting = Barrier(3)
    threads: dict[str, str] = {}

    def met(stage: str) -> None:
        threads[stage] = current_thread().name
        meeting.wait(PATIENCE)

    def decode(inspection: Inspection, number: int, listed: Any) -> Batch:
        if number == 3:
            met("decode")
        return pipeline.decode(inspection, number, listed)

    def classify(inspection: Inspection, batch: Batch) -> Batch:
        if batch.number == 2:
            met("classify")
        return pipeline.classify(inspection, batch)

    def record(inspection: Inspection, batch: Batch) -> BatchSummary:
        if batch.number == 1:
            met("record")
        return pipeline.record(inspection, batch)

    with opened(make_line()) as inspection:
        inspect_line(inspection, steps=Steps(decode=decode, classify=classify, record=record))
        assert pipeline.finish(inspection).counts.listed == 24
    assert threads["classify"] == current_thread().name
    assert len(set(threads.values())) == 3


def test_few_batches_wait_for_a_slow_database(make_line):
    """With recording stopped, the model decides three batches, and decoding gets as far as it may."""
    on, full = Event(), Event()
    decided: list[int] = []
    decoded: list[int] = []
    at_most = 5  # one being recorded, one waiting, one decided and not handed over, two decoded ahead

    def decode(inspection: Inspection, number: int, listed: Any) -> Batch:
        decoded.append(number)
        return pipeline.decode(inspection, number, listed)

    def classify(inspection: Inspection, batch: Batch) -> Batch:
        decided.append(batch.number)
        if batch.number == 3:
            full.set()
        return pipeline.classify(inspection, batch)

    def record(inspection: Inspection, batch: Batch) -> BatchSummary:
        assert full.wait(PATIENCE)
        if not on.is_set():
            # The main thread cannot go further than the third batch until this one is recorded.
            assert decided == [1, 2, 3]
            assert len(decoded) <= at_most
            on.set()
        return pipeline.record(inspection, batch)

    with opened(make_line(), "run.batch_size=2", "run.decode_ahead=1") as inspection:
        inspect_line(inspection, steps=Steps(decode=decode, classify=classify, record=record))
        assert pipeline.finish(inspection).counts.listed == 24
    assert decided == list(range(1, 13))


def test_little_memory_holds_one_batch_at_a_time(make_line):
    under_way: list[int] = []

    def decode(inspection: Inspection, number: int, listed: Any) -> Batch:
        under_way.append(number)
        assert len(under_way) == 1
        return pipeline.decode(inspection, number, listed)

    def record(inspection: Inspection, batch: Batch) -> BatchSummary:
        under_way.remove(batch.number)
        return pipeline.record(inspection, batch)

    with opened(make_line(), "run.held_bytes=1") as inspection:
        inspect_line(inspection, steps=Steps(decode=decode, record=record))
        assert pipeline.finish(inspection).counts.listed == 24


def test_a_recorded_batch_is_let_go_before_one_begins_that_needs_its_memory(make_line):
    gone: list[Event] = []

    def watched(batch: Batch) -> Batch:
        gone.append(Event())
        finalize(batch, gone[-1].set)
        return batch

    def decode(inspection: Inspection, number: int, listed: Any) -> Batch:
        # The thread that recorded it may hold it for one more moment: hence the wait.
        assert all(each.wait(PATIENCE) for each in gone)
        return watched(pipeline.decode(inspection, number, listed))

    def record(inspection: Inspection, batch: Batch) -> BatchSummary:
        return pipeline.record(inspection, watched(batch))

    with opened(make_line(), "run.held_bytes=1") as inspection:
        inspect_line(inspection, steps=Steps(decode=decode, record=record))
        assert pipeline.finish(inspection).counts.listed == 24
    assert len(gone) == 48


def test_nothing_is_recorded_after_a_batch_that_could_not_be(make_line):
    waiting = Event()
    recorded: list[int] = []

    def classify(inspection: Inspection, batch: Batch) -> Batch:
        if batch.number == 4:
            waiting.set()  # the third batch is handed over, and waits behind the second
        return pipeline.classify(inspection, batch)

    def record(inspection: Inspection, batch: Batch) -> BatchSummary:
        if batch.number == 2:
            assert waiting.wait(PATIENCE)
            raise RecordError("the record says no")
        recorded.append(batch.number)
        return pipeline.record(inspection, batch)

    line, told = make_line(), []
    with (
        pytest.raises(RecordError, match="the record says no"),
        opened(line) as inspection,
    ):
        inspect_line(
            inspection,
            lambda summary: told.append(summary.number),
            Steps(classify=classify, record=record),
        )
    assert recorded == told == [1]
    assert len(verdicts(inspection)) == 5
    with opened(line) as resumed:
        assert resumed.run.resumed
        inspect_line(resumed)
        counts = pipeline.finish(resumed).counts
    assert (counts.listed, counts.carried_over) == (24, 0)
    assert len(verdicts(resumed)) == 24


@pytest.mark.parametrize("stage", ["decode", "classify", "explain"])
def test_an_error_of_any_stage_ends_the_line_with_that_error(make_line, stage):
    def broken(*_: object) -> Batch:
        raise ZeroDivisionError(stage)

    line = make_line()
    with pytest.raises(ZeroDivisionError, match=stage), opened(line) as inspection:
        inspect_line(inspection, steps=Steps(**{stage: broken}))
    with opened(line) as resumed:
        inspect_line(resumed)
        assert pipeline.finish(resumed).counts.listed == 24


def test_the_error_told_is_the_one_that_stopped_the_line(make_line):
    """A failed recording ends the pauses of the decoding threads, whose errors come first then."""

    def decode(inspection: Inspection, number: int, listed: Any) -> Batch:
        if number == 2:
            assert retries.given_up.get().wait(PATIENCE)
            raise AwayError("the server is away")
        return pipeline.decode(inspection, number, listed)

    def record(inspection: Inspection, batch: Batch) -> BatchSummary:
        raise RecordError("the record says no")

    with pytest.raises(RecordError, match="the record says no"), opened(make_line()) as inspection:
        inspect_line(inspection, steps=Steps(decode=decode, record=record))


def test_what_the_stop_itself_ends_does_not_hide_its_reason(make_line):
    at_work = Event()

    def classify(inspection: Inspection, batch: Batch) -> Batch:
        if batch.number == 2:
            assert at_work.wait(PATIENCE)
            raise ZeroDivisionError("classify")
        return pipeline.classify(inspection, batch)

    def record(inspection: Inspection, batch: Batch) -> BatchSummary:
        at_work.set()
        assert retries.given_up.get().wait(PATIENCE)
        raise AwayError("the server is away")

    with pytest.raises(ZeroDivisionError, match="classify"), opened(make_line()) as inspection:
        inspect_line(inspection, steps=Steps(classify=classify, record=record))


def test_an_interruption_lets_the_transaction_at_work_end_and_begins_no_other(make_line):
    """Ctrl-C strikes while the third batch is decided, the first recorded, and the second waits."""
    at_work = Event()
    recorded: list[int] = []

    def classify(inspection: Inspection, batch: Batch) -> Batch:
        if batch.number == 3:
            assert at_work.wait(PATIENCE)
            raise KeyboardInterrupt
        return pipeline.classify(inspection, batch)

    def record(inspection: Inspection, batch: Batch) -> BatchSummary:
        at_work.set()
        assert retries.given_up.get().wait(PATIENCE)
        recorded.append(batch.number)
        return pipeline.record(inspection, batch)

    line = make_line()
    with opened(line) as inspection:
        with pytest.raises(KeyboardInterrupt):
            inspect_line(inspection, steps=Steps(classify=classify, record=record))
        assert recorded == [1]
        assert len(verdicts(inspection)) == 5
    with opened(line) as resumed:
        inspect_line(resumed)
        assert pipeline.finish(resumed).counts.listed == 24


def test_an_interruption_ends_the_wait_for_a_database_that_is_away(make_line, monkeypatch):
    monkeypatch.setattr(retries, "WAITS", [PATIENCE] * 8)
    away = Event()

    def lost(*_: object, **__: object) -> None:
        away.set()
        raise AwayError("the server is away")

    monkeypatch.setattr(pipeline, "record_batch", lost)

    def classify(inspection: Inspection, batch: Batch) -> Batch:
        if batch.number == 2:
            assert away.wait(PATIENCE)
            raise KeyboardInterrupt
        return pipeline.classify(inspection, batch)

    with pytest.raises(KeyboardInterrupt), opened(make_line()) as inspection:
        inspect_line(inspection, steps=Steps(classify=classify))
    assert list(verdicts(inspection)) == []


def test_equal_pictures_in_neighbouring_batches_are_decided_and_explained_once(
    make_line, tmp_path: Path, pictures: Path
):
    """The second is decided about before the first is recorded: their outcome is one all the same."""
    source = tmp_path / "inbox"
    source.mkdir()
    first = sorted(pictures.rglob("images/*/*.png"))
    for number in range(4):
        for copy in range(3):
            shutil.copy(first[number * 5], source / f"{number}-{copy}.png")
    explained: list[str] = []
    third = Event()

    def classify(inspection: Inspection, batch: Batch) -> Batch:
        if batch.number == 3:
            third.set()
        return pipeline.classify(inspection, batch)

    def explain(inspection: Inspection, batch: Batch) -> Batch:
        explained.extend(str(batch.pictures[at].outcome.digest) for at in batch.flagged)
        return pipeline.explain(inspection, batch)

    def record(inspection: Inspection, batch: Batch) -> BatchSummary:
        if batch.number == 1:
            assert third.wait(PATIENCE)
        return pipeline.record(inspection, batch)

    line = make_line(source={"uri": str(source), "manifest": None}, run={"batch_size": 1})
    with opened(line) as inspection:
        inspect_line(inspection, steps=Steps(classify=classify, explain=explain, record=record))
        counts = pipeline.finish(inspection).counts
    assert (counts.listed, counts.carried_over) == (12, 8)
    assert explained
    assert len(explained) == len(set(explained))
    found = verdicts(inspection)
    for number in range(4):
        assert len({found[f"{number}-{copy}.png"] for copy in range(3)}) == 1
    assert list_runs_of(inspection) == ["R000001"]


def list_runs_of(inspection: Inspection) -> list[str]:
    with open_database(inspection.settings.database.url) as database, database.session() as session:
        return [run.reference for run in list_runs(session)]


def test_an_empty_source_has_nothing_for_the_line(make_line, tmp_path: Path):
    source = tmp_path / "empty"
    source.mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(source / "other.gif")
    told: list[BatchSummary] = []
    line = make_line(source={"uri": str(source), "manifest": None})
    with opened(line) as inspection:
        inspect_line(inspection, told.append)
        assert pipeline.finish(inspection).counts.listed == 0
    assert told == []
