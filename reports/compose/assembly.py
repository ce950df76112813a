"""What all reports have in common when they are composed: head, foot, blocks, attached files."""

from collections.abc import Iterable, Mapping
from typing import Any

from reports.attachments.manifest import Kind, Supplement, attach
from reports.content.base import AuditHead, Report
from reports.content.finding import FindingPage
from reports.document import Block, Document, FindingPages
from reports.wording import Conclusion, clip, grouped, short_digest


def assemble(
    record: Report,
    kind: Kind,
    conclusion: Conclusion,
    context: Mapping[str, Any],
    supplement: Supplement | None,
    *,
    about: str,
    head: tuple[str, ...],
    templates: tuple[str, str],
    findings: tuple[FindingPage, ...],
    between: Iterable[Block] = (),
    after_title: str = "",
    alarm: str | None = None,
    reasons: Iterable[str] = (),
    run: str | None = None,
) -> Document:
    """Put a document together from what one kind of report says.

    Args:
        record, kind, conclusion, supplement, reasons, run: see `attach`.
        context: what its templates print, besides the record `r`, `organisation` and `conclusion`.
        about: what the report is about, for the document's subject.
        head: cells of the running head after number and revision.
        templates: of the front, and of the back, which follows the pages of the `findings`. Without findings
            the front includes the back, which then begins no new page.
        between: blocks between the front and the findings.
        after_title: what follows number and revision in the document's title.
        alarm: what every running head says first.
    """
    organisation = record.organisation or "kensa"
    context = {"r": record, "organisation": organisation, "conclusion": conclusion, **context}
    front, back = templates
    blocks: list[Block | FindingPages] = [Block(front, context), *between]
    if findings:
        blocks += [FindingPages(findings), Block(back, context)]
    return Document(
        title=f"{clip(record.title, 120)} {clip(record.number, 40)}, revision {record.revision}{after_title}",
        reference=record.number,
        revision=record.revision,
        author=clip(organisation, 120),
        subject=f"{about}: {conclusion.word}",
        software_version=clip(record.software_version, 60),
        issued_at=record.issued_at,
        style=record.style,
        alarm=alarm,
        head=(f"{clip(record.number, 24)}, revision {record.revision}", *head),
        foot=_foot(organisation, record.audit_head),
        blocks=tuple(blocks),
        attached=attach(kind, record, supplement, conclusion=conclusion, reasons=reasons, run=run),
    )


def numbered_sections(titles: Mapping[str, str], present: Mapping[str, bool]) -> dict[str, Any]:
    """Return the numbers of a report's sections and its contents, for the templates.

    Args:
        titles: of all sections after the identification, which is section 1, by anchor.
        present: which of them the report has; those not named are in every report.
    """
    contents = [anchor for anchor in titles if present.get(anchor, True)]
    number_of = {anchor: str(number) for number, anchor in enumerate(contents, start=2)}
    return {
        "number_of": number_of,
        "contents": tuple((anchor, number, titles[anchor]) for anchor, number in number_of.items()),
    }


def _foot(organisation: str, head: AuditHead | None) -> str:
    """Write the running foot: who issued the report, and where in the audit log it belongs."""
    written = clip(organisation, 50)
    if head is None:
        return written
    return f"{written}   audit head {grouped(head.sequence)} {short_digest(head.hash)}"
