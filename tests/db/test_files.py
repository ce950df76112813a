"""Files written as a whole, and what killed processes leave of them."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from db import files
from db.errors import RecordError, StorageError
from db.files import (
    GRACE,
    is_over,
    probe_folder,
    process_name,
    put_atomically,
    remove_unfinished,
    remove_workspaces,
    workspace,
)

LOCAL = LocalFileSystem()
HEX = "0123456789abcdef" * 2


@pytest.fixture
def killed() -> str:
    """The name of a process of this machine that is no more."""
    code = "from db.files import process_name; print(process_name())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_bytes_and_name_are_on_the_disk_before_the_function_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    put_atomically(LOCAL, str(tmp_path / "a.pdf"), b"one")
    put_atomically(LOCAL, str(tmp_path / "a.pdf"), b"two")
    assert (tmp_path / "a.pdf").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["a.pdf"]
    first, second = synced[0], synced[2]
    assert first.parent == tmp_path
    assert first.name.startswith(f".a.pdf.{process_name()}-")
    assert first != second  # two writers of one file do not meet
    assert synced[1] == synced[3] == tmp_path


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    assert probe_folder(LOCAL, str(tmp_path)) == str(tmp_path)
    assert probe_folder(LOCAL, str(tmp_path / "new" / "deep")) == str(tmp_path)
    assert list(tmp_path.iterdir()) == []
    memory = MemoryFileSystem()
    assert probe_folder(memory, "/probed/place") == "/probed/place"
    assert memory.find("/probed") == []


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    class NoBucket(MemoryFileSystem):
        def pipe_file(self, *_: object, **__: object) -> None:
            raise FileNotFoundError("The specified bucket does not exist")

        def makedirs(self, *_: object, **__: object) -> None:
            raise AssertionError("a bucket would be made")

    class Forgetful(MemoryFileSystem):
        def cat_file(self, *_: object, **__: object) -> bytes:
            return b"else"

    file = tmp_path / "file"
    file.write_text("no folder")
    for store, folder in ((NoBucket(), "/none/x"), (LOCAL, str(file)), (LOCAL, str(file / "x"))):
        with pytest.raises(RecordError, match=f"^{folder}: there is no such folder or bucket: make it, or"):
            probe_folder(store, folder)
    with pytest.raises(RecordError, match="reads otherwise than it was written"):
        probe_folder(Forgetful(), "/probed")
    assert Forgetful().find("/probed") == []
    with pytest.raises(StorageError, match="/sys/kensa cannot be read or written"):
        probe_folder(LOCAL, "/sys/kensa")


def test_what_a_killed_process_left_goes_and_nothing_else(tmp_path: Path, killed: str) -> None:
    left = tmp_path / f".a.pdf.{killed}-{HEX}.part"
    alive = tmp_path / f".a.pdf.{process_name()}-{HEX}.part"
    elsewhere = tmp_path / f".a.pdf.00000000-1-{HEX}.part"
    old = tmp_path / f".b.pdf.00000000-1-{HEX}.part"
    foreign = [tmp_path / name for name in ("a.pdf", "a.pdf.part", f".{HEX}.part", ".a.pdf.x-1-0.part")]
    for path in (left, alive, elsewhere, old, *foreign):
        path.write_bytes(b"x")
    long_ago = (datetime.now(UTC) - 2 * GRACE).timestamp()
    for path in (old, *foreign):
        os.utime(path, (long_ago, long_ago))
    remove_unfinished(LOCAL, str(tmp_path))
    assert set(tmp_path.iterdir()) == {alive, elsewhere, *foreign}
    remove_unfinished(LOCAL, str(tmp_path / "absent"))


def test_leftovers_go_from_any_file_system(killed: str) -> None:
    memory = MemoryFileSystem()
    left, kept = (f"/kensa-left/.a.{name}-{HEX}.part" for name in (killed, process_name()))
    for path in (left, kept):
        memory.pipe_file(path, b"x")
    remove_unfinished(memory, "/kensa-left")
    assert memory.ls("/kensa-left", detail=False) == [kept]


def test_a_leftover_that_cannot_be_removed_is_told(
    tmp_path: Path, killed: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / f".a.{killed}-{HEX}.part").write_bytes(b"x")

    def denied(self: LocalFileSystem, path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(LocalFileSystem, "rm_file", denied)
    remove_unfinished(LOCAL, str(tmp_path))
    assert "cannot be removed" in caplog.text


def test_whose_process_is_over(killed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    assert is_over(killed, now)
    assert not is_over(process_name(), now)
    assert not is_over("00000000-1", now)
    assert is_over("00000000-1", now - GRACE - timedelta(seconds=1))
    assert is_over(process_name(), now - GRACE - timedelta(seconds=1))  # the number was given again
    assert is_over(f"{process_name().partition('-')[0]}-{'9' * 30}", now)
    monkeypatch.setattr(files, "_machine", lambda: "11111111")
    assert not is_over(killed, now)


def test_workspaces_of_killed_processes_go(
    tmp_path: Path, killed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / f"kensa-report-{killed}-abc_12"
    foreign = [tmp_path / name for name in ("kensa-report-abc", "other", "kensa-pg-x")]
    for path in (left, *foreign):
        path.mkdir()
        (path / "00000.pdf").write_bytes(b"x")
    link = tmp_path / f"kensa-report-{killed}-link"
    link.symlink_to(foreign[1])
    with workspace("report") as own:
        remove_workspaces()
        assert set(tmp_path.iterdir()) == {own, link, *foreign}
        assert (link / "00000.pdf").exists()
    assert not own.exists()
