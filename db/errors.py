"""The errors that this room raises."""

from configs.credentials import masked_text


class RecordError(ValueError):
    """A record cannot be written, read or trusted; the message names input and remedy, and no secret."""

    def __init__(self, message: str) -> None:
        super().__init__(masked_text(message))


class ArtifactError(RecordError):
    """An artifact is missing from the store, or its bytes are not the ones that were stored."""


class StorageError(RecordError):
    """The database or a file cannot be read or written: no space, no permission, no connection."""


class AwayError(StorageError):
    """A failure of the database or a file system that may pass by itself: waiting for it makes sense."""


class RunBusy(RecordError):  # noqa: N818 - nothing is wrong
    """Another process is at this run; the message says which, and what can be done."""
