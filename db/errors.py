"""The errors that this room raises."""

from configs.credentials import masked_text


class RecordError(ValueError):
    """A record cannot be written, read or trusted; the message names input and remedy, and no secret."""

    def __init__(self, message: str) -> None:
        super().__init__(masked_text(message))


class ArtifactError(RecordError):
    """An artifact is missing from the store, or its bytes are not the ones that were stored."""
