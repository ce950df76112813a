"""Reads the signatures of a PDF and finds out what each of them proves. Nothing is fetched."""

import io
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal

from asn1crypto import cms, crl
from asn1crypto.x509 import Certificate
from pyhanko.pdf_utils.misc import PdfError
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.general import extract_certificate_info
from pyhanko.sign.validation import (
    DocumentSecurityStore,
    DocumentTimestampStatus,
    EmbeddedPdfSignature,
    PdfSignatureStatus,
    SignatureCoverageLevel,
    validate_pdf_signature,
    validate_pdf_timestamp,
)
from pyhanko.sign.validation.errors import NoDSSFoundError
from pyhanko.sign.validation.generic_cms import extract_tst_data_iter
from pyhanko_certvalidator import ValidationContext
from pyhanko_certvalidator.errors import PathError, ValidationError

from reports.errors import ReportError
from reports.signatures.certificates import judge_certificate
from reports.signatures.encoding import oddities
from reports.signatures.keys import CertificateInfo, name_of
from reports.signatures.sign import SEAL, SIGN_OFF
from reports.signatures.updates import Update
from reports.wording import second

Outcome = Literal["ok", "not checked", "broken"]
Kind = Literal["seal", "sign-off", "time stamp", "signature"]


@dataclass(frozen=True)
class Check:
    """One thing that was checked, the outcome, and a sentence without its full stop."""

    what: str
    outcome: Outcome
    message: str

    def line(self) -> str:
        """Return it as a line of text."""
        if self.outcome == "not checked":
            return f"not checked: {self.what}, because {self.message}"
        return f"{'ok' if self.outcome == 'ok' else 'BROKEN'}: {self.what}: {self.message}"


@dataclass(frozen=True)
class SignatureFound:
    """A signature: its field, its kind, the signer that the certificate names, and the time.

    Attributes:
        at: from a time-stamp authority where `stamped`, else from the signer's own clock.
        trusted: whether the certificate leads to a trusted root. None where no root was given, or where it
            has expired and nothing proves that it was used before.
        intact: whether the signed bytes, and the signature itself, are as they were made.
        name, reason, location: what the signature itself claims.
    """

    field: str
    kind: Kind
    certificate: CertificateInfo
    at: datetime | None
    stamped: bool
    trusted: bool | None
    intact: bool
    name: str | None = None
    reason: str | None = None
    location: str | None = None


@dataclass(frozen=True)
class Signatures:
    """All signatures of a file in the order in which they were made, and what was checked about them.

    Attributes:
        content_digest: SHA-256 (hex) of the bytes before the first signature; None without any.
    """

    found: tuple[SignatureFound, ...]
    checks: tuple[Check, ...]
    content_digest: str | None


# What damaged bytes make pyHanko and asn1crypto raise, beside errors of their own.
_DAMAGE = (
    PdfError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    RecursionError,
    OverflowError,
    zlib.error,
)


def read_signatures(pdf: bytes, roots: Sequence[Certificate] = (), now: datetime | None = None) -> Signatures:
    """Return the signatures of a file and what was checked about them.

    Args:
        pdf: the file.
        roots: certificates that are trusted. Without any, who signed is not checked.
        now: the time as of which to check; the present where left out.

    Raises:
        ReportError: not a PDF that can be read.
    """
    try:
        reader = PdfFileReader(io.BytesIO(pdf))
        embedded = list(reader.embedded_signatures)
        content = _content_end(pdf, reader, embedded[0]) if embedded else None
    except _DAMAGE as error:
        raise ReportError(f"cannot be read as a PDF: {_reason_of(error)}") from error
    walk = _Walk(pdf, reader, roots, now or datetime.now(UTC))
    # The last one first: a time stamp proves that the signatures before it existed.
    for position, signature in reversed(list(enumerate(embedded))):
        walk.look_at(signature, last=position == len(embedded) - 1)
    return Signatures(
        tuple(reversed(walk.found)),
        tuple(check for checks in reversed(walk.checks) for check in checks),
        None if content is None else sha256(pdf[:content]).hexdigest(),
    )


