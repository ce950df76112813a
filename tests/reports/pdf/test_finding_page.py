"""A finding has one page on either paper; its dispositions take the place of the boxes to tick."""

import itertools
from dataclasses import replace
from datetime import timedelta
from io import BytesIO

import pytest
from pypdf import PdfReader

from reports.content.base import Counts
from reports.content.finding import Decided, Held
from reports.style import Style
from tests.reports.rendering import render_run_report

SIZES = ((96, 96), (1600, 256), (150, 310), (500, 1260), (2000, 1000))
REASON = "Looked at under the microscope: within the limit of drawing 4711, note 3. "


def decided(at, **changes):
    plain = Decided("reclassify", "Ingrid Sørensen-Knudsen", "quality engineer", at, reason=REASON * 3)
    return replace(plain, **changes)


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_the_fullest_finding_has_one_page(make_report, make_finding, paper):
    record = make_report(0)
    last = decided(record.started_at, class_name="inclusion")
    decisions = (last, replace(last, approved_by="Jørgen Brandt", approved_at=record.started_at), last)
    findings = []
    for number, (width, height) in enumerate(SIZES, start=1):
        finding = make_finding(number, width=width, height=height, uri="LOT-2291/" + "deep/" * 90)
        evidence = finding.load()
        more = Held(replace(evidence, block_maps=(evidence.block_maps * 3)[: 5 + 2 * number]))
        findings.append(replace(finding, load=more, decisions=decisions))
    record = replace(record, findings=tuple(findings), counts=Counts(9, 2, 4, 1, 2), style=Style(paper=paper))
    reader = PdfReader(BytesIO(render_run_report(record)))
    names = [*(f"finding-{i + 1}" for i in range(len(findings))), "not-inspected"]
    pages = [reader.get_destination_page_number(reader.named_destinations[name]) for name in names]
    assert [after - before for before, after in itertools.pairwise(pages)] == [1] * len(SIZES)
    sizes = {"A4": (210, 297), "Letter": (216, 279)}
    assert {tuple(round(float(side) / 72 * 25.4) for side in page.mediabox[2:]) for page in reader.pages} == {
        sizes[paper]
    }


def test_columns_that_fill_the_width_stay_side_by_side(make_report, make_finding):
    """Rounding makes some columns a hair wider together than the page: none may slip below the others."""
    findings = tuple(make_finding(number, width=184 + 5 * number, height=354) for number in range(1, 9))
    record = make_report(0, findings=findings, counts=Counts(10, 0, 4, 4, 2), style=Style())
    reader = PdfReader(BytesIO(render_run_report(record)))
    names = [*(f"finding-{i + 1}" for i in range(len(findings))), "not-inspected"]
    pages = [reader.get_destination_page_number(reader.named_destinations[name]) for name in names]
    assert [after - before for before, after in itertools.pairwise(pages)] == [1] * len(findings)


def test_dispositions_say_who_decided_what_and_whether_it_counts(make_report, make_finding):
    at = make_report(0).started_at
    decisions = (
        decided(at, state="superseded", decision="confirm", reason="first look"),
        decided(
            at + timedelta(hours=1),
            state="refused",
            class_name="pit",
            approved_by="J. Brandt",
            approved_at=at + timedelta(hours=2),
        ),
        decided(at + timedelta(hours=3), state="awaiting approval", decision="use as is", reason="a<b>c"),
    )
    record = make_report(1, findings=(make_finding(1, decisions=decisions),), style=Style())
    reader = PdfReader(BytesIO(render_run_report(record)))
    number = reader.get_destination_page_number(reader.named_destinations["finding-1"])
    said = " ".join(reader.pages[number].extract_text().split())
    for part in (
        "Disposition: the last 2 of 3 decisions on record",
        "reclassify as pit refused",
        "; refused by J. Brandt, 2026-11-23 08:00:04 +00:00",
        "use as is awaiting approval a<b>c Ingrid Sørensen-Knudsen, quality engineer, 2026-11-23 09:00:04",
    ):
        assert part in said, part
    assert "first look" not in said
    assert "Name, date, signature" not in said
