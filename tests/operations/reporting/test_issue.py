"""When a report is issued anew, and what an old one says when it is made again."""

import subprocess
import sys

from argon2 import PasswordHasher

from db.chain.events import Actor
from db.dispositions.decide import dispose
from db.engine import open_database
from db.issued.reports import reports_of
from db.people.people import add_person
from db.people.sign_in import authenticate
from operations.inspection.leftovers import remove_leftovers
from operations.inspection.run import SYSTEM
from operations.reporting.issue import Issue
from operations.reporting.run_report import issue_report, read_run_report

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "blowhole fray crack 1"  # noqa: S105


def test_a_decision_makes_a_new_revision_and_leaves_the_old_one_as_it_was(
    make_line, inspect_all, monkeypatch
):
    # What is rendered does not matter here; that it is the same does.
    monkeypatch.setattr("reports.pdf.render.render", lambda document: repr(document).encode())
    inspection, _ = inspect_all(make_line().config)
    run, store, settings = inspection.run, inspection.store, inspection.settings.report
    with open_database(inspection.settings.database.url) as database:

        def issue():
            return issue_report(database, store, run.id, settings, actor=SYSTEM)

        def as_printed(report):
            with database.session() as session:
                earlier = reports_of(session, report.subject)
                what = Issue(report.subject, report.number, report.revision, report.head, earlier)
                return repr(read_run_report(session, store, run.id, settings, what))

        first, again = issue(), issue()
        assert (first.new, again.new, again.record) == (True, False, first.record)
        assert (first.record.number, first.record.revision) == (run.reference, 1)
        before = as_printed(first.record)
        given = {"password": PASSWORD, "hasher": CHEAP}
        setup = Actor("setup", "human")
        add_person(database, "boss", name="B. Oss", role="administrator", by=setup, **given)
        boss = authenticate(database, "boss", PASSWORD, account=setup, hasher=CHEAP)
        add_person(database, "eve", name="E. Ve", role="quality-engineer", by=boss, **given)
        assert not issue().new  # people are no part of a run
        eve = authenticate(database, "eve", PASSWORD, account=setup, hasher=CHEAP)
        finding = f"{run.reference}-0001"
        dispose(database, finding, decision="confirm", reason="seen", signer=eve)
        second = issue()
        assert (second.new, second.record.revision) == (True, 2)
        assert second.record.supersedes_id == first.record.id
        assert not issue().new
        assert as_printed(first.record) == before
        second_says = as_printed(second.record)
        assert f"{finding}: confirm by E. Ve." in second_says
        assert f"{finding}: confirm" not in before


def test_a_report_whose_process_was_killed_between_record_and_folder_gets_there_with_the_next_run(
    make_line, inspect_all, monkeypatch
):
    monkeypatch.setattr("reports.pdf.render.render", lambda document: repr(document).encode())
    inspection, _ = inspect_all(make_line().config)
    settings = inspection.settings
    with open_database(settings.database.url) as database:
        issued = issue_report(database, inspection.store, inspection.run.id, settings.report, actor=SYSTEM)
        pdf = issued.path.read_bytes()
        # As `written_atomically` leaves it when its process is killed after the commit.
        code = "from db.files import process_name; print(process_name())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        left, other = (
            issued.path.with_name(f".{issued.path.name}.{done.stdout.strip()}-{n:032x}.part") for n in (1, 2)
        )
        issued.path.rename(left)
        other.write_bytes(b"never issued")
        remove_leftovers(settings, database)
        assert list(issued.path.parent.iterdir()) == [issued.path]
        assert issued.path.read_bytes() == pdf
        # What is there is not replaced: it may bear signatures that were added since.
        left.write_bytes(pdf)
        issued.path.write_bytes(b"signed since")
        remove_leftovers(settings, database)
        assert list(issued.path.parent.iterdir()) == [issued.path]
        assert issued.path.read_bytes() == b"signed since"


def test_an_issued_report_is_given_back_whatever_would_be_rendered_today(make_line, inspect_all, monkeypatch):
    inspection, _ = inspect_all(make_line().config)
    with open_database(inspection.settings.database.url) as database:

        def issue(rendered, **options):
            monkeypatch.setattr("reports.pdf.render.render", lambda _: rendered)
            report = inspection.settings.report
            issued = issue_report(
                database, inspection.store, inspection.run.id, report, actor=SYSTEM, **options
            )
            return issued.path.read_bytes(), issued.record.revision, issued.new

        assert issue(b"first look") == (b"first look", 1, True)
        assert issue(b"second look") == (b"first look", 1, False)
        assert issue(b"first look", again=True) == (b"first look", 1, False)
        assert issue(b"second look", again=True) == (b"second look", 2, True)
        assert issue(b"first look") == (b"second look", 2, False)
