"""Reports of every kind: numbers, revisions, looking a file up, people who sign and what is refused."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from db.errors import RecordError
from db.issued.reports import (
    ReportRecord,
    ReportSubject,
    SignOffRecord,
    report_by_artifact,
    report_by_number,
    reports_of,
)
from db.issued.sign_offs import check_sign_offs, sign_report
from db.queries.events import EventFilter, find_events
from db.schema import AuditEvent

Plant = Any  # tests/db/conftest.py; test folders are not packages
MARCH, APRIL = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
FIRST = "R000001-0001"


@pytest.fixture
def line(plant: Plant) -> Plant:
    plant.finished_run(range(4))
    plant.staff()
    return plant


def test_each_subject_has_a_number_of_its_own(line: Plant) -> None:
    subjects = [
        ReportSubject.period(lot="L0"),
        ReportSubject.period(since=MARCH, until=APRIL),
        ReportSubject.period(since=MARCH, until=APRIL, station="cam-1"),
        ReportSubject.finding(FIRST),
        ReportSubject.part("P0001", "L1"),
        ReportSubject.model(line.model.digest),
    ]
    issued = [line.issue(subject, b"report %d" % n) for n, subject in enumerate(subjects)]
    assert [report.number for report in issued] == [
        "P000001", "P000002", "P000003", "D000001", "D000002", "M000001",
    ]  # fmt: skip
    assert [report.kind for report in issued] == ["period"] * 3 + ["finding", "part", "model"]
    assert issued[1].subject.about == {
        "from": "2026-03-01T00:00:00.000000Z",
        "to": "2026-04-01T00:00:00.000000Z",
    }
    again = line.issue(subjects[0], b"more was decided", record_digest="d" * 64, content_digest="c" * 64)
    assert (again.number, again.revision, again.supersedes_id) == ("P000001", 2, issued[0].id)
    assert line.issue(ReportSubject.period(lot="L1"), b"another lot").number == "P000004"
    with line.db.session() as session:
        assert reports_of(session, subjects[0]) == [issued[0], again]
        assert reports_of(session, ReportSubject.period(lot="L9")) == []
        assert report_by_number(session, " p000001 ") == again
        assert report_by_number(session, "P000001", 1) == issued[0]
        assert report_by_number(session, "R000001").kind == "run"
        for digest in (again.artifact_digest, "c" * 64):
            assert report_by_artifact(session, digest) == again
        assert report_by_artifact(session, "d" * 64) is None
        for wrong in ("P000009", "R000009"):
            with pytest.raises(RecordError, match=f"there is no (report|run) {wrong}"):
                report_by_number(session, wrong)
        with pytest.raises(RecordError, match="there is no report P000001 revision 3"):
            report_by_number(session, "P000001", 3)
        said = select(AuditEvent).where(AuditEvent.action == "report.issued")
        events = session.scalars(said.order_by(AuditEvent.sequence)).all()
        assert [event.payload["number"] for event in events][:2] == ["R000001", "P000001"]
        assert events[4].image_digest is not None
    assert again.rendered_digest == "c" * 64
    # The house signs anew each time; what it signs is the same: no new revision.
    same = line.issue(subjects[0], b"signed at another time", content_digest="c" * 64)
    assert same == again
    assert line.verify(artifacts=line.store).ok


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        (ReportSubject.run("R000009"), "there is no run R000009"),
        (ReportSubject.finding("R000001-0009"), "there is no finding 'R000001-0009'"),
        (ReportSubject.part("P0001", None), "there is no part 'P0001' in lot ''"),
        (ReportSubject.model("0" * 64), "there is no model 0000"),
    ],
)
def test_what_is_not_recorded_has_no_report(line: Plant, subject: ReportSubject, told: str) -> None:
    with pytest.raises(RecordError, match=told):
        line.issue(subject, b"about nothing")


def test_a_period_that_says_nothing() -> None:
    for given in ({}, {"since": MARCH}, {"until": MARCH, "station": "cam-1"}):
        with pytest.raises(RecordError, match="a period is a lot, or a time from and a time to"):
            ReportSubject.period(**given)  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="holds no time"):
        ReportSubject.period(since=APRIL, until=MARCH)


def signed(plant: Plant, report: ReportRecord, pdf: bytes, **given: Any) -> SignOffRecord:
    options = {"capacity": "reviewed", "decision": "accept", "signer": plant.staff()[0]} | given
    artifact = plant.store.put(pdf, "report", "application/pdf")
    return sign_report(plant.db, report, artifact=artifact, **options)


def latest(plant: Plant, number: str = "R000001") -> ReportRecord:
    with plant.db.session() as session:
        return report_by_number(session, number)


def test_two_people_sign_one_after_the_other(line: Plant) -> None:
    _, manager = line.staff()
    report = latest(line)
    first = signed(line, report, b"signed once")
    second = signed(
        line, latest(line), b"signed twice", capacity="approved", decision="accept with concession",
        signer=manager, reason=" until the lamp is changed ",
    )  # fmt: skip
    now = latest(line)
    assert now.sign_offs == (first, second)
    assert [(s.number, s.person, s.name, s.role, s.decision) for s in now.sign_offs] == [
        (1, "engineer", "E. Ngineer", "quality-engineer", "accept"),
        (2, "second", "S. Econd", "quality-manager", "accept with concession"),
    ]
    assert second.reason == "until the lamp is changed"
    assert [s.signature["meaning"] for s in now.sign_offs] == ["review", "approval"]
    assert now.latest_digest == second.artifact_digest != now.artifact_digest == report.latest_digest
    with line.db.session() as session:
        for digest in (first.artifact_digest, second.artifact_digest):
            assert report_by_artifact(session, digest) == now
        event = find_events(session, EventFilter(action="report.signed"), limit=1)[0]
    assert (event.actor_id, event.new_value, event.reason) == (
        "second", {"decision": "accept with concession"}, "until the lamp is changed",
    )  # fmt: skip
    assert line.verify(artifacts=line.store).ok


def test_what_may_not_be_signed(line: Plant) -> None:
    _, manager = line.staff()
    report = latest(line)
    for given, told in (
        ({"capacity": "seen"}, "capacity 'seen' is none of reviewed, approved"),
        ({"decision": "maybe"}, "decision 'maybe' is none of accept"),
        ({"decision": "do not accept"}, "do not accept needs a reason"),
        ({"capacity": "approved"}, "'engineer' is quality-engineer and may not approve"),
    ):
        with pytest.raises(RecordError, match=told):
            signed(line, report, b"refused", **given)
    with pytest.raises(RecordError, match="holds no new signature"):
        signed(line, report, b"report of run 1")
    signed(line, report, b"signed once")
    with pytest.raises(RecordError, match="somebody signed meanwhile and nothing was signed"):
        signed(line, report, b"signed beside it", signer=manager)
    with pytest.raises(RecordError, match="'engineer' signed it already: it takes another person"):
        signed(line, latest(line), b"signed again")
    line.issue(ReportSubject.run("R000001"), b"the next revision")
    with line.db.session() as session:
        old = report_by_number(session, "R000001", 1)
    with pytest.raises(RecordError, match="a later revision supersedes it"):
        signed(line, old, b"signed too late", signer=manager)


def test_a_refusal_is_one(line: Plant) -> None:
    given = {"capacity": "approved", "decision": "do not accept", "reason": "blurred"}
    made = signed(line, latest(line), b"signed", signer=line.staff()[1], **given)
    assert made.signature["meaning"] == "refusal"


FORGERIES = {
    "UPDATE report_signature SET decision = 'do not accept'": "what was signed is not what is recorded",
    "UPDATE report_signature SET artifact_digest = (SELECT artifact_digest FROM report)": "what was signed",
    "UPDATE report_signature SET person = 'second'": "names another person or time",
    "UPDATE report_signature SET number = 2": "signature 1 is missing",
    "UPDATE report_signature SET capacity = 'approved'": "who may not approve",
}


@pytest.mark.parametrize("statement", FORGERIES)
def test_a_forged_signature_does_not_hold(line: Plant, attack: Any, statement: str) -> None:
    """Even where the forger's audit trail would be whole: the signatures are derived again by themselves."""
    signed(line, latest(line), b"signed once")
    with line.db.session() as session:
        assert list(check_sign_offs(session)) == []
    attack(statement)
    with line.db.session() as session:
        told = [f"{where}: {message}" for where, message in check_sign_offs(session)]
    assert any(FORGERIES[statement] in message for message in told), told
    assert not line.verify().ok
