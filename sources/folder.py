"""A folder of pictures behind fsspec: a local path, or any URL that fsspec opens."""

import logging
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import translate
from pathlib import Path
from typing import IO, Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from configs.credentials import masked_url
from sources.errors import SourceAwayError, SourceError, Unreadable
from sources.metadata import (
    Metadata,
    check_texts,
    compile_pattern,
    from_name,
    load_timezone,
    parse_manifest,
)

PICTURES = ("*.png", "*.jpg", "*.jpeg", "*.tif", "*.tiff", "*.bmp", "*.webp")
MAX_BYTES = 1_000_000_000
_HEADER_BYTES = 2**18  # a store sends at a time, for a header: with profile and thumbnail most have less

_UPLOADING = (".part", ".tmp")  # what file transfers call a file that is not complete yet
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ListedImage:
    """A picture as listed.

    Attributes:
        uri: relative to the source, with forward slashes.
        size: in bytes.
        version: changes when the file changes: its etag, or its size and time of modification.
        metadata: from the manifest and the file name.
        problem: why it cannot be read, where the listing shows that; else empty.
    """

    uri: str
    size: int
    version: str
    metadata: Metadata
    problem: str = ""


@dataclass(frozen=True)
class AnnouncedImage:
    """A picture that the manifest names; `metadata` as a listed picture of that name would have it."""

    uri: str
    metadata: Metadata


