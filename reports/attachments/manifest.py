"""What a report carries for machines: its record, its listing, and where in the audit log it belongs.

The manifest, `kensa-audit.json`, names every other attached file with its SHA-256, so that a signature over
the PDF and the manifest's place in the audit log speak for all of them.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.resources import files
from typing import Any, Literal

from reports.attachments.listing import ListedPicture, listing_csv
from reports.attachments.record_json import moment, plain, text
from reports.content.base import AuditHead, Report
from reports.document import AttachedFile
from reports.errors import ReportError
from reports.wording import Conclusion

Kind = Literal["run", "period", "finding", "part", "model"]

FORMAT = "kensa-report/1"
MANIFEST_FORMAT = "kensa-manifest/1"
MANIFEST = "kensa-audit.json"
RECORD = "kensa-record.json"
SCHEMA = "kensa-record.schema.json"
LISTING = "kensa-listing.csv"
CHECKPOINT = "kensa-checkpoint.txt"
PROOFS = "kensa-proofs.json"
_LARGEST = 400_000_000  # bytes of an attached file that are read


@dataclass(frozen=True)
class Superseded:
    """The revision that a report replaces: its number and the SHA-256 (hex) of its PDF."""

    revision: int
    digest: str


@dataclass(frozen=True)
class Supplement:
    """What a report carries beside its record.

    `gone`: uris of the listing that were not in the source any more at the run's end; a column of the listing
    marks them, where there are any. `inspected_before`: how many pictures of the source the run left out, as
    earlier runs had inspected them. Both are no part of the record, whose schema is in every older report.
    `listing` is read once, one picture at a time. `proofs` is what `make_proof` in
    `db.transparency.inclusion` returns for the events of the findings; `kensa audit check` checks the file as
    it is.
    """

    listing: Iterable[ListedPicture] | None = None
    proofs: Mapping[str, Any] | None = None
    supersedes: Superseded | None = None
    gone: tuple[str, ...] = ()
    inspected_before: int = 0


def attach(
    kind: Kind,
    record: Report,
    supplement: Supplement | None = None,
    *,
    conclusion: Conclusion | None = None,
    reasons: Iterable[str] = (),
    run: str | None = None,
) -> tuple[AttachedFile, ...]:
    """Return the files to attach to a report, the manifest last. The same record gives the same bytes.

    `reasons` say why a report is incomplete; `run` is the database id of a run report's run.

    Raises:
        ReportError: a number in the record that is not finite, or a value that no record has.
    """
    checkpoint = None if record.checkpoint is None else record.checkpoint.note
    beside = supplement or Supplement()
    content = {
        "format": FORMAT,
        "kind": kind,
        "verdict": None
        if conclusion is None
        else {
            "word": plain(conclusion.word),
            "sentence": plain(conclusion.sentence),
            "reasons": plain(list(reasons)),
        },
        "record": plain(record),
    }

    def file(name: str, description: str, data: bytes, media_type: str = "application/json") -> AttachedFile:
        return AttachedFile(name, description, data, record.issued_at, media_type)

    made = [
        file(RECORD, "What the report says, for machines", canonical(content)),
        file(SCHEMA, "JSON Schema of the record", schema_bytes(), "application/schema+json"),
    ]
    if beside.listing is not None:
        listing = listing_csv(beside.listing, frozenset(beside.gone))
        made.append(file(LISTING, "Every listed picture", listing, "text/csv"))
    if checkpoint is not None:
        note = text(checkpoint).encode()
        made.append(file(CHECKPOINT, "Signed checkpoint of the audit log", note, "text/plain"))
    if beside.proofs is not None:
        proofs = json.dumps(plain(beside.proofs), indent=1, ensure_ascii=False) + "\n"
        made.append(file(PROOFS, "Proofs that the findings are in the log", proofs.encode()))
    head = record.audit_head
    # The manifest comes last: it holds the digests of all the others.
    manifest = {
        "format": MANIFEST_FORMAT,
        "report": record.number,
        "revision": record.revision,
        "kind": kind,
        "run": run,
        "issued_at": moment(record.issued_at),
        "supersedes": None
        if beside.supersedes is None
        else {"revision": beside.supersedes.revision, "sha256": beside.supersedes.digest},
        "audit_head": None if head is None else {"sequence": head.sequence, "hash": head.hash},
        "checkpoint": checkpoint,
        "files": [
            {
                "name": file.name,
                "media_type": file.media_type,
                "size": len(file.data),
                "sha256": sha256(file.data).hexdigest(),
            }
            for file in made
        ],
    }
    written = json.dumps(plain(manifest), indent=2, ensure_ascii=False) + "\n"
    what = "Where in the audit log this report belongs, and the digests of its files"
    return (*made, file(MANIFEST, what, written.encode()))


def canonical(content: Any) -> bytes:
    """Return JSON in its one canonical form (RFC 8785). ReportError for a whole number beyond 2**53."""
    import rfc8785

    try:
        return rfc8785.dumps(content)
    except rfc8785.CanonicalizationError as error:
        raise ReportError(f"record: cannot be written as canonical JSON: {error}") from error


def schema_bytes() -> bytes:
    """Return the schema of records as it is shipped and attached."""
    return files("reports").joinpath(f"schemas/{SCHEMA}").read_bytes()


@dataclass(frozen=True)
class Attached:
    """What a PDF carries: `digest` is the SHA-256 (hex) of its bytes, `files` the attached files by name.

    `manifest` is None for a PDF that is no report of kensa. Reports from before there was a list of files
    have a manifest without one: `listed` is empty then. `problems` are sentences: a listed file that is
    missing or is not the one listed, one that is attached but not listed, a record of another report.
    """

    digest: str
    files: Mapping[str, bytes] = field(repr=False)
    manifest: Mapping[str, Any] | None
    head: AuditHead | None
    checkpoint: str | None
    listed: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def number(self) -> str | None:
        """The report's number."""
        return None if self.manifest is None else str(self.manifest["report"])

    @property
    def revision(self) -> int | None:
        """The report's revision."""
        return None if self.manifest is None else int(self.manifest["revision"])

    @property
    def kind(self) -> str | None:
        """The report's kind; "run" for those from before there were others."""
        return None if self.manifest is None else str(self.manifest.get("kind", "run"))

    @property
    def proofs(self) -> Mapping[str, Any] | None:
        """The inclusion proofs, for `check_proof` to check; ReportError where they are not JSON."""
        return None if PROOFS not in self.files else _json_object(PROOFS, self.files[PROOFS])


