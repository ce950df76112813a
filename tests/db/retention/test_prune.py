"""Pruning by policy: what goes, what stays, what the record says; a crash, and a run beside it."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from db.artifacts import GRACE, ArtifactStore
from db.chain.events import Actor, head
from db.columns import utc_now
from db.errors import RecordError
from db.inspection.batches import record_batch
from db.inspection.runs import RunHandle
from db.retention import prune as pruning
from db.retention.inventory import check_artifacts, retention_of
from db.retention.policy import PRUNABLE, PrunePolicy, age_before, used_since
from db.retention.prune import Cleared, Pruned
from db.retention.prune import clear as record_clear
from db.retention.prune import prune as record_prune
from db.schema import Approval, ArtifactRetention, AuditEvent, Disposition, Finding

Plant = Any  # tests/db/conftest.py; test folders are not packages
WHO = Actor("operator", "human")
LATER = timedelta(hours=1)


def policy(before: datetime | None = None, **changed: Any) -> PrunePolicy:
    return PrunePolicy(older_than="2y", before=before or utc_now() + LATER, **changed)


def age(store: ArtifactStore, *digests: str) -> None:
    """Let stored bytes look as if they had been put long ago."""
    for digest in digests or tuple(store.digests()):
        os.utime(store.path(digest), (0, 0))


def prune(plant: Plant, wanted: PrunePolicy, **options: Any) -> Pruned:
    return record_prune(plant.db, plant.store, wanted, actor=WHO, **options)


def clear(plant: Plant, **options: Any) -> Cleared:
    return record_clear(plant.db, plant.store, actor=WHO, **({"orphans": False} | options))


def remarks(plant: Plant) -> list[str]:
    """What a verification, which must find nothing broken, says of the artifacts."""
    found = plant.verify(artifacts=plant.store)
    assert found.problems == ()
    told = (" pruned by policy on ", " recorded as pruned, ", " to no record: ")
    return [remark for remark in found.remarks if any(part in remark for part in told)]


def digest_of(data: str) -> str:
    return hashlib.sha256(data.encode()).hexdigest()


def evidence(number: int) -> list[str]:
    """Digests of what `Plant.outcome` puts of a flagged picture."""
    return [digest_of(f"{kind} {number}") for kind in ("picture", "map", "block map")]


def there(plant: Plant, *digests: str) -> list[bool]:
    return [plant.store.exists(digest) for digest in digests]


@pytest.fixture
def run(plant: Plant) -> RunHandle:
    """A finished run of four pictures, 1 and 2 of them flagged, and its report; all bytes put long ago."""
    made: RunHandle = plant.finished_run(range(4))
    # Plant.outcome puts every picture; those that are not flagged belong to no record.
    for number in (0, 3):
        plant.store.delete(digest_of(f"picture {number}"))
    age(plant.store)
    return made


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        ("90d", datetime(2026, 3, 2, 12, tzinfo=UTC)),
        ("6w", datetime(2026, 4, 19, 12, tzinfo=UTC)),
        ("3m", datetime(2026, 2, 28, 12, tzinfo=UTC)),
        ("18m", datetime(2024, 11, 30, 12, tzinfo=UTC)),
        ("2y", datetime(2024, 5, 31, 12, tzinfo=UTC)),
    ],
)
def test_ages_go_by_the_calendar(age: str, expected: datetime) -> None:
    assert age_before(age, datetime(2026, 5, 31, 12, tzinfo=UTC)) == expected


def test_what_is_no_age_is_refused() -> None:
    now = utc_now()
    assert age_before("1y", datetime(2024, 2, 29, tzinfo=UTC)) == datetime(2023, 2, 28, tzinfo=UTC)
    for wrong in ("", "2", "0d", "-1d", "2 years", "1h", "99999y", "9999999d"):
        with pytest.raises(RecordError):
            age_before(wrong, now)


def test_reports_and_models_are_never_pruned() -> None:
    for kinds in (("report",), ("picture", "model"), ()):
        with pytest.raises(RecordError, match="are not pruned"):
            policy(kinds=kinds)
    with pytest.raises(RecordError, match="one of the two"):
        policy(keep_findings=True, undecided_too=True)


def test_evidence_goes_and_the_record_says_so(plant: Plant, run: RunHandle) -> None:
    both = evidence(1) + evidence(2)
    sizes = {kind: sum(len(f"{kind.replace('_', ' ')} {n}") for n in (1, 2)) for kind in PRUNABLE}
    dry = prune(plant, policy(undecided_too=True), dry_run=True)
    assert (dict(dry.counts), dict(dry.sizes)) == (dict.fromkeys(PRUNABLE, 2), sizes)
    assert there(plant, *both) == [True] * 6
    assert prune(plant, policy(undecided_too=True), reason="two years are over") == dry
    assert there(plant, *both) == [False] * 6
    with plant.db.session() as session:
        events = session.scalars(
            select(AuditEvent).where(AuditEvent.action == "artifacts.pruned").order_by(AuditEvent.sequence)
        ).all()
        said = retention_of(session, [*both, "0" * 64])
    assert sorted(digest for event in events for digest in event.artifact_digests) == sorted(both)
    assert sum(event.payload["count"] for event in events) == 6
    assert sum(event.payload["bytes"] for event in events) == sum(sizes.values())
    assert {event.reason for event in events} == {"two years are over"}
    assert {event.actor_id for event in events} == {"operator"}
    assert set(said) == set(both)
    today, cut = utc_now(), utc_now() + LATER
    told = f"pruned by policy on {today:%Y-%m-%d} (older than 2y (before {cut:%Y-%m-%d}))"
    assert {str(each) for each in said.values()} == {told}
    assert remarks(plant) == [f"6 artifacts {told}"]
    # The report is there; a second prune finds nothing.
    assert prune(plant, policy(undecided_too=True)) == Pruned()


def test_only_the_kinds_asked_for_go(plant: Plant, run: RunHandle) -> None:
    result = prune(plant, policy(undecided_too=True, kinds=("block_map",)))
    assert dict(result.counts) == {"block_map": 2}
    assert there(plant, *evidence(1)[:2]) == [True, True]


def tile_evidence(number: int) -> list[str]:
    texts = [b"tile %s %d of %d" % (kind, tile, number) for kind in (b"map", b"block") for tile in (0, 1)]
    return [hashlib.sha256(text).hexdigest() for text in texts]


def test_the_maps_of_tiles_stay_and_go_with_their_finding(plant: Plant) -> None:
    plant.record(plant.start(), plant.tiled_outcome(1), plant.tiled_outcome(2))
    age(plant.store)
    dispose(plant, "R000001-0001")
    assert dict(prune(plant, policy(kinds=("block_map",))).counts) == {"block_map": 2}
    assert there(plant, *tile_evidence(1)) == [True, True, False, False]
    result = prune(plant, policy())
    assert dict(result.counts) == {"map": 2, "picture": 1}
    assert there(plant, *tile_evidence(1)) == [False] * 4
    assert there(plant, *tile_evidence(2)) == [True] * 4, "its finding is not decided"


def test_the_map_of_a_tile_that_came_into_use_is_not_pruned(plant: Plant) -> None:
    plant.record(plant.start(), plant.tiled_outcome(1))
    with plant.db.session() as session:
        assert set(tile_evidence(1)) <= used_since(session, 1)


def test_verification_reads_the_maps_of_tiles(plant: Plant) -> None:
    plant.record(plant.start(), plant.tiled_outcome(1))
    lost = tile_evidence(1)[1]
    plant.store.delete(lost)
    found: list[tuple[str, str]] = []
    with plant.db.session() as session:
        check_artifacts(plant.db, session, plant.store, lambda kind, place, _: found.append((kind, place)))
    assert found == [("artifact", f"map {lost}")]


def test_bytes_that_serve_as_two_kinds_stay_while_one_is_wanted(plant: Plant) -> None:
    """A map of one layer alone is the block map's twin; the record knows it under the kind put first."""
    run = plant.start()
    found = plant.finding(1)
    twin = found.explanation.block_maps[0][1]
    same = replace(found, explanation=replace(found.explanation, map=replace(twin, kind="map")))
    only = replace(
        found, class_name="pit 2", explanation=replace(found.explanation, map=None, block_maps=(("a", twin),))
    )
    plant.record(run, plant.outcome(1, "review", findings=(only, same)))
    age(plant.store)
    result = prune(plant, policy(undecided_too=True, kinds=("block_map",)))
    assert (dict(result.counts), there(plant, twin.digest)) == ({}, [True])


