"""Signed notes: short texts under an Ed25519 signature, and the checkpoints of a log in that form.

The formats are C2SP's `signed-note` and `tlog-checkpoint`, which transparency logs use. So a stranger can
check a checkpoint with other tools than ours.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from db.columns import time_text
from db.errors import RecordError

_ED25519 = b"\x01"  # the signature type of signed-note; it comes before the public key
_DASH = "\N{EM DASH} "  # begins each signature line


class NoteError(RecordError):
    """A note, a checkpoint or a key is malformed, or no trusted key signed it."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key and the name of who signs with it; as text `NAME+ID+BASE64`."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The four bytes by which a signature names its key."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read a key from its text; NoteError where it is not one."""
        try:
            # Split from the left: base64 may hold plus signs, a name may not.
            name, key_id, data = text.strip().split("+", 2)
            raw = base64.b64decode(data, validate=True)
        except ValueError:
            raise NoteError(f"{text[:80]!r} is not a public key: expected NAME+ID+BASE64") from None
        key = cls(_checked_name(name), raw[1:])
        if raw[:1] != _ED25519 or len(raw) != 33 or key.key_id.hex() != key_id:
            raise NoteError(f"public key of {name!r}: not an Ed25519 key, or its id is not its own")
        return key


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and the name under which it signs."""

    name: str
    private: Ed25519PrivateKey

    @property
    def verifier(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(self.name, self.private.public_key().public_bytes_raw())

    def sign(self, text: str) -> str:
        """Return the signed note of a text, which must end with a line feed and have no empty line."""
        if not text.endswith("\n") or "\n\n" in text or text.startswith("\n"):
            raise NoteError("a note's text consists of lines that are not empty, each ended by a line feed")
        signature = self.verifier.key_id + self.private.sign(text.encode())
        return f"{text}\n{_DASH}{self.name} {base64.b64encode(signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class CheckpointNote:
    """What a checkpoint says: the first `tree_size` events of the log have this Merkle root.

    `origin`: the name of the log; `head_hash`: hash (hex) of event number `tree_size`; `at`: when it was
    signed; `signed_by`: names of the trusted keys whose signatures hold.
    """

    origin: str
    tree_size: int
    root: bytes
    head_hash: str
    at: datetime
    signed_by: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the text to sign."""
        return (
            f"{self.origin}\n{self.tree_size}\n{base64.b64encode(self.root).decode()}\n"
            f"head {self.head_hash}\ntime {time_text(self.at)}\n"
        )


def open_checkpoint(note: str, trusted: Sequence[VerifierKey]) -> CheckpointNote:
    """Read a checkpoint and check its signatures; NoteError where no trusted key's signature holds.

    Signatures by other keys are ignored, as the format demands. A signature by a trusted key that does not
    hold is an error, even beside another that does.
    """
    return _checkpoint_note(*_verified_text(note, trusted))


def parse_checkpoint(note: str) -> CheckpointNote:
    """Read what a checkpoint says without checking who signed it; NoteError where it is no checkpoint."""
    return _checkpoint_note(note.partition("\n\n")[0] + "\n", ())


def _checkpoint_note(text: str, signers: tuple[str, ...]) -> CheckpointNote:
    """Read a checkpoint's text, which must be exactly what `CheckpointNote.text` writes."""
    lines = text.splitlines()
    try:
        origin, size, root, head, at = lines[:5]
        checkpoint = CheckpointNote(
            origin=origin,
            tree_size=int(size),
            root=base64.b64decode(root, validate=True),
            head_hash=head.removeprefix("head "),
            at=datetime.fromisoformat(at.removeprefix("time ")),
            signed_by=signers,
        )
        same = checkpoint.text() == text
    except (ValueError, OverflowError):  # a time before the year 1 in UTC
        same = False
    if not same:
        raise NoteError("not a checkpoint of kensa: expected origin, size, root, head and time, a line each")
    return checkpoint


