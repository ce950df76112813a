"""The first process of a run chooses engine and precision; every other computes as it did, or refuses."""

import sys
from contextlib import ExitStack
from importlib.util import find_spec

import pytest
import torch
from sqlalchemy import select

from classifiers import PackageError
from classifiers.engines import choice
from configs.loading import load_settings
from db.chain.events import Actor
from db.engine import open_database
from db.errors import RunBusy
from db.queries.events import EventFilter, find_events
from db.queries.runs import list_runs
from db.schema import Run
from db.verification.walk import verify
from operations.inspection import run as pipeline
from operations.inspection.abandonment import abandon_run

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="the extra openvino is absent")


def with_auto(line, **more: str):
    """Return the overrides that leave engine and precision open."""
    return ["model.engine=auto", *(f"model.{key}={value}" for key, value in more.items())]


def payloads(line, action: str) -> list[dict]:
    """Return the payloads of such events, the latest first."""
    with open_database(line.database_url) as database, database.session() as session:
        return [event.payload for event in find_events(session, EventFilter(action=action))]


def recorded(line) -> list[tuple[int, str, dict]]:
    with open_database(line.database_url) as database, database.session() as session:
        status = {run.number: run.status for run in list_runs(session)}
        rows = session.scalars(select(Run).order_by(Run.number)).all()
        return [(row.number, status[row.number], row.settings["decision"]) for row in rows]


def test_a_run_records_what_computed_it(make_line, inspect_all):
    line = make_line()
    inspection, _ = inspect_all(line.config)
    (started,) = payloads(line, "run.started")
    assert {key: started[key] for key in ("device", "engine", "precision", "torch")} == {
        "device": str(inspection.predictor.device),
        "engine": "torch",
        "precision": inspection.predictor.precision,
        "torch": torch.__version__,
    }
    ((_, status, decision),) = recorded(line)
    assert status == "completed"
    assert "engine" not in decision  # as before: nothing is inspected anew


@needs_openvino
def test_a_resumption_computes_as_the_run_did_that_was_interrupted(make_line, inspect_all, monkeypatch):
    line = make_line()
    # OpenVINO is installed after the run began by torch.
    begun, _ = inspect_all(line.config, with_auto(line), stop_after=2)
    assert begun.predictor.engine.name == "torch"
    monkeypatch.setattr(choice, "openvino_installed", lambda: True)
    resumed, result = inspect_all(line.config, with_auto(line))
    assert (resumed.run.id, resumed.predictor.engine.name) == (begun.run.id, "torch")
    assert result.counts.listed == 24
    # The next run is a new one.
    third, _ = inspect_all(line.config, with_auto(line), stop_after=2)
    assert (third.run.number, third.predictor.engine.name) == (2, "openvino")
    assert recorded(line)[1][2]["engine"] == "openvino"
    assert payloads(line, "run.started")[0]["openvino"] == third.predictor.engine.version
    # And one that is begun by OpenVINO is gone on with by it, though auto would take torch now.
    monkeypatch.setattr(choice, "openvino_installed", lambda: False)
    fourth, result = inspect_all(line.config, with_auto(line))
    assert (fourth.run.id, fourth.predictor.engine.name) == (third.run.id, "openvino")
    assert [status for _, status, _ in recorded(line)] == ["completed", "completed"]
    with open_database(line.database_url) as database:
        assert verify(database, artifacts=fourth.store).problems == ()


@needs_openvino
def test_a_machine_without_the_engine_refuses_and_the_remedies_work(
    make_line, inspect_all, monkeypatch, kensa
):
    line = make_line()
    inspect_all(line.config, ["model.engine=openvino"], stop_after=1)
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were absent
    with pytest.raises(PackageError) as refused:
        inspect_all(line.config, with_auto(line))
    for told in (
        "run R000001",
        "is unfinished, and another process may be at it",
        "by openvino in float32",
        "not installed here",
        "--abandon",
        "engine: torch",
    ):
        assert told in str(refused.value)
    # Pinned to the other engine, it is another run beside the interrupted one.
    other, _ = inspect_all(line.config, ["model.engine=torch"])
    assert other.run.number == 2
    assert [status for _, status, _ in recorded(line)] == ["unfinished", "completed"]
    # Which has been completed since, so that the other is not gone on with any more.
    later, _ = inspect_all(line.config, with_auto(line))
    assert (later.run.number, later.predictor.engine.name) == (3, "torch")
    # Abandoning needs no engine.
    settings = load_settings(line.config, with_auto(line))
    with open_database(line.database_url) as database:
        ended = abandon_run(database, settings, "the machine is gone", actor=Actor("qa", "human"))
    assert ended.number == 1
    after, _ = inspect_all(line.config, with_auto(line))
    assert (after.run.number, after.predictor.engine.name) == (4, "torch")


