"""The dossier of a finding or a part, composed as a document."""

from collections.abc import Sequence

from reports import wording
from reports.attachments.manifest import Supplement
from reports.compose.assembly import assemble, numbered_sections
from reports.compose.inspection import MOST_ROWS, finding_index
from reports.content.dossier import Dossier
from reports.content.finding import Decided, FindingPage
from reports.document import Document
from reports.wording import Conclusion, clip, grouped, plural

_SECTIONS = {
    "pictures": "Pictures of the part",
    "findings": "Findings",
    "life": "What happened",
    "elsewhere": "Same class elsewhere",
    "complaint": "For the complaint",
    "criteria": "Criteria in force",
    "maps": "Limits of maps",
    "sign-off": "Sign-off",
    "history": "Revision history",
    "record": "Audit record",
}
# Which verdict speaks for a part: the worst of its findings'.
_WORST = {"reject": 3, "review": 2, "unreadable": 1, "pass": 0}
# Which decision speaks for a part, the gravest first: the headline's words, and its tone.
_HEADLINES = {
    "scrap": ("Scrap", "reject"),
    "return": ("Return", "reject"),
    "repair": ("Repair", "reject"),
    "rework": ("Rework", "reject"),
    "confirm": ("Defect confirmed", "reject"),
    "reclassify": ("Defect reclassified", "reject"),
    "use as is": ("Use as is", "review"),
    "overrule": ("Overruled", "pass"),
}


def compose_dossier(record: Dossier, supplement: Supplement | None = None) -> Document:
    """Compose a dossier; `supplement`: what it carries beside what it prints."""
    present = {
        "findings": bool(record.findings),
        "elsewhere": bool(record.occurrences),
        "maps": bool(record.findings),
        "history": bool(record.revisions),
    }
    what = f"Finding {clip(record.subject, 40)}" if record.subject else f"Part {clip(record.part or '', 40)}"
    broken = [each for each in record.decided_by if not each.complete]
    models = {(each.model.digest, each.settings_digest): each for each in record.decided_by}
    index = finding_index(record.findings)
    context = {
        "what": what,
        "headline": headline(record),
        "decided": tell_decisions(record),
        "reasons": [
            f"Run {clip(each.run, 24)} has the status “{clip(each.status, 60)}”." for each in broken[:10]
        ],
        "index": index,
        "worst": index[record.findings.index(_gravest_finding(record.findings))] if index else None,
        "models": tuple(models.values()),
        "most_rows": MOST_ROWS,
        **numbered_sections(_SECTIONS, present),
    }
    return assemble(
        record,
        "finding" if record.subject else "part",
        conclude_dossier(record),
        context,
        supplement,
        about=what,
        head=(what, f"Lot {clip(record.lot, 36)}" if record.lot else "No lot given"),
        templates=("dossier_front.html", "dossier_back.html"),
        findings=record.findings,
        after_title=f": {what}",
        alarm="Incomplete run" if broken else None,
    )


def conclude_dossier(record: Dossier) -> Conclusion:
    """Return what a dossier comes to: the worst verdict on its pictures, and on what grounds."""
    announced = plural(len(record.missing_pictures), "announced picture")
    missing = f" {announced} of this part never arrived." if record.missing_pictures else ""
    if record.findings:
        worst = _gravest_finding(record.findings)
        sentence = _grounds_sentence(worst)
        if more := len(record.findings) - 1:
            sentence += f" {plural(more, 'more finding')} on the same part."
        return Conclusion(worst.verdict, worst.verdict.capitalize(), sentence + missing)
    verdicts = {each.verdict for each in record.pictures}
    pictures = plural(len({each.digest or each.uri for each in record.pictures}), "picture")
    if "unreadable" in verdicts:
        sentence = f"Of {pictures} of this part none was flagged, but not every one could be read."
        return Conclusion("gaps", "Not inspected in full", sentence + missing)
    if not verdicts:
        return Conclusion("nothing", "Nothing inspected", f"No run listed a picture of this part.{missing}")
    if missing:
        sentence = f"Of {pictures} of this part none was flagged, but not every one arrived."
        return Conclusion("gaps", "Not inspected in full", sentence + missing)
    return Conclusion("pass", "Pass", f"{pictures} of this part: none was flagged.")


