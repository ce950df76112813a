"""What every report is before it is rendered: a sequence of blocks in one style, and the files it carries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from reports.content.base import Timed
from reports.content.finding import FindingPage
from reports.style import Style

Relationship = Literal["Data", "Source", "Alternative", "Supplement", "Unspecified"]


@dataclass(frozen=True)
class Block:
    """Pages that begin on a new page, laid out from one template.

    `template` is the name of a file in reports/templates, or in the user's folder. It prints the body of a
    page; head and foot come from the document. `context` is what it prints: plain data, which is pickled for
    the process that lays the block out.
    """

    template: str
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FindingPages:
    """Findings with a page each, under the ids finding-1, finding-2, …

    They are cut into blocks of twenty, which several processes lay out.
    """

    findings: tuple[FindingPage, ...]


@dataclass(frozen=True)
class AttachedFile(Timed):
    """A file to attach to a document; `at` dates it; `relationship` is the AFRelationship of PDF/A-3."""

    name: str
    description: str
    data: bytes
    at: datetime
    media_type: str
    relationship: Relationship = "Data"


@dataclass(frozen=True)
class Document(Timed):
    """A report, ready to be rendered. The same document gives the same bytes.

    `title`, `author` and `subject` are its metadata; `alarm` is shown in every running head ("Incomplete
    run"); `head` are the cells of the running head, `foot` is the text beside the page number.
    """

    title: str
    reference: str
    revision: int
    author: str
    subject: str
    software_version: str
    issued_at: datetime
    blocks: tuple[Block | FindingPages, ...]
    head: Sequence[str] = ()
    foot: str = ""
    style: Style = field(default_factory=Style)
    alarm: str | None = None
    attached: tuple[AttachedFile, ...] = ()


def finding_anchor(index: int) -> str:
    """Return the id of a document's finding page, counted from 1 over the whole document."""
    return f"finding-{index}"
