"""The PDF read back: what it says, in which order, where it links to, and what it does not do."""

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader
from pypdf.generic import Destination

from reports.compose.inspection import compose_run
from reports.content.base import Counts, MissingPicture, Rate
from reports.content.finding import Evidence, Held
from reports.content.inspection import RunReport
from reports.pdf.blocks import print_job
from reports.pdf.render import cut
from tests.reports.rendering import render_run_report

HOSTILE = (
    "</td><script>alert(1)</script><img src=http://127.0.0.1:9/x>",
    "x\" onload=\"x' style='background:url(file:///etc/passwd)",
    "{{ 7 * 7 }}{% raw %}${7*7}",
    "abc\u202egnp.exe\u2066",
    "W" * 10_000,
    "\x00\x07\x1b[31m\n\r\t\ufeff\ud800",
    "&lt;b&gt;&amp;",
    "@import url(http://127.0.0.1:9/x.css)",
)


def read(pdf: bytes) -> PdfReader:
    return PdfReader(BytesIO(pdf))


def text(reader: PdfReader, page: int | None = None) -> str:
    pages = reader.pages if page is None else [reader.pages[page]]
    return " ".join(" ".join(page.extract_text().split()) for page in pages)


def squeezed(value: str) -> str:
    """Without white space, as a word broken over lines is found."""
    return re.sub(r"\s", "", value)


@pytest.fixture(scope="module")
def normal(make_report: Callable[..., RunReport]) -> tuple[RunReport, PdfReader]:
    record = make_report(4)
    return record, read(render_run_report(record))


def test_first_page_gives_verdict_and_accounting_first(normal):
    _, reader = normal
    first = text(reader, 0)
    assert "2 pictures were rejected, 2 more need a decision." in first
    assert "2 pictures could not be read and 1 announced picture never arrived." in first
    assert re.search(r"480 listed = 474 pass \+ 2 review \+ 2 reject \+ 2 unreadable", first)
    assert first.index("Reject") < first.index("480 listed") < first.index("Identification")
    for part in (
        "R000012 / 1",
        "Nordhavn Rolling Mills, Quality Assurance",
        "LOT-2291",
        "CAM-3",
        "2026-11-23 07:00:04 +01:00",
        "2026-11-23 07:06:45 +01:00",
        "Europe/Copenhagen",
        "after 6 min 41 s",
        "review from 0.3127, reject from 0.8714",
        "kensa 0.1.0",
        "31 outcomes carried over",
    ):
        assert part in first, part
    assert "Incomplete" not in text(reader)


def test_digests_are_whole(normal):
    record, reader = normal
    everything = squeezed(text(reader))
    digests = [record.model.digest, record.settings_digest, record.audit_head.hash]
    digests += [record.model.criteria.dataset_digest]
    for finding in record.findings:
        digests += [finding.image_digest, finding.explanation.map_digest]
    for digest in digests:
        assert digest in everything


def test_head_and_foot_of_every_page(normal):
    record, reader = normal
    total = len(reader.pages)
    for number, page in enumerate(reader.pages, start=1):
        said = " ".join(page.extract_text().split())
        assert f"Page {number} of {total}" in said
        assert f"audit head 4512 {record.audit_head.hash[:12]}" in said
        if number > 1:
            assert "R000012, revision 1" in said
            assert "Lot LOT-2291" in said
            assert f"Model rolled-steel {record.model.digest[:12]}" in said


def test_sections_come_in_order_and_the_report_ends(normal):
    _, reader = normal
    said = text(reader)
    order = (
        "1 Identification",
        "2 Defect classes",
        "3 Findings",
        "R000012-0001 scratch",
        "R000012-0004 scratch",
        "4 Not inspected",
        "5 Criteria in force",
        "6 What attribution maps can and cannot say",
        "7 Sign-off",
        "The boxes are for ink. A digital sign-off leaves them empty: a PDF reader shows its signature,",
        "8 Audit record",
        "End of report R000012, revision 1",
    )
    places = [said.rindex(part) for part in order]
    assert places == sorted(places)
    assert said.endswith("Page 8 of 8") or "End of report" in text(reader, -1)


