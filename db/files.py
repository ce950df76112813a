"""Folders on any file system of fsspec, and files written so that readers see all of them or nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from db.errors import RecordError


def open_folder(uri: str | Path) -> tuple[Any, str]:
    """Return the file system and path of a folder or URL; RecordError where fsspec cannot open it."""
    try:
        # Listings are not cached: other processes write there too.
        files, folder = fsspec.core.url_to_fs(str(uri), use_listings_cache=False)
    except (ValueError, ImportError) as error:  # an unknown scheme, or one whose package is not installed
        raise RecordError(f"{uri}: cannot be opened as a folder: {error}") from error
    return files, str(folder).rstrip("/")


def put_atomically(files: Any, path: str, data: bytes) -> None:
    """Write bytes to a path in an existing folder: under another name first, then moved into place."""
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}.{uuid4().hex}.part"
    try:
        with files.open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            if isinstance(files, LocalFileSystem):
                os.fsync(file.fileno())  # the database will soon say that these bytes exist
        files.mv(temporary, path)
    except BaseException:
        if files.exists(temporary):
            files.rm_file(temporary)
        raise