def test_a_resumption_keeps_the_precision(make_line, inspect_all):
    line = make_line()
    begun, _ = inspect_all(line.config, ["model.precision=bfloat16"], stop_after=1)
    # Before, this was silently another run, and the interrupted one stayed open.
    resumed, _ = inspect_all(line.config, with_auto(line))
    assert (resumed.run.id, resumed.predictor.precision) == (begun.run.id, "bfloat16")
    # A precision that the settings name is kept to: that is another run.
    inspect_all(line.config, ["model.precision=bfloat16", "explainer.mu=0.1"], stop_after=1)
    other, _ = inspect_all(line.config, ["model.precision=float32", "explainer.mu=0.1"])
    assert (other.run.number, other.predictor.precision) == (3, "float32")


def test_an_unfinished_run_is_left_alone_once_a_later_one_was_completed(make_line, inspect_all):
    line = make_line()
    inspect_all(line.config, ["model.precision=bfloat16"], stop_after=1)
    inspect_all(line.config, ["model.precision=float32"])
    after, _ = inspect_all(line.config, with_auto(line, device="cpu"))
    assert (after.run.number, after.predictor.precision) == (3, "float32")
    # Only by name, as before.
    by_name, _ = inspect_all(line.config, ["model.precision=bfloat16"])
    assert by_name.run.number == 1


def test_after_a_wait_a_new_run_computes_as_the_settings_say(make_line, inspect_all):
    """Not as the run did that was waited for, and has ended."""
    line = make_line()
    theirs = load_settings(line.config, ["model.precision=bfloat16"])
    ours = load_settings(line.config, [*with_auto(line, device="cpu"), "run.when_busy=wait"])
    with ExitStack() as first:
        ending = first.enter_context(pipeline.open_inspection(theirs, "manual"))

        def end_first(_: str) -> None:
            for number, listed in enumerate(ending.batches(), start=1):
                batch = pipeline.classify(ending, pipeline.decode(ending, number, listed))
                pipeline.record(ending, pipeline.explain(ending, batch) if batch.flagged else batch)
            pipeline.finish(ending)
            first.close()

        with pipeline.open_inspection(ours, "manual", waiting=end_first) as second:
            assert (second.run.number, second.run.resumed) == (2, False)
            assert second.predictor.precision == "float32"


def test_a_run_that_begins_while_the_package_is_stored_is_seen(make_line, inspect_all, monkeypatch):
    line = make_line()
    real = pipeline.register_package

    def overtaken(*given):
        monkeypatch.setattr(pipeline, "register_package", real)
        inspect_all(line.config, ["model.precision=bfloat16"], stop_after=1)
        return real(*given)

    monkeypatch.setattr(pipeline, "register_package", overtaken)
    with pytest.raises(RunBusy, match=r"R000001 .* torch in bfloat16, and this one .* torch in float32"):
        inspect_all(line.config, with_auto(line, device="cpu"))
    assert len(recorded(line)) == 1


def test_two_that_begin_at_once_and_compute_otherwise_do_not_both_go_on(make_line, inspect_all, monkeypatch):
    line = make_line()
    real = pipeline.locked_run

    def overtaken(*given, **named):
        monkeypatch.setattr(pipeline, "locked_run", real)
        inspect_all(line.config, ["model.precision=bfloat16"], stop_after=1)
        return real(*given, **named)

    monkeypatch.setattr(pipeline, "locked_run", overtaken)
    with pytest.raises(RunBusy, match=r"R000001 .* torch in bfloat16, and this one .* torch in float32"):
        inspect_all(line.config, with_auto(line, device="cpu"))
    assert len(recorded(line)) == 1


def test_the_commands_say_what_auto_took(make_line, kensa):
    line = make_line(model={"engine": "auto", "device": "cpu"})
    said = kensa("config", "check", "-c", line.config).stdout
    assert f"on cpu in float32 by torch {torch.__version__}" in said
