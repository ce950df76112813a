"""Signs a report with PAdES signatures (ETSI EN 319 142), each an update after bytes that stay as they were.

The first is the organisation's seal. It certifies the document and allows further signatures (DocMDP level
2). People sign off in fields that the seal leaves empty for them, so that their signatures do not break it.
"""

import io
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pkcs11
from asn1crypto import cms, crl, pem
from asn1crypto.x509 import Certificate
from pyhanko.keys import load_certs_from_pemder_data
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.misc import PdfError
from pyhanko.pdf_utils.writer import BasePdfFileWriter
from pyhanko.sign import fields
from pyhanko.sign.signers import PdfSignatureMetadata, PdfSigner, constants
from pyhanko.sign.signers.pdf_signer import DSSContentSettings
from pyhanko.sign.timestamps.requests_client import RequestsHTTPTimeStamper
from pyhanko_certvalidator import ValidationContext
from pyhanko_certvalidator.errors import PathError, ValidationError

from reports.errors import ReportError
from reports.signatures.keys import Key, open_key
from reports.wording import clip

Level = Literal["B-B", "B-T", "B-LTA"]

SEAL = "kensa-seal"
SIGN_OFF = "kensa-signoff-"
_PREPARED = 4  # empty fields for sign-offs; more are added when these are used up

# What goes wrong comes back as an exception; its warnings would land between the lines of a run.
logging.getLogger("pyhanko").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Profile:
    """How signatures are made.

    Attributes:
        level: B-B is the signature alone. B-T adds the time from an authority (RFC 3161). B-LTA adds what is
            needed to check it when certificates have expired, under a time stamp of its own.
        timestamp_url: the authority, the only address that signing contacts.
        trust_roots: PEM files. Where given, our own certificate and the authority's must lead to one of them.
        crls: files of revocation lists to embed (B-LTA); none is ever fetched.
        timeout: seconds to wait for the authority to connect, and for each piece of its answer.
    """

    level: Level = "B-B"
    timestamp_url: str | None = None
    trust_roots: tuple[Path, ...] = ()
    crls: tuple[Path, ...] = ()
    timeout: float = 20.0


@dataclass(frozen=True)
class Act:
    """What a signature says: why, where, and who acts if that is not the owner of the certificate."""

    reason: str
    location: str | None = None
    name: str | None = None


class _PadesSigner(PdfSigner):
    def register_extensions(self, pdf_out: BasePdfFileWriter, *, md_algorithm: str) -> None:
        """Declare PAdES alone.

        For elliptic curves pyHanko would declare PDF 2.0 as well, and PDF/A-3 is PDF 1.7.
        """
        pdf_out.register_extension(constants.ESIC_EXTENSION_1)