def test_finding_page(normal):
    record, reader = normal
    assert len(reader.pages) == 8  # one page a finding
    said = text(reader, 2)
    for part in (
        "R000012-0001 scratch Review",
        "P-100001",
        "2026-11-23 07:00:11 +01:00",
        "224 × 224 px",
        "Outlined: 20.0 % of the picture, the pixels where it is highest. Framed: the outlined piece.",
        "0.4821",
        "review from 0.3127",
        "reject from 0.8714",
        "score of class “scratch”: 0.4407",
        "a place to look",
        "The model gives this class 0.4407, less than even odds",
        "from 0.4407 to 0.2732",
        "1. act1 32 of 64 masks",
        "5. layer4.1 252 of 512 masks",
        "fused map",
        "LOT-2291/P-100001.png",
        "sise; mu 0.0, baseline mean, fusion otsu",
        "Disposition",
    ):
        assert part in said, part
    layers = [
        said.index(f"{i + 1}. {name}") for i, (name, _) in enumerate(record.findings[0].load().block_maps)
    ]
    assert layers == sorted(layers)


def test_what_was_not_inspected_and_the_criteria(normal):
    _, reader = normal
    said = text(reader, 6)
    for part in (
        "LOT-2291/P-100311.png damaged or truncated file",
        "LOT-2291/P-100388.tif the file is empty (0 bytes)",
        "LOT-2291/P-100402.png",
        "0.33 % at most 0.99 %, n = 610 target 1 %: met",
        "one-sided 95 % Clopper-Pearson bound",
        "one minus the probability of class “good”",
    ):
        assert part in said, part


def test_a_missed_target_is_called_missed(make_report):
    record = make_report(0)
    review = record.model.criteria.review
    assert review.escape is not None
    worse = replace(review, escape=replace(review.escape, bound=0.02))
    model = replace(record.model, criteria=replace(record.model.criteria, review=worse))
    assert "target 1 %: not met" in text(read(render_run_report(replace(record, model=model))))


@pytest.mark.parametrize("overkill", [None, Rate(0.25, 0.527, 8)])
def test_overkill_that_was_not_measured_is_never_a_figure(make_report, make_process, overkill):
    record = make_report(0)
    criteria = record.model.criteria
    blind = replace(
        criteria,
        review=replace(criteria.review, overkill=overkill),
        reject=replace(criteria.reject, overkill=overkill, threshold=1.0),
    )
    blind_model = replace(record.model, criteria=blind)
    reader = read(render_run_report(replace(record, model=blind_model, process=make_process())))
    said = text(reader)
    assert said.count("not measured: no good picture in the calibration set") == (overkill is None)
    assert said.count("at most 52.7 %, n = 8") == (overkill is not None)
    assert "Criteria review from 0.3127, nothing is rejected without a person" in text(reader, 0)
    assert "Scores of this report’s pictures" in said
    assert "reject from" not in said
    assert "calibrated without a target for overkill" in said
    assert "Below 0.3127 the picture passes, and from there on a person decides." in said


def test_links_lead_to_the_finding_pages(normal):
    record, reader = normal
    targets: dict[str, set[int]] = {}
    for page in reader.pages:
        for reference in page.get("/Annots", ()):
            annotation = reference.get_object()
            assert annotation["/Subtype"] == "/Link"
            assert "/A" not in annotation or annotation["/A"]["/S"] == "/GoTo"
            name = str(annotation.get("/Dest") or annotation["/A"]["/D"])
            number = reader.get_destination_page_number(reader.named_destinations[name])
            targets.setdefault(name, set()).add(number)
    for index, finding in enumerate(record.findings, start=1):
        (number,) = targets[f"finding-{index}"]
        assert finding.reference in text(reader, number)


def test_bookmarks(normal):
    record, reader = normal
    top: list[str] = []
    below: list[str] = []
    for entry in reader.outline:
        (top if isinstance(entry, Destination) else below).extend(
            [str(entry.title)] if isinstance(entry, Destination) else [str(child.title) for child in entry]
        )
    assert [re.sub(r"^\d", "", title).strip() for title in top] == [
        "Reject",
        "Identification",
        "Defect classes",
        "Findings",
        "Not inspected",
        "Criteria in force",
        "What attribution maps can and cannot say",
        "Sign-off",
        "Audit record",
    ]
    assert below == [f"{f.reference} · {f.class_name} · {f.verdict}" for f in record.findings]


