"""The process behind a report: what alarms, what people decided, what cannot be."""

from dataclasses import replace

import pytest

from reports.compose.process_view import view_process
from reports.content.process import Process, Review
from reports.errors import ReportError
from reports.stats.control_chart import Subgroup


def test_a_run_beyond_its_limits_alarms_on_the_first_page(make_process) -> None:
    view = view_process(make_process(), (0.3, 0.9))
    assert view.fired[0][0] == 1
    assert view.fired[0][2] == "R000012"
    assert view.alarm.startswith("R000012 is out of control: 12.9 % of 480 pictures is above its limits")
    assert view.alarm.endswith("Signs of drift against the calibration set: brightness.")
    assert [each.statistic for each in view.drifted] == ["brightness"]


def test_a_quiet_process_says_nothing(make_process) -> None:
    noisy = make_process(drifts=False)
    last = noisy.subgroups[-1]
    quiet = replace(noisy, subgroups=(*noisy.subgroups[:-1], replace(last, x=27)))
    view = view_process(quiet, (0.3, 0.9))
    assert (view.fired, view.alarm, view.drifted) == ((), "", ())
    assert view.chart is not None
    assert view.chart.phase == "II"


def test_pictures_with_other_numbers_of_tiles_alarm(make_process) -> None:
    made = make_process(drifts=False)
    told = replace(made, other_tiles=((88, 10), (1944, 2))).tiles_sentence
    assert told == (
        "12 pictures have a number of tiles that no picture of the calibration set had: 88, 1944."
    )
    assert view_process(replace(made, other_tiles=((88, 1),)), None).alarm.endswith(
        "1 picture has a number of tiles that no picture of the calibration set had: 88."
    )
    many = replace(made, other_tiles=tuple((tiles, 1) for tiles in range(10, 18)))
    assert many.tiles_sentence.endswith("had: 10, 11, 12, 13, 14, 15 and 2 other numbers.")


def test_one_subgroup_makes_no_chart() -> None:
    view = view_process(Process("run", (Subgroup("R000001", 10, 1),)), (0.3, 0.9))
    assert (view.chart, view.drawn, view.histogram, view.alarm) == (None, None, None, "")


def test_rules_that_fired_are_told_where_no_subgroup_is_the_present_one(make_process) -> None:
    made = make_process(drifts=False)
    view = view_process(
        replace(made, subgroups=tuple(replace(g, current=False) for g in made.subgroups)), None
    )
    assert view.histogram is None
    assert view.alarm.startswith("Rules fired at 1 point")


@pytest.mark.parametrize(
    ("review", "sentence"),
    [
        (Review(0), ""),
        (Review(1), "No person has decided about it yet."),
        (Review(3), "No person has decided about them yet."),
        (Review(3, (), 1), "No person has decided about them yet. 1 decision awaits a second person."),
        (
            Review(5, ("scrap", "confirm", "confirm"), 2),
            "3 of 5 findings decided: 2 confirmed, 1 to scrap; 2 open. 2 decisions await a second person.",
        ),
        (Review(1, ("use-as-is",)), "1 of 1 finding decided: 1 to use as is."),
    ],
)
def test_how_far_people_have_decided(review: Review, sentence: str) -> None:
    assert review.sentence == sentence


def test_decisions_about_more_than_there_is_are_refused() -> None:
    with pytest.raises(ReportError, match="2 decisions in effect and 0 awaiting approval about 1 finding"):
        Review(1, ("confirm", "confirm"))


def test_agreement_is_measured_on_pairs() -> None:
    assert Review(2).agreement is None
    found = Review(2, (), 0, (("confirm", "confirm"), ("confirm", "overrule"))).agreement
    assert found is not None
    assert (found.n, found.observed) == (2, 0.5)