def _content_end(pdf: bytes, reader: PdfFileReader, first: EmbeddedPdfSignature) -> int | None:
    """Return the offset at which the revision before the first signature ends.

    That is behind its %%EOF and the end of that line. None where the first revision is signed already.
    """
    if first.signed_revision == 0:
        return None
    before = reader.xrefs.get_xref_container_info(first.signed_revision - 1)
    end = pdf.index(b"%%EOF", before.end_location) + len(b"%%EOF")
    return end + next((len(eol) for eol in (b"\r\n", b"\n", b"\r") if pdf.startswith(eol, end)), 0)


class _Walk:
    """A walk over the signatures of a file, from the last to the first.

    `_known` is the time by which what the next signature covers is proved to have existed; at first, now.
    """

    def __init__(
        self, pdf: bytes, reader: PdfFileReader, roots: Sequence[Certificate], now: datetime
    ) -> None:
        self.found: list[SignatureFound] = []
        self.checks: list[list[Check]] = []
        self._pdf, self._reader, self._roots = pdf, reader, list(roots)
        self._known = now
        self._crls, self._certificates = _stored_evidence(reader)
        self._updates = [Update(reader, number) for number in range(1, reader.xrefs.total_revisions)]

    def look_at(self, signature: EmbeddedPdfSignature, *, last: bool) -> None:
        """Check one signature; what was found is added to `found` and `checks`."""
        kind = _kind(signature)
        what = f"{kind} {signature.field_name}"
        checks: list[Check] = []
        self.checks.append(checks)

        def add_check(outcome: Outcome, message: str, about: str = "{}") -> None:
            checks.append(Check(about.format(what), outcome, message))

        try:
            self.found.append(self._examine(signature, kind, last, add_check))
        except (ValidationError, PathError, *_DAMAGE) as error:
            add_check("broken", f"cannot be read: {_reason_of(error)}")

    def _examine(
        self, signature: EmbeddedPdfSignature, kind: Kind, last: bool, add_check: Callable[..., None]
    ) -> SignatureFound:
        nobody = ValidationContext(trust_roots=[], allow_fetching=False)
        status: PdfSignatureStatus | DocumentTimestampStatus = (
            validate_pdf_timestamp(signature, nobody, skip_diff=True)
            if kind == "time stamp"
            else validate_pdf_signature(signature, nobody, skip_diff=True)
        )
        wrong = oddities(self._pdf, signature, [*self._roots, *self._certificates])
        certificate = signature.signer_cert
        info = CertificateInfo.of(certificate)
        intact = status.intact and status.valid and not wrong
        if not (status.intact and status.valid):
            add_check("broken", "the bytes that it signs are not those that were signed")
        elif wrong:
            add_check("broken", f"it was changed itself: {wrong[0]}")
        else:
            add_check("ok", f"by {info.subject!r}; what it signs is unchanged")
        self._check_changes(status, signature, last, add_check)
        at: datetime | None
        stamped: bool | None
        if isinstance(status, DocumentTimestampStatus):
            at, stamped = status.timestamp, True
            trusted = self._check_trust(
                certificate, signature.signed_data, self._known, add_check, stamper=True
            )
            if trusted and intact:
                self._known = min(self._known, status.timestamp)
        else:
            at, stamped, moment = self._check_time(status, signature, add_check)
            intact = intact and stamped is not None
            trusted = self._check_trust(certificate, signature.signed_data, moment, add_check)
        claims = signature.sig_object
        return SignatureFound(
            field=str(signature.field_name),
            kind=kind,
            certificate=info,
            at=at,
            stamped=bool(stamped),
            trusted=trusted,
            intact=intact,
            name=_optional_text(claims.get("/Name")),
            reason=_optional_text(claims.get("/Reason")),
            location=_optional_text(claims.get("/Location")),
        )

    def _check_time(
        self, status: PdfSignatureStatus, signature: EmbeddedPdfSignature, add_check: Callable[..., None]
    ) -> tuple[datetime | None, bool | None, datetime]:
        """Check the time of a signature.

        Returns:
            When it was made; whether an authority says so, None where its stamp is broken; and since when it
            is known to exist.
        """
        stamp = status.timestamp_validity
        claimed = status.signer_reported_dt
        if stamp is None:
            own = "none is given" if claimed is None else f"{second(claimed)} is what the signer's clock said"
            add_check("not checked", f"no authority stamped it; {own}", "time of {}")
            return claimed, False, self._known
        if not (stamp.intact and stamp.valid):
            add_check("broken", "its time stamp is not one of this signature, or was changed", "time of {}")
            return claimed, None, self._known
        who = name_of(stamp.signing_cert)
        add_check("ok", f"{second(stamp.timestamp)}, stamped by {who!r}", "time of {}")
        token: cms.SignedData = next(iter(extract_tst_data_iter(signature.signer_info, signed=False)))
        if self._check_trust(stamp.signing_cert, token, self._known, add_check, stamper=True):
            return stamp.timestamp, True, min(self._known, stamp.timestamp)
        return stamp.timestamp, True, self._known

    def _check_trust(
        self,
        certificate: Certificate,
        signed: cms.SignedData,
        moment: datetime,
        add_check: Callable[..., None],
        *,
        stamper: bool = False,
    ) -> bool | None:
        """Return whether a certificate leads to a trusted root, as of a moment; None where that is open."""
        about = "time-stamp authority of {}" if stamper else "certificate of {}"
        if not self._roots:
            alone = "; it vouches for itself, as anybody's can under any name" * certificate.self_issued
            add_check("not checked", f"no trusted root was given (--trust PEM){alone}", about)
            return None
        others = [*extract_certificate_info(signed).other_certs, *self._certificates]
        trusted, reason = judge_certificate(
            certificate, others, self._roots, self._crls, moment, stamper=stamper
        )
        add_check("not checked" if trusted is None else "ok" if trusted else "broken", reason, about)
        return trusted

    def _check_changes(
        self,
        status: PdfSignatureStatus | DocumentTimestampStatus,
        signature: EmbeddedPdfSignature,
        last: bool,
        add_check: Callable[..., None],
    ) -> None:
        """Check what was done to the file after a signature."""
        about = "changes after {}"
        if status.coverage == SignatureCoverageLevel.ENTIRE_FILE:
            add_check("ok", "nothing follows it", about)
            return
        later = self._updates[signature.signed_revision :]
        if status.coverage != SignatureCoverageLevel.ENTIRE_REVISION:
            add_check("broken", "it does not cover the document from its first byte on", about)
        elif problem := next((each.problem for each in later if each.problem is not None), None):
            add_check("broken", f"the document was changed after it was signed: {problem}", about)
        elif not last:
            add_check("ok", "only later signatures follow it", about)
        elif not later or any(each.fields for each in later):
            add_check("broken", "something follows it that nobody signed", about)
        else:
            add_check("ok", "data for checking it was added, which nobody signed", about)


def _kind(signature: EmbeddedPdfSignature) -> Kind:
    if signature.sig_object_type == "/DocTimeStamp":
        return "time stamp"
    if signature.field_name == SEAL:
        return "seal"
    return "sign-off" if signature.field_name.startswith(SIGN_OFF) else "signature"


def _stored_evidence(reader: PdfFileReader) -> tuple[list[crl.CertificateList], list[Certificate]]:
    """Return the revocation lists and certificates that the file holds for its own checking (its DSS)."""
    # A store that cannot be read counts as absent: then revocation stays unchecked, and the check says so.
    with suppress(NoDSSFoundError, *_DAMAGE):
        store = DocumentSecurityStore.read_dss(reader)
        lists = [crl.CertificateList.load(each.get_object().data) for each in store.crls]
        return lists, list(store.load_certs())
    return [], []


def _optional_text(value: object) -> str | None:
    return None if value is None else str(value)


def _reason_of(error: object) -> str:
    return str(error) or type(error).__name__