def test_metadata_fonts_tags(normal):
    _, reader = normal
    assert reader.metadata is not None
    assert reader.metadata.title == "Inspection report R000012, revision 1"
    assert reader.metadata.author == "Nordhavn Rolling Mills, Quality Assurance"
    assert reader.metadata.creator == "kensa 0.1.0"
    assert str(reader.metadata.creation_date) == "2026-11-23 06:07:07+00:00"
    root: Any = reader.trailer["/Root"]
    assert root["/Lang"] == "en"
    assert root["/MarkInfo"]["/Marked"]
    width, height = (float(side) / 72 * 25.4 for side in reader.pages[0].mediabox[2:])
    assert (round(width), round(height)) == (210, 297)
    families = set()
    for page in reader.pages:
        for font in page["/Resources"]["/Font"].values():
            descendant = font.get_object()["/DescendantFonts"][0].get_object()
            assert any(key.startswith("/FontFile") for key in descendant["/FontDescriptor"])
            families.add(str(descendant["/BaseFont"]).split("+")[1])
    assert families == {"Kensa", "Kensa-Semi-Bold"}


def test_pictures_have_alternative_texts(normal):
    _, reader = normal
    root: Any = reader.trailer["/Root"]
    texts: list[str] = []

    def walk(node: Any) -> None:
        node = node.get_object()
        if isinstance(node, list):
            for child in node:
                walk(child)
        elif isinstance(node, dict):
            if node.get("/S") == "/Figure":
                texts.append(str(node.get("/Alt", "")))
            if "/K" in node:
                walk(node["/K"])

    walk(root["/StructTreeRoot"]["/K"])
    assert all(texts)
    closest = [part for part in texts if re.fullmatch(r"Close-up of the picture from x .* to x .*", part)]
    assert closest
    assert len(texts) == 2 + 4 * (2 + 1 + 6 + 1) + len(closest)
    assert any(part.startswith("Pareto chart of 4 findings") for part in texts)
    assert any(part.startswith("Score 0.4821: review") for part in texts)


@pytest.mark.slow
def test_size_per_finding(make_report):
    sizes = [len(render_run_report(make_report(n))) for n in (1, 5)]
    assert (sizes[1] - sizes[0]) / 4 < 60_000


def test_a_renderer_without_complaints(make_report, caplog):
    with caplog.at_level(logging.WARNING):
        render_run_report(make_report(2))
    assert caplog.records == []


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        (
            {"status": "interrupted", "finished_at": None, "counts": Counts(480, 200, 1, 1, 2)},
            (
                "its status is “interrupted”",
                "276 of 480 listed pictures have no outcome",
                "+ 276 without outcome",
            ),
        ),
        ({"counts": Counts(480, 470, 1, 1, 2)}, ("6 of 480 listed pictures have no outcome",)),
        ({"counts": Counts(3, 3, 1, 1, 2)}, ("The counts do not add up: 7 outcomes for 3", "− 4 too many")),
    ],
)
def test_an_incomplete_run_says_so_on_every_page(make_report, changes, reasons):
    reader = read(render_run_report(make_report(2, **changes)))
    first = text(reader, 0)
    assert "Incomplete run" in first
    assert "must not be used to release a lot" in first
    assert "No verdict" in first
    for reason in reasons:
        assert reason in first
    assert first.index("Incomplete run") < first.index("Identification")
    for page in range(len(reader.pages)):
        assert "Incomplete run" in text(reader, page)
    assert reader.metadata is not None
    assert str(reader.metadata.title).endswith("(incomplete run)")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {
                "counts": Counts(0, 0, 0, 0, 0),
                "unreadable": (),
                "missing_pictures": (),
                "lots": (),
                "stations": (),
            }
            | {"audit_head": None, "organisation": None, "run_id": None, "trigger": None, "host": None},
            (
                "Nothing inspected",
                "0 listed = 0 pass",
                "none listed",
                "cannot be checked against the audit log",
            ),
        ),
        (
            {"counts": Counts(123456, 123456, 0, 0, 0), "unreadable": (), "missing_pictures": ()},
            ("Pass Every listed picture", "123\u202f456 listed", "No picture has a finding"),
        ),
        (
            {
                "counts": Counts(40, 0, 0, 0, 40),
                "unreadable": tuple((f"{i}.png", "the file is empty (0 bytes)") for i in range(40)),
            },
            ("Not inspected in full", "40 pictures could not be read", "39.png"),
        ),
        (
            {"counts": Counts(9, 0, 0, 0, 9), "unreadable": ()},
            ("Named here: 0; the record holds all",),
        ),
        ({"lots": tuple(f"L{i}" for i in range(90)), "counts": Counts(2, 0, 0, 0, 2)}, ("90 lots", "L0, L1")),
    ],
)
def test_empty_and_lopsided_runs(make_report, changes, says):
    said = text(read(render_run_report(make_report(0, **changes)))).replace("\xa0", " ")
    for part in says:
        assert " ".join(part.split()) in " ".join(said.split()), part