class _Authority(RequestsHTTPTimeStamper):
    """A time-stamp authority, whose answers are checked before they are used."""

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__(url, timeout=timeout)  # type: ignore[no-untyped-call]

    async def async_timestamp(self, message_digest: bytes, md_algorithm: str) -> cms.ContentInfo:
        """Return a time stamp of a digest.

        Raises:
            ReportError: none comes, or one of something else.
        """
        try:
            token = await super().async_timestamp(message_digest, md_algorithm)
            token.native  # noqa: B018 - reads all of it, or raises
            stamped = token["content"]["encap_content_info"]["content"].parsed["message_imprint"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{error}" + (f" ({type(error.__cause__).__name__})" if error.__cause__ else "")
            raise ReportError(
                f"the time-stamp authority {self.url} gave no time stamp: {why}; try again later, or sign at "
                "level B-B"
            ) from error
        if stamped["hashed_message"].native != message_digest:
            raise ReportError(f"the time-stamp authority {self.url} answered with a stamp of something else")
        return token


def seal(pdf: bytes, key: Key, profile: Profile, act: Act) -> bytes:
    """Return a report under the organisation's seal; its first bytes are those of the report.

    Raises:
        ReportError: it is signed already, the key does not open, or the authority does not answer.
    """
    return _sign(pdf, key, profile, act, SEAL)


def sign_off(pdf: bytes, key: Key, profile: Profile, act: Act) -> bytes:
    """Return a report with one more signature of a person, after those that it bears, which stay valid.

    Raises:
        ReportError: the key does not open, or the authority does not answer.
    """
    return _sign(pdf, key, profile, act, SIGN_OFF)


def read_certificates(paths: Sequence[Path]) -> list[Certificate]:
    """Read certificates from PEM or DER files.

    Raises:
        ReportError: a file is missing or holds something else.
    """
    return _read_all(paths, "certificate", load_certs_from_pemder_data)


def read_crls(paths: Sequence[Path]) -> list[crl.CertificateList]:
    """Read certificate revocation lists from PEM or DER files.

    Raises:
        ReportError: a file is missing or holds something else.
    """
    return _read_all(paths, "certificate revocation list", _parse_crls)


def _parse_crls(data: bytes) -> list[crl.CertificateList]:
    blocks = [block for _, _, block in pem.unarmor(data, multiple=True)] if pem.detect(data) else [data]
    return [crl.CertificateList.load(block, strict=True) for block in blocks]


def _read_all(paths: Sequence[Path], what: str, parse: Callable[[bytes], Iterable[Any]]) -> list[Any]:
    """Read what each file holds.

    Raises:
        ReportError: a file cannot be read, or holds nothing of the kind.
    """
    found: list[Any] = []
    for path in paths:
        try:
            parsed = list(parse(path.read_bytes()))
            for each in parsed:
                each.native  # noqa: B018 - reads all of it, or raises
        except OSError as error:
            raise ReportError(f"{path}: the {what} cannot be read: {error.strerror}") from None
        except ValueError:
            parsed = []
        if not parsed:
            raise ReportError(f"{path}: expected {what}s in PEM or DER")
        found += parsed
    return found


def check_profile(profile: Profile) -> None:
    """Read what a profile names, without asking the authority.

    Raises:
        ReportError: a file cannot be read, or something that the level needs is not named.
    """
    _trust_context(profile)
    _stamp_authority(profile)


def _sign(pdf: bytes, key: Key, profile: Profile, act: Act, field: str) -> bytes:
    context, authority = _trust_context(profile), _stamp_authority(profile)
    lasting = profile.level == "B-LTA"
    with open_key(key) as signer:
        try:
            writer = IncrementalPdfFileWriter(io.BytesIO(pdf))
            name = _empty_field(writer, field)
            meta = PdfSignatureMetadata(
                field_name=name,
                md_algorithm="sha256",
                reason=clip(act.reason, 500),
                location=clip(act.location, 200) if act.location else None,
                name=clip(act.name, 200) if act.name else None,
                certify=field == SEAL,
                docmdp_permissions=fields.MDPPerm.FILL_FORMS,
                subfilter=fields.SigSeedSubFilter.PADES,
                validation_context=context,
                signer_key_usage=set(),  # looked at when the key was opened
                embed_validation_info=lasting,
                use_pades_lta=lasting,
                timestamp_field_name=f"{name}-time",
                # With the index that it makes (VRI) an update would follow the last time stamp, unsigned.
                dss_settings=DSSContentSettings(include_vri=False),
            )
            signed = _PadesSigner(meta, signer, timestamper=authority).sign_pdf(
                writer, existing_fields_only=True, output=io.BytesIO()
            )
        except ReportError:
            raise
        except (ValueError, PdfError, PathError, ValidationError, pkcs11.PKCS11Error) as error:
            raise ReportError(_failure_message(error)) from error
    return bytes(signed.getvalue())


def _empty_field(writer: IncrementalPdfFileWriter, kind: str) -> str:
    """Return the name of an empty field to sign in, which is made if there is none."""
    there = {name: value for name, value, _ in fields.enumerate_sig_fields(writer.prev)}
    if kind == SEAL:
        if any(value is not None for value in there.values()):
            raise ReportError("the report bears a signature already: the seal is the first, and there is one")
        _add_field(writer, SEAL, "Seal of the organisation that issued this report")
        for number in range(1, _PREPARED + 1):
            _add_sign_off(writer, number)
        return SEAL
    number = next(each for each in count(1) if there.get(f"{SIGN_OFF}{each}") is None)
    if f"{SIGN_OFF}{number}" not in there:
        _add_sign_off(writer, number)
    return f"{SIGN_OFF}{number}"


def _add_sign_off(writer: IncrementalPdfFileWriter, number: int) -> None:
    _add_field(writer, f"{SIGN_OFF}{number}", f"Sign-off {number}")


def _add_field(writer: IncrementalPdfFileWriter, name: str, label: str) -> None:
    # Outside of the page and yet printable: PDF/A forbids hidden annotations, PDF/UA untagged ones in sight.
    unseen = fields.InvisSigSettings(box_out_of_bounds=True)
    fields.append_signature_field(
        writer, fields.SigFieldSpec(name, readable_field_name=label, invis_sig_settings=unseen)
    )


def _trust_context(profile: Profile) -> ValidationContext | None:
    """Return what our own certificates are checked against before they sign; None where no root is named."""
    lasting = profile.level == "B-LTA"
    if not profile.trust_roots:
        if lasting:
            raise ReportError("signatures of level B-LTA take trust_roots: the roots of both certificates")
        return None
    lists = read_crls(profile.crls)
    return ValidationContext(
        trust_roots=read_certificates(profile.trust_roots),
        crls=lists,
        allow_fetching=False,
        # With lists at hand a certificate that none of them is about is a mistake; without, none can be.
        revocation_mode="require" if lists else "soft-fail",
    )


def _stamp_authority(profile: Profile) -> _Authority | None:
    if profile.level == "B-B":
        return None
    if profile.timestamp_url is None:
        raise ReportError(f"signatures of level {profile.level} take a time-stamp authority: timestamp_url")
    return _Authority(profile.timestamp_url, profile.timeout)


def _failure_message(error: Exception) -> str:
    cause = error.__cause__
    reason = f"{error}" + (f" ({cause})" if cause is not None and str(cause) else "")
    if isinstance(error, PathError | ValidationError) or isinstance(cause, PathError | ValidationError):
        return f"{reason}: do trust_roots and crls fit the certificates of the key and of the authority?"
    return f"the report could not be signed: {reason}"
