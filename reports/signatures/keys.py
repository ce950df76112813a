"""Private keys that sign reports: in a PKCS#12 file, or on a PKCS#11 token, which never lets them out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pkcs11
from asn1crypto.x509 import Certificate
from pkcs11 import Attribute, ObjectClass
from pyhanko.config.pkcs11 import TokenCriteria
from pyhanko.sign.pkcs11 import PKCS11Signer, open_pkcs11_session
from pyhanko.sign.signers import Signer, SimpleSigner

from reports.errors import ReportError

# What an X.509 key usage must allow, if it says anything: to sign content, or to commit to it.
_SIGNING = frozenset({"digital_signature", "non_repudiation"})


@dataclass(frozen=True)
class Pkcs12Key:
    """A PKCS#12 file (.p12, .pfx) with a key, its certificate and, preferably, the certificates above it."""

    path: Path
    passphrase: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class TokenKey:
    """A key on a PKCS#11 token (smart card, HSM): the driver's library, and the labels on the token."""

    module: Path
    token: str
    key: str
    certificate: str
    pin: str | None = field(default=None, repr=False)


Key = Pkcs12Key | TokenKey


@dataclass(frozen=True)
class CertificateInfo:
    """What a certificate says: its subject and issuer, how long it is valid, and its SHA-256 (hex)."""

    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    self_signed: bool
    digest: str

    @classmethod
    def of(cls, certificate: Certificate) -> "CertificateInfo":
        """Return what a certificate says."""
        return cls(
            subject=name_of(certificate),
            issuer=certificate.issuer.human_friendly,
            not_before=certificate.not_valid_before,
            not_after=certificate.not_valid_after,
            self_signed=certificate.self_issued,
            digest=certificate.sha256.hex(),
        )


def name_of(certificate: Certificate) -> str:
    """Return what people call a certificate's subject: its common name, else the whole distinguished name."""
    common = certificate.subject.native.get("common_name")
    return common if isinstance(common, str) else certificate.subject.human_friendly


def may_sign(certificate: Certificate) -> bool:
    """Return whether a certificate's key usage, if it says anything, allows it to sign documents."""
    usage = certificate.key_usage_value
    return usage is None or bool(_SIGNING & usage.native)


@contextmanager
def open_key(key: Key) -> Iterator[Signer]:
    """Open a key and yield what signs with it, once its certificate has been found fit for that.

    Raises:
        ReportError: the file or token cannot be opened, holds no such key, its passphrase or PIN is wrong,
            or the certificate has expired or is for something else.
    """
    if isinstance(key, Pkcs12Key):
        signer = _load_signer(key)
        _check_certificate(signer.signing_cert, str(key.path))
        yield signer
        return
    with _open_token(key) as session:
        signer = _find_signer(session, key)
        _check_certificate(signer.signing_cert, f"token {key.token}")
        yield signer


def describe_key(key: Key) -> CertificateInfo:
    """Open a key and return what its certificate says.

    Raises:
        ReportError: as `open_key`.
    """
    with open_key(key) as signer:
        return CertificateInfo.of(signer.signing_cert)


def _load_signer(key: Pkcs12Key) -> Signer:
    try:
        data = key.path.read_bytes()
    except OSError as error:
        raise ReportError(f"{key.path}: the signing key cannot be read: {error.strerror}") from None
    try:
        signer: Signer = SimpleSigner.load_pkcs12_data(
            data, (), key.passphrase.encode() if key.passphrase else None
        )
    except (ValueError, AttributeError, NotImplementedError):  # AttributeError: it holds no key
        hint = "the passphrase is wrong" if key.passphrase else "it may need a passphrase"
        raise ReportError(
            f"{key.path}: cannot be opened as PKCS#12 with a key and its certificate ({hint})"
        ) from None
    return signer


def _open_token(key: TokenKey) -> pkcs11.Session:
    try:
        return open_pkcs11_session(
            str(key.module), token_criteria=TokenCriteria(label=key.token), user_pin=key.pin
        )
    except pkcs11.PinIncorrect:
        raise ReportError(f"token {key.token}: the PIN is wrong; too many wrong ones lock a token") from None
    except pkcs11.PKCS11Error as error:
        reason = f"{type(error).__name__} {error}".strip()
        raise ReportError(
            f"token {key.token}: cannot be opened with {key.module} ({reason}): is it there, "
            "and are library, label and PIN right?"
        ) from None


def _find_signer(session: pkcs11.Session, key: TokenKey) -> Signer:
    stored = {
        (found[Attribute.LABEL], bytes(found[Attribute.VALUE]))
        for found in session.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE})
    }
    certificates = [Certificate.load(value) for label, value in stored if label == key.certificate]
    keys = list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: key.key}))
    for what, label, number in (
        ("certificate", key.certificate, len(certificates)),
        ("private key", key.key, len(keys)),
    ):
        if number != 1:
            raise ReportError(f"token {key.token}: holds {number} objects {what} {label!r}, expected one")
    return PKCS11Signer(
        session,
        signing_cert=certificates[0],
        key_label=key.key,
        ca_chain=_chain_above(certificates[0], [Certificate.load(value) for _, value in stored]),
    )


def _chain_above(certificate: Certificate, others: list[Certificate]) -> list[Certificate]:
    """Return the chain above a certificate; a token may hold certificates of other people as well."""
    chain: list[Certificate] = []
    while not certificate.self_issued:
        issuers = [other for other in others if other.subject == certificate.issuer and other not in chain]
        if not issuers:
            break
        certificate = issuers[0]
        chain.append(certificate)
    return chain


def _check_certificate(certificate: Certificate, where: str) -> None:
    now, info = datetime.now(UTC), CertificateInfo.of(certificate)
    if not info.not_before <= now <= info.not_after:
        raise ReportError(
            f"{where}: the certificate of {info.subject} is valid from {info.not_before:%Y-%m-%d} to "
            f"{info.not_after:%Y-%m-%d} only: renew it, or correct the clock"
        )
    if not may_sign(certificate):
        raise ReportError(f"{where}: the certificate of {info.subject} is not one to sign documents with")