def test_findings_beyond_the_limit_are_accounted_for(make_report):
    record = make_report(5, max_finding_pages=2, class_counts=(("scratch", 30), ("pit", 10)))
    said = text(read(render_run_report(record)))
    assert (
        "38 of 40 findings have no page of their own here; those with the highest scores are shown." in said
    )
    assert "kensa findings --run R000012" in said
    assert "R000012-0002 pit" in said
    assert "R000012-0001" not in said
    none = text(read(render_run_report(replace(record, max_finding_pages=0))))
    assert "40 of 40 findings have no page of their own here." in none


def test_a_lost_picture_is_a_marked_gap(make_report, make_finding):
    finding = make_finding(1)
    bare = replace(finding.explanation, masks=(), map_digest=None, status="undefined")
    held = make_finding(3).load()
    record = make_report(
        1,
        findings=(
            replace(finding, load=Held(replace(finding.load(), picture=None))),
            replace(make_finding(2), load=Held(Evidence(picture=b"\x89PNG\r\n\x1a\n cut"))),
            replace(
                make_finding(3),
                explanation=bare,
                load=Held(replace(held, map=None, block_maps=())),
                part=None,
                lot=None,
                station=None,
                captured_at=None,
            ),
        ),
        class_counts=(("scratch", 3),),
    )
    said = text(read(render_run_report(record)))
    assert "The picture is not in the record." in said
    assert "The picture cannot be shown:" in said
    assert "No attribution map: undefined" in said
    assert "There is no attribution map (undefined)." in said


@cache
def _hostile_pdf(
    make_report: Callable[..., RunReport], make_finding: Callable[..., Any]
) -> tuple[RunReport, bytes]:
    findings = []
    for i, bad in enumerate(HOSTILE, start=1):
        finding = make_finding(i, width=32, height=32)
        held = finding.load()
        evil = replace(
            finding.explanation,
            method=bad,
            parameters=((bad, bad),),
            masks=(),
            status="ok" if i % 2 else bad,
            map_digest=bad,
        )
        findings.append(
            replace(
                finding,
                reference=f"{i} {bad}",
                uri=bad,
                class_name=bad,
                part=bad,
                lot=bad,
                station=bad,
                image_digest=bad,
                explanation=evil,
                load=Held(replace(held, block_maps=((bad, held.block_maps[0][1]),))),
            )
        )
    plain = make_report(0)
    every = " ".join(HOSTILE)
    model = replace(
        plain.model, name=every, architecture=every, digest=every, classes=HOSTILE, good_class=every
    )
    record = replace(
        plain,
        number=every,
        title=every,
        organisation=every,
        source=every,
        lots=HOSTILE,
        stations=HOSTILE,
        run_id=every,
        trigger=every,
        host=every,
        status=every,
        status_note=every,
        settings_digest=every,
        software_version=every,
        model=model,
        findings=tuple(findings),
        counts=Counts(99, 1, 1, 1, len(HOSTILE)),
        unreadable=tuple((bad, bad) for bad in HOSTILE),
        missing_pictures=tuple(MissingPicture(evil, "R000012", evil, evil, evil) for evil in HOSTILE),
    )
    return record, render_run_report(record)


def test_hostile_text_is_printed_and_does_nothing(make_report, make_finding, caplog):
    with caplog.at_level(logging.WARNING):
        _, pdf = _hostile_pdf(make_report, make_finding)  # a fetch would raise ReportError
    assert caplog.records == []
    reader = read(pdf)
    said = squeezed(text(reader))
    for shown in (
        "</td><script>alert(1)</script><imgsrc=http://127.0.0.1:9/x>",
        "background:url(file:///etc/passwd)",
        "{{7*7}}{%raw%}${7*7}",
        "abc‹U+202E›gnp.exe‹U+2066›",
        "‹U+0000›‹U+0007›‹U+001B›[31m‹U+000A›",
        "‹U+D800›",
        "&lt;b&gt;&amp;",
        "charactersleftout",
    ):
        assert shown in said, shown
    assert "WWWWWWWWWW" in said
    for page in reader.pages:
        for reference in page.get("/Annots", ()):
            assert "/URI" not in reference.get_object().get("/A", {})


