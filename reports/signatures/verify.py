"""Checks whether a file is a report as it was issued, as far as the file alone can tell.

That is signatures, attached files and their digests. What only the record or a public key of the audit log
can tell is added by `kensa report verify`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from asn1crypto.x509 import Certificate

from reports.attachments.manifest import Attached, read_attached
from reports.errors import ReportError
from reports.signatures.read import Check, SignatureFound, read_signatures
from reports.wording import second


@dataclass(frozen=True)
class FileVerification:
    """A file, by name and SHA-256 (hex), what it holds, and what was checked.

    Attributes:
        content_digest: of the report as it was rendered, before the first signature; of the whole file where
            it bears none.
        attached: None for a file that cannot be read as a report.
    """

    name: str
    digest: str
    content_digest: str | None
    signatures: tuple[SignatureFound, ...]
    checks: tuple[Check, ...]
    attached: Attached | None = field(default=None, repr=False)

    @property
    def title(self) -> str:
        """The report's number and revision that the file states; else the file's name."""
        if self.attached is None or self.attached.manifest is None:
            return self.name
        return f"report {self.attached.number} revision {self.attached.revision}"


def verify_file(name: str, pdf: bytes, roots: Sequence[Certificate] = ()) -> FileVerification:
    """Check every signature of a file, and the attached files against the manifest. Nothing is raised.

    Args:
        name: what to call the file.
        pdf: its bytes.
        roots: certificates that are trusted. Without any, who signed is not checked.
    """
    digest = sha256(pdf).hexdigest()
    checks: list[Check] = []
    try:
        signatures = read_signatures(pdf, roots)
    except ReportError as error:
        return FileVerification(name, digest, None, (), (Check("file", "broken", str(error)),))
    checks += signatures.checks or (
        Check("signatures", "not checked", "the file bears none: nothing in it proves who issued it"),
    )
    attached, check = _check_attached(pdf)
    content = signatures.content_digest if signatures.checks else digest
    return FileVerification(name, digest, content, signatures.found, (*checks, check), attached)


def summary(file: FileVerification, checks: Sequence[Check]) -> str:
    """Return a sentence or two on what a stranger may conclude from all checks of a file."""
    broken = [check for check in checks if check.outcome == "broken"]
    if broken:
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        return (
            f"Do not rely on {file.name}: it is not, or not wholly, what it says it is "
            f"({broken[0].what}: {broken[0].message}{more})."
        )
    people = [each for each in file.signatures if each.kind != "time stamp"]
    if not people:
        known = "; the record knows it" if _is_ok(checks, "record") else ""
        return (
            f"{file.name} is {file.title}; nothing in it contradicts itself{known}, but it bears no "
            "signature: by itself it does not prove who issued it."
        )
    first = people[0]
    when = "" if first.at is None else f" on {second(first.at)}"
    clock = "" if first.stamped else ", by the signer's own clock"
    others = f", and {len(people) - 1} more signed after that" if len(people) > 1 else ""
    sentence = (
        f"{file.name} is {file.title}, unchanged since {first.certificate.subject!r} signed it{when}"
        f"{clock}{others}."
    )
    if any(each.trusted is None for each in people):
        sentence += (
            " Whether that name is true is not proved (see below), and anybody can make a certificate in any "
            "name."
        )
    if left := sum(check.outcome == "not checked" for check in checks):
        sentence += f" {left} {'thing was' if left == 1 else 'things were'} not checked."
    return sentence


def _is_ok(checks: Sequence[Check], what: str) -> bool:
    return any(check.what == what and check.outcome == "ok" for check in checks)


def _check_attached(pdf: bytes) -> tuple[Attached | None, Check]:
    what = "attached files"
    try:
        attached = read_attached(pdf)
    except ReportError as error:
        return None, Check(what, "broken", str(error))
    if attached.manifest is None:
        return attached, Check(what, "not checked", "the file carries no manifest: it is no report of kensa")
    if attached.problems:
        return attached, Check(what, "broken", "; ".join(attached.problems))
    if not attached.listed:
        return attached, Check(what, "not checked", "the manifest is of an older kind, which lists none")
    number = len(attached.listed)
    return attached, Check(what, "ok", f"the {number} files are those that the manifest lists, by SHA-256")
