"""The period report: parsed back, what it says first, what it says of broken runs and of the process."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from pypdf import PdfReader

from reports.compose.inspection import compose_period, compose_run, conclude_period
from reports.content.base import Counts, MissingPicture
from reports.content.inspection import RunReport
from reports.content.period import PeriodReport, Scope
from reports.content.process import Process, Review
from reports.errors import ReportError
from reports.pdf.render import render

DAY = datetime(2026, 11, 26, tzinfo=UTC)


def pages(record: PeriodReport | RunReport) -> list[str]:
    composed = compose_period(record) if isinstance(record, PeriodReport) else compose_run(record)
    reader = PdfReader(BytesIO(render(composed)))
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
        "No picture was rejected; 3 went to review. 1 of 3 findings still needs a person’s decision.",
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


@pytest.mark.parametrize(
    ("rejected", "decisions", "sentence"),
    [
        (0, (), "No picture was rejected; 26 need a person’s decision."),
        (
            0,
            ("confirm",) * 9,
            "No picture was rejected; 26 went to review. 17 of 26 findings still need a person’s decision.",
        ),
        (0, ("confirm",) * 26, "No picture was rejected; 26 went to review. 26 findings are decided."),
        (2, (), "2 pictures were rejected, 24 more need a decision."),
        (
            2,
            ("confirm",) * 25,
            "2 pictures were rejected, 24 more went to review."
            " 1 of 26 findings still needs a person’s decision.",
        ),
    ],
)
def test_the_verdict_says_what_still_needs_a_decision(
    make_period: Any, rejected: int, decisions: tuple[str, ...], sentence: str
) -> None:
    counts = Counts(31, 4, 26 - rejected, rejected, 1)
    told = conclude_period(make_period(0, review=Review(26, decisions), counts=counts)).sentence
    assert told.startswith(sentence)


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
        0,
        counts=Counts(0, 0, 0, 0, 0),
        runs=(),
        in_force=(),
        unreadable=(),
        process=Process("run", (), calibrated=True),
        repeated=0,
        lots=(),
        stations=(),
        parts=0,
    )
    first, *_ = told = pages(empty)
    assert "Nothing inspected No picture of this lot was inspected." in first
    assert "Lot LOT-2291" in first
    assert "Station none inspected" in first
    assert "Parts none inspected" in first
    assert "there is none." in " ".join(told)
    assert "No picture was inspected: there is nothing to compare with a calibration set." in " ".join(told)
    assert "Calibrate it again" not in " ".join(told)
    assert "No run inspected pictures of this period." in " ".join(told)
    assert "No model decided about any picture." in " ".join(told)


def test_a_lot_that_was_only_announced_names_what_never_arrived(make_period: Any) -> None:
    lost = tuple(MissingPicture(f"L-104/{n}.png", "R000003", f"P{n}", "L-104") for n in (1, 2))
    old = (MissingPicture("early.png", "R000001"),)
    empty = make_period(
        0,
        counts=Counts(0, 0, 0, 0, 0),
        in_force=(),
        unreadable=(),
        process=None,
        repeated=0,
        missing_pictures=lost,
        missing_unplaced=old,
    )
    whole = " ".join(pages(empty))
    assert (
        "Nothing inspected No picture of this lot was inspected. 2 announced pictures never arrived." in whole
    )
    assert "1 more announced picture never arrived; nobody knows of which lot." in whole
    assert "L-104/1.png P1 L-104 – R000003 L-104/2.png P2 L-104 – R000003" in whole
    assert "early.png – – – R000001" in whole
    sound = replace(empty, counts=Counts(5, 5, 0, 0, 0), missing_pictures=())
    assert conclude_period(sound).tone == "pass"  # what may belong elsewhere fails no lot, but is said
    assert "nobody knows of which lot" in conclude_period(sound).sentence
    # What was asked for is no lot: of one picture or several nobody knows whether they were taken there.
    at_station = replace(sound, scope=Scope(station="S2", since=DAY, until=DAY + timedelta(days=1)))
    told = "1 more announced picture never arrived; nobody knows whether it belongs here."
    assert told in conclude_period(at_station).sentence
    two = replace(at_station, missing_unplaced=old * 2)
    assert "2 more announced pictures never arrived; nobody knows whether they belong here." in " ".join(
        pages(two)
    )


def test_pictures_that_were_all_carried_over_are_not_put_down_to_the_calibration(make_report: Any) -> None:
    record = make_report(0, process=Process("stretch", (), calibrated=True))
    told = " ".join(pages(record))
    assert "each was unreadable, or its outcome was carried over from an earlier run" in told
    bare = replace(record, process=Process("stretch", ()))
    told = " ".join(pages(bare))
    assert "This model version was calibrated without picture statistics" in told


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


def test_a_model_without_a_target_for_overkill_rejects_from_no_score(make_period: Any) -> None:
    plain = make_period(0)
    (one,) = plain.in_force
    criteria = one.model.criteria
    untargeted = replace(criteria, reject=replace(criteria.reject, threshold=1.0, overkill=None))
    blind = replace(one, model=replace(one.model, criteria=untargeted))
    told = " ".join(pages(replace(plain, in_force=(blind,))))
    assert "review from 0.3127, nothing is rejected without a person; settings" in told
    assert "Scores of this report’s pictures" in told
    assert "reject from" not in told


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