def dispose(plant: Plant, reference: str, *, approval: str | None = None, needed: bool = False) -> None:
    now = utc_now()
    with plant.db.write() as recorder:
        finding = recorder.session.scalar(select(Finding.id).where(Finding.reference == reference))
        row = Disposition(
            finding_id=finding,
            decision="confirm",
            class_name=None,
            reason="seen",
            person="engineer",
            needs_approval=needed or None,
            created_at=now,
            supersedes_id=None,
            signature=None,
        )
        rows: list[Any] = [row]
        if approval:
            rows.append(
                Approval(
                    disposition_id=row.id,
                    decision=approval,
                    reason="agreed",
                    person="second",
                    created_at=now,
                    signature={},
                )
            )
        recorder.add(rows, action="disposition.made", actor=WHO, entity="disposition", entity_id=row.id)


def test_evidence_without_a_decision_in_force_stays(plant: Plant, run: RunHandle) -> None:
    one, two = evidence(1), evidence(2)
    assert prune(plant, policy()) == Pruned()
    dispose(plant, "R000001-0001")
    dispose(plant, "R000001-0002", needed=True, approval="refuse")
    assert dict(prune(plant, policy(keep_findings=True)).counts) == {}
    assert dict(prune(plant, policy()).counts) == dict.fromkeys(PRUNABLE, 1)
    assert there(plant, *one, *two) == [False] * 3 + [True] * 3


