"""Series for charts: what is counted, in which order, and figures known by hand."""

from datetime import UTC, datetime, timedelta
from statistics import fmean, stdev
from typing import Any

import pytest

from db.errors import RecordError
from db.figures.scopes import Scope
from db.figures.series import BINS, drift, run_history, subgroups

Plant = Any  # tests/db/conftest.py; test folders are not packages
MORNING = datetime(2026, 3, 2, 22, 30, tzinfo=UTC)


def test_runs_before_this_one_with_their_statistics(plant: Plant) -> None:
    first = plant.finished_run(range(8))
    second = plant.finished_run(range(4, 12))  # carries 4 to 7 over
    plant.start()  # has not finished
    with plant.db.session() as session:
        points = run_history(session, second.id)
        assert run_history(session, first.number) == points[:1]
        assert run_history(session, second.id, last=1) == points[1:]
        upto = session.connection().exec_driver_sql("SELECT min(event_sequence) FROM run_end").scalar()
        assert run_history(session, second.id, upto=upto) == points[:1]
        assert run_history(session, second.id, upto=upto - 1) == []
    assert [point.reference for point in points] == ["R000001", "R000002"]
    assert points[1].counts.carried_over == 4
    # Statistics of the pictures that are new in it: 8, 9, 10 (11 is unreadable).
    brightness = [0.5 + number / 1_000 for number in (8, 9, 10)]
    assert points[1].statistics["brightness"].n == 3
    assert points[1].statistics["brightness"].mean == pytest.approx(fmean(brightness))
    assert points[1].statistics["brightness"].sd == pytest.approx(stdev(brightness))
    # Scores are of pictures that passed: 0 and 4 of the first run.
    assert points[0].statistics["score"].n == 2
    assert (points[0].inspected, points[0].flagged) == (6, 4)
    assert (points[1].inspected, points[1].flagged) == (3, 2)


def test_drift_counts_what_lies_outside_limits(plant: Plant) -> None:
    run = plant.start()
    plant.record(run, *(plant.outcome(n) for n in range(10)), plant.outcome(10, "unreadable"))
    old = plant.outcome(11, "reject", brightness=None, contrast=None, sharpness=None, score=1.0)
    plant.record(run, old)
    limits = {"brightness": (0.502, 0.507), "score": (0.0, 1.0)}
    with plant.db.session() as session:
        found = drift(session, Scope(run=run.id), limits)
        with pytest.raises(RecordError, match="statistic 'hue' is none of score, brightness"):
            drift(session, Scope(run=run.id), {"hue": (0, 1)})
    brightness, score = found.samples["brightness"], found.samples["score"]
    assert (brightness.n, brightness.below, brightness.above) == (10, 2, 2)
    assert (score.n, score.below, score.above, found.without) == (10, 0, 0, 1)  # of those that passed
    assert found.histogram == tuple({2: 10, BINS - 1: 1}.get(n, 0) for n in range(BINS))


def test_subgroups_follow_the_order_in_which_pictures_were_taken(plant: Plant) -> None:
    run = plant.start()
    verdicts = ("pass", "reject", "review", "unreadable", "pass")
    taken = [
        plant.outcome(n, verdict, captured_at=MORNING - timedelta(minutes=20 * n))
        for n, verdict in enumerate(verdicts)
    ]
    plant.record(run, *taken)
    scope = Scope(run=run.id)
    with plant.db.session() as session:
        pairs = subgroups(session, scope, 2)
        days = subgroups(session, scope, "day", zone="Asia/Tokyo")
        hours = subgroups(session, scope, "hour")
        (whole,) = subgroups(session, scope, "run")
    # Taken in the order 4, 3, 2, 1, 0.
    assert [(g.label, g.inspected, g.flagged, g.rejected, g.unreadable) for g in pairs] == [
        ("1-2", 1, 0, 0, 1), ("3-4", 2, 2, 1, 0), ("5-5", 1, 0, 0, 0),
    ]  # fmt: skip
    assert (pairs[0].since, pairs[0].until) == (taken[4].captured_at, taken[3].captured_at)
    assert pairs[1].statistics["sharpness"].mean == pytest.approx(1.015)
    assert pairs[2].statistics["sharpness"].sd is None
    assert [(g.label, g.inspected) for g in days] == [("2026-03-03", 4)]
    assert [g.label for g in hours] == ["2026-03-02 21:00 +0000", "2026-03-02 22:00 +0000"]
    assert (whole.label, whole.inspected, whole.unreadable) == ("R000001", 4, 1)


def test_a_scope_says_one_thing() -> None:
    for wrong in (Scope(), Scope(station="cam-1"), Scope(since=MORNING)):
        with pytest.raises(RecordError, match="say which pictures"):
            wrong.check()
    with pytest.raises(RecordError, match="one run, or about pictures across runs"):
        Scope(run=1, lot="L0").check()
    Scope(lot="L0", since=MORNING).check()


def test_subgroups_of_no_size(plant: Plant) -> None:
    run = plant.start()
    with plant.db.session() as session, pytest.raises(RecordError, match="give at least 1"):
        subgroups(session, Scope(run=run.id), 0)
    assert Scope is Scope
