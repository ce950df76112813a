"""What people decided and what earlier revisions said, read from the record."""

from sqlalchemy.orm import Session

from db.figures.agreement import double_decisions
from db.figures.changes import changes_of
from db.figures.periods import scope_findings
from db.figures.scopes import Scope, scope_of
from db.inspection.runs import find_run_id
from db.issued.reports import ReportRecord, ReportSubject
from db.queries.events import get_event
from db.queries.finding_records import FindingRecord, get_finding, run_findings
from operations.reporting.findings import once
from operations.reporting.issue import Issue
from reports.content.base import Revision, SignOff
from reports.content.process import Review
from reports.wording import plural


def review_of(session: Session, scope: Scope, findings: list[FindingRecord], upto: int) -> Review:
    """Sum up what people decided about findings, and where two of them judged the same one."""
    return Review(
        findings=len(findings),
        decisions=tuple(each.disposition for each in findings if each.disposition is not None),
        awaiting=sum(each.awaiting_approval is not None for each in findings),
        pairs=tuple((each.first, each.second) for each in double_decisions(session, scope, upto)),
    )


def undecided_of(session: Session, report: ReportRecord) -> tuple[int, int]:
    """Return how many findings of a report were undecided when it was made, and how many there are.

    A decision that awaits a second person is none yet.
    """
    subject, upto = report.subject, report.head.sequence
    if subject.kind == "model":
        return 0, 0
    if subject.kind == "finding":
        findings = [get_finding(session, str(subject.about["finding"]), upto)]
    elif subject.kind == "run":
        findings, _ = once(run_findings(session, find_run_id(session, report.number), upto))
    else:
        findings, _ = once(scope_findings(session, scope_of(subject), upto=upto))
    return sum(each.disposition is None for each in findings), len(findings)


def revisions_of(session: Session, what: Issue) -> tuple[Revision, ...]:
    """List the revisions of a report up to the one that is being made, with what changed."""
    subject, upto = what.subject, what.head.sequence
    heads = [(each.revision, each.head.sequence, each.artifact_digest) for each in what.earlier]
    heads = [*(each for each in heads if each[0] < what.revision), (what.revision, upto, "")]
    listed = []
    for position, (number, sequence, digest) in enumerate(heads):
        changes = _change_sentences(session, subject, heads[position - 1][1], sequence) if position else ()
        listed.append(Revision(number, get_event(session, sequence).at, digest or None, changes))
    return tuple(listed)


def sign_offs_of(what: Issue) -> tuple[SignOff, ...]:
    """List who had signed earlier revisions at the audit head that is printed."""
    return tuple(
        SignOff(report.revision, each.capacity, each.name, each.decision, each.reason, each.created_at)
        for report in what.earlier
        for each in report.sign_offs
        if report.revision < what.revision and each.event_sequence <= what.head.sequence
    )


def _change_sentences(session: Session, subject: ReportSubject, after: int, upto: int) -> tuple[str, ...]:
    changes = changes_of(session, subject, after, upto)
    sentences = [
        f"{plural(count, 'further picture')}: {verdict}." for verdict, count in changes.listed.items()
    ]
    if changes.missing:
        sentences.append(f"{plural(changes.missing, 'further announced picture')} never arrived.")
    sentences += [f"Run {run} ended: {status}." for run, status in changes.ended]
    for each in changes.decisions[:_MOST]:
        what = each.decision.replace("-", " ")
        named = f" as {each.class_name}" if each.class_name else ""
        verb = {"decided": what, "approved": f"{what} approved", "refused": f"{what} refused"}[each.kind]
        sentences.append(f"{each.finding}: {verb}{named} by {each.name or each.person}.")
    if (left := len(changes.decisions) - _MOST) > 0:
        sentences.append(f"{plural(left, 'further decision')}.")
    if changes.evidence:
        sentences.append(
            f"{plural(changes.evidence, 'picture or map', 'pictures or maps')} removed or restored."
        )
    return tuple(sentences)


_MOST = 20  # decisions named one by one in the revision history
