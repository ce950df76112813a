"""Parts laid out side by side and joined: the same bytes, right numbers, links, bookmarks, no page lost."""

import itertools
import logging
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pikepdf
import pytest
from pypdf import PdfReader

from reports.compose import inspection
from reports.content.finding import Evidence
from reports.document import AttachedFile, Block, Document, FindingPages
from reports.errors import ReportError
from reports.pdf import render as rendering
from reports.pdf.render import render
from reports.style import Style
from tests.reports.rendering import render_run_report

AT = datetime(2026, 11, 23, 6, 0, 4, tzinfo=UTC)


@dataclass(frozen=True)
class Deadly:
    """Evidence that kills the process that loads it, but not the one that the test runs in."""

    mark: Path  # of each death
    spared: int

    def __call__(self) -> Evidence:
        if os.getpid() != self.spared:
            with self.mark.open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return Evidence(picture_gap="The picture was deadly.")


@dataclass(frozen=True)
class DeadlyOnce(Deadly):
    """The same, but the second time all is well."""

    def __call__(self) -> Evidence:
        return Evidence(picture_gap="The second time.") if self.mark.exists() else super().__call__()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_FINDINGS", 2)


def body(folder: Path, **templates: str) -> Style:
    for name, text in templates.items():
        (folder / f"{name}.html").write_text(text)
    return Style(templates=folder)


def document(style: Style, *blocks: Block | FindingPages, **changes: Any) -> Document:
    plain = Document(
        title="Title",
        reference="T000001",
        revision=1,
        author="Author",
        subject="Subject",
        software_version="0.1.0",
        issued_at=AT,
        blocks=blocks,
        style=style,
    )
    return replace(plain, **changes)


def opened(pdf: bytes) -> PdfReader:
    return PdfReader(BytesIO(pdf))


def said(reader: PdfReader, page: int) -> str:
    return " ".join(reader.pages[page].extract_text().split())


