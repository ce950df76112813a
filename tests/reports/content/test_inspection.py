"""The record refuses what a report must not say, and picks what it prints."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from reports.content.base import Counts, Criteria, Criterion
from reports.content.finding import Evidence
from reports.errors import ReportError
from reports.style import Style


def test_counts_add_up_or_leave_a_remainder():
    assert Counts(10, 4, 3, 2, 1).unaccounted == 0
    assert Counts(10, 4, 3, 0, 1).unaccounted == 2
    assert Counts(3, 4, 0, 0, 0).unaccounted == -1
    with pytest.raises(ReportError, match=r"counts\.review"):
        Counts(1, 1, -1, 1, 0)


def test_complete_needs_status_time_and_accounting(make_report):
    record = make_report(1)
    assert record.complete
    assert not replace(record, status="failed").complete
    assert not replace(record, finished_at=None).complete
    assert not replace(record, counts=replace(record.counts, passed=0)).complete


def test_naive_times_are_refused(make_report, make_finding):
    with pytest.raises(ReportError, match="started_at"):
        replace(make_report(0), started_at=datetime(2026, 1, 1))
    with pytest.raises(ReportError, match="captured_at"):
        replace(make_finding(1), captured_at=datetime(2026, 1, 1))


def test_unknown_zone_names_the_remedy():
    assert Style().tzinfo is UTC
    for name in ("Mars/Olympus", "../etc/passwd", ""):
        with pytest.raises(ReportError, match="IANA"):
            Style(zone=name)


def test_thresholds_in_order():
    with pytest.raises(ReportError, match="review <= reject"):
        Criteria(Criterion(0.9), Criterion(0.2))


@pytest.mark.parametrize(
    "bad", [np.full((2, 2), 1.5), np.full((2, 2), np.nan), np.zeros((0, 3)), np.zeros((2, 2, 2))]
)
def test_maps_are_checked(bad):
    with pytest.raises(ReportError, match="fused map"):
        Evidence(map=bad)
    with pytest.raises(ReportError, match=r"layer4"):
        Evidence(block_maps=(("layer4", bad),))


def test_scores_are_probabilities(make_finding):
    with pytest.raises(ReportError, match="class_score"):
        replace(make_finding(1), class_score=1.2)


def test_more_findings_than_counted_is_refused(make_report):
    with pytest.raises(ReportError, match="add up to 1"):
        make_report(2, class_counts=(("scratch", 1),))


def test_repeated_reference_is_refused(make_report, make_finding):
    with pytest.raises(ReportError, match="R000012-0001"):
        make_report(1, findings=(make_finding(1), make_finding(1)))


def test_more_unreadable_named_than_counted_is_refused(make_report):
    with pytest.raises(ReportError, match="unreadable"):
        make_report(0, counts=Counts(5, 5, 0, 0, 0))


def test_classes_fall_in_number_and_ties_rise_by_name(make_report):
    record = make_report(0, class_counts=(("b", 2), ("none", 0), ("c", 5), ("a", 2)))
    assert record.findings_by_class == (("c", 5), ("a", 2), ("b", 2))
    assert record.findings_total == 9
    assert dict(make_report(5).findings_by_class) == {"scratch": 2, "pit": 1, "inclusion": 1, "patch": 1}


def test_limit_keeps_the_highest_scores_in_the_records_order(make_report):
    record = make_report(5)  # scores 0.48 1.00 0.65 0.88 0.96
    kept = replace(record, max_finding_pages=3).printed_findings
    assert [finding.reference[-1] for finding in kept] == ["2", "4", "5"]
    assert replace(record, max_finding_pages=0).printed_findings == ()
    assert record.printed_findings == record.findings
