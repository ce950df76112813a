"""The errors that this room raises."""


class RecordError(ValueError):
    """A record cannot be written, read or trusted; the message names the input and the remedy."""


class ArtifactError(RecordError):
    """An artifact is missing from the store, or its bytes are not the ones that were stored."""
