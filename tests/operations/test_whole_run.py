"""What of a complete run needs a person."""

from dataclasses import replace

from db.inspection.runs import RunCounts
from operations.inspection.checkpoints import SignedHead
from operations.inspection.run import RunResult
from operations.whole_run import attention_reasons

COUNTS = RunCounts(
    listed=4, passed=2, review=1, reject=1, unreadable=0, carried_over=0, missing=0, findings=2
)
RESULT = RunResult("R000001", "line", COUNTS, inspected_before=8)


def test_a_run_with_findings_alone_needs_nobody() -> None:
    assert attention_reasons(RESULT, SignedHead(9, "key", "notes"), None) == []
    assert attention_reasons(RESULT, None, None) == []


def test_each_gap_is_named() -> None:
    gaps = replace(RESULT, counts=replace(COUNTS, unreadable=2, missing=1), unexplained=1)
    assert attention_reasons(gaps, SignedHead(problem="the folder is full"), None) == [
        "2 unreadable",
        "1 announced and missing",
        "1 finding without an explanation",
        "no checkpoint signed",
    ]