def headline(record: Dossier) -> Conclusion:
    """Return what holds now of a finding or part: what people decided, else what the program found.

    Scrap is final for a part. Short of it, a finding about which nobody decided comes before those that are
    decided, and a decision that awaits approval before those in force.
    """
    verdict = conclude_dossier(record)
    if not record.findings:
        return verdict
    in_force, awaiting, undecided = [], [], []
    for finding in record.findings:
        if holds := _decision_in(finding, "in force"):
            in_force.append(holds)
        elif waits := _decision_in(finding, "awaiting approval"):
            awaiting.append(waits)
        else:
            undecided.append(finding)
    sentence = f"The program’s verdict: {verdict.tone}. {verdict.sentence}"
    if len(record.findings) > 1 and undecided:
        sentence += f" {grouped(len(undecided))} of {plural(len(record.findings), 'finding')} open."
    if undecided and "scrap" not in in_force:
        worst = _gravest_finding(undecided).verdict
        return Conclusion(worst, f"{worst.capitalize()}, open", sentence)
    waiting = bool(awaiting) and "scrap" not in in_force
    word, tone = _gravest(awaiting if waiting else in_force)
    if tone == "pass" and record.missing_pictures:
        tone = "gaps"
    return Conclusion(tone, f"{word}, awaiting approval" if waiting else word, sentence)


def gravity(verdict: str, score: float) -> tuple[int, float]:
    """Return what is highest for the finding that speaks for a part."""
    return _WORST[verdict], score


def _gravest_finding(findings: Sequence[FindingPage]) -> FindingPage:
    return max(findings, key=lambda each: gravity(each.verdict, each.score))


def _decision_in(finding: FindingPage, state: str) -> str | None:
    """Return the last decision about a finding that is in this state."""
    made = [each.decision.replace("-", " ") for each in finding.decisions if each.state == state]
    return made[-1] if made else None


def _gravest(decisions: Sequence[str]) -> tuple[str, str]:
    """Return the words and the tone of the decision that speaks for a part."""
    return next(said for decision, said in _HEADLINES.items() if decision in decisions)


def tell_decisions(record: Dossier) -> str:
    """Return what people decided: about one finding in full, about several in numbers."""
    if not record.findings:
        return ""
    if len(record.findings) == 1:
        decisions = record.findings[0].decisions
        if not decisions:
            return "No person has decided about it yet."
        # What holds, and what may come to hold; without either, what became of the last.
        counting = [each for each in decisions if each.state in ("in force", "awaiting approval")]
        return " ".join(_decision_sentence(each, record) for each in counting or decisions[-1:])
    decided = sum(any(each.state == "in force" for each in f.decisions) for f in record.findings)
    return f"{grouped(decided)} of {plural(len(record.findings), 'finding')} decided."


def _grounds_sentence(finding: FindingPage) -> str:
    limits = (finding.review_threshold, finding.reject_threshold)
    at = f"reject from {wording.threshold(finding.reject_threshold)}"
    if finding.verdict == "review":
        at = f"review from {wording.threshold(finding.review_threshold)}, {at}"
    return (
        f"Class “{clip(finding.class_name, 60)}”, defect score {wording.score(finding.score, limits)} ({at})."
    )


def _decision_sentence(decided: Decided, record: Dossier) -> str:
    what = decided.decision.replace("-", " ")
    if decided.class_name:
        what += f" as {clip(decided.class_name, 60)}"
    state = "" if decided.state == "in force" else f" ({decided.state})"
    at = wording.when(decided.at, record.style)
    reason = f": “{clip(' '.join(decided.reason.split()), 200)}”" if decided.reason else ""
    return f"{what.capitalize()}{state} by {clip(decided.person, 80)}, {decided.role}, {at}{reason}."
