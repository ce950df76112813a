import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from db.artifacts import ArtifactRef, ArtifactStore
from db.errors import ArtifactError, RecordError
from db.transparency.checkpoints import CheckpointFolder

DATA = b"some picture"
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def files(store: ArtifactStore) -> list[Path]:
    return [path for path in Path(store.root).rglob("*") if path.is_file()]


def test_what_is_put_is_got(store: ArtifactStore) -> None:
    assert store.put(DATA, "picture", "image/png") == ArtifactRef(DIGEST, "picture", "image/png", len(DATA))
    assert store.get(DIGEST) == DATA
    store.check(DIGEST)
    assert store.path(DIGEST) == f"{store.root}/sha256/{DIGEST[:2]}/{DIGEST[2:4]}/{DIGEST}"
    assert store.put(b"", "map", "image/png").size == 0
    assert store.get(hashlib.sha256(b"").hexdigest()) == b""


def test_the_same_bytes_are_stored_once_and_leave_nothing_behind(store: ArtifactStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        refs = list(pool.map(lambda _: store.put(DATA, "picture", "image/png"), range(32)))
    assert set(refs) == {refs[0]}
    assert files(store) == [Path(store.path(DIGEST))]


def test_missing_and_changed_artifacts_are_told_apart(store: ArtifactStore) -> None:
    for read in (store.get, store.check):
        with pytest.raises(ArtifactError, match=f"{DIGEST} is missing"):
            read(DIGEST)
    store.put(DATA, "picture", "image/png")
    Path(store.path(DIGEST)).write_bytes(b"some pictura")
    for read in (store.get, store.check):
        with pytest.raises(ArtifactError, match=f"{DIGEST} was changed"):
            read(DIGEST)
    store.put(DATA, "picture", "image/png")  # the good bytes mend it
    assert store.get(DIGEST) == DATA


def test_a_failed_write_leaves_no_artifact(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        store.put(DATA, "picture", "image/png")
    assert files(store) == []


@pytest.mark.parametrize(
    "digest", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n", f"{'0' * 63}/"]
)
def test_only_digests_name_artifacts(store: ArtifactStore, digest: str) -> None:
    with pytest.raises(ArtifactError, match="not a SHA-256 digest"):
        store.get(digest)


def test_only_known_kinds_are_stored(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match="kind 'photo' is none of"):
        store.put(DATA, "photo", "image/png")


def test_any_fsspec_url_will_do() -> None:
    store = ArtifactStore("memory://kensa-test/artifacts")
    ref = store.put(DATA, "report", "application/pdf")
    assert store.get(ref.digest) == DATA
    store.check(ref.digest)
    assert [name.endswith(".part") for name in store._files.find(store.root)] == [False]


@pytest.mark.parametrize("kind", [ArtifactStore, CheckpointFolder])
def test_a_place_that_fsspec_does_not_know(kind: type) -> None:
    with pytest.raises(RecordError, match=r"nowhere://x: cannot be opened as a folder: .*nowhere"):
        kind("nowhere://x")
