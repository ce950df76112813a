"""The run report and the period report as documents: what matters, the findings, what may be looked up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from reports.attachments.manifest import Supplement
from reports.charts import bars
from reports.compose.assembly import assemble, numbered_sections
from reports.compose.map_trust import judge_map
from reports.compose.process_view import view_process
from reports.content.finding import FindingPage
from reports.content.inspection import InspectionReport, RunReport
from reports.content.period import PeriodReport
from reports.document import Block, Document, finding_anchor
from reports.stats.agreement import CAVEAT
from reports.wording import Conclusion, clip, day, grouped, plural, score, short_digest, verb, when

_INDEX_ROWS = 400  # of the list of findings that are laid out at once, ten pages
_FEW_CLASSES = 2  # up to which a chart would say no more than a line of text
_REJECTED = 12  # parts that the first page names
MOST_ROWS = 500  # of pictures named one by one in a table; laying out a long table is slow
_SECTIONS = {
    "runs": "Runs",  # of a period report alone
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


@dataclass(frozen=True)
class RejectedParts:
    """The rejected parts that the first page names.

    Attributes:
        named: (serial of the part, or the file where there is none; anchor of its first finding's page).
        left: how many more have a page.
        unprinted: whether further pictures were rejected whose findings have none.
        several_names: whether one of the pictures was listed under several names.
    """

    named: tuple[tuple[str, str], ...]
    left: int
    unprinted: bool
    several_names: bool


def compose_run(record: RunReport, supplement: Supplement | None = None) -> Document:
    """Compose a run's report; `supplement`: what it carries beside what it prints."""
    lots = record.lots
    before = 0 if supplement is None else supplement.inspected_before
    lot = f"Lot {clip(lots[0], 36)}" if len(lots) == 1 else plural(len(lots), "lot")
    return _compose_inspection(
        record,
        "run",
        conclude(record, before),
        incomplete_reasons(record),
        supplement,
        record.model.criteria.limits,
        {
            "listing": f"--run {record.number}",
            "gone": () if supplement is None else supplement.gone,
            "inspected_before": before,
            "unplaced": (),
            "models": ((record.model, record.settings_digest, record.counts.decided),),
        },
        about=f"Inspection run {clip(record.number, 40)}",
        alarm=None if record.complete else "Incomplete run",
        head=(
            lot if lots else "No lot given" if record.counts.listed else "No picture listed",
            f"Model {clip(record.model.name, 30)} {short_digest(record.model.digest)}",
        ),
        run=record.run_id,
    )


def compose_period(record: PeriodReport, supplement: Supplement | None = None) -> Document:
    """Compose a period's report; `supplement`: what it carries beside what it prints."""
    thresholds = {each.model.criteria.limits for each in record.in_force}
    what = _scope_words(record)
    brief = _scope_words(record, brief=True)
    lot = record.scope.lot
    return _compose_inspection(
        record,
        "period",
        conclude_period(record),
        broken_reasons(record),
        supplement,
        thresholds.pop() if len(thresholds) == 1 else None,
        {
            "models": tuple((each.model, each.settings_digest, each.pictures) for each in record.in_force),
            "what": what,
            "gone": (),
            "unplaced": record.missing_unplaced,
            "listing": "--since TIME --until TIME" if lot is None else f"--lot {lot}",
        },
        about=f"Inspection of {what}",
        alarm=None if record.complete else "Incomplete runs",
        head=(f"{brief[:1].upper()}{brief[1:]}", plural(len(record.runs), "run")),
    )


def _compose_inspection(
    record: InspectionReport,
    kind: Literal["run", "period"],
    conclusion: Conclusion,
    reasons: Sequence[str],
    supplement: Supplement | None,
    thresholds: tuple[float, float | None] | None,
    own: Mapping[str, Any],
    *,
    about: str,
    alarm: str | None,
    head: tuple[str, ...],
    run: str | None = None,
) -> Document:
    """Compose what a run's and a period's report have in common, around what is their `own`."""
    findings = record.printed_findings
    index, classes = finding_index(findings), record.findings_by_class
    present = {
        "runs": kind == "period",
        "process": record.process is not None,
        "review": record.review is not None,
        "history": bool(record.revisions),
    }
    context = {
        "reasons": reasons,
        "process": record.process and view_process(record.process, thresholds),
        "shares": bars.share_bar(record.counts),
        "pareto": bars.pareto(classes) if len(classes) > _FEW_CLASSES else None,
        "rejected": rejected_parts(findings, record.counts.reject),
        "index": index[:_INDEX_ROWS],
        "left_out": record.findings_total - len(findings),
        "first_of_class": first_of_class(findings),
        "most_rows": MOST_ROWS,
        "caveat": CAVEAT,
        "extra": f"{kind}_extra.html",
        **numbered_sections(_SECTIONS, present),
        **own,
    }
    return assemble(
        record,
        kind,
        conclusion,
        context,
        supplement,
        about=about,
        head=head,
        templates=(f"{kind}_front.html", "inspection_back.html"),
        findings=findings,
        between=(
            Block("finding_index.html", {"index": index[start : start + _INDEX_ROWS]})
            for start in range(_INDEX_ROWS, len(index), _INDEX_ROWS)
        ),
        after_title=f" ({alarm.lower()})" if alarm else "",
        alarm=alarm,
        reasons=reasons,
        run=run,
    )


def rejected_parts(findings: Sequence[FindingPage], rejected: int) -> RejectedParts:
    """Return what the first page names of the findings that were rejected.

    Args:
        findings: those with a page.
        rejected: how many pictures were rejected in all.
    """
    named: dict[tuple[str | None, str], tuple[str, str]] = {}
    pictures: dict[tuple[str, str, str | None], int] = {}
    for number, finding in enumerate(findings, start=1):
        if finding.verdict == "reject":
            name = finding.part or finding.uri
            named.setdefault((finding.lot, name), (name, finding_anchor(number)))
            pictures[finding.image_digest, finding.uri, finding.part] = 1 + len(finding.also)
    each = tuple(named.values())
    shown = each if len(each) == _REJECTED + 1 else each[:_REJECTED]  # the name is as short as "1 more"
    return RejectedParts(
        named=shown,
        left=len(each) - len(shown),
        unprinted=sum(pictures.values()) < rejected,
        several_names=any(names > 1 for names in pictures.values()),
    )


def finding_index(findings: Sequence[FindingPage]) -> tuple[tuple[FindingPage, str, str, str], ...]:
    """Return findings with their written scores, how far to trust their maps, and their anchors."""
    return tuple(
        (
            finding,
            score(finding.score, (finding.review_threshold, finding.reject_threshold)),
            judge_map(finding.explanation, finding.class_score, finding.score).word,
            finding_anchor(number),
        )
        for number, finding in enumerate(findings, start=1)
    )


def first_of_class(findings: Sequence[FindingPage]) -> dict[str, str]:
    """Return the anchor of the first finding page of each class."""
    first: dict[str, str] = {}
    for number, finding in enumerate(findings, start=1):
        first.setdefault(finding.class_name, finding_anchor(number))
    return first


def _scope_words(record: PeriodReport, *, brief: bool = False) -> str:
    """Return in words what a period report is about; `brief` names days without their times."""
    scope = record.scope
    at = partial(day if brief else when, style=record.style)
    told = [f"lot {clip(scope.lot, 40)}"] if scope.lot is not None else []
    if scope.since is not None and scope.until is not None:
        told.append(f"{at(scope.since)} to {at(scope.until)}")
    elif scope.since is not None:
        told.append(f"from {at(scope.since)} on")
    elif scope.until is not None:
        told.append(f"before {at(scope.until)}")
    if scope.station is not None:
        told.append(f"station {clip(scope.station, 40)}")
    return ", ".join(told)


def conclude(record: RunReport, inspected_before: int = 0) -> Conclusion:
    """Return what a run comes to: incomplete before anything else, then the worst that was found.

    `inspected_before`: how many pictures of the source the run left out, as earlier runs had inspected them.
    """
    if not record.complete:
        return _incomplete_conclusion(record, "The run is incomplete.")
    if inspected_before:
        held = plural(inspected_before, "picture")
        inspected = verb(
            inspected_before, "was inspected by an earlier run", "were inspected by earlier runs"
        )
        nothing = f"Nothing was new: the source held {held}, which {inspected}."
    elif record.status_note:
        nothing = (
            "No picture was listed."  # an end that earlier versions recorded says more in its note alone
        )
    else:
        nothing = "The source held no pictures."
    return _findings_conclusion(record, nothing)


def conclude_period(record: PeriodReport) -> Conclusion:
    """Return what a period comes to: runs that broke before anything else, then the worst that was found."""
    if broken := len(record.broken_runs):
        conclusion = _incomplete_conclusion(
            record, f"{plural(broken, 'run')} of {len(record.runs)} {verb(broken, 'is', 'are')} incomplete."
        )
    else:
        timed = record.scope.since is not None or record.scope.until is not None
        nothing = f"No picture {'was inspected in this period' if timed else 'of this lot was inspected'}."
        conclusion = _findings_conclusion(record, nothing)
    if unplaced := len(record.missing_unplaced):
        belong = verb(unplaced, "it belongs", "they belong")
        which = f"whether {belong} here" if record.scope.lot is None else "of which lot"
        told = f"{plural(unplaced, 'more announced picture')} never arrived; nobody knows {which}."
        conclusion = replace(conclusion, sentence=f"{conclusion.sentence} {told}")
    return conclusion


def incomplete_reasons(record: RunReport) -> list[str]:
    """Return why a run is incomplete, in sentences; none when it is complete."""
    reasons = []
    if record.status != "completed":
        reasons.append(f"The run did not finish: its status is “{clip(record.status, 60)}”.")
    elif record.finished_at is None:
        reasons.append("The run has no time of completion.")
    left, listed = record.counts.unaccounted, plural(record.counts.listed, "listed picture")
    if left > 0:
        reasons.append(f"{grouped(left)} of {listed} {verb(left, 'has', 'have')} no outcome.")
    elif left < 0:
        decided = grouped(record.counts.decided)
        reasons.append(f"The counts do not add up: {decided} outcomes for {listed}.")
    if record.status_note:
        reasons.append(f"Note: {clip(' '.join(record.status_note.split()), 400)}")
    return reasons


def broken_reasons(record: PeriodReport) -> list[str]:
    """Return which runs of a period broke, in sentences, the first ten by name; none when none did."""
    reasons = []
    for run in record.broken_runs[:10]:
        ended = (
            "has no time of completion"
            if run.status == "completed" and run.finished_at is None
            else f"has the status “{clip(run.status, 60)}”"
        )
        reasons.append(f"Run {clip(run.number, 24)} {ended}.")
    if left := len(record.broken_runs) - len(reasons):
        reasons.append(f"{plural(left, 'more run')} of the period {verb(left, 'is', 'are')} incomplete.")
    return reasons


def _gaps_sentence(record: InspectionReport) -> str:
    """Return what was not inspected, as a sentence that follows another; empty where nothing is missing."""
    gaps = []
    if record.counts.unreadable:
        gaps.append(f"{plural(record.counts.unreadable, 'picture')} could not be read")
    if missing := len(record.missing_pictures):
        gaps.append(f"{plural(missing, 'announced picture')} never arrived")
    return f" {' and '.join(gaps)}." if gaps else ""


def _open_sentence(record: InspectionReport) -> str:
    """Return how many findings people have yet to decide about; empty as long as none is decided."""
    if record.review is None or not record.review.decisions:
        return ""
    left, made = record.review.open, plural(record.review.findings, "finding")
    if not left:
        return f" {made} {verb(record.review.findings, 'is', 'are')} decided."
    return f" {grouped(left)} of {made} still {verb(left, 'needs', 'need')} a person’s decision."


def _incomplete_conclusion(record: InspectionReport, why: str) -> Conclusion:
    counts = record.counts
    found = f"So far {grouped(counts.reject)} rejected, {grouped(counts.review)} for review"
    return Conclusion("incomplete", "No verdict", f"{why} {found}.{_gaps_sentence(record)}")


def _findings_conclusion(record: InspectionReport, nothing: str) -> Conclusion:
    counts, also = record.counts, _gaps_sentence(record)
    if not counts.listed:
        return Conclusion("nothing", "Nothing inspected", f"{nothing}{also}")
    review, need = grouped(counts.review), verb(counts.review, "needs", "need")
    left = _open_sentence(record)
    if counts.reject:
        rejected = f"{plural(counts.reject, 'picture')} {verb(counts.reject, 'was', 'were')} rejected"
        needed = "went to review" if left else f"{need} a decision"
        more = f", {review} more {needed}" if counts.review else ""
        return Conclusion("reject", "Reject", f"{rejected}{more}.{left}{also}")
    if counts.review:
        needed = "went to review" if left else f"{need} a person’s decision"
        sentence = f"No picture was rejected; {review} {needed}.{left}"
        return Conclusion("review", "Review", sentence + also)
    if also:
        sentence = "Every picture that was read passed, but not everything was inspected."
        return Conclusion("gaps", "Not inspected in full", (sentence if counts.passed else "") + also)
    return Conclusion("pass", "Pass", "Every listed picture was read and passed.")