def test_an_approved_decision_is_in_force(plant: Plant, run: RunHandle) -> None:
    dispose(plant, "R000001-0002", needed=True, approval="approve")
    prune(plant, policy())
    assert there(plant, *evidence(1), *evidence(2)) == [True] * 3 + [False] * 3


def test_a_decision_that_awaits_approval_keeps_the_evidence(plant: Plant, run: RunHandle) -> None:
    dispose(plant, "R000001-0001")
    dispose(plant, "R000001-0001", needed=True)
    assert prune(plant, policy()) == Pruned()
    assert dict(prune(plant, policy(undecided_too=True)).counts) == dict.fromkeys(PRUNABLE, 2)


def test_a_decision_made_meanwhile_keeps_the_evidence(
    plant: Plant, run: RunHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispose(plant, "R000001-0001")
    say = pruning._record_pruned

    def late(*given: Any) -> Any:
        monkeypatch.setattr(pruning, "_record_pruned", say)
        dispose(plant, "R000001-0001", needed=True)
        return say(*given)

    monkeypatch.setattr(pruning, "_record_pruned", late)
    assert dict(prune(plant, policy()).counts) == {}


def test_a_later_use_keeps_what_is_old(plant: Plant, run: RunHandle) -> None:
    cut = utc_now()
    later = plant.start()
    # Picture 1 is listed again and carried over; picture 9 has the map of picture 2.
    carried = replace(plant.outcome(1), verdict=None)
    borrowed = plant.finding(2)
    plant.record(later, carried, plant.outcome(9, "review", findings=(borrowed,)))
    age(plant.store)
    result = prune(plant, policy(cut, undecided_too=True))
    assert dict(result.counts) == {"picture": 1}
    assert there(plant, *evidence(1), *evidence(2)) == [True] * 3 + [False, True, True]


def test_what_a_run_records_meanwhile_stays(
    plant: Plant, run: RunHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run lists the picture again after the prune has chosen it and before it holds the lock."""
    say = pruning._record_pruned
    cut = utc_now()

    def late(*given: Any) -> Any:
        monkeypatch.setattr(pruning, "_record_pruned", say)
        plant.record(plant.start(), replace(plant.outcome(1), verdict=None))
        return say(*given)

    monkeypatch.setattr(pruning, "_record_pruned", late)
    result = prune(plant, policy(cut, undecided_too=True))
    assert there(plant, *evidence(1)) == [True] * 3
    assert dict(result.counts) == dict.fromkeys(PRUNABLE, 1)
    assert remarks(plant)[0].startswith("3 artifacts pruned")


def test_missing_and_fresh_bytes_are_not_pruned(plant: Plant, run: RunHandle) -> None:
    fresh, missing = evidence(1)[0], evidence(2)[0]
    os.utime(plant.store.path(fresh))
    plant.store.delete(missing)
    result = prune(plant, policy(undecided_too=True, kinds=("picture",)))
    assert (result.fresh, result.missing, dict(result.counts)) == (1, 1, {})
    problems = plant.verify(artifacts=plant.store).problems
    assert [problem.where for problem in problems] == [f"picture {missing}"]


class Killed(BaseException):
    pass


def test_a_crash_leaves_bytes_that_the_next_prune_removes(
    plant: Plant, run: RunHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise Killed

    both = evidence(1) + evidence(2)
    with monkeypatch.context() as patch:
        patch.setattr(ArtifactStore, "delete", killed)
        with pytest.raises(Killed):
            prune(plant, policy(undecided_too=True))
    with plant.db.session() as session:
        said = set(retention_of(session, both))
    assert said
    assert there(plant, *both) == [True] * 6
    assert f"{len(said)} artifact" in remarks(plant)[1]
    assert "the bytes are still there: `kensa db prune` removes them" in remarks(plant)[1]
    assert clear(plant, dry_run=True) == Cleared(leftovers=len(said))
    assert clear(plant) == Cleared(leftovers=len(said))
    assert {digest for digest in both if not plant.store.exists(digest)} == said
    assert len(remarks(plant)) == 1


def events(plant: Plant) -> int:
    with plant.db.session() as session:
        return head(session).sequence


def test_bytes_stored_again_are_recorded_as_restored(plant: Plant, run: RunHandle) -> None:
    prune(plant, policy(undecided_too=True))
    other = plant.start("line-2", settings_digest="other settings")
    outcome = plant.outcome(1, "review")  # puts picture, map and block map again
    refs = evidence(1)
    with pytest.raises(RecordError, match="no artifact store was given"):
        plant.record(other, outcome)
    record_batch(plant.db, other, [outcome], actor=plant.actor, store=plant.store)
    with plant.db.session() as session:
        said = retention_of(session, refs)
        rows = session.scalar(
            select(func.count())
            .select_from(ArtifactRetention)
            .where(ArtifactRetention.event_sequence == events(plant))
        )
    assert {(each.state, each.policy) for each in said.values()} == {("restored", "stored again")}
    assert rows == 3
    assert remarks(plant)[0].startswith("3 artifacts pruned")
    # A clearing leaves what was restored, and a later policy takes it again.
    age(plant.store)
    assert clear(plant) == Cleared()
    assert dict(prune(plant, policy(undecided_too=True)).counts) == dict.fromkeys(PRUNABLE, 1)
    assert remarks(plant)[0].startswith("6 artifacts pruned")


def test_what_was_pruned_meanwhile_is_not_recorded_as_there(plant: Plant, run: RunHandle) -> None:
    """A prune takes the bytes between a run's put and its record: nothing is recorded."""
    other = plant.start("line-2", settings_digest="other settings")
    outcome = plant.outcome(1, "review")
    age(plant.store)  # as if the batch had taken more than a day
    prune(plant, policy(undecided_too=True))
    before = events(plant)
    with pytest.raises(RecordError, match=r"was pruned by policy on .* is not stored again .*is missing"):
        record_batch(plant.db, other, [outcome], actor=plant.actor, store=plant.store)
    assert events(plant) == before
    plant.outcome(1, "review")
    record_batch(plant.db, other, [outcome], actor=plant.actor, store=plant.store)
    assert remarks(plant)[0].startswith("3 artifacts pruned")


def test_bytes_that_a_run_put_again_are_not_taken(plant: Plant, run: RunHandle) -> None:
    """`put` renews old bytes, so a prune that comes before their record leaves them."""
    outcome = plant.outcome(1, "review")
    prune(plant, policy(undecided_too=True))
    assert there(plant, *evidence(1)) == [True] * 3
    other = plant.start("line-2", settings_digest="other settings")
    plant.record(other, outcome)
    assert remarks(plant)[0].startswith("3 artifacts pruned")


def test_orphans_are_named_and_removed_on_record(plant: Plant, run: RunHandle) -> None:
    lost = sorted(plant.store.put(b"nobody's %d" % n, "map", "image/png").digest for n in range(12))
    (remark,) = remarks(plant)
    assert remark.startswith("12 stored files belong to no record: ")
    assert ", ".join(plant.store.path(digest) for digest in lost[:10]) + " and 2 more" in remark
    assert plant.store.path(lost[10]) not in remark
    assert clear(plant, orphans=True) == Cleared()  # put a moment ago: a run may be about to record them
    age(plant.store, *lost[1:])
    assert clear(plant, orphans=True, dry_run=True) == Cleared(orphans=11)
    assert clear(plant) == Cleared()
    assert clear(plant, orphans=True, reason="tidy") == Cleared(orphans=11)
    assert there(plant, *lost) == [True] + [False] * 11
    with plant.db.session() as session:
        (event,) = session.scalars(select(AuditEvent).where(AuditEvent.action == "artifacts.orphans_removed"))
        assert (event.artifact_digests, event.reason, event.rows) == (lost[1:], "tidy", [])
    (remark,) = remarks(plant)
    assert remark.startswith("1 stored file belongs to no record: ")


def test_an_orphan_recorded_meanwhile_stays(
    plant: Plant, run: RunHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = plant.outcome(20, "review")
    age(plant.store)
    remove = pruning._remove_orphans

    def late(*given: Any) -> int:
        plant.record(plant.start("line-2"), outcome)
        return remove(*given)

    monkeypatch.setattr(pruning, "_remove_orphans", late)
    assert clear(plant, orphans=True) == Cleared()
    assert remarks(plant) == []


def test_a_prune_beside_a_verification_looks_like_no_loss(
    plant: Plant, run: RunHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = ArtifactStore.digests

    def late(store: ArtifactStore) -> Iterator[str]:
        listed = list(digests(store))
        monkeypatch.setattr(ArtifactStore, "digests", digests)
        prune(plant, policy(undecided_too=True))
        return iter(listed)

    monkeypatch.setattr(ArtifactStore, "digests", late)
    assert remarks(plant)[0].startswith("6 artifacts pruned")


def test_batches_and_pages_do_not_change_what_goes(
    plant: Plant, run: RunHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "_BATCH", 1)
    monkeypatch.setattr("db.lookup._AT_ONCE", 2)
    result = prune(plant, policy(undecided_too=True))
    assert dict(result.counts) == dict.fromkeys(PRUNABLE, 2)
    with plant.db.session() as session:
        pruned = select(func.count()).where(AuditEvent.action == "artifacts.pruned")
        assert session.scalar(pruned) == 6
    assert remarks(plant)[0].startswith("6 artifacts pruned")


def test_old_bytes_are_renewed_when_put_again(plant: Plant) -> None:
    digest = plant.store.put(b"some bytes", "map", "image/png").digest
    age(plant.store)
    assert plant.store.settled(digest)
    plant.store.put(b"some bytes", "map", "image/png")
    assert not plant.store.settled(digest)
    path = Path(plant.store.path(digest))
    young = utc_now() - GRACE / 4
    os.utime(path, (young.timestamp(), young.timestamp()))
    before = path.stat().st_mtime_ns
    plant.store.put(b"some bytes", "map", "image/png")
    assert path.stat().st_mtime_ns == before
