"""What the record says is stored, compared with what is: two ascending streams of digests, merged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.artifacts import ArtifactStore
from db.engine import Database
from db.errors import ArtifactError
from db.lookup import pages, those
from db.schema import Artifact, ArtifactRetention, Explanation

_MOST_NAMED = 10
# What `map_artifacts` takes of an explanation.
MAP_COLUMNS = (Explanation.map_digest, Explanation.block_map_digests, Explanation.tiles)


@dataclass(frozen=True, slots=True)
class Retention:
    """What the record last says of an artifact's bytes: removed by policy, or stored again after that."""

    state: str
    policy: str
    at: datetime

    @property
    def pruned(self) -> bool:
        """Whether the bytes are gone by policy."""
        return self.state == "pruned"

    def __str__(self) -> str:
        said = "pruned by policy on" if self.pruned else "stored again on"
        return f"{said} {self.at:%Y-%m-%d} ({self.policy})"


@dataclass(frozen=True, slots=True)
class Stock:
    """One digest. `kind`: None where no record knows it; `stored`: bytes lie under it, whatever they are."""

    digest: str
    kind: str | None
    stored: bool
    retention: Retention | None

    @property
    def pruned(self) -> bool:
        """Whether the record says that the bytes were removed by policy."""
        return self.retention is not None and self.retention.pruned


def retention_of(session: Session, digests: Collection[str]) -> dict[str, Retention]:
    """Return the last retention of each of these artifacts; most have none and are left out."""
    statement = select(ArtifactRetention).order_by(ArtifactRetention.event_sequence)
    rows = (row for (row,) in those(session, statement, ArtifactRetention.artifact_digest, digests))
    return {row.artifact_digest: Retention(row.state, row.policy, row.created_at) for row in rows}


def map_artifacts(
    map_digest: str | None,
    block_map_digests: Sequence[Mapping[str, str]],
    tiles: Sequence[Mapping[str, Any]] | None,
) -> Iterator[tuple[str, str]]:
    """Yield kind and digest of the artifacts that an explanation's columns (`MAP_COLUMNS`) name.

    Of a tiled picture the maps are those of its tiles.
    """
    if map_digest is not None:
        yield "map", map_digest
    for block in block_map_digests:
        yield "block_map", block["digest"]
    for tile in tiles or ():
        yield from map_artifacts(tile["map_digest"], tile["block_map_digests"], None)


def inventory(session: Session, store: ArtifactStore) -> Iterator[Stock]:
    """Yield every digest that the record or the store knows, ascending; memory does not grow with them."""
    there = store.digests()
    next_there = next(there, None)
    for page in pages(session, select(Artifact.digest, Artifact.kind), Artifact.digest):
        said = retention_of(session, [digest for digest, _ in page])
        for digest, kind in page:
            while next_there is not None and next_there < digest:
                yield Stock(next_there, None, True, None)
                next_there = next(there, None)
            stored = next_there == digest
            if stored:
                next_there = next(there, None)
            yield Stock(digest, kind, stored, said.get(digest))
    while next_there is not None:
        yield Stock(next_there, None, True, None)
        next_there = next(there, None)


def check_artifacts(
    db: Database, session: Session, store: ArtifactStore, report: Callable[[str, str, str], None]
) -> tuple[int, list[str]]:
    """Read every artifact again; return how many are recorded, and remarks on what is no failure.

    Args:
        db: the record.
        session: reads the snapshot that is verified.
        store: the artifacts.
        report: called with kind, place and message of each artifact that is missing or changed, and was not
            pruned.
    """
    recorded = left = orphans = 0
    pruned: Counter[tuple[str, str]] = Counter()
    named: list[str] = []
    for stock in inventory(session, store):
        if stock.kind is None:
            orphans += 1
            if len(named) < _MOST_NAMED:
                named.append(store.path(stock.digest))
            continue
        recorded += 1
        said = stock.retention
        if said is None or not said.pruned:
            try:
                store.check(stock.digest)
                continue
            except ArtifactError as error:
                said = _pruned_meanwhile(db, stock.digest)
                if said is None:
                    report("artifact", f"{stock.kind} {stock.digest}", str(error))
                    continue
        else:
            left += stock.stored
        pruned[f"{said.at:%Y-%m-%d}", said.policy] += 1
    remarks = [
        f"{many(count, 'artifact')} pruned by policy on {day} ({policy})"
        for (day, policy), count in sorted(pruned.items())
    ]
    if left:
        remarks.append(
            f"{many(left, 'artifact')} recorded as pruned, but the bytes are still there: "
            "`kensa db prune` removes them"
        )
    if orphans:
        more = f" and {orphans - len(named)} more" if orphans > len(named) else ""
        what = "1 stored file belongs" if orphans == 1 else f"{orphans} stored files belong"
        remarks.append(
            f"{what} to no record: a run is about to record them, an interrupted run left them, or the "
            f"database was set back to before them: {', '.join(named)}{more}; `kensa db prune --orphans` "
            "removes those older than a day"
        )
    return recorded, remarks


def _pruned_meanwhile(db: Database, digest: str) -> Retention | None:
    """Return a removal that was recorded after the snapshot was taken: a prune meanwhile is no loss."""
    with db.session() as now:
        said = retention_of(now, [digest]).get(digest)
    return said if said is not None and said.pruned else None


def many(count: int, what: str) -> str:
    """Return a count with its noun, such as `3 pictures`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
