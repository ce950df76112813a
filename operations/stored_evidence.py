"""A finding's evidence read back from the artifact store.

The processes that draw pages do that: nothing heavy is imported here.
"""

import logging
from dataclasses import dataclass

from db.artifacts import ArtifactStore
from db.errors import ArtifactError
from operations.inspection.map_files import decode_map
from reports.content.finding import Box, Evidence

_log = logging.getLogger("kensa")


@dataclass(frozen=True)
class StoredEvidence:
    """Where a finding's evidence lies: digests of what should be there, None for what is known to be gone.

    Of a tiled picture `tiles` names the map of each explained tile by its rectangle, and `block_maps` are
    those of the first.
    """

    store: ArtifactStore
    picture: str | None
    map: str | None
    block_maps: tuple[tuple[str, str], ...]
    picture_gap: str | None = None
    tiles: tuple[tuple[Box, str], ...] = ()

    def __call__(self) -> Evidence:
        """Read it; what is missing or changed becomes a gap."""
        fused = self._read(self.map)
        lost = "the stored map is missing or was changed: run `kensa audit verify`"
        blocks = [(name, self._read(digest)) for name, digest in self.block_maps]
        tiles = [(rectangle, self._read(digest)) for rectangle, digest in self.tiles]
        tiles_lost = bool(tiles) and all(data is None for _, data in tiles)
        return Evidence(
            picture=self._read(self.picture),
            picture_gap=self.picture_gap,
            map=None if fused is None else decode_map(fused),
            map_gap=lost if tiles_lost or (self.map is not None and fused is None) else None,
            block_maps=tuple((name, decode_map(data)) for name, data in blocks if data is not None),
            tiles=tuple((rectangle, decode_map(data)) for rectangle, data in tiles if data is not None),
        )

    def _read(self, digest: str | None) -> bytes | None:
        try:
            return None if digest is None else self.store.get(digest)
        except ArtifactError as error:
            _log.warning("%s", error)
            return None
