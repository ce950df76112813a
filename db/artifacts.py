"""The artifact store: bytes under their own digest, written atomically, verified at each read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from db.errors import ArtifactError
from db.failures import named_failures
from db.files import GRACE, open_folder, put_atomically, remove_unfinished
from db.schema import ARTIFACT_KINDS

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """What the database records of stored bytes: SHA-256 (hex), kind, media type, size in bytes."""

    digest: str
    kind: str
    media_type: str
    size: int


class ArtifactStore:
    """Content-addressed storage behind fsspec: `ROOT/sha256/ab/cd/abcd…`.

    `root` is a path or any fsspec URL. Nothing is ever overwritten with other bytes. `delete` is for
    `db.retention` alone, which records what it removes.
    """

    def __init__(self, root: str | Path) -> None:
        self._files, self.root = open_folder(root)

    def path(self, digest: str) -> str:
        """Return where the bytes of this digest lie; ArtifactError for anything but 64 hex digits."""
        if not _DIGEST.fullmatch(digest):  # it comes from the database, and must not name a path elsewhere
            raise ArtifactError(f"{digest!r} is not a SHA-256 digest")
        return f"{self.root}/sha256/{digest[:2]}/{digest[2:4]}/{digest}"

    def put(self, data: bytes, kind: str, media_type: str) -> ArtifactRef:
        """Store bytes under their digest; the same bytes twice are stored once.

        Readers see the whole artifact or none. A damaged artifact is replaced by the good bytes. One that is
        old is written again: its new age protects it from removal until it is recorded.
        """
        if kind not in ARTIFACT_KINDS:
            raise ArtifactError(f"artifact kind {kind!r} is none of {', '.join(ARTIFACT_KINDS)}")
        ref = ArtifactRef(hashlib.sha256(data).hexdigest(), kind, media_type, len(data))
        path = self.path(ref.digest)
        if not self._holds(ref.digest) or self._settled(path, GRACE / 2):
            # In one folder, where `remove_unfinished` need not look through the 65,536 others.
            put_atomically(self._files, path, data, beside=self.root)
        return ref

    def remove_unfinished(self) -> None:
        """Remove what processes that were killed left of writing, see `files.remove_unfinished`."""
        remove_unfinished(self._files, self.root)

    def get(self, digest: str) -> bytes:
        """Return the bytes; ArtifactError where they are missing or are not those that were stored."""
        # A replay records these messages as its reason, so their spelling stays.
        path = self.path(digest)
        try:
            with named_failures(path):
                data: bytes = self._files.cat_file(path)
        except FileNotFoundError:
            raise ArtifactError(f"artefact {digest} is missing: {path} does not exist") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise ArtifactError(f"artefact {digest} was changed: the bytes of {path} have another digest")
        return data

    def check(self, digest: str) -> None:
        """Raise ArtifactError where the stored bytes are missing or changed; read them piece by piece."""
        path = self.path(digest)
        try:
            with named_failures(path), self._files.open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise ArtifactError(f"artefact {digest} is missing: {path} does not exist") from None
        if found != digest:
            raise ArtifactError(f"artefact {digest} was changed: the bytes of {path} have another digest")

    def exists(self, digest: str) -> bool:
        """Return whether bytes lie under this digest, without reading them."""
        return bool(self._files.exists(self.path(digest)))

    def settled(self, digest: str) -> bool:
        """Return whether bytes lie under this digest and were put longer ago than `GRACE`."""
        return self._settled(self.path(digest), GRACE)

    def delete(self, digest: str) -> None:
        """Remove the bytes; it is no error where there are none."""
        path = self.path(digest)
        try:
            self._files.rm_file(path)
        except FileNotFoundError:
            return

    def digests(self) -> Iterator[str]:
        """Yield the digests under which bytes lie, ascending; memory holds 1/256 of them at a time."""
        for first in range(256):
            folder = f"{self.root}/sha256/{first:02x}"
            if not self._files.exists(folder):
                continue
            for path in sorted(self._files.find(folder)):
                name = path.rpartition("/")[2]
                if _DIGEST.fullmatch(name) and path == self.path(name):  # others are no artifacts of ours
                    yield name

    def _settled(self, path: str, age: timedelta) -> bool:
        try:
            written: datetime = self._files.modified(path)
        except FileNotFoundError:
            return False
        written = written if written.tzinfo else written.replace(tzinfo=UTC)
        return datetime.now(UTC) - written > age

    def _holds(self, digest: str) -> bool:
        try:
            self.check(digest)
        except ArtifactError:
            return False
        return True
