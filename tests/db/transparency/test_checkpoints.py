"""Signing the head, and what verification says of a log that is no longer the one that was signed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from db.chain.events import Actor, Head
from db.columns import time_text
from db.errors import RecordError
from db.queries.events import EventFilter, find_events
from db.schema import AuditEvent, Checkpoint, Report
from db.transparency.checkpoints import (
    CheckpointFolder,
    CheckpointRecord,
    event_leaves,
    record_failure,
    sign_checkpoint,
)
from db.transparency.merkle import Frontier
from db.transparency.signed_notes import SigningKey, generate_key, open_checkpoint
from db.verification.witness import ReportFile, Witness

Plant = Any  # tests/db/conftest.py; test folders are not packages
Attack = Any

OPERATOR = Actor("kensa")


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return generate_key("plant-1/kensa")


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints")


@pytest.fixture
def witness(folder: CheckpointFolder, key: SigningKey) -> Witness:
    return Witness(folder, [key.verifier])


@pytest.fixture
def sign(plant: Plant, folder: CheckpointFolder, key: SigningKey) -> Callable[..., CheckpointRecord]:
    return lambda **options: sign_checkpoint(plant.db, folder, key, actor=OPERATOR, **options)


def said(plant: Plant, witness: Witness, **options: Any) -> list[str]:
    return [str(problem) for problem in plant.verify(witness=witness, **options).problems]


def test_a_checkpoint_holds_the_tree_over_every_event(
    plant: Plant, folder: CheckpointFolder, sign: Callable[..., CheckpointRecord]
) -> None:
    plant.finished_run()
    made = sign()
    with plant.db.session() as session:
        events = session.scalars(select(AuditEvent).order_by(AuditEvent.sequence)).all()
        tree = Frontier()
        tree.extend(bytes.fromhex(event.hash) for event in events[:-1])
    assert (made.tree_size, made.root) == (12, tree.root().hex())
    assert made.head_hash == events[11].hash
    assert events[12].action == "checkpoint.signed"
    assert events[12].payload == {"tree_size": 12, "root": made.root, "key": "plant-1/kensa"}
    assert list(folder.notes()) == [("000000000012.checkpoint", made.note)]
    assert plant.verify().ok


def test_a_checkpoint_is_continued_from_the_one_before(
    plant: Plant, folder: CheckpointFolder, sign: Callable[..., CheckpointRecord], attack: Attack
) -> None:
    plant.finished_run()
    sign()
    plant.dispose("confirm")
    second = sign()
    with plant.db.session() as session:
        tree = Frontier()
        tree.extend(event_leaves(session, 0, second.tree_size))
    assert (second.tree_size, second.root) == (14, tree.root().hex())
    assert folder.newest() == 14
    assert sign() == second, "nothing but the checkpoint's own event came since"
    assert plant.verify().ok
    # The tree goes on from what was signed: events under it are not read again.
    attack("UPDATE audit_event SET previous_hash = hash WHERE sequence = 5")
    plant.dispose("scrap")
    assert sign().tree_size == 16


def test_what_verification_says_with_checkpoints(
    plant: Plant, witness: Witness, sign: Callable[..., CheckpointRecord]
) -> None:
    plant.finished_run()
    signed = sign()
    when = open_checkpoint(signed.note, witness.trusted).at
    told = plant.verify(witness=witness)
    assert told.ok
    assert told.remarks[:1] == (
        f"proved: events 1 to 12 are those that plant-1/kensa signed on {time_text(when)}; "
        "not proved: the event after that, chained but not signed yet",
    )
    assert plant.verify().remarks[:1] == (
        "not proved: that the log's end was not cut off, nor all of it replaced; that takes signed "
        "checkpoints from outside the database (--checkpoints) or printed heads (--head)",
    )


def test_incremental_verification_starts_at_the_newest_checkpoint(
    plant: Plant, witness: Witness, sign: Callable[..., CheckpointRecord], attack: Attack
) -> None:
    plant.finished_run()
    sign()
    plant.dispose("confirm")
    told = plant.verify(witness=witness, incremental=True)
    assert told.ok
    assert (told.events, told.head.sequence) == (2, 14)
    assert told.remarks[0] == "incremental: events 1 to 12 and their rows were not looked at again"
    assert told.remarks[1].startswith("proved: events 1 to 12 are those that plant-1/kensa signed on ")
    attack("UPDATE prediction SET score = 0.05 WHERE event_sequence = 5")
    assert plant.verify(witness=witness, incremental=True).ok, "that is what it says it does not look at"
    assert not plant.verify(witness=witness).ok
    attack("UPDATE disposition SET reason = 'none' WHERE event_sequence = 14")
    assert "event 14: the rows it speaks for were changed" in said(plant, witness, incremental=True)[0]


def test_incremental_verification_without_a_checkpoint_that_fits(
    plant: Plant, witness: Witness, sign: Callable[..., CheckpointRecord], attack: Attack
) -> None:
    with pytest.raises(RecordError, match="say where checkpoints are kept"):
        plant.verify(incremental=True)
    with pytest.raises(RecordError, match="there is no folder of checkpoints at"):
        plant.verify(incremental=True, witness=witness)
    plant.finished_run()
    sign()
    attack("UPDATE checkpoint SET frontier = replace(frontier, '\"', '\"0')")
    told = plant.verify(witness=witness, incremental=True)
    assert told.events == 13
    assert told.remarks[0] == "incremental: no checkpoint fits the log, so everything was looked at"


def test_an_empty_log_is_not_signed(
    plant: Plant, sign: Callable[..., CheckpointRecord], attack: Attack
) -> None:
    attack("DELETE FROM model_version", "DELETE FROM audit_event")
    with pytest.raises(RecordError, match="there is nothing to sign yet"):
        sign()


def test_a_gap_or_a_changed_event_since_the_last_checkpoint_is_not_signed(
    plant: Plant, sign: Callable[..., CheckpointRecord], attack: Attack
) -> None:
    plant.finished_run()
    sign()
    plant.dispose("confirm")
    plant.dispose("scrap")
    attack("UPDATE audit_event SET previous_hash = hash WHERE sequence = 14")
    with pytest.raises(RecordError, match="the log is broken at event 14: run `kensa audit verify`"):
        sign()
    attack("DELETE FROM disposition WHERE event_sequence = 15", "DELETE FROM audit_event WHERE sequence = 14")
    with pytest.raises(RecordError, match="the log is broken at event 14"):
        sign()


def test_a_head_that_is_not_the_signed_one_is_not_signed_over(
    plant: Plant, sign: Callable[..., CheckpointRecord], attack: Attack
) -> None:
    plant.finished_run()
    sign()
    attack("UPDATE audit_event SET hash = substr(hash, 2) || substr(hash, 1, 1) WHERE sequence = 12")
    with pytest.raises(RecordError, match="the recorded checkpoint of 12 events is not one of this log"):
        sign()


def test_a_rewound_database_is_not_signed_over(
    plant: Plant, sign: Callable[..., CheckpointRecord], attack: Attack
) -> None:
    plant.finished_run()
    sign()
    attack("DELETE FROM checkpoint", "DELETE FROM report", "DELETE FROM audit_event WHERE sequence >= 12")
    with pytest.raises(RecordError, match="holds a checkpoint of 12 events, but the log ends with event 11"):
        sign()
    plant.dispose("confirm")  # and now there is another event 12
    with pytest.raises(RecordError, match="its checkpoint of 12 events is not one of this log"):
        sign()


def test_another_key_goes_on_only_if_the_first_is_trusted(
    plant: Plant, folder: CheckpointFolder, key: SigningKey, sign: Callable[..., CheckpointRecord]
) -> None:
    plant.finished_run()
    sign()
    plant.dispose("confirm")
    second = generate_key("plant-1/kensa-2027")
    with pytest.raises(RecordError, match=r"no signature by a trusted key .*nothing is signed over that"):
        sign_checkpoint(plant.db, folder, second, actor=OPERATOR)
    made = sign_checkpoint(plant.db, folder, second, actor=OPERATOR, trusted=[key.verifier])
    assert made.tree_size == 14
    both = Witness(folder, [key.verifier, second.verifier])
    assert plant.verify(witness=both).ok
    told = [str(p) for p in plant.verify(witness=Witness(folder, [key.verifier])).problems]
    assert told[0].startswith("000000000014.checkpoint: no signature by a trusted key (plant-1/kensa+")
    assert told[1:] == [
        "checkpoint of 14 events: is recorded as signed, but the folder has no valid note of it"
    ]


def test_signing_that_was_interrupted_is_finished_by_the_next(
    plant: Plant, folder: CheckpointFolder, key: SigningKey, witness: Witness, attack: Attack
) -> None:
    plant.finished_run()
    first = sign_checkpoint(plant.db, folder, key, actor=OPERATOR)
    attack("DELETE FROM checkpoint", "DELETE FROM audit_event WHERE sequence = 13")
    told = plant.verify(witness=witness)
    assert told.ok
    assert told.remarks[0] == (
        "the checkpoint of 12 events is not recorded in the database: its signing was interrupted, or the "
        "database was set back to before that was recorded"
    )
    again = sign_checkpoint(plant.db, folder, key, actor=OPERATOR)
    assert again.note == first.note
    assert "its signing was interrupted" not in "".join(plant.verify(witness=witness).remarks)


def test_many_signers_at_once(
    plant: Plant, folder: CheckpointFolder, key: SigningKey, witness: Witness
) -> None:
    plant.finished_run()
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(sign_checkpoint, plant.db, folder, key, actor=OPERATOR) for _ in range(8)]
        sizes = {job.result().tree_size for job in jobs}
    assert 12 in sizes
    assert plant.verify(witness=witness).ok
    with plant.db.session() as session:
        assert session.scalar(select(func.count()).select_from(Checkpoint)) == len(list(folder.notes()))


def test_a_folder_keeps_what_it_has(folder: CheckpointFolder) -> None:
    assert folder.newest() == 0
    assert folder.get(3) is None
    folder.put(3, "note\n")
    folder.put(3, "note\n")
    with pytest.raises(RecordError, match="holds another checkpoint, and none is ever replaced"):
        folder.put(3, "another\n")
    folder.put(1_000_000_000_000, "later\n")
    assert folder.newest() == 1_000_000_000_000
    assert [name for name, _ in folder.notes()] == ["000000000003.checkpoint", "1000000000000.checkpoint"]


def test_a_bucket_is_a_folder_too(plant: Plant, key: SigningKey) -> None:
    bucket = CheckpointFolder(f"memory://checkpoints-{plant.db.url.database}")
    plant.finished_run()
    sign_checkpoint(plant.db, bucket, key, actor=OPERATOR)
    assert plant.verify(witness=Witness(bucket, [key.verifier])).ok


def test_a_note_under_a_wrong_name_and_a_lost_note(
    plant: Plant, folder: CheckpointFolder, witness: Witness, sign: Callable[..., CheckpointRecord]
) -> None:
    plant.finished_run()
    sign()
    file = Path(folder.root) / "000000000012.checkpoint"
    file.rename(file.with_name("000000000011.checkpoint"))
    assert said(plant, witness) == [
        "000000000011.checkpoint: is about 12 events, which its name does not say",
        "checkpoint of 12 events: is recorded as signed, but the folder has no valid note of it",
    ]


def test_a_failed_checkpoint_is_on_record(plant: Plant) -> None:
    record_failure(plant.db, "the folder is not mounted", actor=OPERATOR)
    with plant.db.session() as session:
        (event,) = find_events(session, EventFilter(action="checkpoint.failed"))
    assert event.reason == "the folder is not mounted"
    assert plant.verify().ok


def test_reports_that_somebody_holds(
    plant: Plant, witness: Witness, sign: Callable[..., CheckpointRecord]
) -> None:
    plant.finished_run()
    signed = sign()
    with plant.db.session() as session:
        row = session.scalars(select(Report)).one()
        head, digest = Head(row.head_sequence, row.head_hash), row.artifact_digest
    good = ReportFile("R000001-1.pdf", digest, head, signed.note)
    told = plant.verify(witness=witness, reports=[good])
    assert told.ok
    assert told.remarks[1] == (
        "R000001-1.pdf: as it was issued; it prints audit head 11, and a checkpoint of 12 events by "
        "plant-1/kensa"
    )
    edited = ReportFile("edited.pdf", "0" * 64, Head(11, "0" * 64), signed.note.replace("\n12\n", "\n13\n"))
    assert said(plant, witness, reports=[edited]) == [
        "edited.pdf: is not a report that this record issued: it was changed afterwards, or comes from "
        "elsewhere",
        f"edited.pdf: prints audit head 11, {'0' * 64}, which the log does not have",
        "edited.pdf: its checkpoint: the signature of 'plant-1/kensa' does not hold: the text was changed",
    ]
    silent = ReportFile("silent.pdf", digest)
    assert said(plant, witness, reports=[silent]) == ["silent.pdf: carries no audit head"]
