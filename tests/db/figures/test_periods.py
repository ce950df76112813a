"""Across runs: which line of a picture counts, and what a period report says of them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.chain.events import head as audit_head
from db.errors import RecordError
from db.figures.changes import changes_of
from db.figures.periods import period_summary, scope_findings, scope_unreadable
from db.figures.scopes import Scope, scope_of
from db.figures.series import period_figures
from db.inspection.missing_images import MissingImage
from db.inspection.outcomes import ImageOutcome
from db.inspection.runs import RunHandle, finish_run
from db.issued.reports import ReportSubject
from db.queries.events import EventFilter, find_events

Plant = Any  # tests/db/conftest.py; test folders are not packages
BEGINNING, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
EVER = Scope(since=BEGINNING, until=END)


class OldEntry(str):
    """A missing picture as kensa recorded it before 0.3: its uri alone."""

    def entry(self) -> str:
        return str(self)


def run_of(plant: Plant, *outcomes: ImageOutcome, missing: Sequence[Any] = (), **settings: Any) -> RunHandle:
    plant.settings |= settings
    run: RunHandle = plant.start()
    plant.record(run, *outcomes)
    finish_run(plant.db, run, actor=plant.actor, missing=missing)
    return run


def test_a_picture_that_two_runs_listed_counts_once_with_its_latest_outcome(plant: Plant) -> None:
    first = run_of(plant, plant.outcome(0), plant.outcome(2, "reject"), plant.outcome(4, "review"))
    # With other settings: 0 is flagged now, 2 passes; 4 was not listed again.
    second = run_of(plant, plant.outcome(0, "review"), plant.outcome(2), batch=9)
    with plant.db.session() as session:
        head = audit_head(session).sequence
        lot = period_summary(session, Scope(lot="L0"))
        ever = period_summary(session, EVER)
        found = scope_findings(session, EVER)
    assert (lot.listings, lot.counts.listed, lot.repeated) == (5, 3, 2)
    assert (lot.counts.passed, lot.counts.review, lot.counts.reject, lot.counts.findings) == (1, 2, 0, 2)
    assert ever == lot  # everything lies in this lot
    assert [(r.reference, r.status, r.listed, r.counted) for r in lot.runs] == [
        ("R000001", "completed", 3, 1), ("R000002", "completed", 2, 2),
    ]  # fmt: skip
    assert [digest for digest, _ in lot.settings] == [second.settings_digest, first.settings_digest]
    assert (lot.lots, lot.parts, len(lot.models)) == (("L0",), 3, 1)
    assert [f.reference for f in found] == ["R000001-0002", "R000002-0001"]  # scores 0.4004 and 0.4
    # Before the second run everything was as the first one found it.
    with plant.db.session() as session:
        ended = [event.sequence for event in find_events(session, EventFilter(run=first.id))]
        then = period_summary(session, EVER, max(ended))
        assert (then.listings, then.counts.reject, then.counts.review) == (3, 1, 1)
        assert [run.reference for run in then.runs] == ["R000001"]
        assert period_summary(session, EVER, head) == ever
        assert [f.reference for f in scope_findings(session, EVER, limit=1, upto=max(ended))] == [
            "R000001-0001"
        ]


def test_the_same_bytes_of_two_parts_are_two_pictures_and_of_one_part_one(plant: Plant) -> None:
    picture = plant.outcome(0)
    other = plant.outcome(0, uri="other.png", part="P0001")
    copied = plant.outcome(0, uri="copy.png")
    run = run_of(plant, picture, other, copied)
    with plant.db.session() as session:
        assert period_summary(session, EVER).counts.listed == 2
        assert period_summary(session, Scope(run=run.id)).counts.listed == 3  # a run accounts for every line


def unread(plant: Plant, number: int) -> ImageOutcome:
    given: ImageOutcome = plant.outcome(
        number, "unreadable", digest=None, format=None, reason="the share was not there"
    )
    return given


def test_a_file_that_could_be_read_once_is_no_longer_unreadable(plant: Plant) -> None:
    run_of(plant, unread(plant, 0), unread(plant, 2), plant.outcome(4), plant.outcome(6, "unreadable"))
    run_of(plant, plant.outcome(0), unread(plant, 2), unread(plant, 4), unread(plant, 6))
    with plant.db.session() as session:
        found = period_summary(session, EVER)
        unreadable = scope_unreadable(session, EVER)
    assert (found.counts.listed, found.counts.passed, found.counts.unreadable, found.repeated) == (4, 2, 2, 4)
    assert [(each.uri, each.reason) for each in unreadable] == [
        ("lot-0/part-0002.png", "the share was not there"), ("lot-0/part-0006.png", "truncated"),
    ]  # fmt: skip


def test_runs_that_broke_and_pictures_that_never_came(plant: Plant) -> None:
    run_of(plant, plant.outcome(0), missing=(OldEntry("late.png"), OldEntry("never.png")))
    run_of(plant, plant.outcome(2, uri="late.png"))
    broken = plant.start(source="line-2")
    with plant.db.session() as session:
        found = period_summary(session, EVER)
        lot = period_summary(session, Scope(lot="L0"))
    assert [(each.run_number, each.image) for each in found.missing] == [(1, MissingImage("never.png"))]
    # Nobody knows of which lot it was: it is said, and charged to none.
    assert (lot.missing, [each.image.uri for each in lot.unplaced]) == ((), ["never.png"])
    assert [(run.reference, run.status) for run in found.runs[2:]] == [(broken.reference, "unfinished")]
    assert [run.reference for run in lot.runs] == ["R000001", "R000002"]
    with plant.db.session() as session:  # a run that was given up is no news in every later period
        later = period_summary(session, Scope(since=found.runs[-1].started_at + timedelta(1), until=END))
    assert later.runs == ()


def test_times_mean_when_a_picture_was_inspected(plant: Plant) -> None:
    taken = BEGINNING - timedelta(days=365)
    run = run_of(plant, plant.outcome(0, captured_at=taken))
    with plant.db.session() as session:
        (line,) = find_events(session, EventFilter(action="image.inspected"))
        just = line.at - timedelta(seconds=5), line.at + timedelta(seconds=5)
        assert period_summary(session, Scope(since=just[0], until=just[1])).counts.listed == 1
        before = period_summary(session, Scope(since=BEGINNING, until=just[0]))
        after = period_summary(session, Scope(since=just[1], until=END))
    assert (before.counts.listed, after.counts.listed, after.runs) == (0, 0, ())
    assert before.models == ()
    assert run.reference == "R000001"


def test_one_part(plant: Plant) -> None:
    run_of(plant, plant.outcome(0, "reject"), plant.outcome(2), plant.outcome(0, uri="again.png"))
    run_of(plant, plant.outcome(0, "review"), batch=9)
    with plant.db.session() as session:
        scope = scope_of(ReportSubject.part("P0000", "L0"))
        found = period_summary(session, scope)
        assert [each.reference for each in scope_findings(session, scope)] == ["R000002-0001"]
        with pytest.raises(RecordError, match="say in which lot part 'P0000' is"):
            period_summary(session, Scope(part="P0000", since=BEGINNING, until=END))
    assert (found.listings, found.counts.listed, found.counts.review) == (3, 1, 1)


@pytest.mark.parametrize(("station", "listed"), [("cam-1", 2), ("cam-2", 1), ("cam-9", 0)])
def test_one_station(plant: Plant, station: str, listed: int) -> None:
    run_of(plant, *(plant.outcome(n) for n in (0, 2, 4)))
    with plant.db.session() as session:
        scope = Scope(lot="L0", station=station)
        assert period_summary(session, scope).counts.listed == listed
        days, _, whole = period_figures(session, scope)
        assert sum(day.inspected for day in days) == whole.inspected == listed


def of(
    lot: str | None, uri: str = "never.png", part: str = "P9", station: str | None = "cam-2"
) -> MissingImage:
    return MissingImage(uri, part, lot, station)


def missing_in(plant: Plant, scope: Scope, upto: int | None = None) -> list[str]:
    with plant.db.session() as session:
        return [each.image.uri for each in period_summary(session, scope, upto).missing]


def test_a_missing_picture_belongs_to_its_lot_and_station_alone(plant: Plant) -> None:
    run_of(plant, plant.outcome(0), missing=(of("L104"), of("L0", "other.png"), of(None, "free.png")))
    assert missing_in(plant, Scope(lot="L0")) == ["other.png"]
    assert missing_in(plant, Scope(lot="L104")) == ["never.png"]
    assert missing_in(plant, Scope(lot="")) == ["free.png"]
    assert missing_in(plant, Scope(lot="L104", station="cam-1")) == []
    assert missing_in(plant, Scope(since=BEGINNING, until=END, station="cam-2")) == [
        "free.png", "never.png", "other.png",
    ]  # fmt: skip
    assert missing_in(plant, Scope(part="P9", lot="L104")) == ["never.png"]
    with plant.db.session() as session:
        announced = period_summary(session, Scope(lot="L104"))
    # The run waited for it: it is a run of the lot, and its model decided about nothing.
    assert [(run.reference, run.listed) for run in announced.runs] == [("R000001", 0)]
    assert (announced.lots, announced.stations, announced.unplaced) == (("L104",), ("cam-2",), ())
    assert (announced.models, announced.settings, announced.counts.missing) == ((), (), 1)


def test_a_picture_that_many_runs_miss_is_missing_once_as_the_latest_has_it(plant: Plant) -> None:
    run_of(plant, plant.outcome(0), missing=(OldEntry("never.png"), of("L0", "again.png", part="")))
    with plant.db.session() as session:
        then = audit_head(session).sequence
    run_of(plant, missing=(of("L0"), of("L0", "again.png")))
    run_of(plant, missing=(of("L0"), of("L0", "again.png", station="cam-1")))
    assert missing_in(plant, Scope(lot="L0")) == ["again.png", "never.png"]
    assert missing_in(plant, Scope(lot="L0"), then) == ["again.png"]
    with plant.db.session() as session:
        found = period_summary(session, EVER)
        changes = changes_of(
            session, ReportSubject.period(since=BEGINNING, until=END), then, audit_head(session).sequence
        )
    assert [each.run_number for each in found.missing] == [3, 3]
    assert changes.missing == 0  # what part they are of is news; that they are missing is not


def test_a_name_that_is_used_again_in_another_lot_is_another_picture(plant: Plant) -> None:
    """Cameras number the pictures of each lot from the start: img_001.png of L104 is not that of L103."""
    uri = "img_001.png"
    first = plant.outcome(0, uri=uri, part="P8", lot="L103")
    run_of(plant, first)
    run_of(plant, missing=(of("L104", uri),))
    assert missing_in(plant, Scope(lot="L104")) == [uri]
    assert missing_in(plant, Scope(part="P9", lot="L104")) == [uri]
    assert missing_in(plant, Scope(part="P8", lot="L103")) == []
    with plant.db.session() as session:
        then = audit_head(session).sequence
    # The next manifests announce the name for another lot, and for another part of the same one.
    run_of(plant, missing=(of("L105", uri),))
    run_of(plant, missing=(of("L104", uri, part="P10"),))
    assert missing_in(plant, Scope(lot="L104")) == [uri, uri]
    assert missing_in(plant, Scope(lot="L105")) == [uri]
    with plant.db.session() as session:
        found = period_summary(session, EVER)
        upto = audit_head(session).sequence
        changes = changes_of(session, ReportSubject.period(lot="L104"), then, upto)
    assert [(each.image.lot, each.image.part, each.run_number) for each in found.missing] == [
        ("L104", "P10", 4), ("L104", "P9", 2), ("L105", "P9", 3),
    ]  # fmt: skip
    assert changes.missing == 1
    # It came, of one of them.
    run_of(plant, plant.outcome(2, uri=uri, part="P9", lot="L104"))
    with plant.db.session() as session:
        left = period_summary(session, EVER).missing
    assert [(each.image.lot, each.image.part) for each in left] == [("L104", "P10"), ("L105", "P9")]


def test_a_picture_of_which_less_was_announced_has_come_as_what_it_turned_out_to_be(plant: Plant) -> None:
    lot_alone = MissingImage("lot.png", lot="L0")
    part_alone = MissingImage("part.png", "P0004", "")
    nothing = MissingImage("station.png", station="cam-2")
    run_of(
        plant,
        missing=(lot_alone, part_alone, nothing, OldEntry("old.png"), MissingImage("kept.png", lot="L9")),
    )
    names = ("kept.png", "lot.png", "old.png", "part.png", "station.png")
    assert missing_in(plant, EVER) == list(names)
    run_of(plant, *(plant.outcome(4, uri=name) for name in names))
    assert missing_in(plant, EVER) == ["kept.png"]  # another lot's has come
    # One that names no part and lot may be any of that name: which one, nobody knows.
    run_of(plant, plant.outcome(6, uri="kept.png", part=None, lot=None))
    assert missing_in(plant, EVER) == ["kept.png"]


def test_what_another_source_holds_under_that_name_has_not_arrived(plant: Plant) -> None:
    run_of(plant, missing=(of("L0"),))
    other = plant.start(source="line-2")
    plant.record(other, plant.outcome(0, uri="never.png", part="P9"))
    finish_run(plant.db, other, actor=plant.actor)
    assert missing_in(plant, Scope(lot="L0")) == ["never.png"]
    run_of(plant, plant.outcome(2, uri="never.png", part="P9"))
    assert missing_in(plant, Scope(lot="L0")) == []