class Source:
    """A folder of pictures, listed and read."""

    def __init__(
        self,
        uri: str,
        *,
        include: Sequence[str] = PICTURES,
        recursive: bool = True,
        manifest: str | None = None,
        filename_pattern: str | None = None,
        timezone: str = "UTC",
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Open a folder of pictures.

        Listed is every file that matches one of the `include` globs, whatever its content. Left out are
        hidden files and folders (leading dot), uploads under way (.part, .tmp), the manifest, and links to
        folders. A link to a file outside the source is listed and reads as unreadable.

        Args:
            uri: a local path, or a URL that fsspec opens.
            include: globs of the file name; those with a slash, of the uri. Upper and lower case are alike.
            recursive: whether subfolders are listed too.
            manifest: a path inside the source, an absolute path or a URL; see `parse_manifest`.
            filename_pattern: a regular expression searched in the uri, with named groups part, lot, station,
                captured_at. Where the manifest has the field too, the manifest is right. A name in which a
                text fails the manifest's checks, or whose search does not end, reads as unreadable.
            timezone: of times without an offset.
            max_bytes: a larger file is unreadable.

        Raises:
            SourceError: naming what cannot be used, and the remedy.
        """
        if not include:
            raise SourceError("include is empty: name at least one glob such as *.png")
        self._zone = load_timezone(timezone)
        self._pattern = compile_pattern(filename_pattern) if filename_pattern is not None else None
        self._fs, path = _filesystem_and_path(uri)
        self._path, shown = path.rstrip("/"), masked_url(uri)
        if not self._fs.isdir(self._path or "/"):
            raise SourceAwayError(f"source {shown!r} is not a folder that can be opened: check the path")
        self._local_root = None
        if isinstance(self._fs, LocalFileSystem):
            self._local_root = os.path.realpath(self._path or "/")
        self._name_globs = _compiled_globs([glob for glob in include if "/" not in glob])
        self._uri_globs = _compiled_globs([glob for glob in include if "/" in glob])
        self._recursive = recursive
        self._max_bytes = max_bytes
        self._manifest: Mapping[str, Metadata] = {}
        self._manifest_path: str | None = None
        if manifest is not None:
            self._read_manifest(uri, manifest)
        self._missing: tuple[AnnouncedImage, ...] | None = None

    def _read_manifest(self, uri: str, manifest: str) -> None:
        inside = "://" not in manifest and not manifest.startswith("/")
        fs, path = (
            (self._fs, posixpath.normpath(self._path_of(manifest)))
            if inside
            else _filesystem_and_path(manifest)
        )
        try:
            data = fs.cat_file(path)
        except OSError as error:
            place = f" in source {masked_url(uri)!r}" if inside else ""
            reason = error.strerror or type(error).__name__
            raise SourceAwayError(
                f"manifest {masked_url(manifest)!r}{place} cannot be read ({reason}): check the path"
            ) from error
        self._manifest = parse_manifest(data, masked_url(manifest), self._zone)
        self._manifest_path = path

    @property
    def root(self) -> str:
        """The source's address without credentials, as it is recorded: a new password is no new source."""
        if self._local_root is not None:
            return self._path or "/"
        return masked_url(str(self._fs.unstrip_protocol(self._path)))

    def list(self, after: str | None = None) -> Iterator[ListedImage]:
        """Yield pictures in ascending order of uri; with `after`, only those beyond that uri.

        Raises:
            SourceError: a folder cannot be listed.
        """
        self._missing = None
        unseen = {uri for uri in self._manifest if after is None or uri > after}
        for uri, info in self._walk_files(after):
            size, version = self._listed_state(uri, info)
            unseen.discard(uri)
            metadata, problem = self._metadata(uri)
            yield ListedImage(uri, size, version, metadata, info.get("problem", problem))
        self._missing = tuple(AnnouncedImage(uri, self._metadata(uri)[0]) for uri in sorted(unseen))

    def missing_from_listing(self) -> tuple[AnnouncedImage, ...]:
        """Return what the manifest names and the last listing did not find, in the order of uris.

        Raises:
            SourceError: no listing has come to its end.
        """
        if self._missing is None:
            raise SourceError(f"source {self.root!r}: list it to the end before asking what was missing")
        return self._missing

    def read(self, item: ListedImage) -> bytes:
        """Return the bytes of a picture.

        Raises:
            Unreadable: it has vanished, has changed since it was listed, or cannot be read.
        """
        if item.problem:
            raise Unreadable(item.problem)
        if item.size > self._max_bytes:
            raise Unreadable(f"{item.size} bytes are more than the limit of {self._max_bytes}")
        try:
            # Checked before and after: a file that is written meanwhile may be read half new, half old.
            path = self._resolved_path(item.uri)
            self._check_unchanged(item, path)
            data: bytes = self._fs.cat_file(path)
            self._check_unchanged(item, path)
        except FileNotFoundError as error:
            raise Unreadable("vanished between listing and reading") from error
        except OSError as error:
            raise Unreadable(f"cannot be read ({error.strerror or type(error).__name__})") from error
        if len(data) != item.size:
            raise Unreadable(
                f"changed between listing and reading: {item.size} bytes listed, {len(data)} read"
            )
        return data

    def open_header(self, item: ListedImage) -> IO[bytes]:
        """Open a picture to look at its beginning, of which a store sends no more than is asked for.

        Raises:
            Unreadable, OSError: it cannot be read.
        """
        if item.problem:
            raise Unreadable(item.problem)
        stream: IO[bytes] = self._fs.open(self._resolved_path(item.uri), "rb", block_size=_HEADER_BYTES)
        return stream

    def _check_unchanged(self, item: ListedImage, path: str) -> None:
        size, version = self._file_state(path)
        if size != item.size:
            raise Unreadable(f"changed between listing and reading: {item.size} bytes listed, {size} found")
        if version != item.version:
            raise Unreadable("changed between listing and reading: it was written again")

    def _walk_files(self, after: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield matching files in order of uri, with one folder in memory per level.

        A folder sorts as its name with a slash, because the uris below it begin so.
        """
        levels = [iter(self._entries(""))]
        while levels:
            entry = next(levels[-1], None)
            if entry is None:
                levels.pop()
                continue
            uri, info = entry
            if uri.endswith("/"):
                behind = after is not None and uri < after and not after.startswith(uri)
                if self._recursive and not behind:
                    levels.append(iter(self._entries(uri)))
            elif after is None or uri > after:
                yield uri, info

    def _path_of(self, uri: str) -> str:
        # The root of an archive has no name, and a path there that begins with a slash is the root again.
        return uri if not self._path and self._local_root is None else f"{self._path}/{uri}"

    def _entries(self, folder: str) -> Sequence[tuple[str, dict[str, Any]]]:
        """Return the subfolders (uri with a slash at the end) and pictures of one folder, sorted."""
        try:
            infos = self._fs.ls(self._path_of(folder).rstrip("/") or "/", detail=True)
        except (FileNotFoundError, NotADirectoryError) as error:
            if folder:
                return ()  # removed since its parent was listed: as if it had been removed before
            raise SourceAwayError(f"source {self.root!r} is no longer there") from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise SourceAwayError(
                f"folder {folder!r} of source {self.root!r} cannot be listed ({reason})"
            ) from error
        entries = []
        for info in infos:
            raw = str(info["name"]).rstrip("/").rsplit("/", 1)[-1]
            name = (
                raw.replace("\0", "\\x00")
                .encode("utf-8", "surrogateescape")
                .decode("utf-8", "backslashreplace")
            )
            uri = folder + name
            if name.startswith(".") or name.lower().endswith(_UPLOADING):
                continue
            if info["type"] == "directory":
                entries.append((f"{uri}/", info))
            elif self._is_picture(uri, name) and self._path_of(uri) != self._manifest_path:
                if name != raw:
                    info = {**info, "problem": "the file name is not valid UTF-8: rename the file"}
                entries.append((uri, info))
            elif info.get("islink") and Path(info["name"]).is_dir():
                _log.warning("%s in source %s is a link to a folder and is not followed", uri, self.root)
        return sorted(entries, key=lambda entry: entry[0])

    def _is_picture(self, uri: str, name: str) -> bool:
        return bool(self._name_globs.fullmatch(name.lower()) or self._uri_globs.fullmatch(uri.lower()))

    def _metadata(self, uri: str) -> tuple[Metadata, str]:
        """Return what is known of a picture, and what is wrong with its name; empty where nothing is."""
        found = self._manifest.get(uri, Metadata())
        if self._pattern is None:
            return found, ""
        try:
            complete = found.or_else(from_name(self._pattern, uri, self._zone))
            check_texts(complete)
        except Unreadable as error:
            return found, str(error)
        return complete, ""

    def _listed_state(self, uri: str, info: dict[str, Any]) -> tuple[int, str]:
        if not info.get("islink"):
            return int(info["size"]), _version(info)
        try:
            return self._file_state(self._resolved_path(uri))
        except (Unreadable, OSError):
            return 0, "unusable link"  # read() says why

    def _resolved_path(self, uri: str) -> str:
        """Return the path to read. Links of local files are followed, but not out of the source."""
        path = self._path_of(uri)
        if self._local_root is None:
            return path
        real = os.path.realpath(path)
        if not real.startswith(self._local_root.rstrip("/") + "/"):
            raise Unreadable("a link that leads out of the source")
        if Path(path).is_symlink() and not Path(real).exists():
            raise Unreadable("a link that leads nowhere")
        return real

    def _file_state(self, path: str) -> tuple[int, str]:
        info = self._fs.info(path)
        if info["type"] != "file":
            raise Unreadable("not a regular file")
        return int(info["size"]), _version(info)


def _filesystem_and_path(uri: str) -> tuple[Any, str]:
    try:
        # Cached listings would hide what has arrived or changed since.
        fs, path = url_to_fs(uri, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise SourceError(f"{masked_url(uri)!r} cannot be opened: {error}") from error
    return fs, str(path)


def _compiled_globs(globs: Sequence[str]) -> re.Pattern[str]:
    # An empty alternation would match the empty name; this never matches anything.
    return re.compile("|".join(translate(glob.lower()) for glob in globs) or r"(?!)")


def _version(info: Mapping[str, Any]) -> str:
    for key in ("ETag", "etag"):
        if info.get(key):
            return str(info[key]).strip('"')
    for key in ("mtime", "LastModified", "last_modified", "updated", "modified", "created"):
        if info.get(key) is not None:
            moment = info[key]
            if isinstance(moment, datetime):
                moment = moment.timestamp()
            return f"{info['size']}-{round(moment * 1e9) if isinstance(moment, float) else moment}"
    return str(info["size"])
