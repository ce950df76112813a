"""What a signature is, what it is bound to, and whether those recorded hold.

A signature names who signed (login, printed name, role), when, and what it means (21 CFR 11.50), and carries
the digest of what was signed: the finding with its evidence, and the decision. It is not a cryptographic
signature of the person's: the password proved who they were, and the audit trail holds what was written.

Decisions about several findings can be signed at once. Each of them then carries the one signature over the
whole list, which says how many they are and is bound to the digest of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, select
from sqlalchemy.orm import Session, aliased

from db.columns import digest_of, time_text
from db.errors import RecordError
from db.lookup import pages, those
from db.people.people import TASKS, Authenticated, Task
from db.schema import (
    Approval,
    AuditEvent,
    Disposition,
    Explanation,
    Finding,
    Image,
    ModelVersion,
    Person,
    PersonRevision,
    Prediction,
    ReportSignature,
)

SCHEME = 1
LIST_SCHEME = 2
MEANINGS = ("responsibility", "review", "approval", "refusal")
MEANING_OF = {"approve": "approval", "refuse": "refusal"}
_FIELDS = ("scheme", "login", "name", "role", "at", "meaning")
_LIST_FIELDS = (*_FIELDS, "decisions")


@dataclass(frozen=True, slots=True)
class SignedFinding:
    """What a signature says of the finding; `recorded_by`: hash of the audit event that recorded it.

    `map_digest`: of its map; of a tiled picture, which has none, that of the strongest tile.
    """

    reference: str
    recorded_by: str
    image_digest: str
    model_digest: str
    settings_digest: str
    class_name: str
    class_score: float
    score: float
    threshold: float
    review_threshold: float | None
    reject_threshold: float | None
    map_digest: str | None

    def content(self) -> dict[str, Any]:
        """Return the finding's part of what is signed."""
        # Recorded signatures hold the digest of exactly these keys: another one needs a new SCHEME.
        return {
            "reference": self.reference,
            "recorded_by": self.recorded_by,
            "image": self.image_digest,
            "model": self.model_digest,
            "settings": self.settings_digest,
            "class": self.class_name,
            "class_score": self.class_score,
            "score": self.score,
            "threshold": self.threshold,
            "review_threshold": self.review_threshold,
            "reject_threshold": self.reject_threshold,
            "map": self.map_digest,
        }


def signed_finding(session: Session, finding_id: UUID) -> SignedFinding:
    """Return what a signature says of a finding."""
    return _signed_finding(session.execute(_finding_facts(Finding).where(Finding.id == finding_id)).one())


def sign_disposition(
    signer: Authenticated, at: datetime, finding: SignedFinding, row: Disposition
) -> dict[str, Any]:
    """Return the signature of who decides, over the finding and the decision."""
    return sign(signer, at, "responsibility", _disposition_content(finding, row))


def sign_dispositions(
    signer: Authenticated, at: datetime, decided: Sequence[tuple[SignedFinding, Disposition]]
) -> dict[str, Any]:
    """Return the one signature of who decides about several findings, over all that is decided."""
    signature = _signature_fields(signer, at, "responsibility", LIST_SCHEME) | {"decisions": len(decided)}
    members = {row.id: _disposition_content(finding, row) for finding, row in decided}
    digests = [digest_of(members[identifier]) for identifier in sorted(members)]
    return signature | {"digest": _list_digest(signature, digests)}


def sign_approval(
    signer: Authenticated, at: datetime, finding: SignedFinding, disposition: Disposition, row: Approval
) -> dict[str, Any]:
    """Return the second person's signature over the finding, the decision as signed, and their answer."""
    return sign(signer, at, MEANING_OF[row.decision], _approval_content(finding, disposition, row))


