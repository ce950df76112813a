"""A user's folder: its files win, reach nothing outside it, and their mistakes are told by file and line."""

from io import BytesIO

import pytest
from PIL import Image
from pypdf import PdfReader

from reports.content.inspection import RunReport
from reports.errors import ReportError
from reports.style import Style
from tests.reports.rendering import render_run_report


def said(record: RunReport) -> str:
    reader = PdfReader(BytesIO(render_run_report(record)))
    return " ".join(" ".join(page.extract_text() for page in reader.pages).split())


@pytest.fixture
def plain(make_report, tmp_path):
    def make(date_format: str = "%Y-%m-%d", **files: str | bytes) -> RunReport:
        for name, content in files.items():
            path = tmp_path / name.replace("__", ".")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return make_report(0, style=Style(templates=tmp_path, date_format=date_format))

    return make


def test_logo_address_extra_section_style_and_dates(plain):
    logo = BytesIO()
    Image.new("RGB", (40, 20), "navy").save(logo, "PNG")
    record = plain(
        "%d.%m.%Y",
        logo__png=logo.getvalue(),
        address__html="Valsevej 1<br>DK-4220 <b>Korsør</b>",
        run_extra__html='<section><h2>House rules</h2><p>{{ r.number }} <img src="{{ asset("logo.png") }}" '
        'alt="Seal"> {{ page_of("sign-off") }}</p></section>',
        extra__css="section h2 { color: #003366 }\nbody { background: url(kensa:own/logo.png) no-repeat }",
    )
    text = said(record)
    assert "Valsevej 1 DK-4220 Korsør" in text
    assert (
        text.rindex("What attribution maps can")
        < text.index("House rules R000012")
        < text.rindex("7 Sign-off")
    )
    assert "23.11.2026 06:07:07 +00:00" in text


def test_a_template_by_the_same_name_wins_and_may_build_on_kensas(plain):
    record = plain(
        run_front__html='<p>Before all else: {{ conclusion.word }}</p>{% include "kensa/run_front.html" %}'
    )
    text = said(record)
    assert text.index("Before all else: Not inspected in full") < text.index("Identification")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            {"run_extra__html": "<p>\n{{ r.nothing }}</p>"},
            r"run_extra\.html, line 2: .*no attribute 'nothing'",
        ),
        ({"run_extra__html": "\n\n{% if %}"}, r"run_extra\.html, line 3"),
        ({"run_extra__html": "\n{{ 1 / 0 }}"}, r"run_extra\.html, line 2: ZeroDivisionError"),
        ({"run_extra__html": "{{ r.__class__.__mro__ }}"}, r"run_extra\.html, line 1: SecurityError"),
        ({"run_extra__html": "{{ ''.__class__ }}"}, "SecurityError"),
        ({"run_extra__html": "{{ link.__globals__ }}"}, "SecurityError"),
        ({"run_extra__html": "{% include '../secret.html' %}"}, "leads out of"),
        ({"run_extra__html": "<img alt='' src='{{ asset(\"../secret.png\") }}'>"}, "leads out of"),
        ({"run_extra__html": "<img alt='' src='file:///etc/hostname'>"}, "never fetches"),
        ({"run_extra__html": "<img alt='' src='http://127.0.0.1:9/x.png'>"}, "never fetches"),
        ({"run_extra__html": "<img alt='' src='secret.png'>"}, "never fetches"),
        ({"extra__css": "p { background: url(http://127.0.0.1:9/x) }"}, "never fetches"),
        ({"extra__css": "@import url(file:///etc/hostname);"}, r"extra\.css, line 1: @import"),
        ({"extra__css": "p { color: red }\n}\n"}, r"extra\.css, line 2"),
        ({"extra__css": b"\xff\xfe"}, r"extra\.css is not UTF-8"),
        ({"logo__png": b"x" * 2_000_001}, "larger than 2 MB"),
        (
            {
                "logo__svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/hostname"/></svg>'
            },
            "never fetches",
        ),
    ],
)
def test_mistakes_and_attempts_are_told(plain, tmp_path, files, says):
    (tmp_path.parent / "secret.png").write_bytes(b"secret")
    with pytest.raises(ReportError, match=says):
        render_run_report(plain(**files))


def test_a_link_out_of_the_folder_is_not_followed(plain, tmp_path):
    outside = tmp_path.parent / "outside.html"
    outside.write_text("secret")
    (tmp_path / "run_extra.html").symlink_to(outside)
    with pytest.raises(ReportError, match="leads out of"):
        render_run_report(plain())


def test_a_folder_that_is_not_there_is_an_error(make_report, tmp_path):
    with pytest.raises(ReportError, match=r"is not a folder; correct report\.templates"):
        render_run_report(make_report(0, style=Style(templates=tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"paper": "A3"}, "give 'A4' or 'Letter'"),
        ({"date_format": ""}, "prints no date"),
        ({"date_format": "today"}, "prints no date"),
    ],
)
def test_a_style_that_cannot_be_is_refused(changes, says):
    with pytest.raises(ReportError, match=says):
        Style(**changes)
