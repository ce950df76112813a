"""Series for charts: what is counted, in which order, and figures known by hand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import fmean, stdev
from typing import Any

import pytest
from sqlalchemy import event

from classifiers.measure.score_bins import SCORE_EDGES
from db.errors import RecordError
from db.figures.scopes import Scope
from db.figures.series import period_figures, run_figures, tile_counts

Plant = Any  # tests/db/conftest.py; test folders are not packages
MORNING = datetime(2026, 3, 2, 22, 30, tzinfo=UTC)
BEGINNING, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def test_runs_before_this_one_with_their_statistics(plant: Plant) -> None:
    first = plant.finished_run(range(8))
    second = plant.finished_run(range(4, 12))  # carries 4 to 7 over
    plant.start()  # has not finished
    with plant.db.session() as session:
        points, stretches, whole = run_figures(session, second.id, 5)
        assert run_figures(session, first.number, 5)[0] == points[:1]
        assert run_figures(session, second.id, 5, last=1)[0] == points[1:]
        upto = session.connection().exec_driver_sql("SELECT min(event_sequence) FROM run_end").scalar()
        assert run_figures(session, second.id, 5, upto=upto)[0] == points[:1]
        assert run_figures(session, second.id, 5, upto=upto - 1)[0] == []
        history, _, other = run_figures(session, 3, 5)
    assert [point.label for point in points] == ["R000001", "R000002"]
    # Statistics of the pictures that are new in it: 8, 9, 10 (11 is unreadable).
    brightness = [0.5 + number / 1_000 for number in (8, 9, 10)]
    assert points[1].statistics["brightness"].n == 3
    assert points[1].statistics["brightness"].mean == pytest.approx(fmean(brightness))
    assert points[1].statistics["brightness"].sd == pytest.approx(stdev(brightness))
    # Scores are of pictures that passed: 0 and 4 of the first run.
    assert points[0].statistics["score"].n == 2
    assert (points[0].inspected, points[0].flagged) == (6, 4)
    assert (points[1].inspected, points[1].flagged) == (3, 2)
    assert whole == replace(points[1], label="")
    assert sum(stretch.inspected for stretch in stretches) > whole.inspected  # those carried over as well
    assert (history, other.inspected) == (points, 0)


def test_views_of_a_part_are_counted_as_alike(plant: Plant) -> None:
    """Three parts with two pictures each, equally bright: worth about three pictures."""
    run = plant.start()
    bright = [0.2, 0.2, 0.5, 0.5, 0.9, 0.9]
    plant.record(
        run,
        *(
            plant.outcome(n, "reject" if n < 2 else "pass", part=f"P{n // 2}", lot="L", brightness=bright[n])
            for n in range(6)
        ),
        plant.outcome(6, "unreadable"),
    )
    with plant.db.session() as session:
        _, stretches, whole = run_figures(session, run.id, 3)
    assert whole.parts == (4, 4, 12)  # x: 2, 0, 0; n: 2, 2, 2
    assert whole.statistics["brightness"].effective == pytest.approx(3)
    assert [stretch.parts for stretch in stretches] == [(4, 4, 5), (0, 0, 5), (0, 0, 0)]


def test_values_outside_limits_are_counted(plant: Plant) -> None:
    run = plant.start()
    plant.record(run, *(plant.outcome(n) for n in range(10)), plant.outcome(10, "unreadable"))
    old = plant.outcome(11, "reject", brightness=None, contrast=None, sharpness=None, score=1.0)
    plant.record(run, old)
    limits = {"brightness": (0.502, 0.507), "score": (0.0, 1.0)}
    with plant.db.session() as session:
        _, _, found = run_figures(session, run.id, 5, limits=limits)
    brightness, score = found.statistics["brightness"], found.statistics["score"]
    assert (brightness.n, brightness.below, brightness.above) == (10, 2, 2)
    assert (score.n, score.below, score.above) == (10, 0, 0)  # of those that passed
    assert sum(found.histogram) == 11
    assert found.histogram[SCORE_EDGES.index(0.1)] == 10  # from 0.1 to 0.15
    assert found.histogram[-1] == 1


def test_groups_follow_the_order_in_which_pictures_were_taken(plant: Plant) -> None:
    run = plant.start()
    verdicts = ("pass", "reject", "review", "unreadable", "pass")
    taken = [
        plant.outcome(n, verdict, captured_at=MORNING - timedelta(minutes=20 * n))
        for n, verdict in enumerate(verdicts)
    ]
    plant.record(run, *taken)
    with plant.db.session() as session:
        _, pairs, _ = run_figures(session, run.id, 2)
        days, (whole,), everything = period_figures(session, Scope(run=run.id), zone="Asia/Tokyo")
        utc, _, _ = period_figures(session, Scope(run=run.id), zone="America/New_York")
    # Taken in the order 4, 3, 2, 1, 0.
    assert [(g.label, g.inspected, g.flagged) for g in pairs] == [("1-2", 1, 0), ("3-4", 2, 2), ("5-5", 1, 0)]
    assert pairs[1].statistics["sharpness"].mean == pytest.approx(1.015)
    assert pairs[2].statistics["sharpness"].sd is None
    assert [(g.label, g.inspected) for g in days] == [("2026-03-03", 4)]
    assert [g.label for g in utc] == ["2026-03-02"]
    assert (whole.label, whole.inspected) == ("R000001", 4)
    assert everything == replace(whole, label="") == replace(days[0], label="")


def test_a_period_is_read_once(plant: Plant) -> None:
    """Two days and two runs that overlap: each picture is in one day and one run, whatever their order."""
    for first, days in ((0, (0, 1)), (4, (1, 0))):
        run = plant.start() if not first else plant.start(settings_digest="other")
        plant.record(
            run,
            *(
                plant.outcome(first + n, "pass", captured_at=MORNING + timedelta(days=day))
                for n, day in enumerate(days)
            ),
        )
    asked: list[str] = []
    with plant.db.session() as session:
        listener = lambda *given: asked.append(given[2])  # noqa: E731
        event.listen(session.connection(), "before_cursor_execute", listener)
        days, runs, whole = period_figures(session, Scope(since=BEGINNING, until=END))
    assert len(asked) == 1
    assert [(day.label, day.inspected) for day in days] == [("2026-03-02", 2), ("2026-03-03", 2)]
    assert [(run.label, run.inspected) for run in runs] == [("R000001", 2), ("R000002", 2)]
    assert whole.statistics["brightness"].n == 4


def test_a_scope_says_one_thing() -> None:
    for wrong in (Scope(), Scope(station="cam-1"), Scope(since=MORNING)):
        with pytest.raises(RecordError, match="say which pictures"):
            wrong.check()
    with pytest.raises(RecordError, match="one run, or about pictures across runs"):
        Scope(run=1, lot="L0").check()
    Scope(lot="L0", since=MORNING).check()


def test_pictures_are_counted_by_their_tiles(plant: Plant) -> None:
    run = plant.start()
    sized = [replace(plant.tiled_outcome(number), tile_count=18 + number % 2) for number in range(3)]
    plant.record(run, *sized, plant.outcome(3), plant.outcome(4, "unreadable"))
    other = plant.start("line-2")
    plant.record(other, plant.tiled_outcome(5))
    with plant.db.session() as session:
        assert tile_counts(session, Scope(run=run.id)) == {18: 2, 19: 1}
        assert tile_counts(session, Scope(since=BEGINNING, until=END)) == {18: 3, 19: 1}
        assert tile_counts(session, Scope(run=run.id), upto=1) == {}