def check_signatures(session: Session) -> Iterator[tuple[str, str]]:
    """Compute every signature's digest again; yield (where, what is wrong) for each that does not hold.

    Checks as well that each signer was, when they signed, an active person of that name and role who was
    allowed to sign, and that nobody approved their own decision. Reads 500 signatures at a time. Call it for
    a record whose log is whole: rows that were changed may not even be readable.
    """
    lists: dict[str, _SignedList] = {}
    for page in pages(session, _dispositions_statement(), Disposition.id, of=_first_id):
        register = Register(session, {row.Disposition.person for row in page})
        for row in page:
            made: Disposition = row.Disposition
            where = f"disposition {made.id} of finding {row.reference}"
            content = _disposition_content(_signed_finding(row), made)
            signed = None
            if isinstance(made.signature, dict) and is_list_signature(made.signature):
                # Of one list are the rows whose signatures are alike in everything.
                first = _SignedList(where, made.signature, [])
                signed = lists.setdefault(digest_of(made.signature), first).members
            for message in wrong(made.signature, made, "responsibility", "decide", content, register, signed):
                yield where, message
    for each in lists.values():
        if message := each.problem:
            yield each.where, message
    for page in pages(session, _approvals_statement(), Approval.id, of=_first_id):
        register = Register(session, {row.Approval.person for row in page})
        for row in page:
            second: Approval = row.Approval
            made = row.Disposition
            where = f"{MEANING_OF[second.decision]} of disposition {made.id} of finding {row.reference}"
            if second.person == made.person:
                yield where, f"{second.person} decided and signed as the second person as well"
            if not made.needs_approval:
                yield where, "the decision did not need a second person"
            if second.event_sequence <= made.event_sequence:
                yield where, "is recorded before the decision itself"
            content = _approval_content(_signed_finding(row), made, second)
            meaning = MEANING_OF[second.decision]
            for message in wrong(second.signature, second, meaning, "approve", content, register):
                yield where, message


