"""The dossier: everything about a finding or a part, parsed back."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from pypdf import PdfReader

from reports.compose.dossier import compose_dossier, conclude_dossier, headline, tell_decisions
from reports.content.base import MissingPicture
from reports.content.dossier import Dossier, Occurrence
from reports.content.finding import Decided
from reports.errors import ReportError
from reports.pdf.render import render


def text(record: Dossier) -> str:
    reader = PdfReader(BytesIO(render(compose_dossier(record))))
    return " ".join(" ".join(page.extract_text().split()) for page in reader.pages)


def test_a_finding_is_told_from_verdict_to_audit_record(make_dossier: Callable[..., Dossier]) -> None:
    whole = text(make_dossier())
    told = (
        "Finding dossier",
        "Review, open",
        "The program’s verdict: review.",
        "Class “scratch”, defect score 0.4821 (review from 0.3127, reject from 0.8714).",
        "Disposition. No person has decided about it yet.",
        "1 Identification",
        "2 Pictures of the part",
        "the file is empty (0 bytes)",
        "3 Findings",
        "R000012-0001 scratch",
        "4 What happened",
        "run R000012 inspected it",
        "Computed again",
        "identical",
        "5 The same class elsewhere",
        "31 2849 1.09 %",
        "6 For the complaint",
        "D2 Problem",
        "D8 Team thanked",
        "7 Criteria in force",
        "10 Revision history",
        "11 Audit record",
        "End of report D000001, revision 1",
    )
    at = 0
    for part in told:
        assert part in whole[at:], part
        at = whole.index(part, at)


def test_the_complaint_is_about_the_finding_that_speaks_for_the_part(
    make_dossier: Any, make_finding: Any
) -> None:
    plain = make_dossier()
    first = make_finding(1, class_name="crack", score=0.4, verdict="review")
    gravest = make_finding(2, class_name="pit", score=0.91, verdict="reject", part=first.part)
    elsewhere = tuple(
        Occurrence(name, where, flagged, 9)
        for name, flagged in (("crack", 7), ("pit", 1))
        for where in ("in lot L-1", "at station CAM-3 in the 30 days before")
    )
    part = replace(plain, subject=None, findings=(first, gravest), occurrences=elsewhere)
    whole = text(part)
    assert "Class “pit”, defect score 0.9100 (reject from 0.8714). 1 more finding" in whole
    assert "D2 Problem Class “pit” on part" in whole
    assert "Verdict: reject, score 0.9100. 1 further finding on the same part." in whole
    said = whole[whole.index("D3 Containment") : whole.index("D4 Root cause")]
    assert "In lot L-1: 1 of 9 pictures flagged with “pit”." in said
    assert "At station CAM-3 in the 30 days before: 1 of 9 pictures flagged with “pit”." in said
    assert "crack" not in said


def test_what_holds_and_what_awaits_approval_is_said_first(make_dossier: Any, make_finding: Any) -> None:
    at = make_dossier().issued_at
    held = Decided("confirm", "Ada", "quality engineer", at, reason="seen")
    waiting = Decided("use-as-is", "Ada", "quality engineer", at + timedelta(hours=1), "awaiting approval")
    record = make_dossier(findings=(make_finding(1, decisions=(held, waiting)),))
    told = tell_decisions(record)
    assert told.startswith("Confirm by Ada, quality engineer, 2026-11-24 07:00:04 +01:00: “seen”.")
    assert "Use as is (awaiting approval) by Ada" in told


@pytest.mark.parametrize(
    ("decisions", "tone", "word", "also"),
    [
        ([()], "review", "Review, open", "The program’s verdict: review. Class “scratch”"),
        ([(("confirm", "in force"),)], "reject", "Defect confirmed", ""),
        ([(("confirm", "superseded"), ("scrap", "in force"))], "reject", "Scrap", ""),
        ([(("scrap", "awaiting approval"),)], "reject", "Scrap, awaiting approval", ""),
        ([(("overrule", "in force"), ("use-as-is", "awaiting approval"))], "pass", "Overruled", ""),
        ([(("use-as-is", "refused"),)], "review", "Review, open", ""),
        ([(("overrule", "in force"),), ()], "reject", "Reject, open", "1 of 2 findings open."),
        ([(("scrap", "in force"),), ()], "reject", "Scrap", "1 of 2 findings open."),
        ([(("overrule", "in force"),), (("use-as-is", "in force"),)], "review", "Use as is", ""),
        (
            [(("confirm", "in force"),), (("scrap", "awaiting approval"),)],
            "reject",
            "Scrap, awaiting approval",
            "",
        ),
    ],
)
def test_the_headline_says_what_holds_now(
    make_dossier: Any, make_finding: Any, decisions: Any, tone: str, word: str, also: str
) -> None:
    at = make_dossier().issued_at
    findings = tuple(
        make_finding(
            n, decisions=tuple(Decided(what, "Ada", "quality engineer", at, state) for what, state in made)
        )
        for n, made in enumerate(decisions, start=1)
    )
    record = make_dossier(subject=None, findings=findings)
    told = headline(record)
    assert (told.tone, told.word) == (tone, word)
    assert also in told.sentence
    assert conclude_dossier(record).word in (
        "Review",
        "Reject",
    )  # for machines, and in the program's own line


def test_a_part_of_which_a_picture_never_arrived_does_not_pass(make_dossier: Any, make_finding: Any) -> None:
    plain = make_dossier()
    overruled = Decided("overrule", "Ada", "quality engineer", plain.issued_at)
    decided = replace(plain, findings=(make_finding(1, decisions=(overruled,)),))
    assert headline(decided).tone == "pass"
    assert headline(replace(decided, missing_pictures=(MissingPicture("x", "R1"),))).tone == "gaps"
    passed = replace(plain.pictures[0], verdict="pass")
    lost = (MissingPicture("side.png", "R000012", "P-100001", "LOT-2291"),)
    part = replace(
        plain, subject=None, findings=(), occurrences=(), pictures=(passed,), missing_pictures=lost
    )
    assert conclude_dossier(part).word == "Not inspected in full"
    never = replace(part, pictures=(), replays=(), entries=())
    told = text(never)
    assert (
        "Nothing inspected No run listed a picture of this part. 1 announced picture of this part never"
        in told
    )
    assert "side.png P-100001 LOT-2291 – R000012" in told
    assert "none was flagged" not in told
    assert "computed again" not in told


def test_a_part_without_findings_is_told_by_its_pictures(make_dossier: Any) -> None:
    plain = make_dossier()
    part = replace(plain, subject=None, findings=(), occurrences=(), replays=())
    passed = replace(plain.pictures[0], verdict="pass")
    assert conclude_dossier(part).word == "Not inspected in full"
    assert conclude_dossier(replace(part, pictures=(passed,))).word == "Pass"
    assert conclude_dossier(replace(part, pictures=())).word == "Nothing inspected"
    whole = text(replace(part, pictures=(passed,), entries=()))
    assert "Part P-100001" in whole
    assert "1 picture of this part: none was flagged." in whole
    assert "No decision here has been computed again." in whole


def test_a_broken_run_is_told_first(make_dossier: Any) -> None:
    plain = make_dossier()
    by = tuple(replace(each, status="failed") for each in plain.decided_by)
    whole = text(replace(plain, decided_by=by))
    assert whole.index("Run R000012 has the status “failed”.") < whole.index("Class “scratch”, defect score")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subject": None, "part": None}, "give a finding, or a part"),
        ({"subject": "R000009-0001"}, "holds that finding alone"),
    ],
)
def test_a_dossier_is_about_something(make_dossier: Any, changes: Any, message: str) -> None:
    with pytest.raises(ReportError, match=message):
        make_dossier(**changes)


def test_more_flagged_than_there_are_pictures_is_refused() -> None:
    with pytest.raises(ReportError, match="3 of 2 pictures"):
        Occurrence("pit", "in lot 1", 3, 2)
