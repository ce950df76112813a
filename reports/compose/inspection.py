"""The run report and the period report as documents: what matters, the findings, what may be looked up."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from reports import wording
from reports.attachments.manifest import Supplement, attach
from reports.charts import bars
from reports.compose.process_view import view_process
from reports.content.base import AuditHead
from reports.content.finding import FindingPage
from reports.content.inspection import InspectionReport, RunReport
from reports.content.map_trust import judge_map
from reports.content.period import PeriodReport
from reports.document import Block, Document, FindingPages, finding_anchor
from reports.stats.agreement import CAVEAT
from reports.wording import Conclusion, clip, grouped, plural, was

_INDEX_ROWS = 400  # of the list of findings that are laid out at once, ten pages
MOST_ROWS = 500  # of pictures named one by one in a table; laying out a long table is slow
_SECTIONS = {
    "runs": "Runs",
    "classes": "Defect classes",
    "process": "Process",
    "review": "Decisions by people",
    "findings": "Findings",
    "not-inspected": "Not inspected",
    "criteria": "Criteria in force",
    "maps": "Limits of maps",
    "sign-off": "Sign-off",
    "history": "Revision history",
    "record": "Audit record",
}


def compose_run(record: RunReport, supplement: Supplement | None = None) -> Document:
    """Compose a run's report; `supplement`: what it carries beside what it prints."""
    conclusion = conclude(record)
    lots = record.lots
    lot = f"Lot {wording.clip(lots[0], 36)}" if len(lots) == 1 else wording.plural(len(lots), "lot")
    model = f"Model {wording.clip(record.model.name, 30)} {wording.short_digest(record.model.digest)}"
    criteria = record.model.criteria
    return _compose(
        record,
        "run",
        {
            "conclusion": conclusion,
            "reasons": incomplete_reasons(record),
            "listing": f"--run {record.number}",
            "models": ((record.model, record.settings_digest, record.counts.decided),),
            "process": record.process
            and view_process(record.process, (criteria.review.threshold, criteria.reject.threshold)),
        },
        subject=f"Inspection run {wording.clip(record.number, 40)}: {conclusion.word}",
        alarm=None if record.complete else "Incomplete run",
        head=(lot if lots else "No lot given", model),
        supplement=supplement,
        run_id=record.run_id,
    )


def compose_period(record: PeriodReport, supplement: Supplement | None = None) -> Document:
    """Compose a period's report; `supplement`: what it carries beside what it prints."""
    conclusion = conclude_period(record)
    thresholds = {
        (each.model.criteria.review.threshold, each.model.criteria.reject.threshold)
        for each in record.in_force
    }
    what = _scope(record)
    brief = _scope(record, brief=True)
    return _compose(
        record,
        "period",
        {
            "conclusion": conclusion,
            "reasons": broken_reasons(record),
            "models": tuple((each.model, each.settings_digest, each.pictures) for each in record.in_force),
            "process": record.process
            and view_process(record.process, thresholds.pop() if len(thresholds) == 1 else None),
            "what": what,
            "listing": f"--lot {record.scope.lot}"
            if record.scope.lot is not None
            else "--since TIME --until TIME",
        },
        subject=f"Inspection of {what}: {conclusion.word}",
        alarm=None if record.complete else "Incomplete runs",
        head=(f"{brief[:1].upper()}{brief[1:]}", wording.plural(len(record.runs), "run")),
        supplement=supplement,
    )


