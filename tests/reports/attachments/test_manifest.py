"""What a report carries for machines, read back from its bytes."""

import csv
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO, StringIO
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from pypdf import PdfReader, PdfWriter

import reports
from reports.attachments import schema
from reports.attachments.listing import ListedPicture
from reports.attachments.manifest import (
    CHECKPOINT,
    LISTING,
    MANIFEST,
    PROOFS,
    RECORD,
    SCHEMA,
    Superseded,
    Supplement,
    attach,
    canonical,
    read_attached,
    schema_bytes,
)
from reports.compose.inspection import conclude, incomplete_reasons
from reports.content.base import AuditHead, SignedCheckpoint
from reports.content.inspection import RunReport
from reports.document import AttachedFile
from reports.errors import ReportError
from tests.reports.rendering import render_run_report

NOTE = "plant-1/kensa\n4511\n…\n"
PROOF = {"format": "kensa inclusion proof", "version": 1, "events": [{"leaf_index": 3}], "checkpoint": NOTE}


@pytest.fixture
def signed(make_report) -> RunReport:
    at = datetime(2026, 11, 23, 6, 4, tzinfo=UTC)
    checkpoint = SignedCheckpoint(4511, sha256(b"root").hexdigest(), "plant-1/kensa", at, NOTE)
    return replace(make_report(2), checkpoint=checkpoint)


def made(record: RunReport, **changes: object) -> tuple[AttachedFile, ...]:
    pictures = [ListedPicture("a.png", "pass", 0.1), ListedPicture("=b.png", "unreadable", reason="empty")]
    given = {"conclusion": conclude(record), "run": record.run_id}
    beside = Supplement(pictures, PROOF, Superseded(1, "cd" * 32))
    return attach("run", record, beside, **{**given, **changes})  # type: ignore[arg-type]


def carrying(files: Iterable[AttachedFile]) -> bytes:
    writer = PdfWriter()
    writer.add_blank_page(100, 100)
    for file in files:
        writer.add_attachment(file.name, file.data)
    target = BytesIO()
    writer.write(target)
    return target.getvalue()


def test_every_file_comes_back_and_the_manifest_speaks_for_it(signed) -> None:
    files = made(signed)
    pdf = carrying(files)
    found = read_attached(pdf)
    assert list(found.files) == sorted([RECORD, SCHEMA, LISTING, CHECKPOINT, PROOFS, MANIFEST])
    assert found.files == {file.name: file.data for file in files}
    assert found.problems == ()
    assert found.listed == (RECORD, SCHEMA, LISTING, CHECKPOINT, PROOFS)
    assert (found.number, found.revision, found.kind) == ("R000012", 1, "run")
    assert (found.head, found.checkpoint) == (signed.audit_head, NOTE)
    assert found.digest == sha256(pdf).hexdigest()
    assert found.proofs == PROOF
    assert found.files[CHECKPOINT] == NOTE.encode()
    assert [row["uri"] for row in csv.DictReader(StringIO(found.files[LISTING].decode()))] == [
        "a.png",
        "'=b.png",
    ]
    manifest = json.loads(found.files[MANIFEST])
    assert manifest["supersedes"] == {"revision": 1, "sha256": "cd" * 32}
    assert {each["name"]: each["media_type"] for each in manifest["files"]} == {
        RECORD: "application/json",
        SCHEMA: "application/schema+json",
        LISTING: "text/csv",
        CHECKPOINT: "text/plain",
        PROOFS: "application/json",
    }
    assert made(signed) == files


@pytest.mark.parametrize(
    "changes", [{}, {"status": "failed"}, {"findings": (), "unreadable": (), "missing_pictures": ()}]
)
def test_records_are_valid_by_the_schema_that_travels_with_them(signed, changes) -> None:
    record = replace(signed, **changes)
    files = {file.name: file.data for file in made(record, reasons=incomplete_reasons(record))}
    validator = Draft202012Validator(json.loads(files[SCHEMA]))
    content = json.loads(files[RECORD])
    validator.validate(content)
    inner = content["record"]
    assert inner["counts"]["listed"] == record.counts.listed
    assert inner["complete"] is record.complete
    assert content["verdict"]["word"] == conclude(record).word
    assert bool(content["verdict"]["reasons"]) is not record.complete
    for said, finding in zip(inner["findings"], record.findings, strict=True):
        assert (said["score"], said["review_threshold"]) == (finding.score, finding.review_threshold)
        assert said["explanation"]["map_digest"] == finding.explanation.map_digest
        assert "picture" not in said
        assert "map" not in said["explanation"]
    assert not validator.is_valid({**content, "record": {**inner, "unknown": 1}})
    assert not validator.is_valid(
        {**content, "record": {**inner, "counts": {**inner["counts"], "listed": "1"}}}
    )
    assert files[RECORD] == canonical(content), "the attached record is canonical"


def test_the_published_schema_is_that_of_the_records() -> None:
    assert schema_bytes().decode() == schema.schema_text(), "run `python -m reports.attachments.schema`"
    Draft202012Validator.check_schema(json.loads(schema_bytes()))
    assert Path(reports.__file__).parent.joinpath("schemas", SCHEMA).is_file()


