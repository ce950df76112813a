"""What a report carries for machines, read back from its bytes."""

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO

import pytest
from pypdf import PdfReader, PdfWriter

from reports import AuditHead, Carried, ReportError, SignedCheckpoint, read_carried, render_run_report

NOTE = "plant-1/kensa\n4511\n…\n"


@pytest.fixture
def signed(make_report):
    at = datetime(2026, 11, 23, 6, 4, tzinfo=UTC)
    checkpoint = SignedCheckpoint(4511, sha256(b"root").hexdigest(), "plant-1/kensa", at, NOTE)
    return replace(make_report(1), checkpoint=checkpoint)


def test_a_report_carries_head_and_checkpoint(signed) -> None:
    pdf = render_run_report(signed)
    assert read_carried(pdf) == Carried(
        sha256(pdf).hexdigest(), AuditHead(4512, sha256(b"head").hexdigest()), NOTE
    )
    assert render_run_report(signed) == pdf, "an attached file's date would make each rendering another"
    text = " ".join(" ".join(page.extract_text() for page in PdfReader(BytesIO(pdf)).pages).split())
    assert "Events signed 1 to 4511" in text
    assert "by key plant-1/kensa" in text
    assert sha256(b"root").hexdigest() in text.replace(" ", "")


def test_a_report_without_a_checkpoint_says_so(signed) -> None:
    pdf = render_run_report(replace(signed, checkpoint=None))
    assert read_carried(pdf).checkpoint is None
    text = " ".join(" ".join(page.extract_text() for page in PdfReader(BytesIO(pdf)).pages).split())
    assert "No signed checkpoint of the audit log had been made when this report was issued." in text


def test_what_is_no_report() -> None:
    with pytest.raises(ReportError, match="cannot be read as a report of kensa"):
        read_carried(b"%PDF-1.7 no more")
    writer = PdfWriter()
    writer.add_blank_page(100, 100)
    plain = BytesIO()
    writer.write(plain)
    assert read_carried(plain.getvalue()).head is None
    writer.add_attachment("kensa-audit.json", b'{"audit_head": {"sequence": "x"}}')
    damaged = BytesIO()
    writer.write(damaged)
    with pytest.raises(ReportError, match="cannot be read as a report of kensa"):
        read_carried(damaged.getvalue())
