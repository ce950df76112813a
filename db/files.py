"""Writing a file so that readers see all of it or nothing, wherever fsspec leads."""

from __future__ import annotations

import os
from typing import Any
from uuid import uuid4

from fsspec.implementations.local import LocalFileSystem


def put_atomically(files: Any, path: str, data: bytes) -> None:
    """Write bytes under a path whose folder is there: beside it first, then moved into place."""
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
