"""What a report says, word by word."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import wording
from reports.compose.inspection import conclude, incomplete_reasons
from reports.compose.map_trust import judge_map
from reports.content.base import Counts, MissingPicture
from reports.content.finding import Explanation
from reports.style import Style


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("P-100.png", "P-100.png"),
        ("Blech 7, Größe 3 µm, 検査, 😀", "Blech 7, Größe 3 µm, 検査, 😀"),
        ("a\u202egnp.exe", "a‹U+202E›gnp.exe"),
        ("a\x00b\nc\x85", "a‹U+0000›b‹U+000A›c‹U+0085›"),
        ("\u2066x\u2069\u200b\ufeff", "‹U+2066›x‹U+2069›‹U+200B›‹U+FEFF›"),
        ("\udc80", "‹U+DC80›"),
        ("می\u200cشود", "می\u200cشود"),
    ],
)
def test_clean(text, shown):
    assert wording.clean(text) == shown


@given(st.text())
def test_clean_text_is_harmless_and_stays_so(text):
    cleaned = wording.clean(text)
    assert wording.clean(cleaned) == cleaned
    cleaned.encode("utf-8")
    assert not any(char < " " or "\u202a" <= char <= "\u202e" for char in cleaned)


def test_clip_says_what_is_missing():
    assert wording.clip("a" * 60, 60) == "a" * 60
    assert (
        wording.clip("a" * 9_000 + "z" * 1_000, 60) == f"{'a' * 40} […9940 characters left out…] {'z' * 20}"
    )


def test_numbers():
    assert [wording.grouped(n) for n in (0, 9999, 10000, 1234567)] == [
        "0",
        "9999",
        "10\u202f000",
        "1\u202f234\u202f567",
    ]
    assert wording.plural(1, "picture") == "1 picture"
    assert wording.plural(2, "entry", "entries") == "2 entries"
    assert [wording.percent(v) for v in (0, 0.0042, 0.01, 0.125, 0.0999, 0.9999, 1)] == [
        "0 %",
        "0.42 %",
        "1 %",
        "12.5 %",
        "10.0 %",
        "99.99 %",
        "100 %",
    ]
    assert wording.percent(0.5, 1) == "50.0 %"


def test_score_never_seems_to_sit_on_the_other_side_of_a_threshold():
    assert wording.score(0.93124) == "0.9312"
    assert wording.score(0.499996, (0.5,)) == "0.499996"  # four or five decimals would say 0.5
    assert wording.score(0.5, (0.5,)) == "0.5000"
    assert wording.score(0.9999999) == "> 0.9999"
    assert wording.score(0.0000001) == "< 0.0001"
    assert (wording.score(0.0), wording.score(1.0)) == ("0.0000", "1.0000")


def test_times():
    moment = datetime(2026, 11, 23, 10, 23, 19, tzinfo=UTC)
    assert wording.when(moment, Style(zone="Asia/Tokyo")) == "2026-11-23 19:23:19 +09:00"
    assert wording.when(moment, Style(zone="America/St_Johns")) == "2026-11-23 06:53:19 -03:30"
    danish = Style(zone="Europe/Copenhagen", date_format="%d.%m.%Y")
    assert wording.when(moment, danish) == "23.11.2026 11:23:19 +01:00"
    assert wording.day(datetime(2026, 11, 23, 23, 30, tzinfo=UTC), danish) == "24.11.2026"
    assert wording.second(moment.astimezone(danish.tzinfo)) == "2026-11-23 10:23:19Z"
    assert wording.lasting(timedelta(seconds=3.21)) == "3.2 s"
    assert wording.lasting(timedelta(seconds=401.2)) == "6 min 41 s"
    assert wording.lasting(timedelta(seconds=7384)) == "2 h 03 min 04 s"


@pytest.mark.parametrize(
    ("counts", "missing", "status", "tone"),
    [
        ((5, 5, 0, 0, 0), 0, "completed", "pass"),
        ((5, 4, 1, 0, 0), 0, "completed", "review"),
        ((5, 3, 1, 1, 0), 2, "completed", "reject"),
        ((5, 4, 0, 0, 1), 0, "completed", "gaps"),
        ((5, 5, 0, 0, 0), 1, "completed", "gaps"),
        ((5, 0, 0, 0, 5), 0, "completed", "gaps"),
        ((0, 0, 0, 0, 0), 0, "completed", "nothing"),
        ((5, 5, 0, 0, 0), 0, "failed", "incomplete"),
        ((5, 4, 0, 0, 0), 0, "completed", "incomplete"),
        ((5, 6, 0, 0, 0), 0, "completed", "incomplete"),
    ],
)
def test_conclusion(make_report, counts, missing, status, tone):
    record = make_report(
        0,
        counts=Counts(*counts),
        missing_pictures=(MissingPicture("x", "R000012"),) * missing,
        unreadable=(),
        status=status,
    )
    conclusion = conclude(record)
    assert conclusion.tone == tone
    assert bool(incomplete_reasons(record)) == (tone == "incomplete")
    if missing:
        assert "never arrived" in conclusion.sentence


def test_the_conclusion_of_an_empty_run_says_what_was_left_out(make_report):
    record = make_report(0, counts=Counts(0, 0, 0, 0, 0), missing_pictures=(), unreadable=())
    assert conclude(record).sentence == "The source held no pictures."
    told = "Nothing was new: the source held 8 pictures, which were inspected by earlier runs."
    assert conclude(record, 8).sentence == told
    assert "1 picture, which was inspected by an earlier run." in conclude(record, 1).sentence
    # Earlier versions said it in the note alone.
    older = replace(record, status_note="8 pictures inspected by earlier runs were not listed again")
    assert conclude(older).sentence == "No picture was listed."


def test_reasons_name_what_is_wrong(make_report):
    record = make_report(
        0, counts=Counts(480, 200, 0, 0, 2), status="interrupted", status_note="killed\nby hand"
    )
    assert incomplete_reasons(record) == [
        "The run did not finish: its status is “interrupted”.",
        "278 of 480 listed pictures have no outcome.",
        "Note: killed by hand",
    ]
    too_many = replace(
        record, status="completed", counts=Counts(1, 2, 0, 0, 0), status_note=None, unreadable=()
    )
    assert incomplete_reasons(too_many) == ["The counts do not add up: 2 outcomes for 1 listed picture."]
    unfinished = replace(too_many, counts=Counts(1, 1, 0, 0, 0), finished_at=None)
    assert incomplete_reasons(unfinished) == ["The run has no time of completion."]


MAP = Explanation("sise", map_digest="ab" * 32)


def test_a_map_of_a_class_that_the_model_doubts_is_a_place_to_look_not_a_finding():
    trust = judge_map(
        replace(MAP, masked_score=0.99, increase=True, drop=0.0), class_score=0.03, defect_score=0.04
    )
    assert trust.word == "A place to look"
    assert "less than even odds" in trust.sentence
    assert "0.0300 to 0.9900" in trust.sentence


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"masked_score": 0.95, "drop": 0.0, "increase": True}, "good", "it rises"),
        (
            {"masked_score": 0.72, "drop": 20.0, "increase": False},
            "good",
            "from 0.9000 to 0.7200, a drop of 20.0 %",
        ),
        ({"masked_score": 0.72}, "good", "a drop of 20.0 %"),
        ({"masked_score": 0.45, "drop": 50.0, "increase": False}, "fair", "surroundings"),
        (
            {"masked_score": 0.09, "drop": 90.0, "increase": False},
            "poor",
            "do not read the outline as the defect",
        ),
        ({}, "none", "not measured"),
        (
            {"masked_score": 0.72, "status": "partial: layer4 gave nothing"},
            "good",
            "20.0 %. The map is partial: layer4 gave nothing. The model",
        ),
        ({"status": "undefined: no positive gradient"}, "none", "no positive gradient"),
        ({"map_digest": None}, "none", "not in the record"),
    ],
)
def test_trust(changes, level, words):
    trust = judge_map(replace(MAP, **changes), class_score=0.9, defect_score=0.95)
    assert trust.level == level
    assert words in trust.sentence


def test_words_about_a_map_claim_no_more_than_was_measured():
    kept = replace(MAP, masked_score=0.95, drop=0.0, increase=True)
    for share, pixels in (
        (0.0144, "only the pixels left where the map is above 0, 1.44 % of the picture"),
        (0.15, "only the top 15 % of the map's pixels left"),
        (None, "only the top 15 % of the map's pixels left"),
    ):
        trust = judge_map(kept, class_score=0.9, defect_score=0.95, kept=share)
        assert trust.word == "Score mostly kept"
        assert pixels in trust.sentence
        assert "Whether these pixels show the defect was not measured" in trust.sentence
        assert "supported" not in trust.sentence
