"""The artefact store: bytes under their own digest, written atomically, verified at each read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from db.errors import ArtifactError
from db.files import open_folder, put_atomically
from db.schema import ARTIFACT_KINDS

_DIGEST = re.compile(r"[0-9a-f]{64}")
# Bytes put less than this ago may be about to be recorded: nothing removes them. A batch takes far less.
GRACE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """What the database says of stored bytes: SHA-256 (hex), kind, media type, size in bytes."""

    digest: str
    kind: str
    media_type: str
    size: int


class ArtifactStore:
    """Content-addressed storage behind fsspec: `ROOT/sha256/ab/cd/abcd…`.

    `root` is a path or any fsspec URL. Nothing is ever overwritten with other bytes; `delete` is for
    `db.retention` alone, which records what it removes.
    """

    def __init__(self, root: str | Path) -> None:
        self._files, self.root = open_folder(root)

    def path(self, digest: str) -> str:
        """Give where the bytes of this digest lie; ArtifactError for anything but 64 hex digits."""
        if not _DIGEST.fullmatch(digest):  # a digest comes from the database: it must not name another path
            raise ArtifactError(f"{digest!r} is not a SHA-256 digest")
        return f"{self.root}/sha256/{digest[:2]}/{digest[2:4]}/{digest}"

    def put(self, data: bytes, kind: str, media_type: str) -> ArtifactRef:
        """Store bytes under their digest; the same bytes twice are stored once.

        Readers see the whole artefact or none. One found damaged is replaced by the good bytes; one that
        has lain there for long is written anew, so that nobody takes it for left over before it is recorded.
        """
        if kind not in ARTIFACT_KINDS:
            raise ArtifactError(f"artefact kind {kind!r} is none of {', '.join(ARTIFACT_KINDS)}")
        ref = ArtifactRef(hashlib.sha256(data).hexdigest(), kind, media_type, len(data))
        path = self.path(ref.digest)
        if not self._holds(ref.digest) or self._settled(path, GRACE / 2):
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            put_atomically(self._files, path, data)
        return ref

    def get(self, digest: str) -> bytes:
        """Give the bytes; ArtifactError where they are missing or are not those that were stored."""
        path = self.path(digest)
        try:
            data: bytes = self._files.cat_file(path)
        except FileNotFoundError:
            raise ArtifactError(f"artefact {digest} is missing: {path} does not exist") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise ArtifactError(f"artefact {digest} was changed: the bytes of {path} have another digest")
        return data

    def check(self, digest: str) -> None:
        """Raise ArtifactError where the stored bytes are missing or changed; reads them piece by piece."""
        path = self.path(digest)
        try:
            with self._files.open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise ArtifactError(f"artefact {digest} is missing: {path} does not exist") from None
        if found != digest:
            raise ArtifactError(f"artefact {digest} was changed: the bytes of {path} have another digest")

    def exists(self, digest: str) -> bool:
        """Whether bytes lie under this digest, unread."""
        return bool(self._files.exists(self.path(digest)))

    def settled(self, digest: str) -> bool:
        """Whether bytes lie under this digest that were put longer ago than `GRACE`."""
        return self._settled(self.path(digest), GRACE)

    def delete(self, digest: str) -> None:
        """Remove the bytes; none there is no error."""
        path = self.path(digest)
        try:
            self._files.rm_file(path)
        except FileNotFoundError:
            return

    def digests(self) -> Iterator[str]:
        """Stream the digests under which bytes lie, ascending; memory holds 1/256 of them at a time."""
        for first in range(256):
            folder = f"{self.root}/sha256/{first:02x}"
            if not self._files.exists(folder):
                continue
            for path in sorted(self._files.find(folder)):
                name = path.rpartition("/")[2]
                if _DIGEST.fullmatch(name) and path == self.path(name):
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
