"""Runs that were interrupted, or that two processes want."""

import csv
import io
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from pypdf import PdfReader

from configs.loading import load_settings
from db.engine import open_database
from db.errors import RunBusy
from db.queries.runs import run_images
from db.verification.walk import verify
from operations.inspection.run import SYSTEM, open_inspection
from operations.reporting.run_report import issue_report
from reports.attachments.manifest import LISTING, read_attached


@pytest.fixture
def inbox(tmp_path: Path, pictures: Path) -> Path:
    """A copy of the line's pictures, to take some away."""
    return Path(shutil.copytree(pictures, tmp_path / "inbox"))


def report_text(pdf: bytes) -> str:
    return " ".join(" ".join(page.extract_text().split()) for page in PdfReader(io.BytesIO(pdf)).pages)


def issued(inspection) -> bytes:
    with open_database(inspection.settings.database.url) as database:
        made = issue_report(
            database, inspection.store, inspection.run.id, inspection.settings.report, actor=SYSTEM
        )
        assert verify(database, artifacts=inspection.store).problems == ()
    return made.path.read_bytes()


def test_a_run_ends_though_a_recorded_picture_is_gone_and_its_report_says_so(make_line, inbox, inspect_all):
    line = make_line(source={"uri": str(inbox)})
    begun, _ = inspect_all(line.config, stop_after=2)
    with open_database(line.database_url) as database, database.session() as session:
        gone, *_ = (image.uri for image in run_images(session, begun.run.id))
    (inbox / gone).rename(inbox.with_name("moved.png"))
    resumed, result = inspect_all(line.config)
    assert resumed.run.id == begun.run.id
    # The manifest names it, but it is not missing: it was inspected.
    assert (result.counts.listed, result.counts.missing, result.gone) == (24, 0, 1)
    pdf = issued(resumed)
    text = report_text(pdf)
    assert "Incomplete" not in text
    assert "1 picture was inspected before the run was interrupted, and no longer in the source" in text
    assert gone in text
    rows = list(csv.DictReader(io.StringIO(read_attached(pdf).files[LISTING].decode())))
    assert [row["uri"] for row in rows if row["gone_at_end"] == "yes"] == [gone]
    assert len(rows) == 24


def test_a_run_ends_though_include_was_narrowed(make_line, inbox, inspect_all):
    line = make_line(source={"uri": str(inbox), "manifest": None})
    inspect_all(line.config, stop_after=2)
    _, result = inspect_all(line.config, ['source.include=["images/L002/*"]'])
    lots = {lot: len(list((inbox / "images" / lot).glob("*.png"))) for lot in ("L001", "L002")}
    assert result.gone == min(10, lots["L001"])
    assert result.counts.listed == lots["L002"] + result.gone


def test_an_undisturbed_report_has_nothing_of_it(make_line, inspect_all):
    inspection, result = inspect_all(make_line().config)
    pdf = issued(inspection)
    assert result.gone == 0
    assert "gone at the end" not in report_text(pdf)
    assert "gone_at_end" not in read_attached(pdf).files[LISTING].decode()


def test_a_second_run_over_the_same_source_leaves_or_waits(make_line):
    line = make_line()
    leaving = load_settings(line.config, [])
    waiting = load_settings(line.config, ["run.when_busy=wait"])
    with ExitStack() as first:
        run = first.enter_context(open_inspection(leaving, "manual")).run
        with pytest.raises(RunBusy, match="at run R000001 over"), open_inspection(leaving, "manual"):
            pass
        other = load_settings(line.config, ["explainer.mu=0.5"])
        with open_inspection(other, "manual") as beside:
            assert beside.run.reference == "R000002"
        told = []

        def end_first(sentence: str) -> None:
            told.append(sentence)
            first.close()

        with open_inspection(waiting, "manual", waiting=end_first) as second:
            assert (second.run.id, second.run.resumed) == (run.id, True)
    assert len(told) == 1
    # The setting changes nothing about what is decided.
    assert leaving.decision("float32") == waiting.decision("float32")
