"""Every chart drawn by WeasyPrint: what it says is in the page, vector, titled, and links lead somewhere."""

from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from xml.etree import ElementTree

import pytest
from pypdf import PdfReader

from reports.charts import bars
from reports.charts.confusion import confusion_chart
from reports.charts.control import control_chart, trend_chart
from reports.charts.scores import interval_chart, score_histogram
from reports.content.model import Share
from reports.document import Block, Document
from reports.pdf.render import render
from reports.pdf.templates import _environment
from reports.stats.control_chart import Subgroup, p_chart
from reports.stats.drift import Reference, Sample, trend
from reports.style import Style
from tests.reports import verapdf

EVIL = "<script>\u202e&\"'"


def draw(body: str, **context: object) -> str:
    template = f'{{% import "charts.svg" as charts %}}{body}'
    return _environment(None).from_string(template).render(**context)


def drawings() -> dict[str, str]:
    control = p_chart([Subgroup(EVIL, 50, x, current=x == 30) for x in (9, 8, 12, 10, 30)])
    band = Reference(9, 5.0, 1.0, ((0.01, 3.0), (0.25, 4.0), (0.75, 6.0), (0.99, 7.0)))
    samples = [Sample(EVIL, 400, mean, 1.0, 0, 0, mean == 7.0) for mean in (5.0, 5.1, 7.0)]
    return {
        "control_chart": draw("{{ charts.control_chart(c) }}", c=control_chart(control)),
        "control_key": draw("{{ charts.control_key() }}"),
        "trend_chart": draw(
            "{{ charts.trend_chart(c) }}", c=trend_chart(trend(EVIL, band, samples), width=85.0)
        ),
        "trend_key": draw('{{ charts.trend_key("stretch") }}'),
        "score_histogram": draw(
            "{{ charts.score_histogram(c) }}",
            c=score_histogram([("good", (30, 1, 0)), (EVIL, (0, 1, 9))], (0.0, 0.3, 0.6, 1.0), 0.3, 0.9),
        ),
        "interval_chart": draw(
            "{{ charts.interval_chart(c) }}",
            c=interval_chart([(EVIL, Share(1, 9, 0.01, 0.3, 0.25))], "Rates"),
        ),
        "confusion": draw("{{ charts.confusion(c) }}", c=confusion_chart(["good", EVIL], [[30, 1], [2, 9]])),
    }


def test_each_drawing_is_well_formed_titled_and_free_of_what_names_contain():
    for name, markup in drawings().items():
        svg = ElementTree.fromstring(markup.strip())  # noqa: S314  # our own markup
        assert svg.tag == "svg", name
        assert svg.find("title").text.strip(), name
        assert "\u202e" not in markup, name
        assert "<script>" not in markup, name
        sizes = [float(svg.get(side).removesuffix("mm")) for side in ("width", "height")]
        assert [float(value) for value in svg.get("viewBox").split()[2:]] == sizes, name
        assert sizes[0] <= bars.WIDTH, name


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("templates")
    folder.joinpath("charts_of_all_kinds.html").write_text(
        '{% import "charts.svg" as charts %}<h1>Charts</h1>'
        "{% for drawing in drawings %}{{ drawing | safe }}{% endfor %}"
        '{{ charts.pareto(p, {"scratch": link("finding-1"), "pit": link("finding-2")}) }}'
        '<h2 id="finding-1">One</h2><h2 id="finding-2">Two</h2>'
    )
    context = {
        "drawings": list(drawings().values()),
        "p": bars.pareto([("scratch", 6), ("pit", 3), (EVIL, 1)]),
    }
    return render(
        Document(
            title="Charts",
            reference="R000001",
            revision=1,
            author="kensa",
            subject="Charts",
            software_version="0",
            issued_at=datetime(2026, 1, 1, tzinfo=UTC),
            blocks=(Block("charts_of_all_kinds.html", context),),
            style=Style(templates=folder),
        )
    )


@pytest.fixture(scope="module")
def page(drawn: bytes) -> PdfReader:
    return PdfReader(BytesIO(drawn))


@pytest.mark.slow
@verapdf.needed
def test_charts_and_their_links_conform(drawn: bytes) -> None:
    assert verapdf.violations(drawn, "3u", "ua1") == []


def test_the_page_says_what_the_charts_show(page):
    text = " ".join(" ".join(part.extract_text() for part in page.pages).split())
    for said in (
        "present run",
        "within limits",
        "1st to 99th percentile",
        "pictures, logarithmic axis",
        "review from 0.3",
        "11.1 %, 1 % to 30 %",
        "called by the model",
        "cumulative",
    ):
        assert said in text
    assert not any(len(part.images) for part in page.pages), "charts are vectors"


def test_bars_lead_to_the_findings_of_their_class(page):
    links = [
        note.get_object()
        for part in page.pages
        for note in part.get("/Annots", [])
        if note.get_object()["/Subtype"] == "/Link"
    ]
    assert len(links) == 2
    widths = [float(link["/Rect"][2]) - float(link["/Rect"][0]) for link in links]
    assert widths == pytest.approx([148 / 3 * 72 / 25.4] * 2, rel=0.01)
    low = [min(float(link["/Rect"][1]), float(link["/Rect"][3])) for link in links]
    assert low[0] == pytest.approx(low[1], abs=0.1)
    tall = [abs(float(link["/Rect"][3]) - float(link["/Rect"][1])) for link in links]
    assert tall[0] > tall[1], "the link is as tall as the bar and its name"


def test_a_bar_without_a_page_is_no_link():
    pareto = bars.pareto([("scratch", 6)])
    assert "<a " not in draw("{{ charts.pareto(p) }}", p=pareto)
    assert ">scratch<" in draw("{{ charts.pareto(p) }}", p=replace(pareto, title="x"))
