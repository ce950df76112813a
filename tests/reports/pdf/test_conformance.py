"""PDF/A-3u and PDF/UA-1 at once, as veraPDF judges."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import pikepdf
import pytest

from reports.compose.dossier import compose_dossier
from reports.compose.inspection import compose_period, compose_run
from reports.content.base import Counts
from reports.content.finding import Decided, Evidence, Held
from reports.content.inspection import RunReport
from reports.pdf import render as rendering
from reports.style import Style
from tests.reports import verapdf
from tests.reports.rendering import render_run_report

pytestmark = [verapdf.needed, pytest.mark.slow]


def without_map(finding: Any) -> Any:
    bare = replace(finding.explanation, masks=(), map_digest=None, status="undefined: no positive gradient")
    return replace(finding, explanation=bare, load=Held(Evidence(picture_gap="The picture was deleted.")))


def test_reports_conform(
    make_report: Callable[..., RunReport],
    make_finding: Callable[..., Any],
    make_process: Callable[..., Any],
    make_period: Callable[..., Any],
    make_dossier: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendering, "_FINDINGS", 2)
    whole = make_report(1)
    at = whole.started_at
    decided = Decided("reclassify", "I. Sørensen", "inspector", at, class_name="pit", reason="HOSTILE <b>")
    findings = (
        make_finding(1, decisions=(decided, replace(decided, approved_by="J. Brandt", approved_at=at))),
        without_map(make_finding(2)),
        make_finding(3, width=900, height=200),
    )
    beyond = ("検査ロット 😀👩‍🔧 ไทย עברית", "a\u202eb\ue000\u0378\ufffe", "ﬁ ﷺ Å", "W" * 5000)
    rich = replace(
        whole,
        findings=findings,
        status="interrupted",
        finished_at=None,
        counts=Counts(480, 200, 1, 1, 2),
        lots=beyond,
        stations=beyond,
        organisation=beyond[0],
        number=" ".join(beyond),
        style=Style(paper="Letter"),
        process=make_process(),
    )
    documents = {
        "rich": compose_run(rich),
        "no finding": compose_run(make_report(0)),
        "period": compose_period(make_period(1)),
        "dossier": compose_dossier(make_dossier()),
    }
    pdfs = [rendering.render(document) for document in documents.values()]
    found = dict(zip(documents, verapdf.violations_of(pdfs, "3u", "ua1"), strict=True))
    assert found == {name: [] for name in documents}


def test_the_validator_finds_what_is_wrong(make_report: Callable[..., RunReport]) -> None:
    with pikepdf.open(BytesIO(render_run_report(make_report(0)))) as pdf:
        del pdf.Root.StructTreeRoot
        del pdf.Root.OutputIntents
        spoilt = BytesIO()
        pdf.save(spoilt)
    found = " ".join(verapdf.violations(spoilt.getvalue(), "3u", "ua1"))
    assert "3u: 6.2.4.3-2" in found
    assert "ua1: 7.1-11" in found
