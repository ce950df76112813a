"""Period reports and dossiers through the command line: from the record to the page, and recognised again."""

import csv
import io
import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pypdf import PdfReader

from classifiers import load_package
from classifiers.measure.reference import as_json, reference_of
from configs.loading import load_settings
from db.artifacts import ArtifactStore
from db.chain.events import head
from db.dispositions.decide import dispose
from db.engine import open_database
from db.issued.reports import ReportSubject
from db.queries.runs import latest_run
from operations.reporting.issue import Issue
from operations.reporting.run_report import read_run_report
from reports.attachments.manifest import LISTING, RECORD, read_attached
from sources.picture_statistics import PictureStatistics
from tests.line import resaved
from tests.people import quality_engineer

PASSWORD = "blowhole fray crack 1"  # noqa: S105


@pytest.fixture
def line(inspected):
    """A finished run over two lots."""
    return inspected


def issued(line, *arguments):
    """Issue a report; the PDF's bytes, its text, its number, whether the revision is new."""
    said = line.kensa("report", *arguments).stdout
    path, number, revision, state = re.fullmatch(
        r"(.+\.pdf) \(([A-Z]\d{6}) revision (\d+), (.+)\)", said.strip()
    ).groups()
    pdf = Path(path).read_bytes()
    text = " ".join(" ".join(page.extract_text().split()) for page in PdfReader(io.BytesIO(pdf)).pages)
    return pdf, text, number, (int(revision), state == "new revision")


def test_a_lot_is_reported_across_runs_each_picture_once(line, inspect_all, package):
    (lot,) = {row["lot"] for row in line.json("findings")[:1]}
    pdf, text, number, state = issued(line, "period", "--lot", lot)
    assert (number, state) == ("P000001", (1, True))
    attached = read_attached(pdf)
    assert attached.problems == ()
    counts = json.loads(attached.files[RECORD])["record"]["counts"]
    assert counts["listed"] == sum(counts[name] for name in ("passed", "review", "reject", "unreadable"))
    listing = list(csv.DictReader(io.StringIO(attached.files[LISTING].decode())))
    assert len(listing) == counts["listed"]
    assert {row["lot"] for row in listing} == {lot}
    assert f"Period lot {lot}" in text
    assert issued(line, "period", "--lot", lot)[3] == (1, False)
    # Another run over the same pictures lists them again: they count once, and the report says so.
    inspect_all(line.config)
    again, told, _, state = issued(line, "period", "--lot", lot)
    assert state == (2, True)
    assert json.loads(read_attached(again).files[RECORD])["record"]["counts"]["listed"] == counts["listed"]
    assert f"{counts['listed']} further listings are not counted" in told
    assert "Run R000002 ended: completed." in told
    assert "This revision supersedes revision 1." in told


def test_a_broken_run_is_told_first_by_the_report_of_its_day(line, inspect_all):
    inspect_all(line.config, ["explainer.mu=0.1"], stop_after=1)
    day = datetime.now(UTC).date()
    arguments = ("--from", str(day - timedelta(days=1)), "--to", str(day + timedelta(days=2)))
    pdf, text, _, _ = issued(line, "period", *arguments, "--set", "report.timezone=Asia/Tokyo")
    assert (
        f"Period {day - timedelta(days=1)} 00:00:00 +09:00 to {day + timedelta(days=2)} 00:00:00 +09:00"
        in text
    )
    first = " ".join(PdfReader(io.BytesIO(pdf)).pages[0].extract_text().split())
    assert "Run R000002 has the status “interrupted: the run has no end in the record”." in first
    assert "No verdict 1 run of 2 is incomplete." in first
    assert "Incomplete runs" in text  # in the head of the pages that follow
    assert len(json.loads(read_attached(pdf).files[RECORD])["record"]["in_force"]) == 2


def test_a_period_is_a_lot_or_a_time_from_and_to(line):
    assert "give the one or the other" in line.kensa("report", "period", check=2).stderr
    assert (
        "holds no time"
        in line.kensa("report", "period", "--from", "2026-02-01", "--to", "2026-01-01", check=2).stderr
    )
    nothing = issued(line, "period", "--from", "2020-01-01", "--to", "2020-02-01")[1]
    assert "Nothing inspected" in nothing


def test_a_dossier_tells_a_finding_its_part_and_what_people_decided(line):
    row = max(line.json("findings"), key=lambda each: each["score"])  # one that gets a page
    reference, part = row["reference"], row["part"]
    _, before, number, _ = issued(line, "finding", reference.lower())
    assert number == "D000001"
    assert "Disposition. No person has decided about it yet." in before
    with open_database(line.database_url) as database:
        eve = quality_engineer(database, PASSWORD)
        dispose(database, reference, decision="confirm", reason="a <b>scratch</b>", signer=eve)
    _, after, number, state = issued(line, "finding", reference)
    assert (number, state) == ("D000001", (2, True))
    assert "Disposition. Confirm by E. Ve, quality-engineer" in after
    assert "“a <b>scratch</b>”" in after
    assert f"{reference}: confirm by E. Ve." in after
    assert f"in lot {row['lot']}" in after
    _, whole, number, _ = issued(line, "part", part, "--lot", row["lot"])
    assert number == "D000002"
    assert f"Part {part}" in whole
    assert reference in whole
    assert "1 of 1 finding decided" in whole or "Confirm by E. Ve" in whole
    run_pdf, run, _, state = issued(line, "run")
    assert "1 confirmed" in run
    assert "confirm in force a <b>scratch</b> E. Ve, quality-engineer" in run
    assert read_attached(run_pdf).problems == ()


