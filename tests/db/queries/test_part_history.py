"""One part's life in sentences, and what a bad model touched."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.columns import utc_now
from db.errors import RecordError
from db.inspection.missing_images import MissingImage
from db.inspection.runs import ModelRecord, finish_run, register_model
from db.issued.reports import ReportSubject
from db.issued.sign_offs import sign_report
from db.queries.events import EventFilter, find_events, get_event
from db.queries.part_history import KINDS, LifeEntry, PartHistory, part_history
from db.queries.recall import TraceFilter, trace_parts, trace_summary
from db.queries.sentences import evidence_line, sentence

Plant = Any  # tests/db/conftest.py; test folders are not packages
CAPTURED = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)


def life(plant: Plant, serial: str, lot: str | None = None) -> list[PartHistory]:
    with plant.db.session() as session:
        return part_history(session, serial, lot)


def told(entries: tuple[LifeEntry, ...]) -> list[tuple[str, str]]:
    return [(entry.kind, sentence(entry)) for entry in entries]


def test_a_whole_life_in_sentences(plant: Plant) -> None:
    """Plant.fill: picture 1 (P0001) is flagged, confirmed, scrapped; its picture is pruned."""
    plant.fill()
    (part,) = life(plant, "P0001")
    assert (part.serial, part.lot) == ("P0001", "L1")
    sentences = told(part.entries)
    assert [kind for kind, _ in sentences] == [
        "inspected", "finding", "report", "disposition", "disposition", "approval", "pruned", "sign-off",
    ]  # fmt: skip
    assert sentences[0][1] == (
        "kensa inspected lot-1/part-0001.png (station cam-1) in run R000001: review, score 0.400 "
        f"(review from 0.300, reject from 0.700), by model tiny {plant.model.digest[:12]}."
    )
    assert sentences[1][1] == (
        "finding R000001-0001: pit on lot-1/part-0001.png, class score 0.500 "
        "(threshold on the picture's score 0.300); on what the "
        "sise map keeps of the picture the score drops by 37.5 %."
    )
    assert sentences[2][1] == "report R000001 revision 1 was issued; it prints audit head 11."
    assert sentences[3][1] == (
        "E. Ngineer (engineer), quality-engineer, decided confirm on finding R000001-0001: "
        "seen under the lamp. Signed, meaning responsibility."
    )
    assert "in place of the decision before" in sentences[4][1]
    assert "approved the decision scrap on finding R000001-0001: agreed. Signed" in sentences[5][1]
    assert part.entries[3].evidence[0][0] == "signature"
    assert "removed the picture" in sentences[6][1]
    assert "by policy: older than 1 d" in sentences[6][1]


def test_a_finding_on_a_tiled_picture_names_the_maps_of_its_tiles(plant: Plant) -> None:
    plant.record(plant.start(), plant.tiled_outcome(1))
    (part,) = life(plant, "P0001")
    (finding,) = (entry for entry in part.entries if entry.kind == "finding")
    assert "on what the sise map keeps of its strongest tile the score drops by 37.5 %" in sentence(finding)
    texts = [b"tile map 0 of 1", b"tile block 0 of 1", b"tile map 1 of 1", b"tile block 1 of 1"]
    whats = ["map", "block map", "map", "block map"]
    assert finding.evidence == tuple(
        (what, hashlib.sha256(text).hexdigest()) for what, text in zip(whats, texts, strict=True)
    )


def test_each_entry_names_the_evidence_behind_it(plant: Plant) -> None:
    plant.fill()
    (part,) = life(plant, "P0001")
    with plant.db.session() as session:
        for entry in part.entries:
            event = get_event(session, entry.sequence)
            assert (entry.hash, entry.at) == (event.hash, event.at)
            assert evidence_line(entry).startswith(f"audit event {event.sequence} {event.hash[:12]}")
    digest = lambda data: hashlib.sha256(data).hexdigest()  # noqa: E731
    inspected, finding, report = part.entries[:3]
    assert inspected.evidence == (("picture", digest(b"picture 1")), ("model", plant.model.digest))
    assert finding.evidence == (("map", digest(b"map 1")), ("block map", digest(b"block map 1")))
    assert report.evidence[0] == ("report", digest(b"report of run 1"))
    assert evidence_line(finding).endswith(
        f"; map {digest(b'map 1')[:12]}; block map {digest(b'block map 1')[:12]}"
    )


def test_replays_pictures_taken_unreadable_ones_and_outcomes_carried_over(plant: Plant) -> None:
    plant.fill()  # its replay is of the first prediction, picture 0
    (first,) = life(plant, "P0000")
    (replayed,) = (entry for entry in first.entries if entry.kind == "replay")
    assert sentence(replayed) == (
        "S. Econd computed the decision on lot-0/part-0000.png again with kensa test 1: the result is "
        "identical."
    )
    (third,) = life(plant, "P0003")
    assert told(third.entries)[0] == (
        "unreadable", "run R000001 could not inspect lot-1/part-0003.png at station cam-2: truncated.",
    )  # fmt: skip
    again = plant.start(source="line-2")
    copy = replace(plant.outcome(2, "reject"), uri="copy.png", part="P0099", lot="L9", captured_at=CAPTURED)
    plant.record(again, copy)
    (late,) = life(plant, "P0099")
    assert [e.kind for e in late.entries] == ["taken", "finding", "carried over"]
    assert late.entries[0].at == CAPTURED
    assert (
        sentence(late.entries[0]) == "the picture copy.png was taken at station cam-1; it came from line-2."
    )
    assert sentence(late.entries[2]) == (
        "run R000002 listed copy.png at station cam-1 and took over the outcome that the same picture had "
        f"before: reject, score 0.900, by model tiny {plant.model.digest[:12]}."
    )


def test_the_same_serial_in_two_lots(plant: Plant) -> None:
    run = plant.start()
    plant.record(run, plant.outcome(1), plant.outcome(2, part="P0001", lot="L7"), plant.outcome(3, lot=None))
    assert [(p.serial, p.lot) for p in life(plant, "P0001")] == [("P0001", "L1"), ("P0001", "L7")]
    (only,) = life(plant, "P0001", "L7")
    assert [e.facts["uri"] for e in only.entries] == ["lot-0/part-0002.png"]
    assert [p.lot for p in life(plant, "P0003")] == [None]
    with pytest.raises(RecordError, match="'P0001' is not in lot 'L8', but in 'L1', 'L7'"):
        life(plant, "P0001", "L8")


def test_an_unknown_part_gets_the_closest_serials(plant: Plant) -> None:
    plant.record(plant.start(), *(plant.outcome(number) for number in range(5)))
    with pytest.raises(RecordError, match=r"no part 'P00O3' in the record; the closest are .*P0003"):
        life(plant, "P00O3")
    with pytest.raises(RecordError, match=r"no part 'x' in the record$"):
        life(plant, "x")


def test_every_kind_can_be_told() -> None:
    from db.queries.sentences import _TELLERS

    assert set(_TELLERS) == set(KINDS)


def other_model(plant: Plant) -> ModelRecord:
    return register_model(
        plant.db,
        digest=hashlib.sha256(b"other").hexdigest(),
        name="other",
        architecture="resnet10t",
        classes=["good", "scratch", "pit"],
        task="single-label",
        thresholds=None,
        card={},
        actor=plant.actor,
    )


def traced(plant: Plant, **wanted: Any) -> list[str]:
    with plant.db.session() as session:
        return [part.part or "" for part in trace_parts(session, TraceFilter(**wanted))]


def test_what_a_model_touched_with_the_parts_it_let_pass(plant: Plant) -> None:
    plant.finished_run()  # by model tiny: P0000 to P0007
    run = plant.start(model=other_model(plant))
    plant.record(run, plant.outcome(1), plant.outcome(9, "reject"), plant.outcome(8, part=None, lot=None))
    assert traced(plant, model="tiny") == [f"P000{n}" for n in (7, 6, 5, 4, 3, 2, 1, 0)]
    assert traced(plant, model=plant.model.digest[:8], verdict="pass") == ["P0004", "P0000"]
    assert traced(plant, model="other") == ["P0009", "P0001"]
    assert traced(plant, model="tiny", lot="L1", verdict="review") == ["P0005", "P0001"]
    now = utc_now()
    assert traced(plant, model="tiny", since=now) == traced(plant, model="tiny", until=CAPTURED) == []
    assert traced(plant, model="other", since=now - timedelta(hours=1), until=now) == ["P0009", "P0001"]
    with plant.db.session() as session:
        found = trace_parts(session, TraceFilter(model="tiny"))
        second = found[6]
        summary = trace_summary(session, TraceFilter(model="other"))
        everything = trace_summary(session, TraceFilter(model="tiny"))
        with pytest.raises(RecordError, match="there is no model"):
            trace_parts(session, TraceFilter(model="nobody"))
    assert (second.part, second.lot, second.stations, second.verdicts) == (
        "P0001", "L1", ("cam-1",), (("review", 1),),
    )  # fmt: skip
    (picture,) = second.pictures
    assert (picture.uri, picture.digest, picture.run_reference) == (
        "lot-1/part-0001.png", plant.outcome(1).digest, "R000001",
    )  # fmt: skip
    assert [(f.reference, f.class_name) for f in second.findings] == [("R000001-0001", "pit")]
    assert second.last_at == picture.created_at
    assert (summary.parts, summary.pictures, summary.passes, summary.runs, summary.lots) == (2, 3, 2, 1, 1)
    assert (summary.without_part, everything.without_part) == (1, 0)
    assert (everything.parts, everything.pictures, everything.passes, everything.lots) == (8, 8, 2, 2)


def test_a_trace_page_by_page_while_more_is_recorded(plant: Plant) -> None:
    plant.finished_run()
    expected = traced(plant, model="tiny")
    run = plant.start(source="line-2")
    seen: list[str] = []
    cursor = None
    for number in range(20):
        plant.record(run, plant.outcome(100 + number))
        with plant.db.session() as session:
            page = trace_parts(session, TraceFilter(model="tiny"), limit=3, before=cursor)
        if number == 0:
            page, new = page[1:], page[0]
            assert new.part == "P0100"
        if not page:
            break
        seen += [part.part or "" for part in page]
        cursor = page[-1].cursor
    assert seen == expected
    with plant.db.session() as session, pytest.raises(RecordError, match="is no cursor"):
        trace_parts(session, TraceFilter(model="tiny"), before="x")


def test_reports_about_the_part_its_findings_and_its_lot(plant: Plant) -> None:
    plant.finished_run()
    engineer, _ = plant.staff()
    subjects = [
        ReportSubject.period(lot="L1"),
        ReportSubject.finding("R000001-0001"),
        ReportSubject.part("P0001", "L1"),
        ReportSubject.finding("R000001-0002"),  # of another part
        ReportSubject.period(lot="L0"),
    ]
    issued = [plant.issue(subject, b"report %d" % n) for n, subject in enumerate(subjects)]
    pdf = plant.store.put(b"report 1, signed", "report", "application/pdf")
    sign_report(
        plant.db, issued[1], capacity="reviewed", decision="do not accept", reason="blurred", signer=engineer,
        artifact=pdf,
    )  # fmt: skip
    (part,) = life(plant, "P0001")
    entries = [entry for entry in part.entries if entry.kind in ("report", "sign-off")]
    assert [sentence(entry).partition(";")[0] for entry in entries] == [
        "report R000001 revision 1 was issued",
        "report P000001 revision 1 about lot L1 was issued",
        "report D000001 revision 1 about finding R000001-0001 was issued",
        "report D000002 revision 1 about this part was issued",
        "E. Ngineer (engineer), quality-engineer, signed report D000001 revision 1 as reviewed, do not "
        "accept: blurred. Signed, meaning review.",
    ]
    assert entries[-1].evidence[0] == ("report", pdf.digest)
    with plant.db.session() as session:
        (then,) = part_history(session, "P0001", "L1", upto=entries[1].sequence)
    assert then.entries == part.entries[: part.entries.index(entries[1]) + 1]


def test_a_picture_that_never_arrived_is_told_of_its_part(plant: Plant) -> None:
    run = plant.start()
    plant.record(run, plant.outcome(0))
    views = [MissingImage(f"lot-0/{name}.png", "P0000", "L0", "cam-9") for name in ("top", "side")]
    finish_run(plant.db, run, actor=plant.actor, missing=views)
    again = plant.start()
    finish_run(plant.db, again, actor=plant.actor, missing=[*views[:1], MissingImage("x.png", "P77", "L104")])
    (part,) = life(plant, "P0000")
    assert told(part.entries)[1:] == [
        (
            "missing",
            "the manifest of run R000001 announced the picture lot-0/top.png at station cam-9, but it was "
            "not in line-1; 1 later run did not find it either.",
        ),
        (
            "missing",
            "the manifest of run R000001 announced the picture lot-0/side.png at station cam-9, but it was "
            "not in line-1.",
        ),
    ]
    # Of P77 nothing else is known.
    (alone,) = life(plant, "P77")
    assert ([entry.kind for entry in alone.entries], alone.lot) == (["missing"], "L104")
    with plant.db.session() as session:
        before = part_history(session, "P0000", "L0", part.entries[1].sequence)[0].entries
        assert "later run" not in sentence(before[1])
        # The runs that missed it are found by what was announced, not by what only an inspected picture has.
        for wanted in ({"part": "P77"}, {"lot": "L104"}, {"part": "P77", "lot": "L104"}):
            (event,) = find_events(session, EventFilter(**wanted))
            assert (event.action, event.run_id, event.payload["missing"]) == ("run.finished", again.id, 2)
        assert len(find_events(session, EventFilter(station="cam-9"))) == 2
        assert len(find_events(session, EventFilter(station="cam-9", run="R000002"))) == 1
        assert find_events(session, EventFilter(lot="L104", verdict="reject")) == []
    with pytest.raises(RecordError, match="part 'P77' is not in lot 'L0', but in 'L104'"):
        life(plant, "P77", "L0")
