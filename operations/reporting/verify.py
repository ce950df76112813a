"""What a report's file says, held against public keys of the audit log and against the record."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from sqlalchemy.orm import Session

from db.engine import Database
from db.errors import RecordError
from db.issued.reports import ReportRecord, report_by_artifact, reports_of
from db.queries.events import get_event
from db.queries.runs import find_run, run_summary
from db.transparency.inclusion import check_proof
from db.transparency.signed_notes import NoteError, VerifierKey, open_checkpoint, parse_checkpoint
from reports.attachments.manifest import RECORD, Attached
from reports.errors import ReportError
from reports.signatures.read import Check
from reports.signatures.verify import FileVerification
from reports.wording import second


def check_log(file: FileVerification, keys: Sequence[VerifierKey]) -> list[Check]:
    """Check the checkpoint and the inclusion proofs in a report against public keys, without the record."""
    attached = file.attached
    if attached is None or attached.manifest is None:
        return []
    if attached.checkpoint is None:
        why = "none had been signed when the report was issued"
        return [Check("checkpoint of the audit log", "not checked", why)]
    if not keys:
        why = "no public key of the audit log was given (--key)"
        return [Check("checkpoint of the audit log", "not checked", why)]
    return [_checkpoint(attached, attached.checkpoint, keys), _proofs(attached, attached.checkpoint, keys)]


def _checkpoint(attached: Attached, text: str, keys: Sequence[VerifierKey]) -> Check:
    what = "checkpoint of the audit log"
    try:
        note = open_checkpoint(text, keys)
    except NoteError as error:
        return Check(what, "broken", str(error))
    head = attached.head
    if head is None or head.sequence < note.tree_size:
        return Check(what, "broken", f"it is of {note.tree_size} events, more than the report knew of")
    if head.sequence == note.tree_size and head.hash != note.head_hash:
        return Check(what, "broken", "the audit head in the report is not the one that was signed")
    return Check(what, "ok", f"{note.signed_by[0]} signed {note.tree_size} events on {second(note.at)}")


def _proofs(attached: Attached, text: str, keys: Sequence[VerifierKey]) -> Check:
    what = "proofs of the findings"
    try:
        proofs = attached.proofs
        if proofs is None:
            return Check(what, "not checked", "the report carries none")
        found = check_proof(proofs, text, keys)
    except (RecordError, ReportError) as error:
        return Check(what, "broken", str(error))
    return Check(what, "ok", f"{len(found.events)} events are in the log that the checkpoint signs")


def check_record(database: Database, file: FileVerification) -> list[Check]:
    """Check a report against the record: which it is, whether the latest, who signed it, what it says."""
    checks: list[Check] = []
    with database.session() as session:
        record = report_by_artifact(session, file.digest)
        if record is None:
            return [_unknown_check(session, file)]
        checks += [
            _record_check(record, file),
            *_sign_off_checks(record, file),
            _revision_check(session, record),
        ]
        if file.content_digest != record.rendered_digest:
            checks.append(Check("content", "broken", "it is not what the record says was rendered"))
        else:
            checks.append(Check("content", "ok", "the bytes before the signatures are those on record"))
        if file.attached is not None:
            checks += _statement_checks(session, record, file.attached)
    whole = "that takes `kensa audit verify`, which walks all of it"
    return [*checks, Check("rest of the record", "not checked", whole)]


def _unknown_check(session: Session, file: FileVerification) -> Check:
    content = None if file.content_digest is None else report_by_artifact(session, file.content_digest)
    if content is None:
        return Check("record", "broken", "this is no file that the record issued: changed, or from elsewhere")
    return Check(
        "record",
        "broken",
        f"its content is that of {_name(content)}, but these signatures are not on record",
    )


def _record_check(record: ReportRecord, file: FileVerification) -> Check:
    issued = f"{_name(record)}, issued on {second(record.created_at)}"
    if file.digest == record.content_digest != record.artifact_digest:
        return Check("record", "broken", f"it is {issued}, with its seal cut off")
    if file.digest == record.latest_digest:
        borne = "with all signatures on record" if file.signatures else "which bears no signature"
        return Check("record", "ok", f"it is {issued}, {borne}")
    later = [each for each in record.sign_offs if each.number > _known_sign_offs(record, file)]
    who = ", ".join(f"{each.name} ({each.capacity}: {each.decision})" for each in later)
    return Check("record", "ok", f"it is {issued}; not the latest file, signed since by {who}")


def _known_sign_offs(record: ReportRecord, file: FileVerification) -> int:
    """How many sign-offs on record this file bears."""
    return next((each.number for each in record.sign_offs if each.artifact_digest == file.digest), 0)


def _sign_off_checks(record: ReportRecord, file: FileVerification) -> list[Check]:
    known = record.sign_offs[: _known_sign_offs(record, file)]
    borne = [each for each in file.signatures if each.kind == "sign-off"]
    if len(borne) != len(known):
        why = f"the file bears {len(borne)}, on record are {len(known)}"
        return [Check("sign-offs", "broken", why)]
    return [
        Check(
            f"sign-off {each.number}",
            "ok",
            f"{each.name}, {each.role}, {each.capacity}: {each.decision}, on {second(each.created_at)}"
            + (f": {each.reason}" if each.reason else ""),
        )
        for each in known
    ]


def _revision_check(session: Session, record: ReportRecord) -> Check:
    latest = reports_of(session, record.subject)[-1]
    if latest.revision == record.revision:
        return Check("revision", "ok", "it is the latest")
    issued = second(latest.created_at)
    return Check("revision", "ok", f"superseded by revision {latest.revision}, issued on {issued}")


def _statement_checks(session: Session, record: ReportRecord, attached: Attached) -> list[Check]:
    """Hold what the attached files say against the record: numbers, audit head, checkpoint, counts."""
    checks = []
    said = (attached.number, attached.revision)
    if said != (record.number, record.revision):
        checks.append(Check("number", "broken", f"the file says {said[0]} revision {said[1]}"))
    head = attached.head
    if head is None or (head.sequence, head.hash) != (record.head.sequence, record.head.hash):
        checks.append(Check("audit head", "broken", "it is not the one that the record says was printed"))
    elif _hash_of(session, head.sequence) != head.hash:
        checks.append(Check("audit head", "broken", f"the log has no event {head.sequence} of that hash"))
    else:
        checks.append(Check("audit head", "ok", f"event {head.sequence} of the log has that hash"))
    if attached.checkpoint is not None:
        checks.append(_checkpoint_check(session, attached.checkpoint))
    if record.record_digest is not None:
        same = RECORD in attached.files and sha256(attached.files[RECORD]).hexdigest() == record.record_digest
        told = "is the one on record" if same else "is another than the one on record"
        checks.append(Check("attached record", "ok" if same else "broken", told))
    if record.kind == "run" and RECORD in attached.files:
        checks.append(_counts_check(session, record, attached.files[RECORD]))
    return checks


def _checkpoint_check(session: Session, text: str) -> Check:
    what = "checkpoint and the log"
    try:
        note = parse_checkpoint(text)
    except NoteError as error:
        return Check(what, "broken", str(error))
    if _hash_of(session, note.tree_size) != note.head_hash:
        return Check(what, "broken", "the log is not the one that was signed: its history was replaced")
    return Check(what, "ok", f"event {note.tree_size} of the log is the one that was signed")


def _counts_check(session: Session, record: ReportRecord, data: bytes) -> Check:
    run = run_summary(session, find_run(session, record.number).id, record.head.sequence)
    try:
        said: dict[str, Any] = json.loads(data)["record"]["counts"]
        counted = {name: count for name, count in asdict(run.counts).items() if name in said}
        differing = [
            f"{name} {said[name]} for {count}" for name, count in counted.items() if said[name] != count
        ]
    except (ValueError, KeyError, TypeError) as error:
        return Check("counts", "broken", f"the attached record has none: {error!r}")
    if differing or not counted:
        return Check("counts", "broken", f"they are not those of the run: {', '.join(differing) or 'none'}")
    return Check("counts", "ok", f"those of run {run.reference} then: {said['listed']} listed")


def _hash_of(session: Session, sequence: int) -> str | None:
    try:
        return get_event(session, sequence).hash
    except RecordError:
        return None


def _name(record: ReportRecord) -> str:
    return f"report {record.number} revision {record.revision}"
