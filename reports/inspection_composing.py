"""The run report and the period report as documents: what matters, the findings, what may be looked up."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from reports import charts, concluding, wording
from reports.agreement import CAVEAT
from reports.attached import Supplement, attach
from reports.document import Document, FindingPages, Part, finding_anchor
from reports.finding import FindingPage
from reports.period import PeriodReport
from reports.process import view_process
from reports.record import AuditHead, InspectionReport, RunReport

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
    conclusion = concluding.conclude(record)
    lots = record.lots
    lot = f"Lot {wording.clip(lots[0], 36)}" if len(lots) == 1 else wording.plural(len(lots), "lot")
    model = f"Model {wording.clip(record.model.name, 30)} {wording.short_digest(record.model.digest)}"
    criteria = record.model.criteria
    return _compose(
        record,
        "run",
        {
            "conclusion": conclusion,
            "reasons": concluding.incomplete_reasons(record),
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
    conclusion = concluding.conclude_period(record)
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
            "reasons": concluding.broken_reasons(record),
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
        "shares": charts.share_bar(record.counts),
        "pareto": charts.pareto(record.findings_by_class),
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
    parts: list[Part | FindingPages] = [Part(f"{kind}_front.html", context)]
    for start in range(_INDEX_ROWS, len(index), _INDEX_ROWS):
        parts.append(Part("finding_index.html", {"index": index[start : start + _INDEX_ROWS]}))
    if findings:  # otherwise the back follows the front without a new page
        parts += [FindingPages(findings), Part("inspection_back.html", context)]
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
        parts=tuple(parts),
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
            wording.judge_map(finding.explanation, finding.class_score, finding.score).word,
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
    scope, style = record.scope, record.style

    def at(moment: datetime) -> str:
        if brief:
            return moment.astimezone(style.tzinfo).strftime(style.date_format)
        return wording.when(moment, style.tzinfo, style.date_format)

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