def _verified_text(note: str, trusted: Sequence[VerifierKey]) -> tuple[str, tuple[str, ...]]:
    """Return a note's text and the names of the trusted keys that signed it."""
    text, separator, signatures = note.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise NoteError("not a signed note: no text, empty line and signatures")
    text += "\n"
    try:
        signed = text.encode()
    except UnicodeEncodeError:
        raise NoteError("not a signed note: its text is not Unicode") from None
    signers = []
    for line in signatures[:-1].split("\n"):  # splitlines would take other ends too, and so other spellings
        name, _, data = line.removeprefix(_DASH).rpartition(" ")
        try:
            raw = base64.b64decode(data, validate=True)
        except ValueError:
            raw = b""
        # Decoding ignores the last bits, which carry nothing; a note must have one spelling.
        spelled = base64.b64encode(raw).decode() == data
        if not line.startswith(_DASH) or not name or len(raw) < 5 or not spelled:
            raise NoteError(f"{line[:80]!r} is not a signature line")
        for key in trusted:
            if (key.name, key.key_id) == (name, raw[:4]):
                try:
                    Ed25519PublicKey.from_public_bytes(key.public).verify(raw[4:], signed)
                except InvalidSignature:
                    raise NoteError(
                        f"the signature of {name!r} does not hold: the text was changed"
                    ) from None
                signers.append(name)
    if not signers:
        names = ", ".join(sorted(f"{key.name}+{key.key_id.hex()}" for key in trusted)) or "none was given"
        raise NoteError(f"no signature by a trusted key ({names})")
    return text, tuple(signers)


def generate_key(name: str) -> SigningKey:
    """Return a new key; NoteError for a name that is empty or holds spaces or plus signs."""
    return SigningKey(_checked_name(name), Ed25519PrivateKey.generate())


def write_key(key: SigningKey, folder: Path, passphrase: str | None) -> tuple[Path, Path]:
    """Write `NAME.key` (PEM, readable by its owner alone) and `NAME.pub`, and return their paths.

    Slashes in the name become dashes. NoteError where one of the files is there already.
    """
    stem = key.name.replace("/", "-")
    private, public = folder / f"{stem}.key", folder / f"{stem}.pub"
    folder.mkdir(parents=True, exist_ok=True)
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase.encode())
        if passphrase
        else serialization.NoEncryption()
    )
    pem = key.private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    try:
        for path, data, mode in ((private, pem, 0o600), (public, f"{key.verifier}\n".encode(), 0o644)):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
    except FileExistsError as error:
        raise NoteError(f"{error.filename}: is there already, and a key is never overwritten") from None
    return private, public


def read_verifier_keys(path: Path) -> list[VerifierKey]:
    """Read public keys, one a line; NoteError where the file is missing or holds something else."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise NoteError(f"{path}: cannot be read as a public key: {error}") from None
    if not lines:
        raise NoteError(f"{path}: holds no public key")
    return [VerifierKey.parse(line) for line in lines]


def read_signing_key(path: Path, passphrase: str | None) -> SigningKey:
    """Read a private key and, from `NAME.pub` beside it, the name under which it signs.

    Raises:
        NoteError: a file cannot be read, the passphrase is missing or wrong, or the two files do not belong
            together.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NoteError(
            f"{path}: cannot be read: {error.strerror}; make one with `kensa audit keygen`"
        ) from None
    try:
        private = serialization.load_pem_private_key(data, passphrase.encode() if passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        setting = "audit.passphrase, which belongs in the environment as KENSA_AUDIT__PASSPHRASE"
        hint = f"the passphrase is wrong: {setting}" if passphrase else f"it may need a passphrase: {setting}"
        raise NoteError(f"{path}: cannot be opened as a private key ({hint})") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise NoteError(f"{path}: is not an Ed25519 key; make one with `kensa audit keygen`")
    public = path.with_suffix(".pub")
    for verifier in read_verifier_keys(public):
        if verifier.public == private.public_key().public_bytes_raw():
            return SigningKey(verifier.name, private)
    raise NoteError(f"{public}: is not the public key of {path}")


def _checked_name(name: str) -> str:
    if not name or "+" in name or any(c.isspace() for c in name) or not name.isprintable():
        raise NoteError(f"key name {name!r}: give one without spaces and plus signs, such as plant-1/kensa")
    return name
