"""Compiled models, kept from one start to the next in a private folder of this account.

What lies here is run as it is, and two parity pictures would not show what somebody put into it: a folder
or a file that another account owns or could have written is not used.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_log = logging.getLogger("kensa")

MOST_MODELS = 20
MOST_BYTES = 2 * 2**30  # some twenty ResNet-50s
_CHECKSUM = 32  # bytes of SHA-256 before the model: what is damaged never reaches the library that reads it

_told: set[str] = set()


def cache_folder() -> Path:
    """Return the folder of compiled models: kensa/engines in the user's cache folder.

    Raises:
        OSError: the account has no home.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        # A relative path is to be ignored (XDG Base Directory Specification).
        base = named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise OSError(str(error)) from error
    return base / "kensa" / "engines"


def load_compiled(key: str) -> bytes | None:
    """Return what was kept under a key (hexadecimal digits), or None; what is damaged is removed."""
    try:
        with _private_folder() as folder:
            try:
                content = _own_file(key, folder)
            except FileNotFoundError:
                return None
            if hashlib.sha256(content[_CHECKSUM:]).digest() == content[:_CHECKSUM]:
                os.utime(key, dir_fd=folder)  # used now: the oldest go first
                return content[_CHECKSUM:]
            _log.warning("compiled model %s is damaged, and is made anew", cache_folder() / key)
            os.unlink(key, dir_fd=folder)
    except OSError as error:
        _tell(error)
    return None


def keep_compiled(key: str, model: bytes) -> None:
    """Keep a compiled model under a key, whole or not at all; the oldest go where there are too many."""
    try:
        with _private_folder() as folder:
            part = f"{key}.{secrets.token_hex(8)}.part"
            file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
            try:
                with os.fdopen(file, "wb") as opened:
                    opened.write(hashlib.sha256(model).digest() + model)
                os.rename(part, key, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(part, dir_fd=folder)
                raise
            _remove_oldest(folder)
    except OSError as error:
        _tell(error)


def discard_compiled(key: str) -> None:
    """Remove what was kept under a key."""
    try:
        with _private_folder() as folder:
            os.unlink(key, dir_fd=folder)
    except OSError as error:
        _tell(error)


@contextmanager
def _private_folder() -> Iterator[int]:
    """Yield a descriptor of the folder, made where it is absent; OSError where it is not private."""
    path = cache_folder()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    # What is checked is what is used, whatever becomes of the path meanwhile.
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        found = os.fstat(folder)
        if found.st_uid != os.geteuid():
            raise PermissionError(f"{path}: belongs to another account (uid {found.st_uid})")
        if found.st_mode & 0o077:
            raise PermissionError(f"{path}: open to other accounts; empty it and `chmod 700` it")
        yield folder
    finally:
        os.close(folder)


def _own_file(name: str, folder: int) -> bytes:
    """Return the content of a file that this account alone writes; any other is removed.

    Raises:
        FileNotFoundError: there is none, or it was removed.
    """
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError:  # a link
        os.unlink(name, dir_fd=folder)
        raise FileNotFoundError(name) from None
    with os.fdopen(file, "rb") as opened:
        found = os.fstat(file)
        own = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        # Without a name it was replaced just now; with two it is also where others may write.
        if own and not found.st_mode & 0o022 and found.st_nlink <= 1:
            return opened.read()
    os.unlink(name, dir_fd=folder)
    raise FileNotFoundError(name)


def _remove_oldest(folder: int) -> None:
    """Remove the oldest models beyond `MOST_MODELS` and `MOST_BYTES`, and what killed processes left."""
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # another process was faster
                files.append((entry.stat(follow_symlinks=False), entry.name))
    kept = 0
    for number, (found, name) in enumerate(sorted(files, key=lambda file: -file[0].st_mtime_ns)):
        kept += found.st_size
        if number >= MOST_MODELS or kept > MOST_BYTES:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)


def _tell(error: OSError) -> None:
    """Say once why compiled models are not kept."""
    if str(error) not in _told:
        _told.add(str(error))
        _log.warning("compiled models are not kept, which costs seconds at each start: %s", error)
