"""The organisation's seal, and people's own keys, from the settings and the command line."""

import logging
from dataclasses import dataclass

from configs.credentials import masked_text
from configs.loading import ConfigError
from configs.schema import SignatureSettings
from reports.signatures.keys import CertificateInfo, Key, Pkcs12Key, TokenKey, describe_key
from reports.signatures.sign import Act, Profile, check_profile, seal

_log = logging.getLogger("kensa")


@dataclass(frozen=True)
class Sealed:
    """A PDF under the organisation's seal; where that failed, as it was, and the problem."""

    pdf: bytes
    problem: str | None = None


def profile_of(settings: SignatureSettings) -> Profile:
    """Return how the settings want signatures to be made."""
    return Profile(
        level=settings.level,
        timestamp_url=settings.timestamp_url,
        trust_roots=settings.trust_roots,
        crls=settings.crls,
        timeout=settings.timeout,
    )


def seal_key(settings: SignatureSettings) -> Key:
    """Return the organisation's key.

    Raises:
        ConfigError: the settings name none.
    """
    secret = None if settings.passphrase is None else settings.passphrase.get_secret_value()
    if settings.pkcs12 is not None:
        return Pkcs12Key(settings.pkcs12, secret)
    if settings.pkcs11 is not None:
        token = settings.pkcs11
        return TokenKey(token.module, token.token, token.key, token.certificate, secret)
    raise ConfigError("report.signature: names no key: give pkcs12 or pkcs11")


def check_seal(settings: SignatureSettings) -> CertificateInfo | None:
    """Open the key and read what else signing takes; None where reports are not to be sealed.

    Raises:
        ReportError: the key does not open, or a file cannot be read. The time-stamp authority is not asked.
    """
    if not settings.configured:
        return None
    check_profile(profile_of(settings))
    return describe_key(seal_key(settings))


def seal_report(pdf: bytes, settings: SignatureSettings, name: str) -> Sealed:
    """Put the organisation's seal on a report; what prevents it is returned, for a report is never lost.

    `name`: the report's number and revision, in words.
    """
    act = Act(f"{name}: issued as the inspection recorded it", location=settings.location)
    try:
        return Sealed(seal(pdf, seal_key(settings), profile_of(settings), act))
    except Exception as error:  # noqa: BLE001 - a token's driver has errors of its own; the report is there
        told = masked_text(
            str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        )
        _log.error("%s was not sealed: %s", name, told)
        return Sealed(pdf, told)