def sign(signer: Authenticated, at: datetime, meaning: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a person's signature over some content."""
    signature = _signature_fields(signer, at, meaning, SCHEME)
    return signature | {"digest": _signature_digest(signature, content)}


def is_list_signature(signature: Mapping[str, Any]) -> bool:
    """Return whether a signature is one over a list of decisions."""
    return set(signature) == {*_LIST_FIELDS, "digest"} and signature["scheme"] == LIST_SCHEME


def _signature_fields(signer: Authenticated, at: datetime, meaning: str, scheme: int) -> dict[str, Any]:
    return {
        "scheme": scheme,
        "login": signer.login,
        "name": signer.name,
        "role": signer.role,
        "at": time_text(at),
        "meaning": meaning,
    }


def _list_digest(signature: Mapping[str, Any], members: Sequence[str]) -> str:
    """Return the digest of a list's signature; `members`: digests of what was decided, by disposition id."""
    return digest_of(
        {"signed_by": {name: signature[name] for name in _LIST_FIELDS}, "decided": list(members)}
    )


@dataclass(frozen=True, slots=True)
class _SignedList:
    """Decisions that carry one signature, as far as they were read; `where`: the first of them."""

    where: str
    signature: Mapping[str, Any]
    members: list[str]

    @property
    def problem(self) -> str:
        """What is wrong with the signature's digest; empty where it holds."""
        count, signed = len(self.members), self.signature["decisions"]
        if count != signed:
            return f"its signature is over {signed} decisions, and {count} carry it"
        if _list_digest(self.signature, self.members) != self.signature["digest"]:
            return f"what was signed, a list of {count}, is not what is recorded: its digest is another"
        return ""


def _signature_digest(signature: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    # Who, when and why are part of it: a signature moved to another decision, or another's name, shows.
    return digest_of({"signed_by": {name: signature[name] for name in _FIELDS}, **content})


def _disposition_content(finding: SignedFinding, row: Disposition) -> dict[str, Any]:
    return {
        "finding": finding.content(),
        "disposition": {
            "id": row.id.hex,
            "decision": row.decision,
            "class": row.class_name,
            "reason": row.reason,
            "needs_approval": bool(row.needs_approval),
            "supersedes": None if row.supersedes_id is None else row.supersedes_id.hex,
        },
    }


def _approval_content(finding: SignedFinding, disposition: Disposition, row: Approval) -> dict[str, Any]:
    return _disposition_content(finding, disposition) | {
        "disposition_signature": (disposition.signature or {}).get("digest"),
        "approval": {"id": row.id.hex, "decision": row.decision, "reason": row.reason},
    }


def _finding_facts(*first: Any) -> Select[Any]:
    recorded = aliased(AuditEvent)
    return (
        select(
            *first,
            Finding.reference,
            recorded.hash.label("recorded_by"),
            Image.digest.label("image_digest"),
            ModelVersion.digest.label("model_digest"),
            Prediction.settings_digest,
            Finding.class_name,
            Finding.class_score,
            Finding.score,
            Finding.threshold,
            Prediction.review_threshold,
            Prediction.reject_threshold,
            Explanation.map_digest,
            Explanation.tiles,
        )
        .join(recorded, recorded.sequence == Finding.event_sequence)
        .join(Prediction, Prediction.id == Finding.prediction_id)
        .join(Image, Image.id == Prediction.image_id)
        .join(ModelVersion, ModelVersion.id == Prediction.model_version_id)
        .outerjoin(Explanation, Explanation.finding_id == Finding.id)
    )


def _signed_finding(row: Row[Any]) -> SignedFinding:
    facts = {name: getattr(row, name) for name in SignedFinding.__slots__}
    if row.tiles:
        facts["map_digest"] = row.tiles[0]["map_digest"]
    return SignedFinding(**facts)


def _dispositions_statement() -> Select[Any]:
    return _finding_facts(Disposition).join_from(Finding, Disposition, Disposition.finding_id == Finding.id)


def _approvals_statement() -> Select[Any]:
    return (
        _finding_facts(Approval, Disposition)
        .join_from(Finding, Disposition, Disposition.finding_id == Finding.id)
        .join(Approval, Approval.disposition_id == Disposition.id)
    )


def _first_id(row: Row[Any]) -> UUID:
    identifier: UUID = row[0].id
    return identifier


class Register:
    """What was true of some people at any time: their revisions, by login, in the order of events."""

    def __init__(self, session: Session, logins: set[str]) -> None:
        revisions = select(
            Person.login,
            PersonRevision.event_sequence,
            PersonRevision.name,
            PersonRevision.role,
            PersonRevision.active,
        ).join(PersonRevision, PersonRevision.person_id == Person.id)
        self._rows: dict[str, list[Row[Any]]] = {}
        for row in those(session, revisions.order_by(PersonRevision.event_sequence), Person.login, logins):
            self._rows.setdefault(row.login, []).append(row)

    def at(self, login: str, sequence: int) -> Row[Any] | None:
        """Return the revision that was in force when an event was written."""
        earlier = [row for row in self._rows.get(login, []) if row.event_sequence <= sequence]
        return earlier[-1] if earlier else None


def wrong(
    signature: Mapping[str, Any] | None,
    row: Disposition | Approval | ReportSignature,
    meaning: str,
    task: Task,
    content: Mapping[str, Any],
    register: Register,
    signed_list: list[str] | None = None,
) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong with a row's signature: its digest, or who it names.

    `signed_list`: where the signature is one over a list, the digests of what else it was put under; this
    row's is added to them, and the list's signature is checked when all of it was read.
    """
    scheme, names = (SCHEME, _FIELDS) if signed_list is None else (LIST_SCHEME, _LIST_FIELDS)
    if not isinstance(signature, dict) or set(signature) != {*names, "digest"}:
        yield "carries no signature"
        return
    if signature["scheme"] != scheme:
        yield f"its signature follows scheme {signature['scheme']}, not {scheme}"
        return
    try:
        if signed_list is not None:
            signed_list.append(digest_of(content))
        elif _signature_digest(signature, content) != signature["digest"]:
            yield "what was signed is not what is recorded: its signature has another digest"
    except RecordError as error:
        yield f"what was signed cannot be read: {error}"
        return
    if signature["login"] != row.person or signature["at"] != time_text(row.created_at):
        yield "its signature names another person or time than the record"
    if signature["meaning"] != meaning:
        yield f"its signature means {signature['meaning']}, not {meaning}"
    then = register.at(row.person, row.event_sequence)
    if then is None:
        yield f"nobody with the login {row.person} was known at that time"
    elif not then.active:
        yield f"{row.person} was disabled at that time"
    elif (then.name, then.role) != (signature["name"], signature["role"]):
        yield (
            f"its signature says {signature['name']}, {signature['role']}, "
            f"but {row.person} was {then.name}, {then.role} at that time"
        )
    elif task not in TASKS[then.role]:
        yield f"{row.person} was {then.role} at that time, who may not {task}"