def read_attached(pdf: bytes) -> Attached:
    """Return what a report carries, checked against its manifest.

    The check shows that the files belong together. That nobody changed all of them is shown by the signatures
    and the audit log.

    Raises:
        ReportError: not a PDF, or the manifest is damaged.
    """
    found, repeated = _attached_files(pdf)
    digest = sha256(pdf).hexdigest()
    if MANIFEST not in found:
        return Attached(digest, found, None, None, None, (), ())
    manifest = _json_object(MANIFEST, found[MANIFEST])
    try:
        str(manifest["report"]), int(manifest["revision"])  # what `Attached` reads later must be there
        head = manifest.get("audit_head")
        listed = {
            str(each["name"]): (int(each["size"]), str(each["sha256"])) for each in manifest.get("files", ())
        }
        note = manifest.get("checkpoint")
        audit_head = AuditHead(int(head["sequence"]), str(head["hash"])) if head else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReportError(f"cannot be read as a report of kensa: {MANIFEST}: {error!r}") from error
    problems = [f"{name} is attached more than once" for name in repeated]
    if "files" in manifest:
        problems += _manifest_problems(listed, found, manifest)
    return Attached(
        digest=digest,
        files=found,
        manifest=manifest,
        head=audit_head,
        checkpoint=None if note is None else str(note),
        listed=tuple(listed),
        problems=tuple(problems),
    )


def _attached_files(pdf: bytes) -> tuple[dict[str, bytes], list[str]]:
    """Return the attached files by name, and the names that occur more than once."""
    from pypdf import PdfReader, apply_configuration
    from pypdf.errors import PyPdfError

    try:
        # A stranger's file must not fill the memory; a listing of a million pictures must be read.
        with apply_configuration(
            zlib_maximum_output_length=_LARGEST,
            stream_decoding_work_maximum_length=4 * _LARGEST,
            maximum_declared_stream_length=_LARGEST,
        ):
            pairs = [
                (each.alternative_name or each.name, each.content)
                for each in PdfReader(io.BytesIO(pdf)).attachment_list
            ]
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReportError(f"cannot be read as a report of kensa: {error}") from error
    counts = Counter(name for name, _ in pairs)
    return dict(pairs), [name for name, count in counts.items() if count > 1]


def _manifest_problems(
    listed: Mapping[str, tuple[int, str]], found: Mapping[str, bytes], manifest: Mapping[str, Any]
) -> list[str]:
    problems = []
    for name, (size, digest) in listed.items():
        if name not in found:
            problems.append(f"{name} is listed, but not attached")
        elif len(found[name]) != size or sha256(found[name]).hexdigest() != digest:
            problems.append(f"{name} is not the file that the manifest lists: its SHA-256 is another")
    problems += [
        f"{name} is attached, but not listed" for name in found if name not in listed and name != MANIFEST
    ]
    if RECORD in found and not problems:
        record = _json_object(RECORD, found[RECORD])
        inner = record.get("record")
        said = (
            record.get("kind"),
            *((inner.get("number"), inner.get("revision")) if isinstance(inner, dict) else (None, None)),
        )
        if said != (manifest.get("kind"), manifest.get("report"), manifest.get("revision")):
            problems.append(f"{RECORD} is the record of another report than {MANIFEST} names")
    if CHECKPOINT in found and found[CHECKPOINT] != str(manifest.get("checkpoint")).encode():
        problems.append(f"{CHECKPOINT} is not the checkpoint in {MANIFEST}")
    return problems


def _json_object(name: str, data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ReportError(f"cannot be read as a report of kensa: {name}: {error}") from error
    if not isinstance(content, dict):
        raise ReportError(f"cannot be read as a report of kensa: {name} is not a JSON object")
    return content
