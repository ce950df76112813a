"""Signing the audit trail's head after a run: the key, the folder, and what happens when that fails."""

import logging
from dataclasses import dataclass
from pathlib import Path

from configs.credentials import masked_text
from configs.schema import AuditSettings, Settings
from db.chain.events import Actor
from db.engine import Database
from db.errors import RecordError
from db.transparency.checkpoints import CheckpointFolder, record_failure, sign_checkpoint
from db.transparency.signed_notes import SigningKey, VerifierKey, read_signing_key, read_verifier_keys
from db.verification.witness import Witness
from operations.retries import retried

_log = logging.getLogger("kensa")


@dataclass(frozen=True)
class Signer:
    """What signs: the key, where notes go, and the keys that earlier notes may bear."""

    key: SigningKey
    folder: CheckpointFolder
    trusted: tuple[VerifierKey, ...]


@dataclass(frozen=True)
class SignedHead:
    """How signing went: so many events by this key, or the reason why it failed."""

    events: int = 0
    key: str = ""
    folder: str = ""
    problem: str | None = None

    def sentence(self) -> str:
        """Say it in a few words."""
        if self.problem is not None:
            return f"no checkpoint: {self.problem}"
        return f"checkpoint: {self.events} events signed by {self.key}, kept in {self.folder}"


def open_signer(settings: Settings) -> Signer | None:
    """Read the signing key; None where no checkpoints are wanted.

    Raises:
        RecordError: the key cannot be read, or its passphrase is missing or wrong.
    """
    audit = settings.audit
    if audit.checkpoints is None or audit.signing_key is None:
        return None
    passphrase = audit.passphrase.get_secret_value() if audit.passphrase else None
    return Signer(
        read_signing_key(audit.signing_key, passphrase),
        CheckpointFolder(audit.checkpoints),
        tuple(_keys(audit.trusted_keys)),
    )


def sign_head(database: Database, signer: Signer, *, actor: Actor) -> SignedHead:
    """Sign the head of the log; what prevents it is recorded and returned, for the run itself is done."""
    try:
        made = retried(sign_checkpoint)(
            database, signer.folder, signer.key, actor=actor, trusted=signer.trusted
        )
    except Exception as error:  # noqa: BLE001 - a bucket has errors of its own; the run is done all the same
        told = str(error) if isinstance(error, RecordError) else f"{type(error).__name__}: {error}"
        problem = masked_text(told)
        _log.error("no checkpoint was signed: %s", problem)
        retried(record_failure)(database, problem, actor=actor)
        return SignedHead(problem=problem)
    return SignedHead(made.tree_size, signer.key.name, str(signer.folder))


def witness_of(audit: AuditSettings, checkpoints: str | None, keys: list[Path] | None) -> Witness | None:
    """Return what vouches for the log: given folder and public keys, else those of the settings.

    Raises:
        RecordError: a key cannot be read, or there is a folder and no key.
    """
    folder = checkpoints or audit.checkpoints
    if folder is None:
        return None
    trusted = audit_keys(audit, keys)
    if not trusted:
        raise RecordError("checkpoints can be checked against a public key only: give --key FILE.pub")
    return Witness(CheckpointFolder(folder), trusted)


def audit_keys(audit: AuditSettings | None, given: list[Path] | None) -> list[VerifierKey]:
    """Read the public keys that checkpoints may bear: the given ones, else those of the settings.

    Raises:
        RecordError: a key cannot be read.
    """
    if given or audit is None:
        return _keys(given or [])
    own = [audit.signing_key.with_suffix(".pub")] if audit.signing_key else []
    return _keys([*own, *audit.trusted_keys])


def _keys(paths: list[Path] | tuple[Path, ...]) -> list[VerifierKey]:
    return [key for path in paths for key in read_verifier_keys(path)]
