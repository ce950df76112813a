"""Removing artifacts by policy: recorded first, then done, each batch under the chain lock.

A crash in between leaves bytes that are recorded as pruned, which `clear` removes. So nothing is ever lost
without a record. What a run has just stored is younger than `artifacts.GRACE` and stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.artifacts import ArtifactStore
from db.chain.events import Actor, head
from db.columns import utc_now
from db.engine import Database
from db.files import GRACE
from db.lookup import those
from db.retention.inventory import inventory, retention_of
from db.retention.policy import Candidate, PrunePolicy, candidates, used_since
from db.schema import Artifact, ArtifactRetention

_BATCH = 200  # artifacts per event, and per time that the chain lock is held


@dataclass(slots=True)
class Pruned:
    """What a prune removed, or in a dry run would: artifacts and bytes by kind.

    `fresh`: not removed, because their bytes were stored again within a day; `missing`: not removed, because
    there are no bytes, which verification reports.
    """

    counts: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    fresh: int = 0
    missing: int = 0


@dataclass(slots=True)
class Cleared:
    """What a clearing removed, or in a dry run would: bytes recorded as pruned, and orphans."""

    leftovers: int = 0
    orphans: int = 0


def prune(
    db: Database,
    store: ArtifactStore,
    policy: PrunePolicy,
    *,
    actor: Actor,
    reason: str | None = None,
    dry_run: bool = False,
) -> Pruned:
    """Remove the artifacts that a policy allows to be removed, in batches: first the event, then the bytes.

    An artifact is removed if every row that refers to it was recorded before the policy's time: a picture's
    prediction, a map's explanation, and each listing of the picture by a later run.
    """
    result = Pruned()
    # By first digit: memory then holds the maps that stay for one sixteenth of the digests at a time.
    for digit in "0123456789abcdef":
        with db.session() as session:
            since = head(session).sequence
            going = candidates(session, policy, digit)
            while batch := list(islice(going, _BATCH)):
                gone = []
                for one in batch:
                    if not store.exists(one.digest):
                        result.missing += 1
                    elif not store.settled(one.digest):
                        result.fresh += 1
                    else:
                        gone.append(one)
                if not dry_run:
                    gone = _record_pruned(db, policy, gone, since, actor, reason)
                    _remove_pruned(db, store, [one.digest for one in gone])
                for one in gone:
                    result.counts[one.kind] += 1
                    result.sizes[one.kind] += one.size
    return result


def clear(
    db: Database,
    store: ArtifactStore,
    *,
    orphans: bool,
    actor: Actor,
    reason: str | None = None,
    dry_run: bool = False,
) -> Cleared:
    """Remove bytes that are recorded as pruned and, with `orphans`, bytes of no record older than a day.

    The removal of orphans is recorded first, an event for each batch.
    """
    result = Cleared()
    with db.session() as session:
        leftovers: list[str] = []
        unknown: list[str] = []
        for stock in inventory(session, store):
            if stock.stored and stock.pruned:
                leftovers.append(stock.digest)
            elif orphans and stock.kind is None and store.settled(stock.digest):
                unknown.append(stock.digest)
            if len(leftovers) == _BATCH:
                result.leftovers += _remove_pruned(db, store, leftovers, dry_run=dry_run)
                leftovers = []
            if len(unknown) == _BATCH:
                result.orphans += _remove_orphans(db, store, unknown, actor, reason, dry_run)
                unknown = []
        result.leftovers += _remove_pruned(db, store, leftovers, dry_run=dry_run)
        result.orphans += _remove_orphans(db, store, unknown, actor, reason, dry_run)
    return result


def _record_pruned(
    db: Database,
    policy: PrunePolicy,
    batch: Sequence[Candidate],
    since: int,
    actor: Actor,
    reason: str | None,
) -> list[Candidate]:
    """Record as pruned, and return, those of a batch that have not come into use since it was chosen."""
    with db.write() as recorder:
        session, now = recorder.session, utc_now()
        said = retention_of(session, [one.digest for one in batch])
        needed = used_since(session, since) | {digest for digest, each in said.items() if each.pruned}
        gone = [one for one in batch if one.digest not in needed]
        if gone:
            recorder.add(
                [
                    ArtifactRetention(
                        artifact_digest=one.digest, state="pruned", policy=str(policy), created_at=now
                    )
                    for one in gone
                ],
                action="artifacts.pruned",
                actor=actor,
                entity="artifact_store",
                entity_id="prune",
                payload={
                    "count": len(gone),
                    "bytes": sum(one.size for one in gone),
                    "policy": str(policy),
                    "kinds": list(policy.kinds),
                    "keep_findings": policy.keep_findings,
                    "undecided_too": policy.undecided_too,
                },
                artifact_digests=[one.digest for one in gone],
                reason=reason,
            )
    return gone


def _remove_pruned(
    db: Database, store: ArtifactStore, digests: Sequence[str], *, dry_run: bool = False
) -> int:
    """Remove bytes that the record, read under the chain lock, says are pruned; return how many."""
    if not digests:
        return 0
    with db.exclusive() as connection, Session(connection) as session:
        gone = [
            digest
            for digest, said in retention_of(session, digests).items()
            # Bytes put again a moment ago stay: a run is about to record them as restored.
            if said.pruned and store.settled(digest)
        ]
        for digest in gone if not dry_run else ():
            store.delete(digest)
    return len(gone)


def _remove_orphans(
    db: Database,
    store: ArtifactStore,
    digests: Sequence[str],
    actor: Actor,
    reason: str | None,
    dry_run: bool,
) -> int:
    """Record, then remove, bytes that no record knows; return how many."""

    def unknown(session: Session) -> list[str]:
        known = {row.digest for row in those(session, select(Artifact.digest), Artifact.digest, digests)}
        return [digest for digest in digests if digest not in known and store.settled(digest)]

    if not digests or dry_run:
        return len(digests)
    with db.write() as recorder:
        gone = unknown(recorder.session)
        if gone:
            recorder.add(
                [],
                action="artifacts.orphans_removed",
                actor=actor,
                entity="artifact_store",
                entity_id="orphans",
                payload={"count": len(gone), "policy": f"of no record, older than {GRACE.days} d"},
                artifact_digests=gone,
                reason=reason,
            )
    with db.exclusive() as connection, Session(connection) as session:
        for digest in unknown(session):
            store.delete(digest)
    return len(gone)
