"""From a record to the bytes of a PDF."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reports import charts, pictures, wording
from reports.carried import audit_file
from reports.record import FindingPage, RunReport
from reports.weasy import Asset, write_pdf

_FONTS = ("Inter-Regular.otf", "Inter-SemiBold.otf")
_MOST_ROWS = 500  # of pictures named one by one in a table; laying out a long table is slow


@dataclass(frozen=True)
class _Page:
    """A finding with what is drawn for it."""

    finding: FindingPage
    figures: pictures.FindingFigures
    bar: charts.ScoreBar
    trust: wording.Trust
    anchor: str


def render_run_report(record: RunReport) -> bytes:
    """Render a run's report as PDF (A4, tagged). The same record gives the same bytes.

    "The same" holds for the same kensa, its locked libraries and, for characters that the embedded type
    family lacks (CJK, emoji), the same system fonts.

    Raises:
        ReportError: an unknown time zone, or a template that refers to what it was not handed.
    """
    html, assets = compose_run_report(record)
    return write_pdf(html, _style_sheet(), assets, [audit_file(record)])


def compose_run_report(record: RunReport) -> tuple[str, dict[str, Asset]]:
    """Compose a run report's HTML and the assets it refers to."""
    assets: dict[str, Asset] = dict(_font_assets())
    pages = [_page(finding, index, assets) for index, finding in enumerate(record.printed_findings, start=1)]
    environment = _environment()
    html = environment.get_template("run_report.html").render(
        r=record,
        conclusion=wording.conclude(record),
        reasons=wording.incomplete_reasons(record),
        shares=charts.share_bar(record.counts),
        pareto=charts.pareto(record.findings_by_class),
        pages=pages,
        left_out=record.findings_total - len(pages),
        first_of_class=_first_of_class(pages),
        scale=pictures.scale_stops(),
        most_rows=_MOST_ROWS,
        when=partial(wording.when, zone=record.zone),
        good_drop=wording.GOOD_DROP,
        fair_drop=wording.FAIR_DROP,
        dpi=pictures.DPI,
    )
    return html, assets


def _page(finding: FindingPage, index: int, assets: dict[str, Asset]) -> _Page:
    limits = (finding.review_threshold, finding.reject_threshold)
    texts = (wording.score(finding.score, limits), *(wording.threshold(limit) for limit in limits))
    return _Page(
        finding=finding,
        figures=pictures.draw_finding(finding, index, assets),
        bar=charts.score_bar(
            finding.score, finding.class_score, *limits, (texts[0], texts[1], texts[2]), finding.verdict
        ),
        trust=wording.judge_map(finding.explanation, finding.class_score, finding.score),
        anchor=f"finding-{index}",
    )


def _first_of_class(pages: Iterable[_Page]) -> dict[str, str]:
    first: dict[str, str] = {}
    for page in pages:
        first.setdefault(page.finding.class_name, page.anchor)
    return first


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        clip=wording.clip,
        grouped=wording.grouped,
        plural=wording.plural,
        score=wording.score,
        threshold=wording.threshold,
        percent=wording.percent,
        lasting=wording.lasting,
        digest=_digest_lines,
        short=_short,
        iso=_iso,
    )
    return environment


def _harmless(value: object) -> object:
    """Clean whatever a template prints, unless the template itself made it."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return wording.clean(value)
    return "–" if value is None else value


def _digest_lines(digest: str) -> list[str]:
    """Break a digest into lines of 32 characters."""
    text = wording.clip(digest, 128)
    return [text[start : start + 32] for start in range(0, len(text), 32)]


def _short(digest: str) -> str:
    return wording.clean(digest.removeprefix("sha256:"))[:12]


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@cache
def _style_sheet() -> str:
    return files("reports").joinpath("templates/report.css").read_text(encoding="utf-8")


@cache
def _font_assets() -> dict[str, Asset]:
    folder = files("reports").joinpath("fonts")
    return {f"kensa:fonts/{name}": Asset(folder.joinpath(name).read_bytes(), "font/otf") for name in _FONTS}