def _compose(
    record: InspectionReport,
    kind: Literal["run", "period"],
    own: Mapping[str, Any],
    *,
    subject: str,
    alarm: str | None,
    head: tuple[str, ...],
    supplement: Supplement | None,
    run_id: str | None = None,
) -> Document:
    findings = record.printed_findings
    organisation = record.organisation or "kensa"
    index = finding_index(findings)
    first = first_of_class(findings)
    present = {
        "runs": kind == "period",
        "process": record.process is not None,
        "review": record.review is not None,
        "history": bool(record.revisions),
    }
    names = [name for name in _SECTIONS if present.get(name, True)]
    context = {
        "r": record,
        "organisation": organisation,
        "shares": bars.share_bar(record.counts),
        "pareto": bars.pareto(record.findings_by_class),
        "index": index[:_INDEX_ROWS],
        "left_out": record.findings_total - len(findings),
        "first_of_class": first,
        "most_rows": MOST_ROWS,
        "caveat": CAVEAT,
        "extra": f"{kind}_extra.html",
        # Section 1 is the identification, on the first page itself.
        "number_of": {name: str(number) for number, name in enumerate(names, start=2)},
        "contents": tuple((name, str(number), _SECTIONS[name]) for number, name in enumerate(names, start=2)),
        **own,
    }
    blocks: list[Block | FindingPages] = [Block(f"{kind}_front.html", context)]
    for start in range(_INDEX_ROWS, len(index), _INDEX_ROWS):
        blocks.append(Block("finding_index.html", {"index": index[start : start + _INDEX_ROWS]}))
    if findings:  # otherwise the back follows the front without a new page
        blocks += [FindingPages(findings), Block("inspection_back.html", context)]
    number = wording.clip(record.number, 40)
    broken = f" ({alarm.lower()})" if alarm else ""
    return Document(
        title=f"{wording.clip(record.title, 120)} {number}, revision {record.revision}{broken}",
        reference=record.number,
        revision=record.revision,
        author=wording.clip(organisation, 120),
        subject=subject,
        software_version=wording.clip(record.software_version, 60),
        issued_at=record.issued_at,
        style=record.style,
        alarm=alarm,
        head=(f"{wording.clip(record.number, 24)}, revision {record.revision}", *head),
        foot=foot(organisation, record.audit_head),
        blocks=tuple(blocks),
        attached=attach(
            kind,
            record,
            supplement,
            conclusion=own["conclusion"],
            reasons=own["reasons"],
            checkpoint=None if record.checkpoint is None else record.checkpoint.note,
            run=run_id,
        ),
    )


def foot(organisation: str, head: AuditHead | None) -> str:
    """Write the running foot: who issued the report, and where in the audit log it belongs."""
    written = wording.clip(organisation, 50)
    if head is None:
        return written
    return f"{written}   audit head {wording.grouped(head.sequence)} {wording.short_digest(head.hash)}"


def finding_index(findings: Sequence[FindingPage]) -> tuple[tuple[FindingPage, str, str, str], ...]:
    """List findings with their written scores, how far to trust their maps, and their anchors."""
    return tuple(
        (
            finding,
            wording.score(finding.score, (finding.review_threshold, finding.reject_threshold)),
            judge_map(finding.explanation, finding.class_score, finding.score).word,
            finding_anchor(number),
        )
        for number, finding in enumerate(findings, start=1)
    )


def first_of_class(findings: Sequence[FindingPage]) -> dict[str, str]:
    """Give the anchor of the first finding page of each class."""
    first: dict[str, str] = {}
    for number, finding in enumerate(findings, start=1):
        first.setdefault(finding.class_name, finding_anchor(number))
    return first


def _scope(record: PeriodReport, *, brief: bool = False) -> str:
    """Say what a period report is about; a brief answer names days without their times."""
    scope = record.scope
    at = partial(wording.day if brief else wording.when, style=record.style)
    told = [f"lot {wording.clip(scope.lot, 40)}"] if scope.lot is not None else []
    if scope.since is not None and scope.until is not None:
        told.append(f"{at(scope.since)} to {at(scope.until)}")
    elif scope.since is not None:
        told.append(f"from {at(scope.since)} on")
    elif scope.until is not None:
        told.append(f"before {at(scope.until)}")
    if scope.station is not None:
        told.append(f"station {wording.clip(scope.station, 40)}")
    return ", ".join(told)


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
