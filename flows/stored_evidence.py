"""A finding's evidence read back from the artefact store.

The processes that draw pages do that: nothing heavy is imported here.
"""

import io
import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from db.artifacts import ArtifactStore
from db.errors import ArtifactError
from reports.content.finding import Evidence

FloatMap = npt.NDArray[np.float32]
_log = logging.getLogger("kensa")


@dataclass(frozen=True)
class StoredEvidence:
    """Where a finding's evidence lies: digests of what should be there, None for what is known to be gone."""

    store: ArtifactStore
    picture: str | None
    map: str | None
    block_maps: tuple[tuple[str, str], ...]
    picture_gap: str | None = None

    def __call__(self) -> Evidence:
        """Read it; what is missing or changed becomes a gap."""
        fused = self._read(self.map)
        lost = "the stored map is missing or was changed: run `kensa audit verify`"
        blocks = [(name, self._read(digest)) for name, digest in self.block_maps]
        return Evidence(
            picture=self._read(self.picture),
            picture_gap=self.picture_gap,
            map=None if fused is None else decode_map(fused),
            map_gap=lost if self.map is not None and fused is None else None,
            block_maps=tuple((name, decode_map(data)) for name, data in blocks if data is not None),
        )

    def _read(self, digest: str | None) -> bytes | None:
        try:
            return None if digest is None else self.store.get(digest)
        except ArtifactError as error:
            _log.warning("%s", error)
            return None


def decode_map(data: bytes) -> FloatMap:
    """Read a map that `flows.evidence.encode_map` wrote: (h, w) float32 in [0, 1], exact to 1/65535."""
    with Image.open(io.BytesIO(data)) as picture:
        return (np.asarray(picture, dtype=np.float32) / np.float32(65535)).astype(np.float32)