def test_hostile_text_stays_on_the_page(make_report, make_finding):
    reader = read(_hostile_pdf(make_report, make_finding)[1])
    outside: list[tuple[float, str]] = []

    def place(said: str, _cm: Any, matrix: list[float], _font: Any, _size: Any) -> None:
        # WeasyPrint flips the page: x is in px of 0.75 pt under the current matrix
        x = matrix[4] * _cm[0] + _cm[4]
        if said.strip() and not 0 <= x <= 595:
            outside.append((x, said))

    for page in reader.pages:
        page.extract_text(visitor_text=place)
    assert outside == []


@pytest.mark.skipif(
    shutil.which("pdftotext") is None and "CI" not in os.environ,
    reason="pdftotext (poppler-utils) is missing",
)
def test_text_beyond_the_embedded_family_stays_text(make_report, tmp_path):
    # With or without a system font for it. pypdf cannot read the encoding that a missing glyph leads to.
    lot = "検査ロット 😀👩‍🔧"
    file = tmp_path / "report.pdf"
    file.write_bytes(render_run_report(make_report(0, lots=(lot,))))
    said = subprocess.run(["pdftotext", "-raw", file, "-"], capture_output=True, text=True, check=True).stdout
    assert "検査ロット" in squeezed(said)
    assert "😀" in said
    assert "480 listed" in " ".join(said.split())


def test_hostile_text_reaches_no_markup(make_report, make_finding):
    document = compose_run(_hostile_pdf(make_report, make_finding)[0])
    html = "".join(print_job(job).html for job in cut(document, Path()))
    assert "<script" not in html
    assert 'onload="' not in html
    assert set(re.findall(r'src="([^"]*?)[0-9]', html)) == {"kensa:findings/"}


@pytest.mark.slow
def test_same_record_same_bytes_in_other_processes():
    code = (
        "import sys, hashlib, importlib.util as u\n"
        "spec = u.spec_from_file_location('records', sys.argv[1])\n"
        "records = u.module_from_spec(spec); spec.loader.exec_module(records)\n"
        "from tests.reports.rendering import render_run_report\n"
        "print(hashlib.sha256(render_run_report(records.report(2))).hexdigest())\n"
    )
    records = str(Path(__file__).parents[1] / "conftest.py")
    digests = set()
    for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo")):
        done = subprocess.run(
            [sys.executable, "-c", code, records],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_another_record_gives_other_bytes(make_report):
    assert render_run_report(make_report(0)) != render_run_report(make_report(0, revision=2))


def test_few_classes_get_a_line_or_a_table_instead_of_a_chart(make_report):
    record = make_report(7)
    for names, sentence in (
        (("crack",), "All 7 findings are of class “crack”: from page"),
        (("crack", "pit"), "crack 4 57.1 % 57.1 %"),
    ):
        findings = tuple(
            replace(each, class_name=names[i % len(names)]) for i, each in enumerate(record.findings)
        )
        reader = read(render_run_report(replace(record, findings=findings)))
        said = text(reader)
        assert sentence in said
        assert "cumulative" not in said  # the right-hand axis of the chart
        assert "Findings by class" not in said


FURTHER = ", and further ones: the attached listing names all."


def test_the_first_page_names_the_rejected_parts(make_report):
    record = make_report(40)
    first = text(read(render_run_report(record)), 0)
    rejected = [each.part for each in record.findings if each.verdict == "reject"]
    assert len(rejected) == 24
    assert f"Rejected. {', '.join(rejected[:12])} and 12 more." in first
    assert rejected[12] not in first


@pytest.mark.parametrize(("rejected_pictures", "end"), [(3, "."), (4, FURTHER)])
def test_rejected_parts_without_a_serial_are_named_by_their_file(make_report, rejected_pictures, end):
    record = make_report(2)
    rejected = next(each for each in record.findings if each.verdict == "reject")
    also = replace(rejected, reference="R000012-0009", class_name="patch")
    other = replace(rejected, reference="R000012-0010", part=None, uri="a.png", also=("b.png (part P-7)",))
    record = replace(
        record,
        findings=(rejected, also, other),
        class_counts=(("scratch", 9),),  # the others are reviews, which this line does not name
        counts=Counts(480, 474 - rejected_pictures, 4, rejected_pictures, 2),
    )
    first = text(read(render_run_report(record)), 0)
    assert f"Rejected. {rejected.part}, a.png{end} Some pictures were listed under several names" in first


def test_a_report_without_a_rejected_picture_names_none(make_report):
    record = make_report(1)
    assert record.counts.reject == 0
    assert "Rejected" not in text(read(render_run_report(record)), 0)
