"""A scheduled run that finds nothing new: on record, and no paper."""

from pathlib import Path

import pytest
from pypdf import PdfReader

from configs.loading import load_settings
from operations.inspection import run
from operations.reporting.missing_reports import Late, make_up
from operations.reporting.run_report import issue_report


@pytest.fixture
def signed_line(make_line, kensa, tmp_path):
    """A line that lists what is new, and signs checkpoints."""
    kensa("audit", "keygen", "line", "--out", tmp_path, "--no-passphrase")
    return make_line(
        source={"only_new": True},
        audit={"checkpoints": str(tmp_path / "notes"), "signing_key": str(tmp_path / "line.key")},
    )


def inspect(config: Path, *overrides: str) -> tuple[run.RunResult, bool, bool]:
    """Do what the flow does: the run's result, whether it was signed, whether it got a report."""
    with run.open_inspection(load_settings(config, list(overrides)), "schedule") as inspection:
        settings, opened = inspection.settings, (inspection.database, inspection.store)
        late = make_up(
            *opened,
            settings,
            inspection.signer,
            actor=run.SYSTEM,
            held=inspection.run.kind,
            inspection=settings.name,
        )
        assert late == Late()
        for number, listed in enumerate(inspection.batches(), start=1):
            batch = run.classify(inspection, run.decode(inspection, number, listed))
            run.record(inspection, run.explain(inspection, batch))
        result = run.finish(inspection)
        signed = run.sign(inspection, result)
        assert signed is None or signed.problem is None
        reported = run.wants_report(inspection, result)
        if reported:
            issue_report(*opened, inspection.run.id, settings.report, actor=run.SYSTEM)
        return result, signed is not None, reported


def test_a_run_that_finds_nothing_new_leaves_a_start_and_an_end(signed_line, tmp_path):
    line = signed_line
    assert inspect(line.config)[1:] == (True, True)
    before = len(list((tmp_path / "notes").iterdir()))
    for _ in range(2):
        result, signed, reported = inspect(line.config)
        assert (result.empty, result.inspected_before, signed, reported) == (True, 24, False, False)
        assert result.sentence().endswith("0 unreadable; 24 inspected by earlier runs, not listed again")
    assert len(list((tmp_path / "notes").iterdir())) == before
    assert [path.name for path in (line.folder / "reports").iterdir()] == ["R000001-1.pdf"]
    events = [event["action"] for event in line.json("audit", "log", "--run", "R000003")]
    assert events == ["run.finished", "run.started"]
    # Nobody misses anything, and the checkpoint that comes next covers it.
    assert "nothing is missing" in line.kensa("report", "missing").stdout
    told = line.kensa("audit", "verify").stdout
    assert "ended without" not in told
    assert "not proved: the 6 events after that, chained but not signed yet" in told
    line.kensa("audit", "checkpoint")
    assert "not proved: the event after that" in line.kensa("audit", "verify").stdout  # its own


def test_its_report_is_issued_when_asked_for(signed_line):
    line = signed_line
    inspect(line.config)
    inspect(line.config)
    line.kensa("report", "run", "R000002")
    text = PdfReader(line.folder / "reports" / "R000002-1.pdf").pages[0].extract_text()
    plain = " ".join(text.split())
    assert "Nothing was new: the source held 24 pictures, which were inspected by earlier runs." in plain
    assert "24 more pictures in the source were inspected by earlier runs, and not listed again." in plain
    assert inspect(line.config, "report.empty_runs=true")[1:] == (True, True)
    assert inspect(line.config, "report.empty_runs=true", "report.enabled=false")[1:] == (True, False)


def test_a_first_run_over_nothing_is_signed_so_that_there_is_something_to_verify_against(
    signed_line, tmp_path
):
    line, empty = signed_line, tmp_path / "empty"
    empty.mkdir()
    source = (f"source.uri={empty}", "source.manifest=null")
    assert inspect(line.config, *source)[1:] == (True, False)
    assert "proved: events 1 to " in line.kensa("audit", "verify").stdout
    assert inspect(line.config, *source)[1:] == (False, False)


def test_a_run_that_misses_an_announced_picture_is_reported(signed_line, pictures):
    line = signed_line
    inspect(line.config)
    announced = line.folder / "manifest.csv"
    rows = (pictures / "manifest.csv").read_text().splitlines()
    announced.write_text("\n".join([*rows, rows[1].replace("P000001", "P999999")]))
    result, signed, reported = inspect(line.config, f"source.manifest={announced}")
    assert (result.counts.listed, result.counts.missing) == (0, 1)
    assert (signed, reported) == (True, True)
    # Told once: a schedule would otherwise report it each time until the manifest changes.
    result, signed, reported = inspect(line.config, f"source.manifest={announced}")
    assert (result.counts.missing, result.empty, signed, reported) == (1, True, False, False)
    assert "nothing is missing" in line.kensa("report", "missing").stdout
    announced.write_text("\n".join([*rows, *(rows[1].replace("P000001", f"P99999{n}") for n in (8, 9))]))
    result, signed, reported = inspect(line.config, f"source.manifest={announced}")
    assert (result.counts.missing, result.empty, signed, reported) == (2, False, True, True)
