"""Several processes say of a log what one says."""

import os
import signal
from typing import Any

import pytest

from db.chain.events import Head, head
from db.verification import processes

Plant = Any  # tests/db/conftest.py; test folders are not packages
Attack = Any

pytestmark = pytest.mark.slow  # each starts processes of its own


@pytest.fixture
def full(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """15 events, looked at five at a time."""
    monkeypatch.setattr(processes, "STRETCH", 5)
    plant.fill()
    return plant


def stretches(plant: Plant, start: Head | None = None) -> list[tuple[int, int]]:
    begin = start or Head(0, "0" * 64)
    with plant.db.session() as session:
        last = head(session).sequence
        found = processes.sound_stretches(plant.db, session, begin, last, jobs=2)
        return [(sound.head.sequence, sound.events) for sound in found]


def test_a_sound_log_is_looked_at_in_stretches(full: Plant) -> None:
    assert stretches(full) == [(5, 5), (10, 5), (15, 5)]
    assert full.verify(jobs=2) == full.verify()
    seen: list[tuple[int, int]] = []
    full.verify(jobs=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(5, 15), (10, 15), (15, 15)]


def test_what_is_left_over_and_too_little_is_looked_at_here(full: Plant) -> None:
    full.dispose("return")
    assert stretches(full) == [(5, 5), (10, 5), (15, 5)]
    assert full.verify(jobs=2).events == 16
    with full.db.session() as session:
        at = head(session)
        assert list(processes.sound_stretches(full.db, session, at, at.sequence, jobs=2)) == []
        assert list(processes.sound_stretches(full.db, session, at, at.sequence, jobs=1)) == []


@pytest.mark.parametrize(
    ("statement", "sound"),
    [
        ("UPDATE prediction SET score = 0.05 WHERE event_sequence = 9", [(5, 5)]),
        ("UPDATE audit_event SET reason = 'none' WHERE sequence = 2", []),
        ("DELETE FROM audit_event WHERE sequence = 10", [(5, 5)]),
        ("UPDATE audit_event SET hash = substr(hash, 2) || substr(hash, 1, 1) WHERE sequence = 5", []),
        ("UPDATE disposition SET event_sequence = 3 WHERE event_sequence = 14", []),
    ],
)
def test_the_first_stretch_that_is_not_sound_ends_it(
    full: Plant, attack: Attack, statement: str, sound: list[tuple[int, int]]
) -> None:
    attack(statement)
    assert stretches(full) == sound
    together = full.verify(jobs=2)
    assert not together.ok
    assert together == full.verify()


def test_a_process_that_is_killed_loses_nothing(full: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_sound_stretch", killed)
    assert stretches(full) == []
    assert full.verify(jobs=2) == full.verify()


def killed(_url: str, _head: Head, _upto: int) -> None:
    """What the out-of-memory killer does to a worker."""
    os.kill(os.getpid(), signal.SIGKILL)
