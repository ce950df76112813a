"""What a report carries for machines: an attached file that says where in the audit log it belongs."""

import io
import json
from dataclasses import dataclass
from hashlib import sha256

from pypdf import PdfReader
from pypdf.errors import PyPdfError

from reports.record import AttachedFile, AuditHead, ReportError, RunReport

NAME = "kensa-audit.json"


@dataclass(frozen=True)
class Carried:
    """A report's bytes by their SHA-256 (hex), and what it carries of the audit log."""

    digest: str
    head: AuditHead | None
    checkpoint: str | None


def audit_file(record: RunReport) -> AttachedFile:
    """Give the file to attach to a run's report."""
    content = {
        "report": record.number,
        "revision": record.revision,
        "run": record.run_id,
        "audit_head": None
        if record.audit_head is None
        else {"sequence": record.audit_head.sequence, "hash": record.audit_head.hash},
        "checkpoint": None if record.checkpoint is None else record.checkpoint.note,
    }
    text = json.dumps(content, indent=2) + "\n"
    return AttachedFile(NAME, "Where in the audit log this report belongs", text, record.issued_at)


def read_carried(pdf: bytes) -> Carried:
    """Read back what a report carries; nothing where it carries none.

    Raises:
        ReportError: not a PDF, or the attached file is damaged.
    """
    digest = sha256(pdf).hexdigest()
    try:
        attached = PdfReader(io.BytesIO(pdf)).attachments.get(NAME, [])
        content = json.loads(attached[0]) if attached else {}
        head = content.get("audit_head")
        return Carried(
            digest,
            AuditHead(int(head["sequence"]), str(head["hash"])) if head else None,
            None if content.get("checkpoint") is None else str(content["checkpoint"]),
        )
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"cannot be read as a report of kensa: {error}") from error
