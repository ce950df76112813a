"""Runs that were interrupted, that two processes want, or that nobody will finish."""

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
from db.issued.unreported import unreported_runs
from db.queries.events import EventFilter, find_events
from db.queries.runs import list_runs, run_images
from db.verification.walk import verify
from operations.inspection.run import SYSTEM, open_inspection
from operations.reporting.missing_reports import Late, make_up
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


def test_an_abandoned_run_is_failed_on_record_and_its_report_says_so(make_line, inspect_all, kensa):
    line = make_line()
    abandon = ("run", "--abandon", "-c", line.config)
    begun, _ = inspect_all(line.config, stop_after=2)
    assert "give --reason" in kensa(*abandon, check=2).stderr
    assert "--reason goes with --abandon" in kensa("run", "--reason", "x", "-c", line.config, check=2).stderr
    with open_inspection(load_settings(line.config, []), "manual"):
        busy = kensa(*abandon, "--reason", "camera replaced", check=6).stderr
        assert "another process is at run R000001" in busy
        assert "stop it before" in busy
    said = kensa(*abandon, "--reason", "camera replaced").stdout
    assert "run R000001 ended as failed" in said
    assert "R000001-1.pdf" in said
    assert "nothing to abandon" in kensa(*abandon, "--reason", "again", check=2).stderr
    with open_database(line.database_url) as database, database.session() as session:
        (run,) = list_runs(session)
        (event,) = [e for e in find_events(session, EventFilter()) if e.action == "run.finished"]
    assert (run.status, run.note, run.counts.listed) == ("failed", "abandoned: camera replaced", 10)
    assert (event.reason, event.actor_kind) == ("camera replaced", "human")
    text = report_text((line.folder / "reports" / "R000001-1.pdf").read_bytes())
    assert "Incomplete run" in text
    assert "its status is “failed”" in text
    assert "abandoned: camera replaced" in text
    following, result = inspect_all(line.config)
    assert (following.run.reference, following.run.resumed) == ("R000002", False)
    assert (result.counts.listed, result.counts.carried_over) == (24, 10)
    assert "intact" in kensa("audit", "verify", "-c", line.config).stdout
    assert begun.run.reference == "R000001"


def test_what_an_ended_run_lacks_is_noted_and_made_up_for_by_a_command(
    make_line, inspect_all, kensa, tmp_path
):
    kensa("audit", "keygen", "line", "--out", tmp_path, "--no-passphrase")
    notes = {"checkpoints": str(tmp_path / "notes"), "signing_key": str(tmp_path / "line.key")}
    line = make_line(audit=notes)
    (tmp_path / "notes").mkdir()
    inspect_all(line.config)  # which ends the run, as one that is killed before it signs and renders
    before = line.kensa("audit", "verify").stdout
    assert "intact" in before
    assert "note: ended without its report: R000001; `kensa report missing`" in before
    assert "note: ended without its checkpoint: R000001; `kensa report missing`" in before
    said = line.kensa("report", "missing").stdout
    assert "checkpoint: 27 events signed by line" in said
    assert f"report of run R000001, missing until now: {line.folder / 'reports' / 'R000001-1.pdf'}" in said
    assert "ended without" not in line.kensa("audit", "verify").stdout
    assert "nothing is missing" in line.kensa("report", "missing").stdout


def test_a_full_report_folder_loses_no_report(make_line, inspect_all, kensa):
    line = make_line()
    inspection, _ = inspect_all(line.config)
    folder = line.folder / "reports"
    folder.write_text("no folder, as a full one is none")
    told = line.kensa("report", "missing", check=3).stdout
    assert "report of run R000001 is missing: FileExistsError" in told
    with open_database(line.database_url) as database, database.session() as session:
        assert [run.reference for run in unreported_runs(session)] == ["R000001"]
    folder.unlink()
    line.kensa("report", "missing")
    assert [path.name for path in folder.iterdir()] == ["R000001-1.pdf"]
    assert inspection.run.reference == "R000001"


def test_the_next_start_makes_up_for_runs_of_its_own_inspection(make_line, inspect_all):
    line = make_line()
    inspect_all(line.config)
    inspect_all(line.config, ["name=another", "explainer.mu=0.5"])
    inspect_all(line.config, ["report.enabled=false"])

    def start(*overrides: str) -> Late:
        settings = load_settings(line.config, list(overrides))
        with open_inspection(settings, "manual") as inspection:
            return make_up(
                inspection.database,
                inspection.store,
                settings,
                inspection.signer,
                actor=SYSTEM,
                inspection=settings.name,
                held=inspection.run.kind,
            )

    assert start("report.enabled=false") == Late()
    assert [each.run for each in start().reports] == ["R000001"]
    assert start() == Late()
    with open_inspection(load_settings(line.config, ["name=another", "explainer.mu=0.5"]), "manual"):
        # Its process may be rendering the report of an earlier run just now.
        (busy,) = start("name=another").reports
    assert "may be rendering the report" in (busy.problem or "")
    (made,) = start("name=another").reports
    assert (made.run, made.report.record.number) == ("R000002", "R000002")
