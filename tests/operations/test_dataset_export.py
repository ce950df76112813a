"""Which labels decisions make, and which pictures can have none; no picture, no database."""

from dataclasses import replace

import pytest

from configs.loading import ConfigError
from db.chain.events import Head
from db.queries.reviewed import ReviewedFinding, ReviewedPicture, _grouping_column
from operations.dataset_export import _grouping, _labels


class Decided:
    """A decision that is in effect, as far as `ReviewedFinding.decided` looks."""

    state = "in effect"


def finding(class_name: str, label: str | None = None, *, decided: bool = True) -> ReviewedFinding:
    return ReviewedFinding(
        reference=f"R000001-{class_name}",
        run_reference="R000001",
        class_name=class_name,
        class_score=0.9,
        score=0.9,
        model_digest="",
        settings_digest="",
        task="single-label",
        good_class="good",
        recorded=Head(1, ""),
        history=(Decided(),) if decided else (),
        label=label,
    )


PIT, NO_PIT, PIT_IS_DENT = finding("pit", "pit"), finding("pit"), finding("pit", "dent")
OPEN_PIT, OPEN_DENT = finding("pit", "pit", decided=False), finding("dent", "dent", decided=False)
DENT, NO_DENT = finding("dent", "dent"), finding("dent")


@pytest.mark.parametrize(
    ("findings", "single", "several"),
    [
        ((PIT,), ("pit",), ("pit",)),
        ((NO_PIT,), ("good",), ("good",)),
        ((PIT_IS_DENT,), ("dent",), ("dent",)),
        ((PIT, DENT), "shows dent and pit, and a label of these models holds one class", ("dent", "pit")),
        ((PIT, NO_DENT), ("pit",), ("pit",)),
        ((NO_PIT, NO_DENT), ("good",), ("good",)),
        # two models found the same picture: their findings agree, or do not
        ((PIT, PIT), ("pit",), ("pit",)),
        ((PIT, OPEN_PIT), ("pit",), ("pit",)),
        ((NO_PIT, OPEN_PIT), ("good",), ("good",)),
        ((PIT, NO_PIT), "contradictory decisions about pit", "contradictory decisions about pit"),
        ((PIT_IS_DENT, NO_DENT), *["contradictory decisions about dent"] * 2),
        # one class is enough where a label holds one, but not where it holds all
        ((PIT, OPEN_DENT), ("pit",), "not decided yet: R000001-dent"),
        ((NO_PIT, OPEN_DENT), *["not decided yet: R000001-dent"] * 2),
    ],
)
def test_what_decisions_make_a_label(findings, single, several):
    assert _labels(findings, False, "good") == single
    assert _labels(findings, True, "good") == several
    assert _labels(tuple(reversed(findings)), True, "good") == several


def test_a_good_picture_of_models_without_a_good_class():
    assert _labels((NO_PIT,), True, None) == ()
    with pytest.raises(ConfigError, match="say with --good-class"):
        _labels((NO_PIT,), False, None)


@pytest.mark.parametrize(
    ("columns", "asked", "expected"),
    [
        ((None,), None, ("lot", ())),
        (("lot",), None, ("lot", ("lot",))),
        (("item",), None, ("part", ("item",))),
        (("Part_No", "serial"), None, ("part", ("Part_No", "serial"))),
        (("department",), None, ("lot", ("department",))),  # a word, not a piece of one
        (("item", "batch"), None, ("lot", ("batch", "item"))),  # a lot holds its parts whole
        (("item", None), None, ("lot", ("item",))),
        (("item",), "lot", ("lot", ("item",))),
        ((None,), "part", ("part", ())),
    ],
)
def test_what_a_group_is_follows_the_models(columns, asked, expected):
    findings = tuple(replace(finding("pit", "pit"), grouped_by=column) for column in columns)
    picture = ReviewedPicture("d", "PNG", "a.png", "P1", "L1", None, None, findings)
    assert _grouping([picture], asked) == expected


@pytest.mark.parametrize(
    ("card", "column"),
    [
        ({"training": {"split": {"grouped_by": "item"}}}, "item"),
        ({"training": {"split": {"grouped_by": None}}}, None),
        ({"training": {"split": "item"}}, None),
        ({"training": {}}, None),
        ({}, None),
    ],
)
def test_a_card_is_read_and_not_trusted(card, column):
    assert _grouping_column(card) == column
