"""Judges whether a trusted root vouches for a certificate at a given time. Nothing is fetched for that."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from asn1crypto import crl
from asn1crypto.x509 import Certificate
from pyhanko_certvalidator import CertificateValidator, ValidationContext
from pyhanko_certvalidator.errors import ExpiredError, PathError, RevokedError, ValidationError

from reports.signatures.keys import may_sign, name_of
from reports.wording import second


def judge_certificate(
    certificate: Certificate,
    others: Sequence[Certificate],
    roots: Sequence[Certificate],
    crls: Sequence[crl.CertificateList],
    moment: datetime,
    *,
    stamper: bool = False,
) -> tuple[bool | None, str]:
    """Return whether a certificate led to one of the roots at a moment (RFC 5280), and a sentence of why.

    The answer is None for a certificate that leads to a root but had expired by then: nothing proves that it
    was used before.

    Args:
        certificate: the signer's.
        others: certificates that may lie between it and a root.
        roots: certificates that are trusted.
        crls: revocation lists. Without one that fits, the sentence says that revocation was not checked.
        moment: when the certificate has to be valid.
        stamper: judge it as that of a time-stamp authority, which need not be one to sign documents.
    """
    who = repr(name_of(certificate))
    if not stamper and not may_sign(certificate):
        return False, f"that of {who} is not one to sign documents with"
    error: Exception | None = None
    # First a revocation list is required for each certificate, then one may be absent: the sentence tells.
    for mode in ("require", "soft-fail"):
        context = ValidationContext(
            trust_roots=list(roots),
            other_certs=others,
            crls=crls,
            moment=moment,
            revocation_mode=mode,
            allow_fetching=False,
        )
        validator = CertificateValidator(certificate, validation_context=context)
        purpose = {"time_stamping"} if stamper else set()
        try:
            usable = validator.async_validate_usage(set(), purpose)  # type: ignore[no-untyped-call]
            path = asyncio.run(usable)
        except (PathError, ValidationError) as failed:
            error = failed
            if isinstance(failed, RevokedError):  # that stays so without the requirement
                break
            continue
        root = repr(name_of(path.first)) if path.first is not None else "a trusted root"
        known = "not revoked by then" if mode == "require" else "whether it was revoked is not in the file"
        return True, f"{root} vouches for {who}, as of {second(moment)}; {known}"
    if isinstance(error, ExpiredError):
        return None, (
            f"that of {who}, or one above it, had expired by {second(moment)}, and no trusted time stamp "
            "proves that it was used before"
        )
    return False, f"no trusted root vouches for {who}, as of {second(moment)}: {error}"
