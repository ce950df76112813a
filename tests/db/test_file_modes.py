"""Who may read the files of the record, whatever the account's umask is."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from configs.schema import RecordSettings
from db.artifacts import ArtifactStore
from db.engine import open_database
from db.files import restrict_new_files
from db.transparency.checkpoints import CheckpointFolder

MODES = {"owner": (0o600, 0o700), "group": (0o640, 0o750), "everyone": (0o644, 0o755)}


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=["umask 000", "umask 022", "umask 077"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("readable_by", MODES)
def test_every_file_of_the_record_is_created_as_the_setting_says(
    readable_by: str, umask: int, tmp_path: Path
) -> None:
    restrict_new_files(readable_by)
    root = tmp_path / "record"
    with open_database(f"sqlite:///{root / 'kensa.db'}") as database:
        database.migrate()
        with database.session():  # the write-ahead log and its index are there
            ArtifactStore(root / "artifacts").put(b"x", "picture", "image/png")
            CheckpointFolder(root / "notes").put(1, "note")
            found = {path: path.stat().st_mode & 0o777 for path in (root, *root.rglob("*"))}
    assert {path.suffix for path in found} >= {".db", ".db-wal", ".db-shm", ".checkpoint"}
    of_file, of_folder = (mode & ~umask for mode in MODES[readable_by])
    assert {mode for path, mode in found.items() if path.is_file()} == {of_file}
    assert {mode for path, mode in found.items() if path.is_dir()} == {of_folder}


def test_the_default_is_the_group() -> None:
    assert RecordSettings().readable_by == "group"
    assert set(MODES) == set(get_args(RecordSettings.model_fields["readable_by"].annotation))