@pytest.mark.usefixtures("small_parts")
def test_the_bytes_do_not_depend_on_the_number_of_workers(make_report):
    record = make_report(3)
    assert render_run_report(record, workers=1) == render_run_report(record, workers=2)


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_a_worker_that_dies_is_replaced_and_no_page_is_lost(
    make_report, make_finding, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(rendering, "_TRIES", 2)
    once, always = tmp_path / "once", tmp_path / "always"
    findings = [make_finding(number, width=32, height=32) for number in range(1, 5)]
    findings[0] = replace(findings[0], load=DeadlyOnce(once, os.getpid()))
    record = make_report(4, findings=tuple(findings))
    with caplog.at_level(logging.WARNING):
        reader = opened(render_run_report(record, workers=2))
    assert once.read_text() == "x"
    assert "a process that rendered a report died" in caplog.text
    assert "The second time." in said(reader, 2)
    findings[3] = replace(findings[3], load=Deadly(always, os.getpid()))
    whole = opened(render_run_report(replace(record, findings=tuple(findings)), workers=2))
    assert len(always.read_text()) == 2
    assert "The picture was deadly." in said(whole, 5)
    assert len(whole.pages) == len(reader.pages) == 8


@pytest.mark.usefixtures("small_parts")
def test_numbers_links_and_bookmarks_lead_across_parts(make_report):
    record = make_report(5)
    reader = opened(render_run_report(record))
    place = {
        name: reader.get_destination_page_number(destination)
        for name, destination in reader.named_destinations.items()
    }
    assert [place[f"finding-{n}"] for n in range(1, 6)] == [2, 3, 4, 5, 6]
    for number, finding in enumerate(record.findings, start=1):
        assert f"{finding.reference} {finding.class_name}" in said(reader, place[f"finding-{number}"])
        # The list of findings prints the page that its link leads to.
        part = finding.part or ""
        row = said(reader, 1)[said(reader, 1).index(f"{finding.reference} ") :].split(part)[1]
        assert f" {place[f'finding-{number}'] + 1} " in f" {row.split('R000012-')[0]} "
    for page, shown in enumerate(reader.pages):
        for reference in shown.get("/Annots", ()):
            link = reference.get_object()
            target = place[str(link["/Dest"])]
            assert link["/Contents"] == f"Page {target + 1}"
            assert link["/StructParent"] >= 0
        assert f"Page {page + 1} of {len(reader.pages)}" in said(reader, page)
    nested = [entry for entry in reader.outline if isinstance(entry, list)]
    (below,) = nested
    assert [reader.get_destination_page_number(entry) for entry in below] == [2, 3, 4, 5, 6]
    assert str(reader.outline[reader.outline.index(below) - 1].title).endswith("Findings")


def tagged(element: Any, kinds: tuple[str, ...]) -> Iterator[Any]:
    if isinstance(element, pikepdf.Array):
        for kid in element:
            yield from tagged(kid, kinds)
    elif isinstance(element, pikepdf.Dictionary) and "/S" in element:
        if str(element.S) in kinds:
            yield element
        yield from tagged(element.get("/K", pikepdf.Array()), kinds)


@pytest.mark.usefixtures("small_parts")
def test_the_tag_tree_is_one_and_consistent(make_report):
    with pikepdf.open(BytesIO(render_run_report(make_report(3)))) as pdf:
        root = pdf.Root.StructTreeRoot
        (whole,) = root.K
        assert whole.S == "/Document"
        numbers = pikepdf.NumberTree(root.ParentTree)
        for page in pdf.pages:
            owners = numbers[int(page.obj.StructParents)]
            assert all(owner is None or owner.Pg.objgen == page.obj.objgen for owner in owners)
            for link in page.obj.get("/Annots", ()):
                owner = numbers[int(link.StructParent)]
                assert owner.S == "/Link"
                assert any(
                    isinstance(kid, pikepdf.Dictionary) and kid.Obj.objgen == link.objgen for kid in owner.K
                )
        scopes = {str(head.A.Scope) for head in tagged(whole, ("/TH",))}
        assert scopes == {"/Row", "/Column"}
        levels = [int(str(heading.S)[2:]) for heading in tagged(whole, ("/H1", "/H2", "/H3"))]
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_attached_files_come_back_and_are_associated(make_report, tmp_path):
    files = (
        AttachedFile(
            "kensa-listing.csv",
            "Every picture",
            ("uri,verdict\nä.png,pass\n" * 1000).encode(),
            AT,
            "text/csv",
        ),
        AttachedFile("schema.json", "The schema", b"{}", AT, "application/json", relationship="Supplement"),
    )
    style = body(tmp_path, page="<h1>x</h1>")
    pdf = render(document(style, Block("page.html"), attached=files))
    with pikepdf.open(BytesIO(pdf)) as read:
        assert {name: read.attachments[name].get_file().read_bytes() for name in read.attachments} == {
            file.name: file.data for file in files
        }
        assert [(str(f.F), str(f.AFRelationship)) for f in read.Root.AF] == [
            ("kensa-listing.csv", "/Data"),
            ("schema.json", "/Supplement"),
        ]
        embedded = read.Root.AF[0].EF.F
        assert embedded.Subtype == "/text/csv"
        assert str(embedded.Params.ModDate) == "D:20261123060004Z"


def test_page_numbers_printed_are_right_even_where_printing_them_moves_pages(tmp_path):
    style = body(
        tmp_path,
        first='<p id="a">{{ page_of("b") }} {{ page_of("c") }}</p>'
        '{% if page_of("c") % 2 %}<p style="break-before: page">one more</p>{% endif %}',
        second='<p id="b">b</p><p id="c" style="break-before: page"><a href="{{ link("a") }}">to a</a></p>',
    )
    with pytest.raises(ReportError, match="do not settle"):
        render(document(style, Block("first.html"), Block("second.html")))
    (tmp_path / "first.html").write_text(
        '<p id="a">{{ page_of("b") }} {{ page_of("c") }}</p>'
        '{% if page_of("b") > 50 %}<p style="break-before: page">as many as assumed at first</p>{% endif %}'
    )
    reader = opened(render(document(style, Block("first.html"), Block("second.html"))))
    assert said(reader, 0).startswith("2 3")
    assert len(reader.pages) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{{ page_of("nowhere") }}', "nothing in the document has the id 'nowhere'"),
        ('<a href="{{ link("nowhere") }}">x</a>', "a link leads to 'nowhere', which is nowhere"),
        ('<a href="https://example.com/">x</a>', "a link leads to 'https://example.com/'"),
        ('<p id="same">x</p>', "the id 'same' occurs twice"),
    ],
)
def test_what_leads_nowhere_is_an_error(tmp_path, text, says):
    style = body(tmp_path, page=text)
    with pytest.raises(ReportError) as caught:
        render(document(style, Block("page.html"), Block("page.html")))
    assert says in str(caught.value)


def test_a_document_without_a_page_is_an_error():
    with pytest.raises(ReportError, match="at least one page"):
        render(document(Style(), FindingPages(())))


def test_the_extracted_text_tells_the_story_in_order(make_report):
    record = make_report(3)
    reader = opened(render_run_report(record))
    text = " ".join(said(reader, page) for page in range(len(reader.pages)))
    story = [
        "Inspection report",
        "Reject",
        "1 picture was rejected",
        "480 listed",
        "Identification",
        "Defect classes",
    ]
    for finding in record.findings:
        story += [f"{finding.reference} {finding.class_name}", "What was measured of the map", "Disposition"]
    story += ["Not inspected", "Criteria in force", "Sign-off", "Audit record", "End of report"]
    at = 0
    for part in story:
        assert part in text[at:], part
        at = text.index(part, at) + len(part)


def test_a_long_list_of_findings_is_cut_into_parts(make_report, monkeypatch):
    monkeypatch.setattr(inspection, "_INDEX_ROWS", 2)
    reader = opened(render_run_report(make_report(5)))
    first = reader.get_destination_page_number(reader.named_destinations["finding-1"])
    rows = [re.findall(r"R000012-000\d", said(reader, page)) for page in range(1, first)]
    assert [name[-1] for names in rows for name in names] == ["1", "2", "3", "4", "5"]
    assert [len(names) for names in rows] == [2, 2, 1]
    assert f" {first + 5} " in f"{said(reader, first - 1)} ", "the fifth finding's page"
