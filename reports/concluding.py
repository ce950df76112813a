"""What the first page says first: the verdict in a word, why in a sentence, and what is incomplete."""

from reports.period import PeriodReport
from reports.record import InspectionReport, RunReport
from reports.wording import Conclusion, clip, grouped, plural, was


def conclude(record: RunReport) -> Conclusion:
    """Sum a run up: incomplete before anything else, then the worst of what was found."""
    if not record.complete:
        return _incomplete(record, "The run is incomplete.")
    return _judge(record, "The source held no pictures.")


def conclude_period(record: PeriodReport) -> Conclusion:
    """Sum a period up: runs that broke before anything else, then the worst of what was found."""
    if broken := len(record.broken_runs):
        return _incomplete(record, f"{plural(broken, 'run')} of {len(record.runs)} {_is(broken)} incomplete.")
    return _judge(record, "No picture was inspected in this period.")


def incomplete_reasons(record: RunReport) -> list[str]:
    """Say why a run is incomplete; empty when it is complete."""
    reasons = []
    if record.status != "completed":
        reasons.append(f"The run did not finish: its status is “{clip(record.status, 60)}”.")
    elif record.finished_at is None:
        reasons.append("The run has no time of completion.")
    left = record.counts.unaccounted
    if left > 0:
        reasons.append(
            f"{grouped(left)} of {plural(record.counts.listed, 'listed picture')} {_has(left)} no outcome."
        )
    elif left < 0:
        reasons.append(
            f"The counts do not add up: {grouped(record.counts.decided)} outcomes for "
            f"{plural(record.counts.listed, 'listed picture')}."
        )
    if record.status_note:
        reasons.append(f"Note: {clip(' '.join(record.status_note.split()), 400)}")
    return reasons


def broken_reasons(record: PeriodReport) -> list[str]:
    """Say which runs of a period broke, the first ten by name; empty when none did."""
    reasons = []
    for run in record.broken_runs[:10]:
        ended = (
            "has no time of completion"
            if run.status == "completed" and run.finished_at is None
            else f"has the status “{clip(run.status, 60)}”"
        )
        reasons.append(f"Run {clip(run.number, 24)} {ended}.")
    if left := len(record.broken_runs) - len(reasons):
        reasons.append(f"{plural(left, 'more run')} of the period {_is(left)} incomplete.")
    return reasons


def _gaps(record: InspectionReport) -> list[str]:
    gaps = []
    if record.counts.unreadable:
        gaps.append(f"{plural(record.counts.unreadable, 'picture')} could not be read")
    if record.missing:
        gaps.append(f"{plural(len(record.missing), 'manifest entry', 'manifest entries')} had no picture")
    return gaps


def _also(record: InspectionReport) -> str:
    gaps = _gaps(record)
    return f" {' and '.join(gaps)}." if gaps else ""


def _incomplete(record: InspectionReport, why: str) -> Conclusion:
    counts = record.counts
    found = f"So far {grouped(counts.reject)} rejected, {grouped(counts.review)} for review"
    return Conclusion("incomplete", "No verdict", f"{why} {found}.{_also(record)}")


def _judge(record: InspectionReport, nothing: str) -> Conclusion:
    counts, also = record.counts, _also(record)
    if not counts.listed:
        return Conclusion("nothing", "Nothing inspected", f"{nothing}{also}")
    if counts.reject:
        review = f", {grouped(counts.review)} more {_need(counts.review)} a decision" if counts.review else ""
        return Conclusion(
            "reject",
            "Reject",
            f"{plural(counts.reject, 'picture')} {was(counts.reject)} rejected{review}.{also}",
        )
    if counts.review:
        sentence = (
            f"No picture was rejected; {grouped(counts.review)} {_need(counts.review)} a person’s decision."
        )
        return Conclusion("review", "Review", sentence + also)
    if also:
        sentence = "Every picture that was read passed, but not everything was inspected."
        return Conclusion("gaps", "Not inspected in full", (sentence if counts.passed else "") + also)
    return Conclusion("pass", "Pass", "Every listed picture was read and passed.")


def _need(number: int) -> str:
    return "needs" if number == 1 else "need"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _has(number: int) -> str:
    return "has" if number == 1 else "have"