def test_what_there_is_none_of_is_named(line):
    assert (
        "there is no finding 'R000009-0001'"
        in line.kensa("report", "finding", "R000009-0001", check=2).stderr
    )
    assert "there is no part 'nobody'" in line.kensa("report", "part", "nobody", check=2).stderr


@pytest.mark.slow
def test_every_kind_is_recognised_by_verify(line, kensa):
    (row,) = line.json("findings")[:1]
    for arguments in (("period", "--lot", row["lot"]), ("finding", row["reference"]), ("part", row["part"])):
        said = line.kensa("report", *arguments).stdout
        path = said.split(" (", maxsplit=1)[0]
        told = line.kensa("report", "verify", path).stdout
        assert "BROKEN" not in told
        assert "the record knows it" in told
        assert re.search(r"it is report \S+ revision 1, issued on .+, which bears no signature", told)
        stranger = kensa("report", "verify", path).stdout
        assert "not checked" in stranger


def test_paper_templates_and_dates_come_from_the_settings(line, tmp_path):
    folder = tmp_path / "look"
    folder.mkdir()
    (folder / "period_extra.html").write_text("<section id='house'><h2>House rules</h2></section>")
    (folder / "address.html").write_text("Kaiserstraße 1")
    (row,) = line.json("findings")[:1]
    looks = ("report.paper=Letter", f"report.templates={folder}", "report.date_format=%d.%m.%Y")
    overrides = [word for each in looks for word in ("--set", each)]
    pdf, text, _, _ = issued(line, "period", "--lot", row["lot"], *overrides)
    page = PdfReader(io.BytesIO(pdf)).pages[0]
    assert tuple(map(float, page.mediabox[2:])) == pytest.approx((612, 792), abs=0.1)
    assert "House rules" in text
    assert "Kaiserstraße 1" in text
    assert datetime.now(UTC).strftime("%d.%m.%Y") in text


@pytest.fixture(scope="module")
def package_with_reference(package, tmp_path_factory):
    """The untrained package, as if it had been calibrated on darker pictures than the line's."""
    plain = load_package(package)
    dark = [PictureStatistics(0.2 + 0.001 * n, 0.1 + 0.001 * n, 0.8 + 0.01 * n) for n in range(30)]
    scores = np.linspace(0, 1, 30)
    reference = reference_of(dark, scores, scores > 0.5, review=0.4, groups=range(30))
    training = {"calibration": {"reference": as_json(reference)}}
    return resaved(plain, tmp_path_factory.mktemp("reference") / "line", training=training)


def process_of(line):
    """The process that the latest run's report prints."""
    settings = load_settings(line.config, [])
    with open_database(line.database_url) as database, database.session() as session:
        run = latest_run(session)
        what = Issue(ReportSubject.run(run.reference), run.reference, 1, head(session), ())
        store = ArtifactStore(settings.artifacts.uri)
        return read_run_report(session, store, run.id, settings.report, what).process


def test_a_first_run_is_charted_by_stretches_and_compared_with_calibration(
    make_line, inspect_all, package_with_reference
):
    line = make_line(model={"package": str(package_with_reference)})
    inspect_all(line.config)
    process = process_of(line)
    assert process.unit == "stretch"
    assert sum(group.n for group in process.subgroups) == sum(process.scores)
    assert [each.statistic for each in process.own] == ["score", "brightness", "contrast", "sharpness"]
    brightness = process.own[1]
    assert "mean" in brightness.signs
    assert brightness.sample.n == sum(process.scores)
    assert [trend.statistic for trend in process.trends] == ["score", "brightness", "contrast", "sharpness"]
    _, text, _, _ = issued(line, "run")
    assert "Signs of drift against the calibration set: " in text


def test_a_run_is_charted_among_the_runs_before_it(line, inspect_all):
    for step in range(1, 6):  # other settings, so that no outcome is carried over
        inspect_all(line.config, [f"explainer.mu=0.{step}"])
    process = process_of(line)
    assert process.unit == "run"
    assert [group.label for group in process.subgroups] == [f"R{n:06d}" for n in range(1, 7)]
    assert [group.current for group in process.subgroups] == [False] * 5 + [True]
    assert process.own == ()  # the package was calibrated without picture statistics


def test_a_picture_that_was_listed_twice_has_its_findings_once(make_line, inspect_all, pictures, tmp_path):
    """The same bytes under two names are one picture: a report with both names, not a report lost."""
    source = tmp_path / "twice"
    source.mkdir()
    for picture in sorted(pictures.rglob("images/*/*.png"))[:8]:
        shutil.copy(picture, source / picture.name)
        shutil.copy(picture, source / f"again-{picture.name}")
    line = make_line(source={"uri": str(source), "manifest": None}, report={"max_findings": 100})
    inspect_all(line.config)
    pdf, text, _, _ = issued(line, "run")
    printed = json.loads(read_attached(pdf).files[RECORD])["record"]
    assert printed["counts"]["listed"] == 16
    found = {each["reference"]: each for each in printed["findings"]}
    assert len(found) == len(printed["findings"]) == printed["findings_total"]
    for each in found.values():
        assert [each["uri"].removeprefix("again-")] == [name.removeprefix("again-") for name in each["also"]]
    assert "the same picture was listed as well:" in text
    day = datetime.now(UTC).date()
    span = ("--from", str(day - timedelta(days=1)), "--to", str(day + timedelta(days=1)))
    again = json.loads(read_attached(issued(line, "period", *span)[0]).files[RECORD])["record"]
    assert again["counts"]["listed"] == 8
    assert again["class_counts"] == printed["class_counts"]
