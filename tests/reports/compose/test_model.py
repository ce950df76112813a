"""The model report: what its record says, and that the printed page says the same."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pypdf import PdfReader

from reports.attachments.manifest import RECORD, read_attached
from reports.attachments.schema import schema_text
from reports.compose.model import compose_model, conclude_model, not_examined
from reports.content.base import AuditHead
from reports.content.finding import Labelled
from reports.content.model import (
    Bin,
    CalibratedPrecision,
    Calibration,
    Case,
    ClassResult,
    DataSide,
    Examination,
    FieldClass,
    FieldExperience,
    GroupResult,
    MapQuality,
    Metric,
    Mistake,
    ModelReport,
    ModelVersion,
    Overlap,
    Share,
    Training,
    Zones,
)
from reports.errors import ReportError
from reports.pdf.render import render
from tests.reports import verapdf

AT = datetime(2026, 11, 26, 6, 0, 4, tzinfo=UTC)
Finding = Callable[..., Any]  # tests/reports/conftest.py; test folders are not packages


def digest(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def share(count: int, total: int, bound: float, target: float | None = None) -> Share:
    return Share(count, total, count / total * 0.8, min(1.0, bound * 1.05), bound, target)


def zones(escape: Share, rejected: Share) -> Zones:
    return Zones(escape, share(41, 219, 0.24), share(50, 89, 0.65), rejected)


ESCAPE = share(3, 89, 0.0848, 0.1)
REJECTED = share(2, 219, 0.0285, 0.05)
NEVER = Mistake("escape", "a/1.png", ("pit",), "good", 0.12, "pass", "lot 7", digest("a/1"))
FALSE = Mistake("overkill", "b/2.png", ("good",), "scratch", 0.97, "reject", "lot 9", digest("b/2"))
EXAMINATION = Examination(
    name="test.csv",
    digest=digest("test"),
    pictures=308,
    groups=54,
    defective=89,
    good=219,
    overlaps=tuple(
        Overlap(role, f"{role}.csv", proven=True) for role in ("training", "validation", "calibration")
    ),
    classes=(
        ClassResult("good", 219, 32, share(204, 219, 0.96), share(204, 230, 0.92)),
        ClassResult("pit", 66, 12, share(40, 66, 0.7), share(40, 50, 0.88), share(3, 66, 0.113)),
        ClassResult("scratch", 23, 10, share(20, 23, 0.95), share(20, 28, 0.85), share(0, 23, 0.122)),
    ),
    balanced_accuracy=0.801,
    auroc=0.952,
    device="cpu",
    precision="float32",
    confusion=((204, 10, 5), (23, 40, 3), (3, 0, 20)),
    good_scores=(180, 21, 12, 4, 2),
    defective_scores=(3, 6, 20, 20, 40),
    score_edges=(0.0, 0.01, 0.1, 0.5, 0.9, 1.0),
    bins=(Bin(0.0, 0.5, 200, 9, 0.11), Bin(0.5, 1.0, 19, 80, 0.83)),
    calibration_error=0.041,
    zones=zones(ESCAPE, REJECTED),
    by_group=zones(share(2, 24, 0.24), share(2, 32, 0.184)),
    verdicts=(("pass", 181), ("review", 86), ("reject", 41)),
    mistakes=(NEVER, FALSE),
    worst_groups=(GroupResult("lot 7", 6, 1, 0), GroupResult("lot 9", 6, 0, 1)),
)
QUALITY = MapQuality(
    method="sise-fast",
    flagged=86,
    judged=40,
    groups=20,
    metrics=(
        Metric("ebpg", "EBPG, %", 31.25, 29.5, 38, 22.1, 40.2, "high", 2),
        Metric("drop", "Drop, %", 12.5, 3.25, 40, 8.4, 17.9, "low", 2),
    ),
    with_mask=38,
    masks="masks.csv",
    trust=(("Score mostly kept", 30), ("Score partly kept", 10)),
)
FIELD = FieldExperience(
    runs=12,
    passed=40210,
    review=212,
    reject=78,
    unreadable=3,
    first=AT,
    last=AT,
    classes=(FieldClass("pit", 290, 170, 60, 20, Share(170, 250, 0.61, 0.74, 0.73)),),
)


def model_report(**changes: Any) -> ModelReport:
    plain = ModelReport(
        number="M000001",
        issued_at=AT,
        software_version="0.1.0",
        model=ModelVersion(
            name="rolled-steel",
            architecture="resnet18",
            digest=digest("model"),
            weights_sha256=digest("weights"),
            classes=("good", "pit", "scratch"),
            task="single-label",
            temperature=1.25,
            created_at=AT,
            good_class="good",
            preprocessing=(("fit", "pad"), ("input_size", "224 224")),
        ),
        data=(DataSide("training", digest("training"), 673, 122, (("good", 475), ("pit", 198))),),
        training=Training("random weights", 30, 24, 7, (("balanced accuracy", 0.83),), (("seed", "7"),)),
        calibration=Calibration(
            0.2213, 0.9109, zones(share(3, 78, 0.0964, 0.1), share(4, 191, 0.0473, 0.05)), 22, 28, digest("c")
        ),
        examination=EXAMINATION,
        quality=QUALITY,
        field=FIELD,
        organisation="Nordhavn Rolling Mills",
        intended_use="Strip, line 4, camera 2",
        audit_head=AuditHead(812, digest("head")),
    )
    return replace(plain, **changes)


def pages(printed: bytes) -> list[str]:
    return [" ".join(page.extract_text().split()) for page in PdfReader(BytesIO(printed)).pages]


def pdf(record: ModelReport) -> bytes:
    return render(compose_model(record), workers=1)


@pytest.fixture(scope="module")
def plain() -> bytes:
    return pdf(model_report())


def test_a_share_stands_to_its_target_by_its_bound() -> None:
    assert share(3, 89, 0.0848, 0.1).standing == "met"
    assert share(0, 20, 0.139, 0.1).standing == "not shown"
    assert share(12, 89, 0.21, 0.1).standing == "not met"
    assert Share(0, 0, target=0.1).standing == "not shown"
    assert share(3, 89, 0.0848).standing is None
    with pytest.raises(ReportError, match="4 of 3"):
        Share(4, 3, 0.5, 1.0, 1.0)
    with pytest.raises(ReportError, match="bounds"):
        Share(1, 3)


@pytest.mark.parametrize(
    ("changes", "standing", "said"),
    [
        ({}, "met", "at most 8.48 %; the target is 10 %"),
        ({"examination": None}, "not shown", "No pictures that the model has not seen were examined"),
        ({"calibration": None, "examination": None}, "not shown", "no thresholds"),
        (
            {"examination": replace(EXAMINATION, zones=zones(share(12, 89, 0.21, 0.1), REJECTED))},
            "not met",
            "12 of 89",
        ),
        (
            {"examination": replace(EXAMINATION, zones=zones(ESCAPE, share(6, 219, 0.0534, 0.05)))},
            "not shown",
            "219 pictures are too few to show it",
        ),
        (
            {"examination": replace(EXAMINATION, overlaps=(Overlap("training", "t.csv", True, 4, 1),))},
            "not shown",
            "are among those that the model was made from",
        ),
    ],
)
def test_the_verdict_and_its_reason(changes: dict[str, Any], standing: str, said: str) -> None:
    record = model_report(**changes)
    assert record.standing == standing
    conclusion = conclude_model(record)
    assert said in conclusion.sentence
    assert conclusion.tone == {"met": "pass", "not met": "reject", "not shown": "review"}[standing]


def test_a_leak_does_not_hide_that_targets_are_not_met() -> None:
    leaky = replace(
        EXAMINATION,
        zones=zones(share(12, 89, 0.21, 0.1), REJECTED),
        overlaps=(Overlap("training", "t.csv", True, 4, 1),),
    )
    assert model_report(examination=leaky).standing == "not met"


def test_what_was_not_examined_is_listed() -> None:
    told = " ".join(not_examined(model_report()))
    assert "46 of 86 findings" in told
    assert "scratch (23 pictures)" in told
    assert "pit" not in told
    assert "no class for" in told
    bare = model_report(examination=None, calibration=None, quality=None, field=None, maps_gap="no model")
    assert len(not_examined(bare)) == 5
    unknown = replace(
        EXAMINATION,
        overlaps=(Overlap("training"), Overlap("calibration", "c.csv", True)),
        classes=(*EXAMINATION.classes, ClassResult("crack", 0, 0, Share(0, 0), Share(0, 0), Share(0, 0))),
    )
    told = " ".join(not_examined(model_report(examination=unknown)))
    assert "training data: not checked" in told
    assert "Classes without an examined picture: crack" in told


def test_the_printed_page_tells_the_story(plain: bytes) -> None:
    text = pages(plain)
    front, whole = text[0], " ".join(text)
    assert "M000001 / 1" in front
    assert front.index("Targets met") < front.index("3 of 89") < front.index("What was not examined")
    assert "Strip, line 4, camera 2" in front
    for said in (
        *("673", "training.csv", "0.952", "0.801", "lot 7", "a/1.png", "b/2.png", "EBPG, %", "31.25"),
        *("40 210 passed", "170", "released for production", "End of report"),
        *(digest("model")[:12], digest("head"), "Seed 7"),
    ):
        assert said in whole, said
    assert "Targets not" not in whole


def test_no_line_ends_after_its_first_word(plain: bytes) -> None:
    lines = [line for page in PdfReader(BytesIO(plain)).pages for line in page.extract_text().splitlines()]
    assert any(line.startswith("The model gives each picture a defect score") for line in lines)


def test_what_is_wrong_shows_on_the_first_page() -> None:
    bad = replace(EXAMINATION, zones=zones(share(12, 89, 0.21, 0.1), REJECTED))
    text = pages(pdf(model_report(examination=bad)))
    assert "Targets not met" in text[0]
    assert "not met" in text[0].split("At most")[1]
    assert all("Targets not met" in page for page in text[1:])  # in the running head
    leaky = replace(EXAMINATION, overlaps=(Overlap("training", "t.csv", True, 4, 1),))
    front = pages(pdf(model_report(examination=leaky)))[0]
    assert front.index("not new to the model") < front.index("Targets not shown")
    assert "4 pictures and 1 group" in front


def test_a_calibration_without_good_pictures_claims_nothing_about_overkill() -> None:
    nothing = Share(0, 0)
    blind = Zones(share(0, 59, 0.0496, 0.05), nothing, share(59, 59, 1.0), nothing)
    record = model_report(calibration=Calibration(0.2213, 1.0, blind, 22, 0, digest("c")))
    text = pages(pdf(record))
    assert "calibrated without a target for overkill, and without a good picture" in text[0]
    whole = " ".join(text)
    assert "Overkill was not measured: the calibration pictures hold no good one." in whole
    assert "review from 0.2213" in whole  # below the histogram of scores
    assert "reject from" not in whole
    alone = conclude_model(replace(record, examination=None)).sentence
    assert alone.endswith(
        "0 of 59 defective ones passed, and overkill was not measured, for none of them is good."
    )
    examined = replace(EXAMINATION, zones=zones(ESCAPE, replace(REJECTED, target=None)))
    conclusion = conclude_model(replace(record, examination=examined))
    assert conclusion.word == "Targets not shown"
    assert "no target was set for it" in conclusion.sentence


def test_the_precisions_stand_beside_one_another() -> None:
    plain = model_report()
    assert plain.calibration is not None
    float32 = CalibratedPrecision("float32", "torch", 0.2213, 0.9109, share(3, 78, 0.0964, 0.1), REJECTED)
    half = replace(float32, precision="float16", engine="openvino", review=0.2174, flips=3, shift=0.02607)
    both = replace(plain, calibration=replace(plain.calibration, precisions=(float32, half)))
    text = " ".join(pages(pdf(both)))
    assert "float16 openvino 0.2174 0.9109 9.64 %" in text
    assert re.search(r"float16 openvino [^a-z]* 3 0\.0261", text)
    assert "the model decides in no other" in text
    assert "the model decides in no other" not in " ".join(pages(pdf(plain)))


def test_a_model_that_says_nothing_of_itself_is_reported() -> None:
    bare = model_report(
        data=(), training=None, calibration=None, examination=None, quality=None, field=None, audit_head=None
    )
    text = " ".join(pages(pdf(bare)))
    assert "not calibrated" in text
    assert "No labelled pictures were named" in text
    assert "does not say how it was trained" in text
    assert "not recorded" in text


def test_the_same_record_gives_the_same_bytes(plain: bytes) -> None:
    assert pdf(model_report()) == plain


HOSTILE = "<script>alert(1)</script>{{ 7*7 }}\u202e" + "x" * 10_000


def test_hostile_names_are_printed_as_text() -> None:
    case = Mistake("escape", HOSTILE, (HOSTILE,), HOSTILE, 0.1, "pass", HOSTILE, digest("h"))
    classes = tuple(replace(one, name=HOSTILE + one.name) for one in EXAMINATION.classes)
    version = replace(
        model_report().model, name=HOSTILE, classes=tuple(one.name for one in classes), good_class=None
    )
    record = model_report(
        model=version,
        data=(DataSide(HOSTILE, HOSTILE, 1, 1, ((HOSTILE, 1),)),),
        training=Training(HOSTILE, settings=((HOSTILE, HOSTILE),), command=HOSTILE),
        examination=replace(
            EXAMINATION,
            name=HOSTILE,
            classes=classes,
            mistakes=(case,),
            worst_groups=(GroupResult(HOSTILE, 1, 1, 0),),
            overlaps=(Overlap("training", HOSTILE),),
        ),
        quality=replace(QUALITY, masks=HOSTILE, parameters=((HOSTILE, HOSTILE),)),
        field=replace(FIELD, classes=(replace(FIELD.classes[0], name=HOSTILE),)),
        intended_use=HOSTILE,
        organisation=HOSTILE,
    )
    text = " ".join(pages(pdf(record)))
    assert "<script>" in text
    assert "7*7" in text
    assert "\u202e" not in text


def test_mistakes_have_pages_that_the_lists_point_to(make_finding: Finding) -> None:
    cases = tuple(
        Case(mistake, make_finding(number, reference=f"{mistake.kind.capitalize()} {number}"))
        for number, mistake in enumerate((NEVER, FALSE), start=1)
    )
    text = pages(pdf(model_report(examination=replace(EXAMINATION, cases=cases))))
    at = next(number for number, page in enumerate(text, start=1) if "Escape 1" in page)
    listed = next(page for page in text if "Defective pictures that passed" in page)
    assert f"pass {at}" in listed


def test_the_record_is_attached_and_fits_its_schema(plain: bytes) -> None:
    carried = read_attached(plain)
    assert carried.manifest["kind"] == "model"
    assert carried.manifest["report"] == "M000001"
    content = json.loads(carried.files[RECORD])
    Draft202012Validator(json.loads(schema_text())).validate(content)
    assert content["record"]["standing"] == "met"
    assert content["record"]["examination"]["zones"]["escape"]["standing"] == "met"
    assert content["verdict"]["reasons"] == not_examined(model_report())


@verapdf.needed
@pytest.mark.slow
def test_it_conforms_to_pdf_a_and_pdf_ua(make_finding: Finding) -> None:
    case = Case(NEVER, make_finding(1, verdict="pass", labelled=Labelled("pit", "good", "lot 7")))
    with_case = replace(EXAMINATION, cases=(case,), overlaps=(Overlap("training", "t.csv", True, 4, 1),))
    bare = {"data": (), "training": None, "calibration": None, "examination": None, "quality": None}
    records = [model_report(examination=with_case), model_report(**bare, field=None, audit_head=None)]
    assert verapdf.violations_of([pdf(record) for record in records], "3u", "ua1") == [[], []]
