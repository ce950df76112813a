"""Folders on any file system of fsspec, and files written so that readers see all of them or nothing."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any
from uuid import uuid4

from configs.credentials import masked_url
from db.errors import RecordError
from db.failures import named_failures

# Bytes are put before the batch that records them is committed. Until they are this old, nothing takes them
# for left over; a batch takes far less.
GRACE = timedelta(days=1)
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.(?P<process>[0-9a-f]{8}-[0-9]+)-[0-9a-f]{32}\.part")
_WORKSPACE = re.compile(r"kensa-[a-z]+-([0-9a-f]{8}-[0-9]+)-\w+")
_log = logging.getLogger("kensa")
# What the process's umask holds back of 0666 (files) and 0777 (folders).
_HELD_BACK = {"owner": 0o077, "group": 0o027, "everyone": 0o022}


def restrict_new_files(readable_by: str) -> None:
    """Let files that this process and its children create be read by these at most, and written by the owner.

    A process-wide umask, because files are created in many ways, by SQLite and in worker processes too. It
    only takes rights away: what the account's own umask holds back stays so.

    Args:
        readable_by: owner (files 0600, folders 0700), group (0640, 0750) or everyone (0644, 0755).
    """
    before = os.umask(0o077)  # there is no other way to ask for it
    os.umask(before | _HELD_BACK[readable_by])


def open_folder(uri: str | Path) -> tuple[Any, str]:
    """Return the file system and path of a folder or URL; RecordError where fsspec cannot open it."""
    from fsspec.core import url_to_fs  # here, for commands that open no folder

    try:
        # Listings are not cached: other processes write there too.
        files, folder = url_to_fs(str(uri), use_listings_cache=False)
    except (ValueError, ImportError) as error:  # an unknown scheme, or one whose package is not installed
        raise RecordError(f"{masked_url(str(uri))}: cannot be opened as a folder: {error}") from error
    return files, str(folder).rstrip("/")


def put_atomically(files: Any, path: str, data: bytes, *, beside: str | None = None) -> None:
    """Write bytes to a path, all of them or nothing, see `written_atomically`."""
    with written_atomically(files, path, data, beside=beside):
        return


@contextmanager
def written_atomically(files: Any, path: str, data: bytes, *, beside: str | None = None) -> Iterator[None]:
    """Write bytes under another name, and move them to their path when the block ends without an error.

    The path's folder is made. On a local disk bytes and name are synced: after the block they survive a power
    cut.

    Args:
        files: the file system.
        path: where to.
        data: what.
        beside: the folder for the other name, on the same file system; that of `path` when None.

    Raises:
        StorageError: there is no space, no right to write, or no connection.
    """
    folder, _, name = path.rpartition("/")
    temporary = f"{beside or folder}/.{name}.{process_name()}-{uuid4().hex}.part"
    local = _is_local(files)
    with named_failures(path):
        files.makedirs(folder, exist_ok=True)
    try:
        with named_failures(path), files.open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            if local:
                os.fsync(file.fileno())  # the database will soon say that these bytes exist
        yield
        with named_failures(path):
            files.mv(temporary, path)
            if local:
                _sync_folder(folder)
    except BaseException:
        if files.exists(temporary):
            files.rm_file(temporary)
        raise


def probe_folder(files: Any, folder: str) -> str:
    """Write a file to a folder, read it back and remove it; make no folder, and no bucket.

    A local folder that is not there yet is tried in the one above it that is, where it would be made.

    Returns:
        The folder that was tried.

    Raises:
        StorageError: there is no space, no right to write, or no connection.
        RecordError: there is no such folder or bucket, or what is read is not what was written.
    """
    place: str | Path = folder
    if _is_local(files):
        place = next(each for each in (Path(folder), *Path(folder).parents) if each.exists())
    # Named so that `remove_unfinished` takes away what a check that is killed leaves.
    path = f"{place}/.probe.{process_name()}-{uuid4().hex}.part"
    written = path.encode()
    with named_failures(folder):
        try:
            try:
                files.pipe_file(path, written)
                found = files.cat_file(path)
            finally:
                with suppress(FileNotFoundError):
                    files.rm_file(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RecordError(
                f"{folder}: there is no such folder or bucket: make it, or correct the address"
            ) from error
    if found != written:
        raise RecordError(f"{folder}: a file reads otherwise than it was written: use another storage")
    return str(place)


def remove_unfinished(files: Any, folder: str, recorded: Callable[[str], bool] | None = None) -> None:
    """Remove the files that `put_atomically` left in a folder when its process was killed.

    Left alone are those of processes that may still be at it: alive, or of another machine, until a day old.

    Args:
        files: the file system.
        folder: where to look.
        recorded: says of the SHA-256 of a file whether the record knows it. Then its process was killed after
            the record's transaction and before the last step, which is made up: it is moved into place.
    """
    try:
        found = [str(path) for path in files.ls(folder, detail=False)]
    except FileNotFoundError:
        return
    for path in found:
        match = _UNFINISHED.fullmatch(path.rpartition("/")[2])
        if match is None:
            continue
        try:
            if not is_over(match["process"], files.modified(path)):
                continue
            target = f"{folder}/{match['name']}"
            if (
                recorded is not None
                and not files.exists(target)
                and recorded(hashlib.sha256(files.cat_file(path)).hexdigest())
            ):
                files.mv(path, target)
                if _is_local(files):
                    _sync_folder(folder)
            else:
                files.rm_file(path)
        except FileNotFoundError:
            continue  # moved into place meanwhile, or removed by another
        except OSError as error:
            _log.warning("%s was left by a process that was killed, and cannot be removed: %s", path, error)


@contextmanager
def workspace(kind: str) -> Iterator[Path]:
    """Yield a temporary folder, gone afterwards; that of a killed process goes by `remove_workspaces`."""
    with TemporaryDirectory(prefix=workspace_prefix(kind)) as name:
        yield Path(name)


def workspace_prefix(kind: str) -> str:
    """Return what the name of a temporary folder begins with, so that `remove_workspaces` knows it."""
    return f"kensa-{kind}-{process_name()}-"


def remove_workspaces() -> None:
    """Remove the temporary folders, see `workspace_prefix`, that this account's killed processes left."""
    for path in Path(gettempdir()).glob("kensa-*"):
        match = _WORKSPACE.fullmatch(path.name)
        if match is None or path.is_symlink():
            continue
        try:
            state = path.stat()
            own = state.st_uid == os.geteuid()
            if own and is_over(match[1], datetime.fromtimestamp(state.st_mtime, UTC)):
                shutil.rmtree(path)
        except FileNotFoundError:
            continue  # another process was faster


def process_name() -> str:
    """Return what names this process in the names of files and folders that it has not finished."""
    return f"{_machine()}-{os.getpid()}"


def is_over(process: str, changed: datetime) -> bool:
    """Return whether what a process (see `process_name`) last changed at a time was left unfinished by it."""
    machine, _, number = process.rpartition("-")
    if machine == _machine() and not _is_alive(int(number)):
        return True
    changed = changed if changed.tzinfo else changed.replace(tzinfo=UTC)
    return datetime.now(UTC) - changed > GRACE


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # another account's
    return True


@cache
def _machine() -> str:
    """Return a short digest of where process numbers mean the same: the host, and the container on it."""
    space = Path("/proc/self/ns/pid")
    inside = str(space.readlink()) if space.is_symlink() else ""
    return hashlib.sha256(f"{platform.node()} {inside}".encode()).hexdigest()[:8]


def _is_local(files: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(files, LocalFileSystem)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
