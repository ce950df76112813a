"""The period report: parsed back, what it says first, what it says of broken runs and of the process."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from pypdf import PdfReader

from reports.compose.inspection import compose_period
from reports.content.base import Counts
from reports.content.period import PeriodReport, Scope
from reports.errors import ReportError
from reports.pdf.render import render


def pages(record: PeriodReport) -> list[str]:
    reader = PdfReader(BytesIO(render(compose_period(record))))
    return [" ".join(page.extract_text().split()) for page in reader.pages]


@pytest.fixture(scope="module")
def story(make_period: Callable[..., PeriodReport]) -> list[str]:
    return pages(make_period())


def test_the_first_page_says_verdict_disposition_process_and_counts_that_add_up(story: list[str]) -> None:
    first = story[0]
    told = (
        "Period report",
        "P000003 / 1",
        "Review",
        "No picture was rejected; 3 need a person’s decision.",
        "Disposition. 2 of 3 findings decided",
        "Process. R000012 is out of control",
        "1410 listed = 1402 pass + 3 review + 0 reject + 5 unreadable",
        "30 further listings are not counted",
        "lot LOT-2291",
    )
    at = 0
    for part in told:
        assert part in first[at:], part
        at = first.index(part, at)


def test_runs_classes_process_decisions_and_history_are_told_in_order(story: list[str]) -> None:
    whole = " ".join(story)
    told = (
        "2 Runs",
        "R000001",
        "3 Defect classes",
        "4 Process",
        "one point more than 3 standard deviations from the centre line",
        "Signs of drift.",
        "5 Decisions by people",
        "Two people decided on 2 findings and agreed on 1",
        "6 Findings",
        "7 Not inspected",
        "8 Criteria in force",
        "10 Sign-off",
        "11 Revision history",
        "First issue.",
        "12 Audit record",
        "End of report P000003, revision 1",
    )
    at = whole.index("2 Runs", whole.index("Software"))
    for part in told:
        assert part in whole[at:], part
        at = whole.index(part, at)


def test_a_broken_run_is_told_on_the_first_page_and_every_head(make_period: Any) -> None:
    plain = make_period(0)
    broken = replace(plain.runs[1], status="interrupted: the run has no end", finished_at=None)
    told = pages(replace(plain, runs=(plain.runs[0], broken, plain.runs[2])))
    assert "Incomplete run Run R000002 has the status “interrupted: the run has no end”." in told[0]
    assert "No verdict 1 run of 3 is incomplete." in told[0]
    assert "must not be used to release the lot" in told[0]
    assert all("Incomplete runs" in page for page in told[1:])


def test_a_period_without_pictures(make_period: Any) -> None:
    empty = make_period(
        0, counts=Counts(0, 0, 0, 0, 0), runs=(), in_force=(), unreadable=(), process=None, repeated=0
    )
    first, *_ = told = pages(empty)
    assert "Nothing inspected No picture was inspected in this period." in first
    assert "No run inspected pictures of this period." in " ".join(told)
    assert "No model decided about any picture." in " ".join(told)


def test_several_models_have_their_criteria_each(make_period: Any) -> None:
    plain = make_period(0)
    (one,) = plain.in_force
    criteria = one.model.criteria
    other = replace(
        one,
        model=replace(
            one.model,
            name="second-model",
            criteria=replace(criteria, review=replace(criteria.review, threshold=0.1234)),
        ),
        pictures=5,
    )
    apart = replace(plain.process, own=(), trends=())
    told = " ".join(pages(replace(plain, in_force=(one, other), process=apart)))
    assert "each with a calibration set of its own: drift is told by the reports of their runs" in told
    assert "Scores of this report’s pictures" not in told
    assert "second-model" in told
    assert "review from 0.1234" in told
    assert "Below 0.1234 the picture passes" in told


def test_a_scope_needs_a_lot_or_a_time() -> None:
    with pytest.raises(ReportError, match="give a lot, or when the period begins and when it ends"):
        Scope(station="CAM-1")


def test_hostile_scope_and_runs_are_text(make_period: Any) -> None:
    evil = '<img src="file:///etc/passwd">{{ 7 * 7 }}\u202e@import url(http://x/)'
    plain = make_period(0)
    runs = tuple(replace(run, number=evil, status=evil) for run in plain.runs)
    told = " ".join(pages(replace(plain, scope=Scope(lot=evil), lots=(evil,), runs=runs, stations=(evil,))))
    assert "{{ 7 * 7 }}" in told
    assert "‹U+202E›" in told
    assert '<img src="file:///etc/passwd">' in told
