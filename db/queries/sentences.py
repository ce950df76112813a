"""A part's life in sentences: the one place where its entries are put into words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from db.queries.part_history import LifeEntry

DIGITS = 12  # of a digest, as printed; the records hold all of them

_REPLAYED = {
    "identical": "the result is identical",
    "equal": "the result is equal within the tolerance",
    "different": "the result is different",
    "impossible": "it was not possible",
}


def sentence(entry: LifeEntry) -> str:
    """Return an entry of a part's life as a sentence, without its time and evidence."""
    return _TELLERS[entry.kind](entry.facts, dict(entry.evidence))


def evidence_line(entry: LifeEntry) -> str:
    """Return the evidence behind an entry in a line: its audit event, its hash and digests, shortened."""
    digests = "".join(f"; {what} {digest[:DIGITS]}" for what, digest in entry.evidence)
    return f"audit event {entry.sequence} {entry.hash[:DIGITS]}{digests}"


Facts = Mapping[str, Any]


def _missing(facts: Facts, _: Facts) -> str:
    later = facts["later_runs"]
    again = f"; {later} later run{'' if later == 1 else 's'} did not find it either" if later else ""
    return (
        f"the manifest of run {facts['run']} announced the picture {facts['uri']}{_at_station(facts)}, "
        f"but it was not in {facts['source']}{again}."
    )


def _taken(facts: Facts, _: Facts) -> str:
    return f"the picture {facts['uri']} was taken{_at_station(facts)}; it came from {facts['source']}."


def _at_station(facts: Facts) -> str:
    return f" at station {facts['station']}" if facts["station"] else ""


def _inspected(facts: Facts, evidence: Facts) -> str:
    station = f" (station {facts['station']})" if facts["station"] else ""
    limits = (
        f" (review from {facts['review_threshold']:.3f}, reject from {facts['reject_threshold']:.3f})"
        if facts["review_threshold"] is not None and facts["reject_threshold"] is not None
        else ""
    )
    return (
        f"kensa inspected {facts['uri']}{station} in run {facts['run']}: {facts['verdict']}, "
        f"score {facts['score']:.3f}{limits}, by model {facts['model']} {evidence['model'][:DIGITS]}."
    )


def _carried_over(facts: Facts, evidence: Facts) -> str:
    score = "" if facts.get("score") is None else f", score {facts['score']:.3f}"
    reason = f" ({facts['reason']})" if facts["reason"] else ""
    return (
        f"run {facts['run']} listed {facts['uri']}{_at_station(facts)} and took over the outcome that the "
        f"same picture had before: {facts['verdict']}{score}{reason}, by model {facts['model']} "
        f"{evidence['model'][:DIGITS]}."
    )


def _unreadable(facts: Facts, _: Facts) -> str:
    return f"run {facts['run']} could not inspect {facts['uri']}{_at_station(facts)}: {facts['reason']}."


def _finding(facts: Facts, _: Facts) -> str:
    told = (
        f"finding {facts['finding']}: {facts['class']} on {facts['uri']}, class score "
        f"{facts['class_score']:.3f} (threshold on the picture's score {facts['threshold']:.3f})"
    )
    if facts["method"] is None:
        return f"{told}; no explanation was made."
    if facts["drop"] is None:
        return f"{told}; explanation by {facts['method']}: {facts['status']}."
    increase = "the score rises" if facts["increase"] else f"the score drops by {facts['drop']:.1f} %"
    seen = "its strongest tile" if facts.get("tiles") else "the picture"
    return f"{told}; on what the {facts['method']} map keeps of {seen} {increase}."


def _disposition(facts: Facts, _: Facts) -> str:
    new = f" as {facts['class']}" if facts["decision"] == "reclassify" and facts["class"] else ""
    again = ", in place of the decision before" if facts["supersedes"] else ""
    waits = " It takes effect when a second person approves it." if facts["needs_approval"] else ""
    return (
        f"{_signer_text(facts)} decided {facts['decision']}{new} on finding {facts['finding']}{again}: "
        f"{facts['reason']}.{_meaning_sentence(facts)}{waits}"
    )


def _approval(facts: Facts, _: Facts) -> str:
    did = {"approve": "approved", "refuse": "refused"}[facts["decision"]]
    return (
        f"{_signer_text(facts)} {did} the decision {facts['disposition']} on finding {facts['finding']}: "
        f"{facts['reason']}.{_meaning_sentence(facts)}"
    )


def _signer_text(facts: Facts) -> str:
    name = f"{facts['name']} ({facts['person']})" if facts["name"] else str(facts["person"])
    return f"{name}, {facts['role']}," if facts["role"] else name


def _meaning_sentence(facts: Facts) -> str:
    return f" Signed, meaning {facts['meaning']}." if facts["meaning"] else ""


def _replay(facts: Facts, _: Facts) -> str:
    return (
        f"{facts['person']} computed the decision on {facts['uri']} again with kensa "
        f"{facts['software_version']}: {_REPLAYED[facts['result']]}."
    )


def _pruned(facts: Facts, evidence: Facts) -> str:
    digest = evidence[facts["what"]][:DIGITS]
    return f"{facts['person']} removed the {facts['what']} {digest} by policy: {facts['policy']}."


def _restored(facts: Facts, evidence: Facts) -> str:
    return f"the {facts['what']} {evidence[facts['what']][:DIGITS]} was stored again."


def _report(facts: Facts, _: Facts) -> str:
    about = facts["about"]
    what = {
        "run": "",  # its number says it
        "period": f" about lot {about.get('lot')}",
        "finding": f" about finding {about.get('finding')}",
        "part": " about this part",
    }[facts["kind"]]
    return (
        f"report {facts['number']} revision {facts['revision']}{what} was issued; it prints audit head "
        f"{facts['head']}."
    )


def _sign_off(facts: Facts, _: Facts) -> str:
    reason = f": {facts['reason']}" if facts["reason"] else ""
    return (
        f"{_signer_text(facts)} signed report {facts['number']} revision {facts['revision']} as "
        f"{facts['capacity']}, {facts['decision']}{reason}.{_meaning_sentence(facts)}"
    )


_TELLERS = {
    "missing": _missing,
    "taken": _taken,
    "inspected": _inspected,
    "carried over": _carried_over,
    "unreadable": _unreadable,
    "finding": _finding,
    "disposition": _disposition,
    "approval": _approval,
    "replay": _replay,
    "pruned": _pruned,
    "restored": _restored,
    "report": _report,
    "sign-off": _sign_off,
}
