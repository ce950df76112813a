"""Listing and reading a folder, on the local disk and in fsspec's memory."""

import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.errors import SourceError, Unreadable
from sources.folder import AnnouncedImage, ListedImage, Source, _version
from sources.metadata import Metadata


class Folder:
    """A place to put files, on any file system."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.fs, self.path = fsspec.core.url_to_fs(url)
        self.fs.makedirs(self.path, exist_ok=True)

    def put(self, uri: str, data: bytes = b"picture") -> None:
        target = f"{self.path}/{uri}"
        self.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        self.fs.pipe_file(target, data)

    def remove(self, uri: str) -> None:
        self.fs.rm(f"{self.path}/{uri}")


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param == "local":
        yield Folder(str(tmp_path / "source"))
        return
    made = Folder(f"memory://{uuid.uuid4().hex}")
    yield made
    made.fs.rm(made.path, recursive=True)


def uris(url: str, after: str | None = None, **options: Any) -> list[str]:
    return [item.uri for item in Source(url, **options).list(after)]


def one(url: str, **options: Any) -> tuple[Any, ListedImage]:
    source = Source(url, **options)
    (item,) = source.list()
    return source, item


def reason(source: Any, item: ListedImage) -> str:
    with pytest.raises(Unreadable) as caught:
        source.read(item)
    return str(caught.value)


# --- listing ----------------------------------------------------------------------------------------------

TREE = ["a-1.png", "a.png", "a/b.png", "a/b/c.JPG", "a/c.Tiff", "a0.bmp", "b.webp", "é/ü.png"]


def test_everything_that_matches_is_listed_in_order(folder: Folder) -> None:
    for uri in reversed(TREE):
        folder.put(uri, b"")  # empty files too: that is for decoding to say
    for uri in ("notes.txt", ".hidden.png", ".git/x.png", "a/late.png.part", "late.PNG.tmp", "png"):
        folder.put(uri)
    assert sorted(TREE) == TREE
    assert uris(folder.url) == TREE
    assert uris(folder.url, recursive=False) == [uri for uri in TREE if "/" not in uri]
    assert uris(folder.url, include=["*.jp*g", "b*"]) == ["a/b.png", "a/b/c.JPG", "b.webp"]
    assert uris(folder.url, include=["a/*.PNG"]) == ["a/b.png"]


def test_after_is_a_cursor(folder: Folder) -> None:
    for uri in TREE:
        folder.put(uri)
    for cursor in [*TREE, "", "a", "a/", "a/b", "a/zzz", "zzz"]:
        assert uris(folder.url, after=cursor) == [uri for uri in TREE if uri > cursor], cursor


NAMES = st.text(alphabet="ab-./0", min_size=1, max_size=8)


@settings(deadline=None, max_examples=150)
@given(names=st.sets(NAMES, max_size=12), cursor=NAMES)
def test_order_and_cursor_agree_with_sorting_the_uris(names: set[str], cursor: str) -> None:
    files = {
        f"{name}.png"
        for name in names
        if all(part and not part.startswith(".") for part in f"{name}.png".split("/"))
    }
    place = Folder(f"memory://{uuid.uuid4().hex}")
    for uri in files:
        place.put(uri)
    assert uris(place.url) == sorted(files)
    assert uris(place.url, after=cursor) == sorted(uri for uri in files if uri > cursor)
    place.fs.rm(place.path, recursive=True)


def test_folders_are_listed_only_when_reached(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for uri in ("a/1.png", "b/2.png", "c/3.png"):
        folder.put(uri)
    listed: list[str] = []
    plain_ls = type(folder.fs).ls

    def counting_ls(self: Any, path: str, *args: Any, **options: Any) -> Any:
        listed.append(path.rpartition("/")[2])
        return plain_ls(self, path, *args, **options)

    monkeypatch.setattr(type(folder.fs), "ls", counting_ls)
    pictures = Source(folder.url).list()
    assert next(pictures).uri == "a/1.png"
    assert listed[1:] == ["a"]
    assert next(pictures).uri == "b/2.png"
    assert listed[1:] == ["a", "b"]
    listed.clear()
    assert uris(folder.url, after="b/2.png") == ["c/3.png"]
    assert listed[1:] == ["b", "c"]  # a lies behind the cursor


def test_size_and_version(folder: Folder) -> None:
    folder.put("a.png", b"123")
    source, before = one(folder.url)
    assert before.size == 3
    assert before == one(folder.url)[1]
    folder.put("a.png", b"456")
    if isinstance(folder.fs, LocalFileSystem):
        os.utime(f"{folder.path}/a.png", ns=(5, 7_000_000_000))
    (again,) = source.list()
    assert again.version != before.version


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ({"size": 3, "ETag": '"abc"', "LastModified": datetime(2026, 1, 5, tzinfo=UTC)}, "abc"),
        ({"size": 3, "mtime": 1.5}, "3-1500000000"),
        ({"size": 3, "LastModified": datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)}, "3-2000000000"),
        ({"size": 3, "updated": "2026-01-05T00:00:00Z"}, "3-2026-01-05T00:00:00Z"),
        ({"size": 3}, "3"),
    ],
)
def test_version_by_what_a_file_system_knows(info: dict[str, Any], version: str) -> None:
    assert _version(info) == version


def test_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for url in ("in", "in/", str(tmp_path / "in"), f"file://{tmp_path}/in"):
        assert Source(url).root == str(tmp_path / "in")
    Folder("memory://somewhere/in")
    assert Source("memory://somewhere/in").root == "memory:///somewhere/in"


def test_a_source_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file.png").write_bytes(b"x")
    for url in (str(tmp_path / "absent"), str(tmp_path / "file.png"), "memory://nothing-here"):
        with pytest.raises(SourceError, match="is not a folder that can be opened: check the path"):
            Source(url)
    with pytest.raises(SourceError, match="cannot be opened: Protocol not known"):
        Source("nosuch://bucket/x")
    with pytest.raises(SourceError, match="include is empty"):
        Source(str(tmp_path), include=[])


def test_folders_that_vanish_or_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    for uri in ("a/1.png", "b/2.png"):
        (source / uri).parent.mkdir(parents=True)
        (source / uri).write_bytes(b"x")
    opened = Source(str(source))
    pictures = opened.list()
    assert next(pictures).uri == "a/1.png"
    (source / "b/2.png").unlink()
    (source / "b").rmdir()
    assert list(pictures) == []  # gone before it was reached: as if gone before the listing

    plain_ls = LocalFileSystem.ls

    def refusing_ls(self: Any, path: str, *args: Any, **options: Any) -> Any:
        if path.endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return plain_ls(self, path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "ls", refusing_ls)
        with pytest.raises(
            SourceError, match=r"folder 'a/' of source .* cannot be listed \(Permission denied\)"
        ):
            list(opened.list())
    (source / "a/1.png").unlink()
    (source / "a").rmdir()
    source.rmdir()
    with pytest.raises(SourceError, match="is no longer there"):
        list(opened.list())


# --- reading ----------------------------------------------------------------------------------------------


def test_read(folder: Folder) -> None:
    folder.put("lot/a.png", b"the bytes")
    source, item = one(folder.url)
    assert source.read(item) == b"the bytes"


def test_a_file_that_grew_or_vanished(folder: Folder) -> None:
    folder.put("a.png", b"123")
    source, item = one(folder.url)
    folder.put("a.png", b"12345")
    assert reason(source, item) == "changed between listing and reading: 3 bytes listed, 5 found"
    folder.remove("a.png")
    assert reason(source, item) == "vanished between listing and reading"


def test_a_file_written_again_with_the_same_size(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"123")
    source, item = one(str(tmp_path))
    file.write_bytes(b"456")
    os.utime(file, ns=(5, 7_000_000_000))
    assert reason(source, item) == "changed between listing and reading: it was written again"


@pytest.mark.parametrize("after_reading", [b"789", b"1234"])
def test_a_file_written_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_reading: bytes
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"123")
    source, item = one(str(tmp_path))
    plain_cat = LocalFileSystem.cat_file

    def cat_and_change(self: Any, path: str, *args: Any, **options: Any) -> bytes:
        data: bytes = plain_cat(self, path, *args, **options)
        file.write_bytes(after_reading)
        os.utime(file, ns=(5, 7_000_000_000))
        return data

    monkeypatch.setattr(LocalFileSystem, "cat_file", cat_and_change)
    assert reason(source, item).startswith("changed between listing and reading")


def test_a_read_that_comes_back_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"123")
    source, item = one(str(tmp_path))
    monkeypatch.setattr(LocalFileSystem, "cat_file", lambda *_: b"1")
    assert reason(source, item) == "changed between listing and reading: 3 bytes listed, 1 read"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(13, "Permission denied", "/secret/path"), "cannot be read (Permission denied)"),
        (OSError(5, "Input/output error"), "cannot be read (Input/output error)"),
        (TimeoutError(), "cannot be read (TimeoutError)"),
    ],
)
def test_errors_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, expected: str
) -> None:
    (tmp_path / "a.png").write_bytes(b"123")
    source, item = one(str(tmp_path))

    def failing(*_: Any) -> bytes:
        raise error

    monkeypatch.setattr(LocalFileSystem, "cat_file", failing)
    assert reason(source, item) == expected


def test_a_file_beyond_the_limit_is_not_read(folder: Folder) -> None:
    folder.put("a.png", b"1234")
    assert reason(*one(folder.url, max_bytes=3)) == "4 bytes are more than the limit of 3"
    source, item = one(folder.url, max_bytes=4)
    assert source.read(item) == b"1234"


# --- odd things on a disk ---------------------------------------------------------------------------------


def test_an_archive_is_listed_from_its_root(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "shift.zip", "w") as archive:
        archive.writestr("manifest.csv", "file,part\nimages/L1/P1.png,P1\n")
        archive.writestr("images/L1/P1.png", b"pixels")
    for uri, name in (("zip://", "images/L1/P1.png"), ("zip://images", "L1/P1.png")):
        manifest = "manifest.csv" if uri == "zip://" else None
        source = Source(f"{uri}::{tmp_path / 'shift.zip'}", manifest=manifest)
        (item,) = islice(source.list(), 2)
        assert (item.uri, source.read(item)) == (name, b"pixels")
        assert item.metadata.part == (None if manifest is None else "P1")


def test_links(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(b"secret")
    (outside / "folder").mkdir()
    (outside / "folder/x.png").write_bytes(b"secret")
    source_path = tmp_path / "source"
    (source_path / "lot").mkdir(parents=True)
    (source_path / "lot/a.png").write_bytes(b"inside")
    (source_path / "in.png").symlink_to("lot/a.png")
    (source_path / "out.png").symlink_to(outside / "secret.png")
    (source_path / "nowhere.png").symlink_to("absent.png")
    (source_path / "loop.png").symlink_to("loop.png")
    (source_path / "up").symlink_to("..")
    (source_path / "folder").symlink_to(outside / "folder")
    (source_path / "folder.png").symlink_to("lot")
    source = Source(str(source_path))
    items = {item.uri: item for item in source.list()}
    # Pictures behind links are accounted for; folders behind links are not entered, and that is said.
    assert list(items) == ["folder.png", "in.png", "loop.png", "lot/a.png", "nowhere.png", "out.png"]
    assert sorted(record.getMessage().split()[0] for record in caplog.records) == ["folder", "up"]
    assert source.read(items["in.png"]) == source.read(items["lot/a.png"]) == b"inside"
    assert items["in.png"].size == 6
    assert reason(source, items["out.png"]) == "a link that leads out of the source"
    assert reason(source, items["nowhere.png"]) == "a link that leads nowhere"
    assert reason(source, items["loop.png"]) == "a link that leads nowhere"
    assert reason(source, items["folder.png"]) == "not a regular file"


def test_the_source_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.png").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    source, item = one(str(tmp_path / "link"))
    assert source.read(item) == b"x"


def test_a_uri_cannot_climb_out(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    item = ListedImage("../secret.png", 6, "", Metadata())
    assert reason(Source(str(tmp_path / "source")), item) == "a link that leads out of the source"


def test_a_pipe_is_listed_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert reason(*one(str(tmp_path))) == "not a regular file"


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.png")).write_bytes(b"x")
    source, item = one(str(tmp_path))
    assert item.uri == r"bad\xff.png"
    assert reason(source, item) == "the file name is not valid UTF-8: rename the file"


def test_a_name_that_the_pattern_cannot_be_trusted_with_is_listed_and_unreadable(folder: Folder) -> None:
    names = ["a" * 200 + "!.png", f"{'P' * 150}/{'Q' * 150}.png", "fine.png"]
    for name in names:
        folder.put(name)
    catastrophic = Source(folder.url, filename_pattern=r"(?P<part>(a|aa)+)$")
    listed = {item.uri: item for item in catastrophic.list()}
    assert sorted(listed) == sorted(names)
    assert "source.filename_pattern searched its name for 1 s without an end" in reason(
        catastrophic, listed[names[0]]
    )
    greedy = Source(folder.url, filename_pattern=r"^(?P<part>.+)\.png$")
    listed = {item.uri: item for item in greedy.list()}
    assert "the part in its name is not one line of text" in reason(greedy, listed[names[1]])
    assert listed[names[1]].metadata == Metadata()
    assert greedy.read(listed["fine.png"]) == b"picture"
    # The manifest is right where it says what the name would.
    folder.put("m.csv", f"file,part\n{names[1]},P1\n".encode())
    known = Source(folder.url, filename_pattern=r"^(?P<part>.+)\.png$", manifest="m.csv")
    listed = {item.uri: item for item in known.list()}
    assert listed[names[1]].metadata == Metadata("P1")
    assert known.read(listed[names[1]]) == b"picture"


# --- metadata ---------------------------------------------------------------------------------------------


def test_manifest_and_pattern_together(folder: Folder) -> None:
    for uri in ("L1/P1.png", "L1/P2.png", "L2/P3.png", "x.png"):
        folder.put(uri)
    folder.put(
        "manifest.csv",
        b"file,part,station,captured_at\n"
        b"L1/P1.png,serial-1,S9,2026-01-05T07:00\n"
        b"L2/P3.png,,,\n"
        b"L2/P4.png,,,\n"
        b"L3/P5.png,,,\n",
    )
    source = Source(
        folder.url,
        manifest="manifest.csv",
        filename_pattern=r"(?P<lot>L\d)/(?P<part>P\d)",
        timezone="Europe/Berlin",
    )
    with pytest.raises(SourceError, match="list it to the end"):
        source.missing_from_listing()
    assert {item.uri: item.metadata for item in source.list()} == {
        "L1/P1.png": Metadata("serial-1", "L1", "S9", datetime(2026, 1, 5, 6, tzinfo=UTC)),
        "L1/P2.png": Metadata("P2", "L1"),
        "L2/P3.png": Metadata("P3", "L2"),
        "x.png": Metadata(),
    }
    # What was announced is known as it would be if it had come: by the manifest, and by its name.
    p5 = AnnouncedImage("L3/P5.png", Metadata("P5", "L3"))
    assert source.missing_from_listing() == (AnnouncedImage("L2/P4.png", Metadata("P4", "L2")), p5)
    assert [item.uri for item in source.list(after="L2/P4.png")] == ["x.png"]
    assert source.missing_from_listing() == (p5,)


def test_the_manifest_is_never_listed(folder: Folder) -> None:
    folder.put("a.png")
    folder.put("lists/m.jsonl", b'{"file": "a.png", "lot": "L1"}\n')
    absolute = f"{folder.path}/lists/m.jsonl" if isinstance(folder.fs, LocalFileSystem) else None
    for manifest in ("lists/m.jsonl", "./lists/m.jsonl", absolute or f"{folder.url}/lists/m.jsonl"):
        _, item = one(folder.url, manifest=manifest, include=["*"])
        assert item.metadata.lot == "L1"


def test_a_manifest_that_cannot_be_read(folder: Folder) -> None:
    for manifest in ("absent.csv", "/no/such/absent.csv"):
        with pytest.raises(SourceError, match=r"manifest '.*absent\.csv'.* cannot be read"):
            Source(folder.url, manifest=manifest)
    folder.put("m.csv", b"file\n../x.png\n")
    with pytest.raises(SourceError, match=r"m\.csv, line 2, column file"):
        Source(folder.url, manifest="m.csv")