def test_hostile_names_are_data(signed) -> None:
    name = "</script>\u202e\x00\udc80" + "x" * 10_000
    finding = replace(signed.findings[0], uri=name, lot=name)
    files = made(replace(signed, number=name, findings=(finding,), lots=(name,), class_counts=()), run=name)
    record = json.loads(next(file.data for file in files if file.name == RECORD))
    assert record["record"]["lots"] == [name.replace("\udc80", "‹U+DC80›")]
    assert not read_attached(carrying(files)).problems


def changed(files: Iterable[AttachedFile], name: str, data: bytes) -> list[AttachedFile]:
    return [replace(file, data=data) if file.name == name else file for file in files]


def test_a_file_that_was_changed_dropped_or_added_is_found(signed) -> None:
    files = made(signed)
    for name in (RECORD, SCHEMA, LISTING, CHECKPOINT, PROOFS):
        data = next(file.data for file in files if file.name == name)
        problems = read_attached(carrying(changed(files, name, data.replace(b"1", b"2", 1)))).problems
        assert f"{name} is not the file that the manifest lists: its SHA-256 is another" in problems
        dropped = read_attached(carrying(file for file in files if file.name != name))
        assert dropped.problems == (f"{name} is listed, but not attached",)
    more = AttachedFile("more.txt", "", b"x", signed.issued_at, "text/plain")
    assert read_attached(carrying([*files, more])).problems == ("more.txt is attached, but not listed",)
    twice = read_attached(carrying([*files, replace(more, name=LISTING)])).problems
    assert f"{LISTING} is attached more than once" in twice


def test_a_record_of_another_report_is_found(signed) -> None:
    files = made(signed)
    other = next(file for file in made(replace(signed, number="R000013")) if file.name == RECORD)
    manifest = json.loads(files[-1].data)
    manifest["files"][0] |= {"sha256": sha256(other.data).hexdigest(), "size": len(other.data)}
    manifest["checkpoint"] = "another"
    forged = changed(changed(files, RECORD, other.data), MANIFEST, json.dumps(manifest).encode())
    assert read_attached(carrying(forged)).problems == (
        f"{RECORD} is the record of another report than {MANIFEST} names",
        f"{CHECKPOINT} is not the checkpoint in {MANIFEST}",
    )


def test_a_rendered_report_carries_its_record(signed) -> None:
    pdf = render_run_report(signed)
    found = read_attached(pdf)
    assert found.problems == ()
    assert (found.head, found.checkpoint) == (AuditHead(4512, sha256(b"head").hexdigest()), NOTE)
    assert found.listed[:2] == (RECORD, SCHEMA)
    assert render_run_report(signed) == pdf, "an attached file's date would make each rendering another"
    text = " ".join(" ".join(page.extract_text() for page in PdfReader(BytesIO(pdf)).pages).split())
    assert "Events signed 1 to 4511" in text
    assert "by key plant-1/kensa" in text
    assert sha256(b"root").hexdigest() in text.replace(" ", "")


def test_a_report_without_a_checkpoint_says_so(signed) -> None:
    pdf = render_run_report(replace(signed, checkpoint=None))
    found = read_attached(pdf)
    assert found.checkpoint is None
    assert CHECKPOINT not in found.files
    assert found.proofs is None
    text = " ".join(" ".join(page.extract_text() for page in PdfReader(BytesIO(pdf)).pages).split())
    assert "No signed checkpoint of the audit log had been made when this report was issued." in text


def test_reports_issued_before_there_was_a_list_of_files() -> None:
    content = {
        "report": "R000003",
        "revision": 2,
        "run": None,
        "audit_head": {"sequence": 12, "hash": "ab" * 32},
        "checkpoint": NOTE,
    }
    at = datetime(2026, 1, 1, tzinfo=UTC)
    found = read_attached(
        carrying([AttachedFile(MANIFEST, "", json.dumps(content).encode(), at, "application/json")])
    )
    assert (found.number, found.revision, found.kind) == ("R000003", 2, "run")
    assert (found.head, found.checkpoint) == (AuditHead(12, "ab" * 32), NOTE)
    assert (found.listed, found.problems) == ((), ())


def test_what_is_no_report() -> None:
    with pytest.raises(ReportError, match="cannot be read as a report of kensa"):
        read_attached(b"%PDF-1.7 no more")
    plain = read_attached(carrying([]))
    assert (plain.head, plain.manifest, plain.number, plain.revision, plain.kind) == (None,) * 5
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for damaged in (
        b'{"report": "R1", "revision": 1, "audit_head": {"sequence": "x"}}',
        b'{"audit_head": null}',
        b"[1]",
        b"{",
        b"[" * 100_000,
        b'{"report": "R1", "revision": 1, "files": [{"name": "x"}]}',
        b'{"report": "R1", "revision": 1, "files": 7}',
    ):
        file = AttachedFile(MANIFEST, "", damaged, at, "application/json")
        with pytest.raises(ReportError, match="cannot be read as a report of kensa"):
            read_attached(carrying([file]))


def test_a_number_that_json_cannot_hold_is_named(signed) -> None:
    finding = replace(
        signed.findings[0], explanation=replace(signed.findings[0].explanation, drop=float("nan"))
    )
    with pytest.raises(ReportError, match=r"record\.findings\[0\]\.explanation\.drop: nan cannot be written"):
        made(replace(signed, findings=(finding,)))
    with pytest.raises(ReportError, match="canonical JSON"):
        canonical({"x": 2**60})
